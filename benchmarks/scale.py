"""Full build, one more day, late logins and page views at one size, each compared with the full build or the floor.

``python benchmarks/scale.py EVENTS [--memory-limit 3GB] [--login-percent 30] [--rounds 3]``: by default 15 % of the
devices log in. With several rounds, each from an empty warehouse, the result is the median of every figure, with the
CPU seconds of each round. Every step is a process of its own, start-up included. Nothing is published, which
``publishing.py`` measures. The runs report the rows written; the rows changed are counted here, by comparing the tables
before and after.

Lower bounds are measured too: `nothing_to_do` and `start_up`; `one_login`, a re-stitch of a session or two; and
`day_alone`, the day that `one_more_day` adds, in a warehouse that holds nothing else. Sizes are measured in different
hours, so they are compared by `yardstick`: the floor of three million events, just before and just after the full
build. `growth` is the cost of a million events in yardsticks, without start-up.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import datetime, time
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean, median, median_low
from typing import Any

import duckdb
from floor import floor_cost
from fresh_process import Cost, Deployment, cost, large_scratch
from results import keep
from traffic import FIRST_DAY, Traffic

from stitch_pipeline.planning.sql_text import literal

LATE_LOGINS = 1_000
LATE_LOGIN_DAYS = 30
YARDSTICK_EVENTS = 3_000_000
TABLES = ("stitched_sessions", "users", "page_views")


def measure(events: int, memory_limit: str, login_percent: int, directory: Path) -> dict[str, Any]:
    traffic = Traffic(events, login_percent=login_percent)
    settings = {"STITCH_START_DATE": str(FIRST_DAY), "STITCH_PUBLISHED_DIR": "off"}
    if memory_limit:
        settings["STITCH_MEMORY_LIMIT"] = memory_limit
    deployment = Deployment.create(directory, **settings)
    traffic.write(deployment.feed)
    floor = floor_cost(deployment.feed, memory_limit)
    yardstick_feed = directory.with_name("yardstick") / "feed"
    Traffic(YARDSTICK_EVENTS).write(yardstick_feed)

    yardsticks = [floor_cost(yardstick_feed).cpu_seconds]
    full = deployment.settle()
    yardsticks.append(floor_cost(yardstick_feed).cpu_seconds)
    counted = _rows(deployment)
    alone = Deployment.create(
        directory.with_name("alone"), **settings | {"STITCH_START_DATE": str(traffic.day(traffic.days))}
    )
    with duckdb.connect() as con:
        for feed in (deployment.feed, alone.feed):
            traffic.write_day(con, traffic.days, feed)
    one_day = _step(deployment, deployment.settle)
    write_late_logins(deployment, traffic, logins=LATE_LOGINS, days_each=LATE_LOGIN_DAYS)
    late_logins = _step(deployment, deployment.settle)
    page_views = _step(deployment, lambda: deployment.settle("--view-stitching"))
    nothing = deployment.settle()
    write_late_logins(deployment, traffic, logins=1, days_each=1)
    one_login = deployment.settle()
    day_alone = alone.settle()
    start_up = cost(["-c", "from stitch_pipeline.definitions import defs; defs()"], deployment.environment)

    beyond = {
        name: step["cpu_seconds"] - nothing.cpu_seconds
        for name, step in (("one_day", one_day), ("late_logins", late_logins), ("page_views", page_views))
    }
    build = full.cpu_seconds - nothing.cpu_seconds
    return {
        "events": counted["raw_events"],
        "memory_limit": memory_limit or None,
        "login_percent": login_percent,
        "rows": counted,
        "floor": floor.figures(),
        "full_build": full.figures(),
        "one_more_day": one_day,
        "late_logins": late_logins,
        "late_page_views": page_views,
        "nothing_to_do": nothing.figures(),
        "one_login": one_login.figures(),
        "day_alone": day_alone.figures(),
        "start_up": start_up.figures(),
        "yardstick_cpu_seconds": [round(seconds, 2) for seconds in yardsticks],
        "ratios": {
            "full_build_to_floor_cpu": round(full.cpu_seconds / floor.cpu_seconds, 3),
            "full_build_to_floor_seconds": round(full.seconds / floor.seconds, 3),
            "full_build_to_floor_without_start_up": round(build / floor.cpu_seconds, 3),
            "one_more_day_to_full_build": round(one_day["cpu_seconds"] / full.cpu_seconds, 4),
            "one_more_day_to_full_build_without_start_up": round(beyond["one_day"] / build, 4),
            "late_logins_to_full_build": round(late_logins["cpu_seconds"] / full.cpu_seconds, 4),
            "late_logins_to_full_build_without_start_up": round(beyond["late_logins"] / build, 4),
            "late_page_views_to_full_build": round(page_views["cpu_seconds"] / full.cpu_seconds, 4),
            "late_page_views_to_full_build_without_start_up": round(beyond["page_views"] / build, 4),
        },
        "growth": round(build / fmean(yardsticks) / counted["raw_events"] * 1e6, 3),
        "nothing_to_do_beyond_start_up_cpu_seconds": round(nothing.cpu_seconds - start_up.cpu_seconds, 2),
    }


def write_late_logins(deployment: Deployment, traffic: Traffic, *, logins: int, days_each: int) -> None:
    """Write a file with logins of devices that were seen in the last days without a login.

    Each device was seen on at most ``days_each`` days. The logins are two days after the last day, because a build of a
    day also builds the day before it, and its traffic must not be measured.
    """
    day = traffic.day(traffic.days + 2)
    with duckdb.connect(str(deployment.duckdb_path), read_only=True) as con:
        con.execute(
            f"""
            copy (
              with devices as (
                select anonymous_id from stitch.sessions
                where session_date > $day - {LATE_LOGIN_DAYS}
                  and anonymous_id not in (select anonymous_id from stitch.identity_map)
                group by anonymous_id having count(distinct session_date) <= {days_each}
                order by hash(anonymous_id) limit {logins}
              )
              select
                'shop' as app_id, 'web' as platform, $noon as collector_tstamp, $noon as derived_tstamp,
                'struct' as event, 'late-' || anonymous_id as event_id, 'late-' || anonymous_id as user_id,
                anonymous_id as domain_userid
              from devices
            ) to {literal(str(deployment.feed / f"late_{logins}.parquet"))} (format parquet)
            """,
            {"day": day, "noon": datetime.combine(day, time(12))},
        )


def _step(deployment: Deployment, run: Callable[[], Cost]) -> dict[str, Any]:
    before = deployment.directory / "before.duckdb"
    _apart(_keep_tables, deployment, before)
    measured = run()
    written = {table: measured.rows_written(table) for table in TABLES}
    changed = _apart(_changed, deployment, before)
    before.unlink()
    return {**measured.figures(), "rows_written": written, "rows_changed": changed}


def _apart(compare: Callable[[Deployment, Path], Any], deployment: Deployment, before: Path) -> Any:
    """Call ``compare`` in a process of its own, because this one's memory would count for the next that it starts."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(compare, deployment, before).result()


def _keep_tables(deployment: Deployment, before: Path) -> None:
    with duckdb.connect(str(before)) as con:
        con.execute(f"attach {literal(str(deployment.duckdb_path))} as now (read_only)")
        for table in TABLES:
            con.execute(
                f"create table {table} as select {_key(table)}, hash(kept) as content from now.stitch.{table} as kept"
            )


def _changed(deployment: Deployment, before: Path) -> dict[str, int]:
    """The number of changed, deleted and new rows, by table."""
    with duckdb.connect(str(before)) as con:
        con.execute(f"attach {literal(str(deployment.duckdb_path))} as now (read_only)")
        return {
            table: con.execute(
                f"""
                select count(*) from {table} as old
                full outer join (select {_key(table)}, hash(kept) as content from now.stitch.{table} as kept) as new
                  on old.project_id = new.project_id and old.id = new.id
                where old.content is distinct from new.content
                """
            ).fetchall()[0][0]
            for table in TABLES
        }


def _key(table: str) -> str:
    key = {"stitched_sessions": "session_id", "users": "stitched_user_id", "page_views": "event_id"}[table]
    return f"project_id, {key} as id"


def _rows(deployment: Deployment) -> dict[str, int]:
    tables = ("raw_events", "identity_map", "sessions", *TABLES, "visitor_stats")
    with duckdb.connect(str(deployment.duckdb_path), read_only=True) as con:
        return {table: con.execute(f"select count(*) from stitch.{table}").fetchall()[0][0] for table in tables}


def _medians(rounds: Sequence[Any]) -> Any:
    """The median of each number of the rounds' results, which differ only in their numbers."""
    if isinstance(rounds[0], dict):
        return {name: _medians([figures[name] for figures in rounds]) for name in rounds[0]}
    if isinstance(rounds[0], list):
        return [_medians(column) for column in zip(*rounds, strict=True)]
    if isinstance(rounds[0], int):
        return median_low(rounds)
    return median(rounds) if isinstance(rounds[0], float) else rounds[0]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("events", type=float)
    parser.add_argument("--memory-limit", default="")
    parser.add_argument("--login-percent", type=int, default=Traffic.login_percent)
    parser.add_argument("--rounds", type=int, default=1)
    asked = parser.parse_args()
    rounds = []
    for _ in range(asked.rounds):
        with large_scratch() as scratch:
            directory = scratch / "deployment"
            rounds.append(measure(int(asked.events), asked.memory_limit, asked.login_percent, directory))
    millions = int(asked.events) // 1_000_000
    is_usual = asked.login_percent == Traffic.login_percent
    keep(
        f"scale_{millions}m" if is_usual else f"logins_{asked.login_percent}_of_{millions}m",
        {
            "rounds": asked.rounds,
            **_medians(rounds),
            "cpu_seconds_of_each_round": {
                step: [figures[step]["cpu_seconds"] for figures in rounds]
                for step, figure in rounds[0].items()
                if isinstance(figure, dict) and "cpu_seconds" in figure
            },
        },
    )


if __name__ == "__main__":
    main()
