"""Several processes on one warehouse: no work fails because another is busy, is killed or is ended by a person."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path
from random import Random
from typing import Any

import duckdb
import pytest
from dagster_server import DagsterServer, dagster_server, environment, wait_for
from kills import STITCH_TOML, contents, deployment, land_the_story, late_logins
from warehouses import REPOSITORY, START, Row, as_jitsu

from stitch_pipeline.orchestration.event_storage import instance_at
from stitch_pipeline.orchestration.resource import BUSY_TAG
from stitch_pipeline.stitching.build import TABLES

pytestmark = [pytest.mark.slow, pytest.mark.long]

UNFINISHED = {"QUEUED", "NOT_STARTED", "STARTING", "STARTED", "CANCELING"}
SENSORS = ("landing_sensor", "recovery_sensor", "rules_sensor", "identify_sensor")
LAST_DAY = START + timedelta(days=5)
SETTINGS = {"start_date": str(START), "sensor_interval_seconds": "5", "view_stitching": "* * * * *"}


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Row]]:
    """What a build from nothing gives when the late logins are there from the start."""
    directory = tmp_path_factory.mktemp("fresh") / "deployment"
    with deployment(directory) as warehouse:
        land_the_story(warehouse)
        warehouse.land_events("jitsu/late.ndjson", late_logins())
        warehouse.settle()
    return contents(directory / "warehouse.duckdb")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A landing zone with the story, and nothing else."""
    with deployment(tmp_path / "deployment") as warehouse:
        land_the_story(warehouse)
    (tmp_path / "deployment" / "dagster_home").rename(tmp_path / "unused")
    (tmp_path / "deployment" / "stitch.toml").write_text(STITCH_TOML)
    return tmp_path / "deployment"


@contextmanager
def daemon(directory: Path, **settings: str) -> Iterator[DagsterServer]:
    toml = {"project_file": str(directory / "stitch.toml")}
    every: dict[str, Any] = {**SETTINGS, **toml, **settings}
    with dagster_server(directory, **every) as server:
        yield server


def start_settle(directory: Path, **settings: str) -> subprocess.Popen[str]:
    toml = {"project_file": str(directory / "stitch.toml")}
    return subprocess.Popen(
        [sys.executable, "-m", "stitch_pipeline", "settle", "--view-stitching"],
        cwd=REPOSITORY,
        env={**environment(directory, **{**SETTINGS, **toml, **settings}), "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def settle(directory: Path, **settings: str) -> str:
    process = start_settle(directory, **settings)
    printed = process.communicate(timeout=600)[0]
    assert process.returncode == 0, printed
    return printed


def land_late_logins(directory: Path) -> None:
    aside = directory / "late.ndjson.part"
    aside.write_text("".join(json.dumps(as_jitsu(event)) + "\n" for event in late_logins()))
    aside.rename(directory / "landing" / "jitsu" / "late.ndjson")


def wrong(directory: Path, expected: dict[str, list[Row]]) -> dict[str, tuple[int, int]]:
    actual = contents(directory / "warehouse.duckdb")
    return {name: (len(actual[name]), len(rows)) for name, rows in expected.items() if actual[name] != rows}


@contextmanager
def held_by_a_reader(path: Path) -> Iterator[None]:
    hold = (
        "import duckdb, sys, time\n"
        "while True:\n"
        "    try:\n"
        "        con = duckdb.connect(sys.argv[1], read_only=True)\n"
        "        break\n"
        "    except duckdb.IOException:\n"
        "        time.sleep(0.02)\n"
        "print('held', flush=True)\n"
        "sys.stdin.readline()\n"
    )
    reader = subprocess.Popen(
        [sys.executable, "-c", hold, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert reader.stdout is not None
    assert reader.stdout.readline() == "held\n"
    try:
        yield
    finally:
        reader.kill()
        reader.wait()


def is_right(server: DagsterServer, expected: dict[str, list[Row]]) -> bool:
    """Every table is as expected. No run is underway, so nothing can be half done."""
    if any(run["status"] in UNFINISHED for run in server.runs()):
        return False
    try:
        return not wrong(server.directory, expected)
    except duckdb.Error:  # a run has the file, or there is no table yet
        return False


def wait_until_right(server: DagsterServer, expected: dict[str, list[Row]]) -> None:
    wait_for("every table as expected", lambda: is_right(server, expected), every=2, server=server)


def wait_for_a_run(server: DagsterServer, *statuses: str, known: set[str]) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        return next((r for r in server.runs() if r["status"] in statuses and r["runId"] not in known), None)

    return wait_for(f"a run that is {statuses}", look, every=0.1, server=server)


def worker_of(server: DagsterServer, run_id: str) -> int:
    """The process in which the daemon's run executes."""

    def look() -> int | None:
        with instance_at(server.directory / "dagster_home") as instance:
            messages = [entry.message or "" for entry in instance.all_logs(run_id)]
            found = [m for entry in messages if (m := re.search(r"pid: (\d+)", entry))]
            return int(found[-1][1]) if found else None

    return wait_for(f"the process of run {run_id}", look, every=0.1, server=server)


def backfill(server: DagsterServer, first: date, last: date) -> None:
    """Launch a backfill of every table over the days, as the UI does."""
    days = [(first + timedelta(days=n)).isoformat() for n in range((last - first).days + 1)]
    # All tables: the two of the landing zone are loaded together, and Dagster refuses one without the other.
    names = ("raw_events", "quarantined_events", *TABLES)
    assets = [{"path": [name]} for name in names]
    launched = server.query(
        "mutation($params: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $params) "
        "{ __typename ... on PythonError { message } } }",
        params={"partitionNames": days, "assetSelection": assets},
    )["launchPartitionBackfill"]
    assert launched["__typename"] == "LaunchBackfillSuccess", launched


def terminate(server: DagsterServer, run_id: str) -> None:
    ended = server.query(
        "mutation($run: String!) { terminateRun(runId: $run) { __typename } }",
        run=run_id,
    )["terminateRun"]
    assert ended["__typename"] == "TerminateRunSuccess", ended


def failures(server: DagsterServer, *, but: set[str]) -> list[tuple[str, str]]:
    return [
        (run["jobName"], run["runId"])
        for run in server.runs()
        if run["status"] in ("FAILURE", "CANCELED") and run["runId"] not in but
    ]


def test_two_first_settles_at_once_both_succeed(directory: Path, expected: dict[str, list[Row]]) -> None:
    land_late_logins(directory)
    both = [start_settle(directory, lock_wait_seconds="500") for _ in range(2)]
    printed = [process.communicate(timeout=600)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], "\n".join(printed)
    assert not wrong(directory, expected)


def test_a_reader_that_holds_the_file_delays_settle_and_breaks_nothing(
    directory: Path, expected: dict[str, list[Row]]
) -> None:
    settle(directory)
    land_late_logins(directory)
    with held_by_a_reader(directory / "warehouse.duckdb"):
        process = start_settle(directory, lock_wait_seconds="1")
        printed = process.communicate(timeout=600)[0]
        assert process.returncode != 0
        assert "is in use by" in printed
    settle(directory, lock_wait_seconds="1")
    assert not wrong(directory, expected)


def test_the_daemon_waits_for_a_reader_and_goes_on(directory: Path, expected: dict[str, list[Row]]) -> None:
    settle(directory)
    with daemon(directory, lock_wait_seconds="3") as server:
        known = {run["runId"] for run in server.runs()}
        with held_by_a_reader(directory / "warehouse.duckdb"):
            land_late_logins(directory)
            run = wait_for_a_run(server, "FAILURE", known=known)
            assert BUSY_TAG in run["tags"]
            time.sleep(12)
        wait_until_right(server, expected)
        others = {r["runId"] for r in server.runs() if BUSY_TAG in r["tags"]}
        assert not failures(server, but=others), "a run failed that did not meet the reader"


def test_settle_backfill_a_cancelled_run_and_a_restart_beside_sensors_and_schedules(
    directory: Path, expected: dict[str, list[Row]]
) -> None:
    with daemon(directory) as server:
        wait_for_a_run(server, "STARTED", "SUCCESS", known=set())
        backfill(server, START, LAST_DAY)
        beside = start_settle(directory, lock_wait_seconds="300")
        land_late_logins(directory)
        run = wait_for_a_run(server, "STARTED", known=set())
        terminate(server, run["runId"])
        cancelled = {run["runId"]}
        assert beside.wait(timeout=600) == 0, beside.communicate()[0]
        time.sleep(5)
    # The daemon is ended with whatever it was doing, and starts again.
    with daemon(directory) as server:
        wait_until_right(server, expected)
        interrupted = {run["runId"] for run in server.runs() if run["status"] in ("FAILURE", "CANCELED")}
        assert len(interrupted - cancelled) <= 2, "more failed than what the end of the daemon cut off"


def test_killed_workers_of_the_daemon_are_made_good_by_the_daemon(
    directory: Path, expected: dict[str, list[Row]]
) -> None:
    random = Random(1)
    with daemon(directory) as server:
        killed: set[str] = set()
        for number in range(4):
            run = wait_for_a_run(server, "STARTED", known=killed)
            worker = worker_of(server, run["runId"])
            time.sleep(random.uniform(0, 8))
            os.kill(worker, signal.SIGKILL)
            killed.add(run["runId"])
            if number == 1:
                land_late_logins(directory)
        wait_until_right(server, expected)
        assert not failures(server, but=killed)


def test_settle_makes_good_a_killed_worker_when_there_is_no_daemon(
    directory: Path, expected: dict[str, list[Row]]
) -> None:
    with daemon(directory) as server:
        run = wait_for_a_run(server, "STARTED", known=set())
        worker = worker_of(server, run["runId"])
        os.killpg(server.process.pid, signal.SIGKILL)
        os.kill(worker, signal.SIGKILL)
        server.process.wait()
    land_late_logins(directory)
    printed = settle(directory)
    assert "build_job" in printed, printed
    assert not wrong(directory, expected)
