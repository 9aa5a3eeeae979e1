"""What re-stitching day after day adds to the tables of PostgreSQL, beside the rows themselves.

``python benchmarks/postgres_growth.py [--events-per-day N] [--days D]``: thirty days are built at once, then D days
arrive one by one, each with logins that change rows of the days before. One process settles them all. Autovacuum runs
as the server has it by default. The bytes of the tables and their indexes are noted every few days, and at the end
those of the same tables written anew (``vacuum full``).
"""

from __future__ import annotations

import argparse
import os
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
from fresh_process import Deployment, large_scratch
from results import keep, load_average
from traffic import Traffic

from stitch_pipeline.cli.command import definitions
from stitch_pipeline.demo.postgres_server import PostgresServer, postgres_server
from stitch_pipeline.orchestration.settle import settle
from stitch_pipeline.settings import Settings
from stitch_pipeline.warehouse.engine import engine_of

BEGINNING = date(2025, 10, 1)
FIRST_DAYS = 30
NOTES = 12
_DATABASE = "growth"
_BYTES = """
select relname, pg_total_relation_size(oid) from pg_class
where relkind = 'r' and relnamespace = 'stitch'::regnamespace and pg_total_relation_size(oid) > 100000
order by 2 desc
"""


def measure(events_per_day: int, days: int, directory: Path, server: PostgresServer) -> dict[str, Any]:
    """The bytes of each table by the number of days that were added, and after they were written anew."""
    traffic = Traffic(events_per_day * (FIRST_DAYS + days), days=FIRST_DAYS + days, first_day=BEGINNING)
    url = server.create_database(_DATABASE)
    deployment = Deployment.create(
        directory, STITCH_START_DATE=str(BEGINNING), STITCH_PUBLISHED_DIR="off", STITCH_WAREHOUSE=url
    )
    with duckdb.connect() as con:
        for number in range(FIRST_DAYS):
            traffic.write_day(con, number, deployment.feed)
    deployment.settle("--view-stitching")
    by_days = {0: _bytes(server)}
    rewritten = 0
    instance = deployment.instance()
    os.environ |= deployment.environment
    settings = Settings.load()
    defs = definitions(settings)
    for number in range(1, days + 1):
        with duckdb.connect() as con:
            traffic.write_day(con, FIRST_DAYS + number - 1, deployment.feed)
        settled = settle(settings, lambda: defs, instance, view_stitching=True)
        assert settled.is_settled, settled.gave_up
        rewritten += sum(
            run.rows_changed.get(table, 0) for run in settled.runs for table in ("stitched_sessions", "page_views")
        )
        if number % max(days // NOTES, 1) == 0:
            by_days[number] = _bytes(server)
    engine_of(Settings(warehouse=url)).rewrite()
    return {
        "bytes_by_days_added": by_days,
        "bytes_written_anew": _bytes(server),
        "rows_written_on_added_days": rewritten,
    }


def _bytes(server: PostgresServer) -> dict[str, int]:
    return {str(table): int(str(size)) for table, size in server.rows(_BYTES, _DATABASE)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--events-per-day", type=int, default=1000)
    parser.add_argument("--days", type=int, default=365)
    asked = parser.parse_args()
    before = load_average()
    with large_scratch() as scratch, postgres_server(scratch / "server") as server:
        figures = measure(asked.events_per_day, asked.days, scratch / "deployment", server)
        ((version,),) = server.rows("show server_version", "postgres")
    keep(
        "postgres_growth",
        {
            "events_per_day": asked.events_per_day,
            "days": asked.days,
            "postgresql": version,
            "load_average": {"before": before, "after": load_average()},
            **figures,
        },
    )


if __name__ == "__main__":
    main()
