"""Rows of a PostgreSQL table copied per CPU second, and what a look costs that finds nothing new.

Run with ``.venv/bin/python benchmarks/table_feed.py [EVENTS]``. A table with Snowplow's canonical columns holds three
years of events, with an index on ``load_tstamp``. In CPU seconds of a fresh process, those of the server apart:

- `backfill`: every row is copied into extracts, in ranges of a day or less;
- `nothing_new`: a look that counts the rows of the last day and finds all as it was;
- `compare`: a look that compares every range by its digest;
- `one_percent`: a look after one percent of the rows was added at the end.

Memory is the peak of the process in MB. It must not grow with the table, so a tenth of the events is measured too.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from results import keep, load_average

from stitch_pipeline.demo.postgres_server import PostgresServer, postgres_server

TABLE = """
    create table events (
      app_id text, platform text, collector_tstamp timestamp, derived_tstamp timestamp, load_tstamp timestamptz,
      event text, event_id uuid, user_id text, domain_userid text, domain_sessionid text, page_url text,
      page_urlpath text, page_title text, mkt_source text, useragent text, event_name text
    )
"""
ROWS = """
    insert into events
    select 'shop', 'web', at, at, at at time zone 'UTC', 'page_view', gen_random_uuid(),
      case when n % 10 = 0 then 'user-' || n % 5000 end, 'device-' || n % 50000, 'session-' || n / 20,
      'https://shop.example.com/product/' || n % 500, '/product/' || n % 500, 'Product',
      case when n % 20 = 0 then 'google' end, 'Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36', 'page_view'
    from (
      select n, timestamp '2023-01-01' + n * interval '{microseconds} microseconds' as at
      from generate_series({first}::bigint, {last}::bigint) as n
    ) as numbered
"""
LOOK = """
import json, resource, sys
from datetime import UTC, datetime
from stitch_pipeline.landing.extracts import look_at_tables
from stitch_pipeline.settings import Settings

settings = Settings.load(env_file="off")
began = resource.getrusage(resource.RUSAGE_SELF)
(looked,) = look_at_tables(settings, since=datetime.now(UTC), verify=sys.argv[1] == "compare")
ended = resource.getrusage(resource.RUSAGE_SELF)
assert looked.problem is None, looked.problem
cpu = ended.ru_utime + ended.ru_stime - began.ru_utime - began.ru_stime
print(json.dumps({"cpu": round(cpu, 2), "rows": looked.rows, "files": looked.files, "mb": ended.ru_maxrss // 1024}))
"""
THREE_YEARS = 3 * 365 * 86_400_000_000


def measure(server: PostgresServer, events: int) -> dict[str, object]:
    database = f"events_{events}"
    server.rows(f"create database {database}", "postgres")
    step = THREE_YEARS // events
    server.rows(TABLE, database)
    server.rows(ROWS.format(microseconds=step, first=1, last=events), database)
    server.rows("create index on events (load_tstamp)", database)
    server.rows("analyze events", database)
    with tempfile.TemporaryDirectory() as directory:
        landing = Path(directory, "landing")
        landing.mkdir()
        toml = '[feeds.web]\nsource = "snowplow"\ntable = "events"\n'
        (Path(directory) / "stitch.toml").write_text(toml)

        def look(how: str) -> dict[str, float]:
            environment = {
                **os.environ,
                "STITCH_LANDING_DIR": str(landing),
                "STITCH_DUCKDB_PATH": f"{directory}/warehouse.duckdb",
                "STITCH_PROJECT_FILE": f"{directory}/stitch.toml",
                "STITCH_FEEDS_URL": f"postgresql://{server.user}@127.0.0.1:{server.port}/{database}",
                "STITCH_MEMORY_LIMIT": "600MB",
            }
            before = _cpu_of(server)
            ended = subprocess.run(
                [sys.executable, "-c", LOOK, how], env=environment, capture_output=True, text=True, check=False
            )
            assert ended.returncode == 0, ended.stderr
            found: dict[str, float] = json.loads(ended.stdout)
            return {**found, "server_cpu": round(_cpu_of(server) - before, 2)}

        figures = {how: look(how) for how in ("backfill", "nothing_new", "compare")}
        added = events // 100
        server.rows(ROWS.format(microseconds=step, first=events + 1, last=events + added), database)
        figures["one_percent"] = look("one_percent")
        size = sum(path.stat().st_size for path in landing.rglob("*.parquet"))
    backfill = figures["backfill"]
    return {
        "events": events,
        **figures,
        "rows_per_cpu_second": round(backfill["rows"] / backfill["cpu"]),
        "bytes_per_row": round(size / (events + added), 1),
    }


def _cpu_of(server: PostgresServer) -> float:
    """CPU seconds of the server and of its sessions that have ended."""
    ((pid,),) = server.rows("select pg_backend_pid()", "postgres")
    parent = _stat(int(str(pid)))[1]
    ticks = sum(_stat(int(parent))[11:15])
    return ticks / os.sysconf("SC_CLK_TCK")


def _stat(pid: int) -> list[int]:
    """The numbers of /proc/<pid>/stat after the state."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:  # the session of the question itself has ended
        return [0] * 20
    return [0, *(int(value) for value in text.rpartition(")")[2].split()[1:])]


def main() -> None:
    events = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    with tempfile.TemporaryDirectory() as directory, postgres_server(Path(directory) / "data") as server:
        keep(
            "table_feed",
            {"load_average": load_average(), "runs": [measure(server, size) for size in (events // 10, events)]},
        )


if __name__ == "__main__":
    main()
