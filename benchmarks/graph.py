"""How long persons take to be resolved from many links, and how much memory.

    .venv/bin/python benchmarks/graph.py                  # 20 million edges; a few minutes, 3 GB of disk
    .venv/bin/python benchmarks/graph.py --edges 2000000 --cases mixed,hubs

The model ``persons`` is built, its test and history included, over an identity map that is made up here; then the links
of a thousand users change. Each case runs in a process of its own, with DuckDB held to 7 GB and two
threads:

mixed       mostly people with two devices of their own; households on one device; people with several ids; a few
            users with 100,000 devices, devices with 100,000 users, and chains of borrowed devices up to 100,000 long
tied        nobody but clusters in which every device ties two users together: nothing can be put aside
hubs        nothing but devices with 100,000 users and users with 100,000 devices
unique      `mixed`, and no person may have two users: every cluster and chain is cut
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import duckdb
from fresh_process import cost
from results import keep

from stitch_pipeline.planning.days import DayRange
from stitch_pipeline.planning.dbt_variables import dbt_variables
from stitch_pipeline.planning.sql_text import literal
from stitch_pipeline.settings import Policy, ProjectSettings, Settings
from stitch_pipeline.stitching.rules import configure
from stitch_pipeline.warehouse.dbt_project import run_models
from stitch_pipeline.warehouse.duckdb import DuckDBWarehouse
from stitch_pipeline.warehouse.engine import engine_of
from stitch_pipeline.warehouse.tables import create_tables

CASES = ("mixed", "tied", "hubs", "unique")
_MEMORY_LIMIT = "7GB"
_THREADS = 2


def edges_sql(case: str, edges: int) -> str:
    """About so many (user, device) pairs."""
    # Of each million, so that every case keeps its shape at any size.
    million = edges / 1_000_000
    size = min(100_000, edges // 10)
    hubs = max(1, edges // (2 * size) if case == "hubs" else round(million * 0.15))

    def some(share: float) -> int:
        return round(share * edges)

    hub_edges = f"""
        select 'hub' || hub, 'h' || hub || '-' || n from range({hubs}) h(hub), range({size}) r(n)
        union all
        select 'k' || n, 'kiosk' || hub from range({hubs}) h(hub), range({size}) r(n)
    """
    if case == "hubs":
        return hub_edges
    # Twelve edges of a path: user, device, user, …; the last of them is left out, so that a cluster ends there.
    clusters = """
        select 't' || (n // 2), 's' || ((n + 1) // 2) from range({count}) r(n) where n % 12 < 11
    """
    if case == "tied":
        return clusters.format(count=some(12 / 11))
    return f"""
        select 'u' || n, 'd' || n || '-' || device from range({some(0.3)}) r(n), range(2) s(device)
        union all
        select 'u' || (n * 4), 'shared' || (n // 2) from range({some(0.075)}) r(n)
        union all
        {clusters.format(count=some(0.2))}
        union all
        {hub_edges}
        union all
        select 'c' || chain || '-' || (n // 2), 'cd' || chain || '-' || ((n + 1) // 2)
        from range({max(1, round(million * 5))}) c(chain), range(2000) r(n)
        union all
        select 'long' || (n // 2), 'ld' || ((n + 1) // 2) from range({2 * size}) r(n)
    """


def measure(case: str, edges: int, directory: Path) -> dict[str, object]:
    path = directory / f"{case}.duckdb"
    rules = ProjectSettings(policy=Policy.graph, unique_identifiers=("user",) if case == "unique" else ())
    settings = Settings(duckdb_path=path, projects={"shop": rules})
    with duckdb.connect(str(path)) as con:
        con.execute(f"set memory_limit = '{_MEMORY_LIMIT}'; set threads = {_THREADS}")
        con.execute(f"set temp_directory = {literal(str(directory / 'spilled'))}")
        create_tables(DuckDBWarehouse(con))
        configure(DuckDBWarehouse(con), settings)
        # Before there are ids, because rules that are followed anew queue all of them.
        _build(settings, "project_settings", "decisions")
        con.execute(
            f"""
            insert into stitch.identity_map by name
            select
              'shop' as project_id, date '2026-03-01' as event_date, device as anonymous_id, user_id,
              timestamp '2026-03-01' + to_seconds(hash(user_id) % 86400) as first_seen_at
            from ({edges_sql(case, edges)}) as edges (user_id, device)
            """
        )
        ((count,),) = con.execute("select count(*) from stitch.identity_map").fetchall()
        first = _resolve(con, settings)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        ((ids, persons, nobodys),) = con.execute(
            "select count(*), count(distinct person_id), count(*) filter (person_id is null) from stitch.persons"
        ).fetchall()
        again = _resolve(con, settings, "order by hash(user_id) limit 1000")
    return {
        "edges": count,
        "ids": ids,
        "persons": persons,
        "ids_of_nobody": nobodys,
        **first,
        "peak_memory_mb": peak,
        "thousand_users_again": again,
    }


def _resolve(con: duckdb.DuckDBPyConnection, settings: Settings, those: str = "") -> dict[str, float]:
    con.execute(
        "insert into stitch.pending_ids "
        f"select 'shop', 'user', user_id from (select distinct user_id from stitch.identity_map) {those}"
    )
    started, cpu = time.monotonic(), time.process_time()
    _build(settings, "persons")
    return {"seconds": round(time.monotonic() - started, 1), "cpu_seconds": round(time.process_time() - cpu, 1)}


def _build(settings: Settings, *models: str) -> None:
    today = datetime.now(UTC)
    variables = dbt_variables(
        DayRange(today.date(), today.date()),
        known_at=today.replace(tzinfo=None),
        session_timeout_minutes=settings.session_timeout_minutes,
        view_stitching=True,
    )
    results = run_models(engine_of(settings), models=models, variables=variables, on_event=lambda event: None)
    assert all(result.succeeded for result in results), results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--edges", type=int, default=20_000_000)
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--directory", type=Path, help="where to work; by default a temporary directory")
    parser.add_argument("--alone", choices=CASES, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.alone:
        print(json.dumps(measure(given.alone, given.edges, given.directory)))
        return
    figures = {}
    for case in given.cases.split(","):
        with tempfile.TemporaryDirectory(dir=given.directory) as directory:
            # A process each, because a process never gives its peak of memory back.
            own = ["--alone", case, "--edges", str(given.edges), "--directory", directory]
            figures[case] = json.loads(cost([__file__, *own], {}).output.splitlines()[-1])
    keep("graph", {"memory_limit": _MEMORY_LIMIT, "cases": figures})


if __name__ == "__main__":
    main()
