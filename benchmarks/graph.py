"""Time and memory to resolve persons from many links.

    .venv/bin/python benchmarks/graph.py                  # 20 million edges; a few minutes, 3 GB of disk
    .venv/bin/python benchmarks/graph.py --edges 2000000 --cases mixed,hubs

Builds the model ``persons``, with its test and history, over a simulated identity map; then the links of a thousand
users change. Each case runs in a process of its own, with DuckDB limited to 7 GB and two threads:

mixed       mostly people with two devices of their own; households on one device; people with several ids; a few
            users with 100,000 devices, devices with 100,000 users, and chains of borrowed devices up to 100,000 long
tied        only clusters in which every device ties two users together, so that no id can be set aside
hubs        only devices with 100,000 users and users with 100,000 devices
unique      `mixed`, but a person may have one user only: every cluster and chain is cut
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

from fresh_process import cost
from results import keep

from stitch_pipeline.planning.sql_text import literal
from stitch_pipeline.settings import Policy, ProjectSettings
from stitch_pipeline.stitching.rules import follow
from stitch_pipeline.warehouse import dbt_project
from stitch_pipeline.warehouse.duckdb import DuckDBEngine
from stitch_pipeline.warehouse.port import Warehouse
from stitch_pipeline.warehouse.tables import create_tables

CASES = ("mixed", "tied", "hubs", "unique")
_MEMORY_LIMIT = "7GB"
_THREADS = 2


def edges_sql(case: str, edges: int) -> str:
    """A query for about ``edges`` (user, device) pairs."""
    # Sizes are per million, so that every case keeps its shape at any size.
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
    engine = DuckDBEngine(path, lock_wait_seconds=0, memory_limit=_MEMORY_LIMIT)
    with engine.open() as warehouse:
        warehouse.execute(f"set threads = {_THREADS}")
        warehouse.execute(f"set temp_directory = {literal(str(directory / 'spilled'))}")
        create_tables(warehouse)
        warehouse.execute(
            f"""
            insert into stitch.identity_map by name
            select
              'shop' as project_id, date '2026-03-01' as event_date, device as anonymous_id, user_id,
              timestamp '2026-03-01' + to_seconds(hash(user_id) % 86400) as first_seen_at
            from ({edges_sql(case, edges)}) as edges (user_id, device)
            """
        )
        follow(warehouse, {"shop": rules}, ())
        ((count,),) = warehouse.rows("select count(*) from stitch.identity_map")
        first = _resolve(engine, warehouse)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        ((ids, persons, nobodys),) = warehouse.rows(
            "select count(*), count(distinct person_id), count(*) filter (person_id is null) from stitch.persons"
        )
        again = _resolve(engine, warehouse, "order by hash(user_id) limit 1000")
    return {
        "edges": count,
        "ids": ids,
        "persons": persons,
        "ids_of_nobody": nobodys,
        **first,
        "peak_memory_mb": peak,
        "thousand_users_again": again,
    }


def _resolve(engine: DuckDBEngine, warehouse: Warehouse, those: str = "") -> dict[str, float]:
    warehouse.execute(
        "insert into stitch.pending_ids "
        f"select 'shop', 'user', user_id from (select distinct user_id from stitch.identity_map) {those}"
    )
    started, cpu = time.monotonic(), time.process_time()
    results = dbt_project.run_models(engine, models=["persons"], variables={}, on_event=lambda event: None)
    assert all(result.succeeded for result in results), results
    return {"seconds": round(time.monotonic() - started, 1), "cpu_seconds": round(time.process_time() - cpu, 1)}


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
            # A process for each case, because the peak memory of a process never falls.
            own = ["--alone", case, "--edges", str(given.edges), "--directory", directory]
            figures[case] = json.loads(cost([__file__, *own], {}).output.splitlines()[-1])
    keep("graph", {"memory_limit": _MEMORY_LIMIT, "cases": figures})


if __name__ == "__main__":
    main()
