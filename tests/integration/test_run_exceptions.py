"""A rule for one run holds for the rows that this run writes. Nobody else sees it, also when the run is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from engines import environment
from warehouses import START, Row, Warehouse, at, ephemeral_warehouse, page_view

from stitch_pipeline.orchestration.jobs import RESTITCH_JOB
from stitch_pipeline.orchestration.run_config import models_config
from stitch_pipeline.orchestration.run_records import run_request
from stitch_pipeline.planning.days import DayRange
from stitch_pipeline.planning.requests import Request
from stitch_pipeline.stitching.explain import explain

WINDOW = ("2026-03-01", "2026-03-06")
MOMENTS = 4
RUN = """
import sys, time
from datetime import date
from pathlib import Path
from dagster import DagsterInstance
from stitch_pipeline.definitions import build_defs
from stitch_pipeline.orchestration.run_config import models_config
from stitch_pipeline.orchestration.run_records import run_request
from stitch_pipeline.planning.days import DayRange
from stitch_pipeline.planning.requests import Request
from stitch_pipeline.settings import Settings

directory = Path(sys.argv[1])
settings = Settings.load(
    landing_dir=directory / "landing", project_file=directory / "stitch.toml", start_date=date(2026, 3, 1),
    keep_own_user=False,
)
job = build_defs(settings).resolve_job_def("build_job")
days = DayRange(*map(date.fromisoformat, sys.argv[2:4]))
config = models_config(policy="next_identify", lookback_days=1, session_stitching=True)
with DagsterInstance.ephemeral() as instance:
    print("ready", flush=True)
    started = time.monotonic()
    result = job.execute_in_process(
        instance=instance, tags=run_request(Request(days, "by hand")).tags, run_config=config
    )
    print(result.success, time.monotonic() - started, flush=True)
"""


def story(project: str) -> Iterator[Row]:
    """Ann, Bob and nobody take turns on two hundred devices, on each of the first nine days of March."""
    users = {2: "ann", 4: "bob", 8: "cem"}
    for device in range(200):
        for day in range(1, 10):
            yield {
                "event_id": f"e{day}-{device}",
                "project_id": project,
                "occurred_at": at(f"2026-03-{day:02} 12:00"),
                "event_type": "page",
                "anonymous_id": f"d{device}",
                "user_id": users.get(day),
            }


@pytest.fixture
def warehouse(tmp_path: Path) -> Iterator[Warehouse]:
    with ephemeral_warehouse(tmp_path / "deployment", stitch_toml='[projects.blog]\npolicy = "first"\n') as warehouse:
        warehouse.land_events("jitsu/a.ndjson", [row for project in ("shop", "blog") for row in story(project)])
        warehouse.settle()
        yield warehouse


def run_with_exceptions(warehouse: Warehouse, kill_after: float | None = None) -> float:
    """Run build_job over the window with other rules; returns the seconds that it took."""
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, str(warehouse.directory), *WINDOW],
        env={**os.environ, **environment(warehouse.settings)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    if kill_after is not None:
        time.sleep(kill_after)
        process.send_signal(signal.SIGKILL)
    printed = process.communicate(timeout=120)[0]
    if kill_after is not None:
        return kill_after
    succeeded, seconds = printed.split()
    assert succeeded == "True"
    return float(seconds)


def what_others_see(warehouse: Warehouse) -> dict[str, object]:
    """The rules, the live views, `why`, and the stored rows of days that the run does not build."""
    outside = f"not between '{WINDOW[0]}' and '{WINDOW[1]}'"
    return {
        "settings": warehouse.rows("project_settings"),
        "page_views_live": warehouse.rows("page_views_live"),
        "stitched_events": warehouse.rows("stitched_events"),
        "user_mapping": warehouse.rows("user_mapping"),
        "user_mapping_history": warehouse.rows("user_mapping_history"),
        "why": [
            (row.row_id, row.stitched_user_id, row.stitched_by)
            for row in explain(warehouse.settings, "shop", "d7").rows
        ],
        "sessions elsewhere": warehouse.rows(f"stitched_sessions where session_date {outside}"),
        "page views elsewhere": warehouse.rows(f"page_views where event_date {outside}"),
    }


def credited(warehouse: Warehouse, table: str) -> list[Row]:
    return warehouse.rows(table, ["project_id", "anonymous_id", "stitched_user_id", "stitched_by"])


@pytest.mark.slow
@pytest.mark.long
def test_killed_at_any_moment_a_run_leaves_its_exceptions_to_nobody(warehouse: Warehouse) -> None:
    assert WINDOW[0] == str(START)
    before = what_others_see(warehouse)
    as_set = {table: credited(warehouse, table) for table in ("stitched_sessions", "page_views")}

    seconds = run_with_exceptions(warehouse)
    assert what_others_see(warehouse) == before
    by_the_run = {table: credited(warehouse, table) for table in as_set}
    assert all(by_the_run[table] != as_set[table] for table in as_set)

    for moment in range(MOMENTS):
        warehouse.settle(reconcile=True)
        assert {table: credited(warehouse, table) for table in as_set} == as_set
        run_with_exceptions(warehouse, kill_after=seconds * (moment + 1) / (MOMENTS + 1))
        assert what_others_see(warehouse) == before, f"killed at moment {moment}"
        for table in as_set:
            assert credited(warehouse, table) in (as_set[table], by_the_run[table]), (table, moment)
    warehouse.settle(reconcile=True)
    assert {table: credited(warehouse, table) for table in as_set} == as_set


def test_a_wrong_value_fails_the_run_with_one_sentence(warehouse: Warehouse) -> None:
    request = run_request(Request(DayRange(START, START), "by hand"))
    result = warehouse.defs.resolve_job_def(RESTITCH_JOB).execute_in_process(
        instance=warehouse.instance,
        tags=dict(request.tags),
        run_config=models_config(lookback_days=-1),
        raise_on_error=False,
    )
    (failure,) = [event.step_failure_data for event in result.all_events if event.is_step_failure]
    assert failure.user_failure_data is not None
    assert failure.user_failure_data.description == (
        "lookback_days = '-1': must be a number of days (0 to 36500), hours as 24h, minutes as 30m, or unlimited."
    )


@pytest.mark.slow
def test_what_is_known_of_a_device_never_follows_an_exception(new_warehouse: Callable[..., Warehouse]) -> None:
    warehouse = new_warehouse()
    login = page_view("e1", "2026-03-05 12:00", user_id="ann")
    warehouse.land_events("jitsu/a.ndjson", [login, page_view("e2", "2026-03-06 12:00")])
    warehouse.build(START, at("2026-03-08").date(), models_config(policy="next_identify"))
    credited_to = "select stitched_user_id from stitch.stitched_sessions order by session_date"
    assert [row["stitched_user_id"] for row in warehouse.query(credited_to)] == ["ann", "a"]
    warehouse.settle(reconcile=True)
    assert [row["stitched_user_id"] for row in warehouse.query(credited_to)] == ["ann", "ann"]
    # Under next_identify the device belongs to nobody after the login. That was never known.
    history = warehouse.query("select stitched_by, known_until from stitch.user_mapping_history order by valid_from")
    assert [(row["stitched_by"], row["known_until"]) for row in history] == [
        ("none", None),
        ("link after", None),
        ("link before", None),
    ]
