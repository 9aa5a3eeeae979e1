"""CPU seconds of a run of one day, beyond a hello-world Dagster run and the day's SQL.

Run with ``.venv/bin/python benchmarks/orchestration.py``. Three programs, each in a fresh process with an instance on
disk, each with two runs:

- `hello`: one asset that does nothing;
- `hello with dbt`: one asset in which dbt builds one model of one row in the same process, with the project parsed
  beforehand. No run with dbt can cost less;
- `day`: `build_job` for a day of one event, so that almost none of it is SQL.

The first run counts everything since the process began (imports, loading definitions). The second is the cost of one
more run in the same process, as in `settle`. `sql` is the time that the models report, which `day` does not include.
Programs alternate and medians are kept, because machines are noisy.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from results import keep

REPOSITORY = Path(__file__).resolve().parent.parent
REPEATS = 5

RUN_HELLO_TWICE = """
defs = dg.Definitions(assets=[hello], jobs=[dg.define_asset_job("hello_job")], executor=dg.in_process_executor)
seconds = []
with dg.DagsterInstance.get() as instance:
    for _ in range(2):
        assert defs.resolve_job_def("hello_job").execute_in_process(instance=instance).success
        seconds.append(time.process_time())
print(json.dumps({"first": seconds[0], "next": seconds[1] - seconds[0]}))
"""

HELLO = """
import json, sys, time
import dagster as dg

@dg.asset
def hello():
    return dg.MaterializeResult()
"""

HELLO_WITH_DBT = """
import json, sys, time
import dagster as dg
import dagster_dbt
from dbt.cli.main import dbtRunner
from dbt.contracts.graph.manifest import Manifest
from pathlib import Path

project = Path(sys.argv[1])

@dg.asset
def hello():
    manifest = Manifest.from_msgpack((project / "target" / "partial_parse.msgpack").read_bytes())
    where = ["--project-dir", str(project), "--profiles-dir", str(project), "--log-level", "none", "--quiet"]
    assert dbtRunner(manifest=manifest).invoke(["build", *where]).success
    return dg.MaterializeResult()
"""

DAY = """
import json, sys, time
from dagster import DagsterInstance
from stitch_pipeline.definitions import defs
from datetime import date
from stitch_pipeline.planning.days import DayRange
from stitch_pipeline.planning.requests import Request
from stitch_pipeline.orchestration.run_records import run_request

seconds, sql = [], []
with DagsterInstance.get() as instance:
    job = defs().resolve_job_def("build_job")
    for day in map(date.fromisoformat, sys.argv[1:]):
        result = job.execute_in_process(
            instance=instance, tags=run_request(Request(DayRange(day, day), f"bench {day}")).tags
        )
        assert result.success
        seconds.append(time.process_time())
        (record,) = [
            event.asset_observation_data.asset_observation.metadata
            for event in result.get_asset_observation_events()
            if event.asset_key.path[-1] == "identity_map"
        ]
        sql.append(sum(value.value for name, value in record.items() if name.endswith("_seconds")))
print(json.dumps({"first": seconds[0] - sql[0], "next": seconds[1] - seconds[0] - sql[1], "sql": sql[1]}))
"""

HELLO_DBT_PROJECT = {
    "dbt_project.yml": "name: hello\nversion: '1.0'\nprofile: hello\nmodels:\n  hello:\n    +materialized: table\n",
    "profiles.yml": "hello:\n  target: local\n  outputs:\n    local: {type: duckdb, path: hello.duckdb}\n",
    "models/hello.sql": "select 1 as id\n",
}


def figures(program: str, environment: dict[str, str], *arguments: str) -> dict[str, float]:
    """The JSON that the program prints: CPU seconds of its first and its next run."""
    ended = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env=environment,
        cwd=environment["DAGSTER_HOME"],
        check=True,
        capture_output=True,
        text=True,
    )
    printed: dict[str, float] = json.loads(ended.stdout.splitlines()[-1])
    return printed


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        (root / "home").mkdir()
        shutil.copy(REPOSITORY / "dagster_home" / "dagster.yaml", root / "home")
        landing = root / "landing" / "jitsu"
        landing.mkdir(parents=True)
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"} | {
            "PYTHONPATH": str(REPOSITORY),
            "DAGSTER_HOME": str(root / "home"),
            "STITCH_LANDING_DIR": str(root / "landing"),
            "STITCH_DUCKDB_PATH": str(root / "warehouse.duckdb"),
            "STITCH_START_DATE": "2026-03-01",
            "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
        }
        project = root / "hello"
        for name, text in HELLO_DBT_PROJECT.items():
            (project / name).parent.mkdir(parents=True, exist_ok=True)
            (project / name).write_text(text)
        where = ["--project-dir", str(project), "--profiles-dir", str(project)]
        subprocess.run(
            [Path(sys.executable).parent / "dbt", "--quiet", "parse", *where], env=environment, cwd=project, check=True
        )
        days = [f"2026-03-{number + 1:02}" for number in range(2 * (REPEATS + 1))]
        for day in days:
            event = {"messageId": day, "type": "page", "timestamp": f"{day}T12:00:00Z", "anonymousId": "a"}
            (landing / f"{day}.ndjson").write_text(json.dumps(event) + "\n")
        measured: dict[str, list[dict[str, float]]] = {"hello": [], "hello with dbt": [], "day": []}
        for number in range(REPEATS + 1):
            once = {
                "hello": figures(HELLO + RUN_HELLO_TWICE, environment),
                "hello with dbt": figures(HELLO_WITH_DBT + RUN_HELLO_TWICE, environment, str(project)),
                "day": figures(DAY, environment, *days[2 * number : 2 * number + 2]),
            }
            if number:  # the first round creates bytecode, tables, views and the parsed dbt project
                for name, printed in once.items():
                    measured[name].append(printed)

    def median(name: str, run: str) -> float:
        return statistics.median(printed[run] for printed in measured[name])

    programs = {name: {run: round(median(name, run), 2) for run in ("first", "next")} for name in measured}
    beyond = {
        f"beyond_{name.replace(' ', '_')}": {
            run: round(median("day", run) - median(name, run), 2) for run in ("first", "next")
        }
        for name in ("hello", "hello with dbt")
    }
    keep("orchestration", {"cpu_seconds": {**programs, "sql": round(median("day", "sql"), 2)}, **beyond})


if __name__ == "__main__":
    main()
