"""What a run of one day costs beyond a hello-world Dagster run, in CPU seconds.

Run with ``.venv/bin/python benchmarks/orchestration.py``. Each figure is a whole process, started afresh:
imports, loading definitions, the run, and writing its events to an instance on disk. The day holds a
handful of events, so next to nothing of it is SQL; `sql` is what dbt reports for the models and tests
and is contained in `day`. Runs alternate, and medians are printed, because machines are noisy.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
REPEATS = 5

HELLO = """
import dagster as dg

@dg.asset
def hello():
    return dg.MaterializeResult()

defs = dg.Definitions(assets=[hello], jobs=[dg.define_asset_job("hello_job")], executor=dg.in_process_executor)
with dg.DagsterInstance.get() as instance:
    assert defs.resolve_job_def("hello_job").execute_in_process(instance=instance).success
"""

DAY = """
import json, os, sys
from dagster import DagsterInstance
from stitch_pipeline.definitions import defs
from datetime import date
from stitch_pipeline.planning.days import DayRange
from stitch_pipeline.planning.requests import Request
from stitch_pipeline.run_history import run_request

day = date.fromisoformat(sys.argv[1])
with DagsterInstance.get() as instance:
    job = defs.resolve_job_def("build_job")
    result = job.execute_in_process(instance=instance, tags=run_request(Request(DayRange(day, day), "bench")).tags)
    assert result.success
    seconds = {
        event.step_materialization_data.materialization.asset_key.path[-1]:
        event.step_materialization_data.materialization.metadata["seconds"].value
        for event in result.get_asset_materialization_events()
        if event.step_key == "stitch_models" and "seconds" in event.step_materialization_data.materialization.metadata
    }
print(json.dumps(sum(seconds.values())))
"""


def cpu_seconds(program: str, environment: dict[str, str], *arguments: str) -> tuple[float, str]:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    ended = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env=environment,
        cwd=REPOSITORY,
        check=True,
        capture_output=True,
        text=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, ended.stdout


def main() -> None:
    figures: dict[str, list[float]] = {"hello": [], "day": [], "sql": []}
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        (root / "home").mkdir()
        shutil.copy(REPOSITORY / "dagster_home" / "dagster.yaml", root / "home")
        landing = root / "landing" / "jitsu"
        landing.mkdir(parents=True)
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"} | {
            "DAGSTER_HOME": str(root / "home"),
            "STITCH_LANDING_DIR": str(root / "landing"),
            "STITCH_DUCKDB_PATH": str(root / "warehouse.duckdb"),
            "STITCH_START_DATE": "2026-03-01",
        }
        for number in range(REPEATS + 1):
            day = f"2026-03-{number + 1:02}"
            event = {"messageId": f"m{number}", "type": "page", "timestamp": f"{day}T12:00:00Z", "anonymousId": "a"}
            (landing / f"{number}.ndjson").write_text(json.dumps(event) + "\n")
            hello, _ = cpu_seconds(HELLO, environment)
            whole, printed = cpu_seconds(DAY, environment, day)
            if number:  # the first run creates tables, views and the parsed dbt project
                figures["hello"].append(hello)
                figures["day"].append(whole)
                figures["sql"].append(json.loads(printed.splitlines()[-1]))
    medians = {name: statistics.median(values) for name, values in figures.items()}
    print(f"hello-world Dagster run {medians['hello']:.2f} CPU s (median of {REPEATS})")
    print(f"build_job of one day    {medians['day']:.2f} CPU s, of these SQL {medians['sql']:.2f} s")
    beyond = medians["day"] - medians["hello"] - medians["sql"]
    print(f"orchestration           {beyond:.2f} CPU s beyond hello-world and SQL")


if __name__ == "__main__":
    main()
