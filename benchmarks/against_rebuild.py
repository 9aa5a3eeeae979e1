"""Compared with what a team would write instead: CPU seconds, and rows that are wrong, on the same files.

``python benchmarks/against_rebuild.py [EVENTS] [--rounds 3] [--memory-limit 3GB]``: EVENTS (by default a million) over
30 days. The competitors, each step in a process of its own, start-up included:

- `ours`: ``stitch settle``. Page views of earlier days wait for their schedule;
- `ours_with_page_views`: ``stitch settle --view-stitching``, which brings earlier page views up to date as well, as
  all of the following do;
- `naive_rebuild`: ``dbt run`` over six models that are built from all files every time (``benchmarks/naive``);
- `naive_incremental`: ``dbt run`` over the same models made incremental, with the usual post-hook;
- `naive_in_dagster`: the same by daily partitions in Dagster, one run over a range of days (``in_dagster.py`` there).

Steps, each for all competitors in turn before the next: `full` (30 days, without the file of one day), `one_more_day`,
`nothing_to_do`, and `ten_days_late` (the file that was left out). The order of the competitors rotates.

After each step the rows are compared with those of `naive_rebuild`, which depend only on the files. Its rule is the
policy `latest` without windows and own users, so `ours` has these settings.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import duckdb
from fresh_process import INSTANCE_CONFIG, Cost, Deployment, cost, large_scratch
from results import keep
from traffic import FIRST_DAY, Traffic

from stitch_pipeline.planning.sql_text import literal

DAYS = 30
LATE_DAY = DAYS - 10
"""The number of the day that is left out at first, and comes after day number ``DAYS``."""
NAIVE_PROJECT = Path(__file__).resolve().parent / "naive"
REFERENCE = "naive_rebuild"
RULES = {
    "STITCH_POLICY": "latest",
    "STITCH_KEEP_OWN_USER": "false",
    "STITCH_LOOKBACK_DAYS": "unlimited",
    "STITCH_CARRY_FORWARD_DAYS": "unlimited",
    "STITCH_MAX_USERS_PER_DEVICE": "1000000",
    # The others publish nothing; `publishing.py` has what that costs.
    "STITCH_PUBLISHED_DIR": "off",
}
Run = Callable[[], Cost]
Competitor = tuple[Run, Path, str]
"""What runs it, its database, and the schema of its tables."""


def measure(events: int, memory_limit: str, round_number: int, directory: Path) -> dict[str, Any]:
    """The costs and wrong rows of every step, by step and competitor, from empty databases."""
    traffic = Traffic(events, days=DAYS)
    feed = directory / "landing" / "snowplow"
    competitors = {
        "ours": _ours(directory / "ours", feed, memory_limit),
        "ours_with_page_views": _ours(directory / "ours_with_page_views", feed, memory_limit, "--view-stitching"),
        "naive_rebuild": _naive(directory / "rebuild", feed, memory_limit, "rebuild"),
        "naive_incremental": _naive(directory / "incremental", feed, memory_limit, "new_files"),
        "naive_in_dagster": _naive(directory / "in_dagster", feed, memory_limit, "days"),
    }
    with duckdb.connect() as con:
        for number in range(DAYS):
            if number != LATE_DAY:
                traffic.write_day(con, number, feed)

    measured: dict[str, Any] = {}
    files_of_steps: dict[str, Sequence[int]] = {
        "full": (),
        "one_more_day": (DAYS,),
        "nothing_to_do": (),
        "ten_days_late": (LATE_DAY,),
    }
    for step_number, (step, numbers) in enumerate(files_of_steps.items()):
        with duckdb.connect() as con:
            for number in numbers:
                traffic.write_day(con, number, feed)
        costs = {}
        for name in _rotated(list(competitors), round_number + step_number):
            run, _, _ = competitors[name]
            costs[name] = run()
        databases = {name: (database, schema) for name, (_, database, schema) in competitors.items()}
        # In a process of its own, because this one's memory would count for the next that it starts.
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            rows = pool.submit(_compared, databases).result()
        measured[step] = {
            "cpu_seconds": {name: costs[name].cpu_seconds for name in competitors},
            "memory_mb": {name: costs[name].memory_mb for name in competitors},
            **rows,
        }
    return measured


def _ours(directory: Path, feed: Path, memory_limit: str, *arguments: str) -> Competitor:
    settings = {"STITCH_START_DATE": str(FIRST_DAY), "STITCH_LANDING_DIR": str(feed.parent), **RULES}
    if memory_limit:
        settings["STITCH_MEMORY_LIMIT"] = memory_limit
    deployment = Deployment.create(directory, **settings)
    # Parses the dbt project and compiles, which happens once per installation.
    cost(["-c", "from stitch_pipeline.definitions import defs; defs()"], deployment.environment)
    return lambda: deployment.settle(*arguments), deployment.duckdb_path, "stitch"


def _naive(directory: Path, feed: Path, memory_limit: str, mode: str) -> Competitor:
    """The naive project in a copy, because dbt writes beside it."""
    home = directory / "dagster_home"
    home.mkdir(parents=True)
    shutil.copy(INSTANCE_CONFIG, home)
    project = directory / "project"
    shutil.copytree(NAIVE_PROJECT, project)
    database = directory / "warehouse.duckdb"
    environment = {
        "NAIVE_MODE": mode,
        "NAIVE_FILES": str(feed),
        "NAIVE_DUCKDB_PATH": str(database),
        "NAIVE_FIRST_DAY": str(FIRST_DAY),
        "DBT_PROJECT_DIR": str(project),
        "DBT_PROFILES_DIR": str(project),
        "DAGSTER_HOME": str(home),
        # dagster-dbt starts `dbt` from the path.
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    if memory_limit:
        environment["NAIVE_MEMORY_LIMIT"] = memory_limit
    cost(["-m", "dbt.cli.main", "--quiet", "parse"], environment)
    arguments = [str(project / "in_dagster.py")] if mode == "days" else ["-m", "dbt.cli.main", "--quiet", "run"]
    return lambda: cost(arguments, environment), database, "naive"


def _rotated(names: list[str], by: int) -> list[str]:
    return names[by % len(names) :] + names[: by % len(names)]


def _compared(databases: Mapping[str, tuple[Path, str]]) -> dict[str, Any]:
    """The number of rows of the reference, and of those that are wrong, by competitor."""
    with duckdb.connect() as con:
        for name, (database, _) in databases.items():
            con.execute(f"attach {literal(str(database))} as {name} (read_only)")
        reference = f"{REFERENCE}.{databases[REFERENCE][1]}"
        counted = {
            table: con.execute(f"select count(*) from {reference}.{table}").fetchall()[0][0]
            for table in ("raw_events", "stitched_sessions", "page_views", "users")
        }
        wrong = {
            name: _wrong_sessions(con, f"{name}.{schema}", reference)
            | _wrong_page_views(con, f"{name}.{schema}", reference)
            for name, (_, schema) in databases.items()
            if name != REFERENCE
        }
    return {"rows": counted, "wrong_rows": wrong}


def _wrong_sessions(con: duckdb.DuckDBPyConnection, schema: str, reference: str) -> dict[str, int]:
    """Sessions are the same if they are of the same device and start at the same time."""
    return _one_row(
        con,
        f"""
        select
          count(*) filter (stored.started_at is null) as sessions_missing,
          count(*) filter (expected.started_at is null) as sessions_too_many,
          count(*) filter (stored.ended_at <> expected.ended_at) as sessions_cut_elsewhere,
          count(*) filter (stored.stitched_user_id <> expected.stitched_user_id) as sessions_credited_wrongly
        from {reference}.stitched_sessions as expected
        full outer join {schema}.stitched_sessions as stored
          on expected.anonymous_id = stored.anonymous_id and expected.started_at = stored.started_at
        """,
    )


def _wrong_page_views(con: duckdb.DuckDBPyConnection, schema: str, reference: str) -> dict[str, int]:
    return _one_row(
        con,
        f"""
        select
          count(*) filter (stored.event_id is null or expected.event_id is null) as page_views_missing_or_too_many,
          count(*) filter (stored.stitched_user_id <> expected.stitched_user_id) as page_views_credited_wrongly
        from {reference}.page_views as expected
        full outer join {schema}.page_views as stored on expected.event_id = stored.event_id
        """,
    )


def _one_row(con: duckdb.DuckDBPyConnection, query: str) -> dict[str, int]:
    found = con.execute(query)
    names = [column[0] for column in found.description or ()]
    return dict(zip(names, found.fetchall()[0], strict=True))


def summary(rounds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Medians and ratios over the rounds. The rows are the same in each; RuntimeError if they are not."""
    steps = {}
    for step, first in rounds[0].items():
        if any(figures[step][kind] != first[kind] for figures in rounds for kind in ("rows", "wrong_rows")):
            raise RuntimeError(f"the rows after {step} differ between rounds")
        each = {name: [figures[step]["cpu_seconds"][name] for figures in rounds] for name in first["cpu_seconds"]}
        medians = {name: median(seconds) for name, seconds in each.items()}
        steps[step] = {
            "cpu_seconds": {name: round(seconds, 2) for name, seconds in medians.items()},
            "cpu_seconds_of_each_round": {name: [round(s, 2) for s in seconds] for name, seconds in each.items()},
            "ratios": {
                f"{ours}_to_{other}": round(medians[ours] / medians[other], 3)
                for ours in ("ours", "ours_with_page_views")
                for other in ("naive_rebuild", "naive_in_dagster")
            },
            "memory_mb": {name: max(figures[step]["memory_mb"][name] for figures in rounds) for name in medians},
            "rows": first["rows"],
            "wrong_rows": first["wrong_rows"],
        }
    return steps


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("events", type=float, nargs="?", default=1e6)
    parser.add_argument("--memory-limit", default="")
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    load_before = os.getloadavg()
    rounds: list[dict[str, Any]] = []
    for number in range(asked.rounds):
        with large_scratch() as scratch:
            rounds.append(measure(int(asked.events), asked.memory_limit, number, scratch))
        # After each round, because a round may take long, and the next may be interrupted.
        keep(
            f"against_rebuild_{asked.events / 1e6:g}m",
            {
                "events": int(asked.events),
                "days": DAYS,
                "rounds": len(rounds),
                "memory_limit": asked.memory_limit or None,
                "rules": RULES,
                "load_average": {
                    "before": [round(load, 2) for load in load_before],
                    "after": [round(load, 2) for load in os.getloadavg()],
                },
                "steps": summary(rounds),
            },
        )


if __name__ == "__main__":
    main()
