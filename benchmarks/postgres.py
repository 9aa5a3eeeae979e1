"""PostgreSQL beside DuckDB and beside a naive rebuild: CPU seconds on the same files, the server's included.

``python benchmarks/postgres.py [EVENTS]``: EVENTS (by default a million) over 30 days, on a server of its own in a
scratch directory. Each step runs in a process of its own, start-up included:

- `duckdb` and `postgres`: ``stitch settle``; for PostgreSQL the process and the server together;
- `naive`: ``dbt run`` with dbt-postgres over five models that are built from all events every time
  (``benchmarks/naive_postgres``). Its events are in a table already, copied from ours, so it loads nothing.

Steps: `full` (30 days), `one_more_day`, `late_logins` (1,000 devices of the last 30 days log in), `nothing_to_do`. Then
the views that a person queries, in seconds, and the bytes of every table.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import psycopg2
from fresh_process import Cost, Deployment, cost, large_scratch
from results import keep, load_average
from scale import write_late_logins
from traffic import FIRST_DAY, Traffic

from stitch_pipeline.demo.postgres_server import PostgresServer, postgres_server

DAYS = 30
LOGINS = 1000
NAIVE_PROJECT = Path(__file__).resolve().parent / "naive_postgres"
VIEWS = {
    "stitching_reasons of a device": (
        "select count(*) from stitch.stitching_reasons where project_id = 'shop' and anonymous_id = $$DEVICE$$"
    ),
    "user_mapping of a device": (
        "select count(*) from stitch.user_mapping where project_id = 'shop' and anonymous_id = $$DEVICE$$"
    ),
    "stitched_events of a device": (
        "select count(*) from stitch.stitched_events where project_id = 'shop' and anonymous_id = $$DEVICE$$"
    ),
    "user_devices of a user": "select count(*) from stitch.user_devices where user_id = 'user-1'",
    "visitor_stats of all days": "select count(*) from stitch.visitor_stats",
    "sessions by stitched user": (
        "select stitched_user_id, count(*) from stitch.stitched_sessions group by 1 order by 2 desc limit 10"
    ),
}


def measure(events: int, directory: Path, server: PostgresServer) -> dict[str, Any]:
    """The figures of one round, from empty databases."""
    traffic = Traffic(events, days=DAYS)
    url = server.create_database("bench")
    common = {"STITCH_START_DATE": str(FIRST_DAY), "STITCH_PUBLISHED_DIR": "off"}
    on_duckdb = Deployment.create(directory / "duckdb", **common)
    on_postgres = Deployment.create(
        directory / "postgres", **{**common, "STITCH_WAREHOUSE": url, "STITCH_LANDING_DIR": str(on_duckdb.landing_dir)}
    )
    for deployment in (on_duckdb, on_postgres):
        # Parses the dbt project and compiles, which happens once per installation.
        cost(["-c", "from stitch_pipeline.definitions import defs; defs()"], deployment.environment)
    with duckdb.connect() as con:
        for number in range(DAYS):
            traffic.write_day(con, number, on_duckdb.feed)
    naive = _naive(directory / "naive", url)

    steps: dict[str, Any] = {}
    for step in ("full", "one_more_day", "late_logins", "nothing_to_do"):
        if step == "one_more_day":
            with duckdb.connect() as con:
                traffic.write_day(con, DAYS, on_duckdb.feed)
        if step == "late_logins":
            write_late_logins(on_duckdb, traffic, logins=LOGINS, days_each=30)
        costs = {"duckdb": on_duckdb.settle().cpu_seconds}
        costs["postgres"], costs["postgres_server"] = _with_server(server, on_postgres.settle)
        _copy_events(url)
        costs["naive"], costs["naive_server"] = _with_server(server, naive)
        steps[step] = {
            "cpu_seconds": {name: round(seconds, 2) for name, seconds in costs.items()},
            "ratios": {
                "postgres_to_duckdb": round(costs["postgres"] / costs["duckdb"], 2),
                "postgres_to_naive": round(costs["postgres"] / costs["naive"], 2),
            },
        }
    return {"steps": steps, "seconds_of_views": _seconds_of_views(url), "bytes": _bytes(url)}


def _naive(directory: Path, url: str) -> Callable[[], Cost]:
    """The naive project in a copy, because dbt writes beside it."""
    shutil.copytree(NAIVE_PROJECT, directory)
    known = psycopg2.extensions.parse_dsn(url)
    environment = {
        "NAIVE_HOST": known["host"],
        "NAIVE_PORT": known["port"],
        "NAIVE_USER": known["user"],
        "NAIVE_DATABASE": known["dbname"],
        "DBT_PROJECT_DIR": str(directory),
        "DBT_PROFILES_DIR": str(directory),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    cost(["-m", "dbt.cli.main", "--quiet", "parse"], environment)
    return lambda: cost(["-m", "dbt.cli.main", "--quiet", "run"], environment)


def _with_server(server: PostgresServer, run: Callable[[], Cost]) -> tuple[float, float]:
    """The CPU seconds of a program and of the server meanwhile together, and those of the server alone."""
    before = _server_seconds(server)
    own = run().cpu_seconds
    # A backend that ended counts once its parent has taken notice.
    time.sleep(0.5)
    spent = _server_seconds(server) - before
    return own + spent, spent


def _server_seconds(server: PostgresServer) -> float:
    """What the server has used so far: its first process, those that have ended, and those that live."""
    ((data,),) = server.rows("show data_directory", "postgres")
    first = int((Path(str(data)) / "postmaster.pid").read_text().splitlines()[0])
    ticks = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        pid, parent = int(path.parent.name), int(fields[1])
        if pid == first:
            ticks += sum(map(int, fields[11:15]))
        elif parent == first:
            ticks += sum(map(int, fields[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK")


@contextmanager
def _connected(url: str) -> Iterator[Any]:
    connection = psycopg2.connect(url)
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            yield cursor
    finally:
        connection.close()


def _copy_events(url: str) -> None:
    """The events where the naive project reads them, without indexes, as a loader leaves them."""
    with _connected(url) as cursor:
        cursor.execute("create schema if not exists naive")
        cursor.execute("drop table if exists naive.raw_events cascade")
        cursor.execute("create table naive.raw_events as select * from stitch.raw_events")
        cursor.execute("analyze naive.raw_events")


def _seconds_of_views(url: str) -> dict[str, float]:
    """With the settings that docs/postgres.md gives to the role of a person."""
    found = {}
    with _connected(url) as cursor:
        cursor.execute("set enable_nestloop = off")
        cursor.execute("set enable_mergejoin = off")
        cursor.execute("select anonymous_id from stitch.identity_map order by anonymous_id limit 1")
        ((device,),) = cursor.fetchall()
        for name, query in VIEWS.items():
            began = time.monotonic()
            cursor.execute(query.replace("DEVICE", device))
            cursor.fetchall()
            found[name] = round(time.monotonic() - began, 2)
    return found


def _bytes(url: str) -> dict[str, int]:
    with _connected(url) as cursor:
        cursor.execute(
            "select relname, pg_total_relation_size(oid) from pg_class where relkind = 'r' and "
            "relnamespace = 'stitch'::regnamespace and pg_total_relation_size(oid) > 1000000 order by 2 desc"
        )
        return dict(cursor.fetchall())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("events", type=float, nargs="?", default=1e6)
    asked = parser.parse_args()
    before = load_average()
    with large_scratch() as scratch, postgres_server(scratch / "server") as server:
        figures = measure(int(asked.events), scratch, server)
        ((version,),) = server.rows("show server_version", "postgres")
    keep(
        f"postgres_{asked.events / 1e6:g}m",
        {
            "events": int(asked.events),
            "days": DAYS,
            "postgresql": version,
            "load_average": {"before": before, "after": load_average()},
            **figures,
        },
    )


if __name__ == "__main__":
    main()
