"""``stitch settle`` as a person or cron runs it: what it prints, how it ends, how it dies."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from dagster import DagsterRunStatus
from engines import of_duckdb
from warehouses import REPOSITORY, TABLES, ephemeral_warehouse

from stitch_pipeline.definitions import build_defs
from stitch_pipeline.orchestration.abandoned_runs import SETTLE_TAG
from stitch_pipeline.orchestration.event_storage import instance_at
from stitch_pipeline.orchestration.jobs import BUILD_JOB
from stitch_pipeline.orchestration.placement import POOL
from stitch_pipeline.settings import Settings

pytestmark = of_duckdb("its file is what the commands are pointed to")


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    home = tmp_path / "dagster_home"
    home.mkdir()
    shutil.copy(REPOSITORY / "dagster_home" / "dagster.yaml", home)
    (tmp_path / "landing" / "jitsu").mkdir(parents=True)
    return {
        **os.environ,
        "DAGSTER_HOME": str(home),
        "STITCH_LANDING_DIR": str(tmp_path / "landing"),
        "STITCH_DUCKDB_PATH": str(tmp_path / "warehouse.duckdb"),
        "STITCH_START_DATE": "2026-03-01",
    }


def settle(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "stitch_pipeline", "settle", *arguments],
        env=environment,
        cwd=REPOSITORY,
        text=True,
        capture_output=True,
        timeout=300,
        check=False,
    )


def settle_on_a_terminal(environment: dict[str, str], *arguments: str) -> tuple[str, str]:
    """What a settle prints to its standard output, a pipe, and to its standard error, a terminal."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "stitch_pipeline", "settle", *arguments],
        env={**environment, "TERM": "xterm"},
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=theirs,
        text=True,
    ) as process:
        os.close(theirs)
        shown = bytearray()
        with suppress(OSError):  # at the end, when nobody has the terminal open any more
            while part := os.read(ours, 65536):
                shown += part
        os.close(ours)
        printed, _ = process.communicate(timeout=300)
    assert process.returncode == 0, shown.decode()
    return printed, shown.decode()


def settle_at_work(environment: dict[str, str], *arguments: str) -> subprocess.Popen[str]:
    """A settle that has just begun its first run."""
    process = subprocess.Popen(
        [sys.executable, "-m", "stitch_pipeline", "settle", *arguments],
        env=environment,
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith("▶ build_job")
    return process


def land(environment: dict[str, str], name: str, count: int, **fields: Any) -> None:
    events = [
        {
            "messageId": f"{name}-{n}",
            "projectId": "shop",
            "type": "page",
            "timestamp": f"2026-03-{1 + n % 9:02}T{n % 24:02}:{n % 60:02}:00Z",
            "anonymousId": f"device-{n % 50}",
            **fields,
        }
        for n in range(count)
    ]
    path = Path(environment["STITCH_LANDING_DIR"]) / "jitsu" / f"{name}.ndjson"
    path.write_text("".join(json.dumps(event) + "\n" for event in events))


def contents(environment: dict[str, str], tmp_path: Path) -> dict[str, Any]:
    with ephemeral_warehouse(tmp_path / "reader") as reader:
        path = Path(environment["STITCH_DUCKDB_PATH"])
        reader.settings = reader.settings.model_copy(update={"duckdb_path": path})
        return reader.contents(TABLES)


def rebuilt(environment: dict[str, str], tmp_path: Path) -> dict[str, Any]:
    with ephemeral_warehouse(tmp_path / "rebuilt", keep_own_user=True) as warehouse:
        shutil.copytree(environment["STITCH_LANDING_DIR"], warehouse.settings.landing_dir, dirs_exist_ok=True)
        warehouse.settle()
        return warehouse.contents(TABLES)


def test_settle_says_what_it_did_and_ends_with_zero(environment: dict[str, str]) -> None:
    land(environment, "a", 100)
    first = settle({**environment, "FORCE_COLOR": "1"})
    assert first.returncode == 0, first.stderr
    assert "build_job: 2026-03-01 to 2026-03-11" in first.stdout
    assert "page_views 100 rows on 9 days" in first.stdout
    assert ": 1 run, " in first.stdout
    # Into a pipe goes no spinner, even if somebody forces colours.
    assert "\x1b[?25l" not in first.stdout
    assert "build_job: sessions" not in first.stdout
    again = settle(environment)
    assert again.returncode == 0
    assert "settled: nothing to do" in again.stdout


@pytest.mark.slow
def test_settle_gives_its_numbers_to_programs_as_json(environment: dict[str, str]) -> None:
    land(environment, "a", 100)
    printed, shown = settle_on_a_terminal(environment, "--json")
    told = json.loads(printed)
    assert "build_job: 2026-03-01 to 2026-03-11" in shown
    # The spinner shows the model that is running, if it runs for longer than a picture of the spinner.
    assert re.search(r"build_job: [a-z]+_[a-z]+", shown)
    assert "\x1b[?25h" in shown, "the cursor is back"
    assert (told["is_settled"], told["gave_up"]) == (True, [])
    (run,) = told["runs"]
    assert (run["job_name"], run["succeeded"], run["error"]) == ("build_job", True, None)
    assert run["days"] == {"first": "2026-03-01", "last": "2026-03-11"}
    assert (run["rows_changed"]["page_views"], run["partitions_changed"]["page_views"]) == (100, 9)
    assert (run["rows_stale"], run["partitions_stale"]) == (
        {"stitched_sessions": 0, "page_views": 0},
        {"stitched_sessions": 0, "page_views": 0},
    )
    assert json.loads(settle(environment, "--json").stdout) == {
        **{"is_settled": True, "gave_up": [], "runs": []},
        **{"waiting": [], "notices": []},
    }


def test_a_wrong_setting_is_one_sentence_and_ends_with_two(environment: dict[str, str]) -> None:
    ended = settle({**environment, "STITCH_LANDING_DIR": "/nowhere"})
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: STITCH_LANDING_DIR is '/nowhere', which is not a directory")
    assert "Traceback" not in ended.stderr
    ended = settle({**environment, "STITCH_VIEW_STITCHING": "weekly"})
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1


def test_a_run_that_keeps_failing_ends_with_one_and_says_why(environment: dict[str, str]) -> None:
    land(environment, "a", 10)
    Path(environment["STITCH_DUCKDB_PATH"]).write_text("no warehouse " * 1000)
    ended = settle({**environment, "STITCH_LOCK_WAIT_SECONDS": "1"})
    assert ended.returncode == 1
    assert "Run `stitch rebuild`" in ended.stdout
    assert "not settled: reconcile_job: all days" in ended.stdout


@pytest.mark.slow
def test_the_place_in_the_pool_of_a_settle_that_was_killed_is_freed(environment: dict[str, str]) -> None:
    land(environment, "a", 100)
    with instance_at(Path(environment["DAGSTER_HOME"])) as instance:
        killed = instance.create_run_for_job(
            build_defs(Settings.load()).resolve_job_def(BUILD_JOB),
            tags={SETTLE_TAG: "true"},
            status=DagsterRunStatus.STARTED,
        )
        storage = instance.event_log_storage
        storage.initialize_concurrency_limit_to_default(POOL)
        assert storage.claim_concurrency_slot(POOL, killed.run_id, "landing_zone").is_claimed
        assert settle(environment).returncode == 0
        assert storage.get_concurrency_run_ids() == set()
        run = instance.get_run_by_id(killed.run_id)
        assert run is not None
        assert run.status is DagsterRunStatus.FAILURE


@pytest.mark.slow
def test_a_signal_ends_it_and_the_next_one_completes_the_work(environment: dict[str, str], tmp_path: Path) -> None:
    land(environment, "a", 3000)
    process = settle_at_work(environment)
    time.sleep(1)
    process.terminate()
    printed, _ = process.communicate(timeout=60)
    # Within a run Dagster books the interruption and settle says so; between runs the signal ends it at once.
    assert process.returncode == -signal.SIGTERM or "not settled: interrupted" in printed
    assert process.returncode in (1, -signal.SIGTERM)
    assert "▶" not in printed
    assert settle(environment).returncode == 0
    assert contents(environment, tmp_path) == rebuilt(environment, tmp_path)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("after", [0.3, 1.3, 2.3, 3.3])
def test_killed_at_any_moment_it_is_completed_by_running_it_again(
    after: float, environment: dict[str, str], tmp_path: Path
) -> None:
    land(environment, "a", 3000)
    assert settle(environment).returncode == 0
    before = contents(environment, tmp_path)
    land(environment, "b", 3000)
    land(environment, "c", 50, userId="u", type="identify")
    process = settle_at_work(environment, "--view-stitching")
    time.sleep(after)
    process.send_signal(signal.SIGKILL)
    process.wait()
    # Each table is as before or as after for every partition: never a part of a day.
    after_kill = contents(environment, tmp_path)
    ended = settle(environment, "--view-stitching")
    assert ended.returncode == 0, ended.stdout
    complete = contents(environment, tmp_path)
    assert complete == rebuilt(environment, tmp_path)
    for table in ("raw_events", "sessions", "identity_map"):
        assert after_kill[table] in (before[table], complete[table]), table
