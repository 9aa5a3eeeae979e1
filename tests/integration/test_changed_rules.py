"""Rules that change are noticed, say how much there is to do, and re-stitch the rows that differ and no others."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from dagster import build_sensor_context
from rich.console import Console
from warehouses import START, Warehouse, at, ephemeral_warehouse, ordered

from stitch_pipeline.cli.progress import Progress
from stitch_pipeline.landing.index import LandingIndex
from stitch_pipeline.orchestration.jobs import RESTITCH_JOB
from stitch_pipeline.orchestration.run_config import models_config
from stitch_pipeline.orchestration.run_records import run_request
from stitch_pipeline.planning.days import DayRange
from stitch_pipeline.planning.requests import MAX_ATTEMPTS, Request
from stitch_pipeline.settings import Policy
from stitch_pipeline.stitching.state import read_state
from stitch_pipeline.warehouse.engine import engine_of

WEEK = DayRange(START, at("2026-03-10").date())
LOOK, RESTITCH, VIEWS = "reconcile_job", "restitch_job", "restitch_page_views_job"
BY_POLICY = {
    "latest": ["bob", "bob", "bob", "bob", "bob"],
    "first": ["ann", "ann", "ann", "ann", "ann"],
    "device_split": ["ann", "ann", "ann", "bob", "bob"],
    "next_identify": ["ann", "ann", "bob", "bob", "a"],
}
OTHER_RULES = {
    "lookback_days = 1": ["ann", "ann", "bob", "bob", "bob"],
    'lookback_days = "48h"': ["ann", "bob", "bob", "bob", "bob"],
    "carry_forward_days = 0": ["bob", "bob", "bob", "bob", "a"],
    'carry_forward_days = "1439m"': ["bob", "bob", "bob", "bob", "a"],
    "max_users_per_device = 1": ["a", "ann", "a", "bob", "a"],
    "session_stitching = false": ["a", "a", "a", "a", "a"],
}
# Each test changes the rules of projects of its own, so none has to put back what another did.
PROJECTS = (
    "split",
    "seldom",
    "toggled",
    "killed",
    "once",
    "untouched",
    *(f"rule-{n}" for n in range(len(OTHER_RULES))),
)


def story(project: str) -> list[dict[str, Any]]:
    """Ann, then Bob, then nobody on one device; of device c nobody knows anything."""

    def event(event_id: str, time: str, device: str, user: str | None = None) -> dict[str, Any]:
        return {
            "event_id": event_id,
            "project_id": project,
            "occurred_at": at(time),
            "event_type": "page",
            "anonymous_id": device,
            "user_id": user,
        }

    return [
        event("e1", "2026-03-02 12:00", "a"),
        event("e2", "2026-03-03 12:00", "a", "ann"),
        event("e3", "2026-03-04 12:00", "a"),
        event("e4", "2026-03-05 12:00", "a", "bob"),
        event("e5", "2026-03-06 12:00", "a"),
        event("c1", "2026-03-06 12:00", "c"),
    ]


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warehouse]:
    with ephemeral_warehouse(tmp_path_factory.mktemp("rules")) as warehouse:
        warehouse.land_events("jitsu/a.ndjson", [event for project in PROJECTS for event in story(project)])
        warehouse.settle()
        yield warehouse


def change_rules(warehouse: Warehouse, rules: dict[str, str]) -> None:
    """Write the tables of these projects into stitch.toml, in place of those that they had."""
    path = warehouse.settings.project_file
    tables = dict(re.findall(r"^\[projects\.(.+)\]\n(.*)\n", path.read_text(), re.MULTILINE)) | rules
    warehouse.write_stitch_toml("".join(f"[projects.{project}]\n{rule}\n" for project, rule in tables.items()))


def policy(name: str) -> str:
    return f'policy = "{name}"'


def credited(warehouse: Warehouse, table: str = "stitched_sessions", *, project: str) -> list[str]:
    day = "session_date" if table == "stitched_sessions" else "event_date"
    rows = warehouse.query(
        f"select stitched_user_id from stitch.{table} "
        f"where project_id = '{project}' and anonymous_id = 'a' order by {day}"
    )
    return [row["stitched_user_id"] for row in rows]


@pytest.mark.slow
def test_a_changed_policy_restitches_the_rows_that_differ_and_builds_no_session(warehouse: Warehouse) -> None:
    sessions = f"select {warehouse.row_id}, * from stitch.sessions"
    before = ordered(warehouse.query(sessions))
    change_rules(warehouse, {"split": policy("device_split")})
    settled = warehouse.settle()
    assert [run.job_name for run in settled.runs] == [LOOK, RESTITCH, VIEWS]
    look, restitch, views = settled.runs
    # How much there is to do is said before it is done. The rows of the 2nd to the 4th change hands. The session of
    # the 5th is still bob's, but now because he is its own user and not because of a link, which a view does not say.
    assert look.rows_stale == look.partitions_stale == {"stitched_sessions": 4, "page_views": 3}
    assert restitch.rows_changed["stitched_sessions"] == 4
    assert views.rows_changed["page_views"] == 3
    for table in ("stitched_sessions", "page_views"):
        assert credited(warehouse, table, project="split") == BY_POLICY["device_split"]
    assert credited(warehouse, project="untouched") == BY_POLICY["latest"]
    assert ordered(warehouse.query(sessions)) == before
    assert warehouse.settle().runs == []

    console = Console(width=200)
    with console.capture() as printed:
        Progress(console).show(look)
    assert "to be re-stitched: stitched_sessions 4 rows on 4 days, page_views 3 rows on 3 days" in printed.get()


def test_every_rule_of_every_project_is_noticed(warehouse: Warehouse) -> None:
    changed = {f"rule-{n}": rule for n, rule in enumerate(OTHER_RULES)}
    change_rules(warehouse, changed)
    assert [run.job_name for run in warehouse.settle(view_stitching=False).runs] == [LOOK, RESTITCH]
    for project, rule in changed.items():
        assert credited(warehouse, project=project) == OTHER_RULES[rule], rule


def test_view_stitching_switched_on_reaches_the_views_that_were_left_behind(warehouse: Warehouse) -> None:
    warehouse.load_settings(view_stitching="off")
    change_rules(warehouse, {"seldom": policy("first")})
    assert [run.job_name for run in warehouse.settle().runs] == [LOOK, RESTITCH]
    assert credited(warehouse, "page_views", project="seldom") == BY_POLICY["latest"]
    warehouse.load_settings(view_stitching="0 4 * * 0")
    assert [run.job_name for run in warehouse.settle().runs] == [LOOK, VIEWS]
    assert credited(warehouse, "page_views", project="seldom") == BY_POLICY["first"]


def follow(warehouse: Warehouse) -> None:
    """What a run that has followed the rules notes at its end."""
    with engine_of(warehouse.settings).open() as stored:
        state = read_state(stored)
    index = LandingIndex(warehouse.settings.index_path)
    index.note(state, continues=True, followed_rules=warehouse.settings.all_crediting_rules)


def test_the_sensor_asks_for_each_change_and_for_nothing_else(warehouse: Warehouse) -> None:
    def tick() -> list[str]:
        sensor = warehouse.defs.get_repository_def().get_sensor_def("rules_sensor")
        with build_sensor_context(instance=warehouse.instance) as context:
            return [request.run_key or "" for request in sensor.evaluate_tick(context).run_requests or []]

    assert tick() == []
    keys = set()
    for _ in range(MAX_ATTEMPTS + 1):  # changed and changed back more often than a request may fail
        for name in ("first", "latest"):
            change_rules(warehouse, {"toggled": policy(name)})
            (key,) = tick()
            assert tick() == [key]
            keys.add(key)
            follow(warehouse)
            assert tick() == []
    assert len(keys) == 2 * (MAX_ATTEMPTS + 1)


def test_a_run_killed_after_it_noted_the_rules_is_made_up_for(warehouse: Warehouse) -> None:
    change_rules(warehouse, {"killed": policy("first")})
    warehouse.follow_rules_and_die()
    assert [run.job_name for run in warehouse.settle(view_stitching=False).runs] == [LOOK, RESTITCH]
    assert credited(warehouse, project="killed") == BY_POLICY["first"]


def test_a_policy_for_one_run_leaves_the_others_as_set(warehouse: Warehouse) -> None:
    warehouse.settle()
    tags = run_request(Request(WEEK, base_key="by hand")).tags
    warehouse.run(RESTITCH_JOB, tags, models_config(policy="next_identify"))
    assert credited(warehouse, project="once") == BY_POLICY["next_identify"]
    # The views read the settings, and one run's exception must not stay behind in them.
    assert credited(warehouse, "page_views_live", project="once") == BY_POLICY["latest"]
    assert warehouse.settle().runs == []
    warehouse.settle(reconcile=True)
    assert credited(warehouse, project="once") == BY_POLICY["latest"]


def test_previews_say_what_each_policy_would_change(warehouse: Warehouse) -> None:
    tried = warehouse.query("select distinct policy from stitch.policy_preview_sessions")
    # Graph can be asked about where it is followed; elsewhere nobody has resolved the persons.
    assert {row["policy"] for row in tried} == set(Policy) - {Policy.graph} == set(BY_POLICY)
    for name, expected in BY_POLICY.items():
        asked = f"where policy = '{name}' and project_id = 'untouched' and anonymous_id = 'a'"
        sessions = warehouse.query(
            f"select stitched_user_id, would_change from stitch.policy_preview_sessions {asked} order by session_date"
        )
        assert [row["stitched_user_id"] for row in sessions] == expected
        assert [row["would_change"] for row in sessions] == [user != "bob" for user in expected]
        events = warehouse.query(
            f"select stitched_user_id from stitch.policy_preview_events {asked} order by occurred_at"
        )
        assert [row["stitched_user_id"] for row in events] == expected
