"""Latency from a landed file to stitched rows, with daemon and webserver running, and its parts.

``python benchmarks/latency.py [EVENTS]``. A warehouse of that size is settled. Then, several times, a file lands with
the login of one more device, weeks after the device was seen. The clock starts when the file is there, and stops when
the warehouse credits the device's old sessions to the user. One run does it all. Medians, in seconds:

- `until_requested`: the landing sensor finds the file and requests a run;
- `until_started`: Dagster takes the run from its queue and starts its process;
- `building`: the run loads the file, builds the days around it and re-stitches the old sessions;
- `until_visible`: from the end of that run until a reader sees the result; negative if the reader was first.

`hello` is the same for a code location that imports Dagster and dagster-dbt and has one asset that does nothing: a
sensor requests it when a file lands. No run that a sensor requests can take less.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
from dagster import DagsterInstance, DagsterRunStatus, RunsFilter
from fresh_process import REPOSITORY, Deployment
from results import keep, load_average
from traffic import FIRST_DAY, Traffic

sys.path.insert(0, str(REPOSITORY / "tests" / "e2e"))
from dagster_server import dagster_server

REPEATS = 5
TIMEOUT_SECONDS = 300
HELLO = """
import os
from pathlib import Path

import dagster as dg
import dagster_dbt

@dg.asset
def hello():
    return dg.MaterializeResult()

hello_job = dg.define_asset_job("hello_job", dg.AssetSelection.assets("hello"))

@dg.sensor(job=hello_job, minimum_interval_seconds=4, default_status=dg.DefaultSensorStatus.RUNNING)
def landing_sensor():
    for file in Path(os.environ["STITCH_LANDING_DIR"]).iterdir():
        yield dg.RunRequest(run_key=file.name)

defs = dg.Definitions(assets=[hello], jobs=[hello_job], sensors=[landing_sensor], executor=dg.in_process_executor)
"""


def measure(events: int, directory: Path) -> dict[str, Any]:
    traffic = Traffic(events)
    deployment = Deployment.create(directory, STITCH_START_DATE=str(FIRST_DAY))
    traffic.write(deployment.feed)
    deployment.settle()
    devices = _anonymous_devices(deployment, traffic)
    rounds = []
    with (
        dagster_server(directory, start_date=str(FIRST_DAY)),
        deployment.instance() as instance,
    ):
        for number, device in enumerate(devices):
            rounds.append(_one_login(deployment, instance, traffic, number, device))
    hello = _measure_hello(directory.with_name("hello"))
    return {
        "events": events,
        "repeats": REPEATS,
        "median_seconds": _medians(rounds),
        "hello_median_seconds": _medians(hello),
        "rounds": rounds,
    }


def _measure_hello(directory: Path) -> list[dict[str, float]]:
    deployment = Deployment.create(directory)
    definitions = directory / "hello.py"
    definitions.write_text(HELLO)
    rounds = []
    with (
        dagster_server(directory, location=("-f", str(definitions))),
        deployment.instance() as instance,
    ):
        for number in range(REPEATS):
            land = (deployment.landing_dir / f"{number}.ndjson").touch
            rounds.append(_round(instance, number, "hello_job", land, lambda: True))
    return rounds


def _medians(rounds: list[dict[str, float]]) -> dict[str, float]:
    return {name: round(statistics.median(one[name] for one in rounds), 1) for name in rounds[0]}


def _anonymous_devices(deployment: Deployment, traffic: Traffic) -> list[str]:
    """Devices without a login that were seen some weeks before the last day."""
    with duckdb.connect(str(deployment.duckdb_path), read_only=True) as con:
        rows = con.execute(
            "select anonymous_id from stitch.stitched_sessions where stitched_by = 'none' and session_date = $day "
            "group by anonymous_id order by hash(anonymous_id) limit $count",
            {"day": traffic.day(traffic.days - 20), "count": REPEATS},
        ).fetchall()
    return [row[0] for row in rows]


def _one_login(
    deployment: Deployment, instance: DagsterInstance, traffic: Traffic, number: int, device: str
) -> dict[str, float]:
    login = {
        "app_id": "shop",
        "platform": "web",
        "event": "struct",
        "event_id": f"login-{number}",
        "derived_tstamp": f"{traffic.day(traffic.days - 1)}T23:00:00Z",
        "domain_userid": device,
        "user_id": f"late-{number}",
    }
    return _round(
        instance,
        number,
        "build_job",
        land=lambda: (deployment.feed / f"login-{number}.ndjson").write_text(json.dumps(login) + "\n"),
        is_visible=lambda: _is_stitched(deployment, device, f"late-{number}"),
    )


def _round(
    instance: DagsterInstance,
    number: int,
    job_name: str,
    land: Callable[[], object],
    is_visible: Callable[[], bool],
) -> dict[str, float]:
    # Each round starts at another moment between two ticks of the sensors, which come every 5 seconds.
    time.sleep(5 * number / REPEATS)
    known = {record.dagster_run.run_id for record in instance.get_run_records()}
    landed_at = time.time()
    land()
    run = _next_run(instance, job_name, known)
    while not is_visible():
        time.sleep(0.1)
    seen_at = time.time()
    return {
        "until_requested": run["requested"] - landed_at,
        "until_started": run["started"] - run["requested"],
        "building": run["ended"] - run["started"],
        "until_visible": seen_at - run["ended"],
        "total": seen_at - landed_at,
        "load_average": load_average()[0],
    }


def _next_run(instance: DagsterInstance, job_name: str, known: set[str]) -> dict[str, float]:
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        for record in instance.get_run_records(RunsFilter(job_name=job_name, statuses=[DagsterRunStatus.SUCCESS])):
            if record.dagster_run.run_id not in known and record.start_time and record.end_time:
                return {
                    "requested": record.create_timestamp.timestamp(),
                    "started": record.start_time,
                    "ended": record.end_time,
                }
        time.sleep(0.5)  # polling takes CPU from what is measured; the times are Dagster's own
    raise RuntimeError(f"No {job_name} ended within {TIMEOUT_SECONDS} seconds")


def _is_stitched(deployment: Deployment, device: str, user: str) -> bool:
    try:
        with duckdb.connect(str(deployment.duckdb_path), read_only=True) as con:
            rows = con.execute(
                "select count(*) from stitch.stitched_sessions "
                "where anonymous_id = $device and stitched_user_id = $user",
                {"device": device, "user": user},
            ).fetchall()
    except duckdb.IOException:
        return False  # a run has it open
    return bool(rows[0][0] > 1)


def main() -> None:
    events = int(float(sys.argv[1])) if len(sys.argv) > 1 else 1_000_000
    with tempfile.TemporaryDirectory() as scratch:
        keep("latency", measure(events, Path(scratch) / "deployment"))


if __name__ == "__main__":
    main()
