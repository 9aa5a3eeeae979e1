"""Figures about partitions, for the metadata that the UI shows."""

from __future__ import annotations

from datetime import date
from typing import Any

import duckdb

from stitch_pipeline.planning.days import DayRange

IS_STITCHED = "stitched_by in ('own', 'link before', 'link after')"
_STITCH_RATE = f"round(avg(case when {IS_STITCHED} then 1.0 else 0.0 end), 4)"
_ON_SHARED_DEVICES = "count(*) filter (stitched_by = 'shared device')"


def _count_distinct(column: str, condition: str = "true") -> str:
    # By hash, because ids by themselves take twice as long to count.
    return f"count(distinct hash(project_id, {column})) filter ({column} is not null and {condition})"


# Per table: its day column and what to say about a day beside the number of rows.
_FACTS: dict[str, tuple[str, dict[str, str]]] = {
    "raw_events": (
        "event_date",
        {
            "devices": _count_distinct("anonymous_id"),
            "blocked_ids": "count(blocked_anonymous_id) + count(blocked_user_id)",
        },
    ),
    "quarantined_events": (
        "quarantine_date",
        {
            "files": "count(distinct landing_file)",
            "before_start_date": "count(*) filter (problem = 'before_start_date')",
            "in_the_future": "count(*) filter (problem = 'in_the_future')",
        },
    ),
    "identity_map": ("event_date", {"devices": _count_distinct("anonymous_id")}),
    "sessions": ("session_date", {"events": "coalesce(sum(event_count), 0)::bigint"}),
    "stitched_sessions": (
        "session_date",
        {
            "stitch_rate": _STITCH_RATE,
            "users": _count_distinct("stitched_user_id", IS_STITCHED),
            "on_shared_devices": _ON_SHARED_DEVICES,
        },
    ),
    "page_views": ("event_date", {"stitch_rate": _STITCH_RATE, "on_shared_devices": _ON_SHARED_DEVICES}),
    "visitor_stats": ("stat_date", {"visitors": "coalesce(sum(visitors), 0)::bigint"}),
}


def facts_per_day(con: duckdb.DuckDBPyConnection, table: str, window: DayRange) -> dict[date, dict[str, Any]]:
    """``rows`` and the table's own figures for every day of the window, also for days without a row."""
    if table not in _FACTS:
        return {}
    day, facts = _FACTS[table]
    names = ["rows", *facts]
    found = con.execute(
        f"select {day}, count(*), {', '.join(facts.values())} from stitch.{table} "
        f"where {day} between $first and $last group by {day}",
        {"first": window.first, "last": window.last},
    ).fetchall()
    by_day = {row[0]: dict(zip(names, row[1:], strict=True)) for row in found}
    facts_by_day: dict[date, dict[str, Any]] = {day: by_day.get(day, {"rows": 0}) for day in window}
    if table == "identity_map":
        for event_date, events in _events_that_do_not_link(con, window).items():
            facts_by_day[event_date]["events_that_do_not_link"] = events
    return facts_by_day


def _events_that_do_not_link(con: duckdb.DuckDBPyConnection, window: DayRange) -> dict[date, int]:
    """Per day, events with both ids that make no link because only identify events do in their project."""
    return dict(
        con.execute(
            """
            select event_date, count(*) from stitch.raw_events
            where event_date between $first and $last and event_type <> 'identify'
              and anonymous_id is not null and user_id is not null
              and project_id in (select project_id from stitch.project_settings where links_on_identify_only)
            group by event_date
            """,
            {"first": window.first, "last": window.last},
        ).fetchall()
    )


def changed_rows(con: duckdb.DuckDBPyConnection, model: str) -> dict[date | None, int]:
    """Rows that the last run of the model wrote or took out, per day."""
    return dict(con.execute("select day, rows_changed from stitch.changed_rows where model = ?", [model]).fetchall())


def events_in_window(con: duckdb.DuckDBPyConnection, window: DayRange) -> int:
    found = con.execute(
        "select count(*) from stitch.raw_events where event_date between $first and $last",
        {"first": window.first, "last": window.last},
    ).fetchall()
    return int(found[0][0])


def row_count(con: duckdb.DuckDBPyConnection, table: str) -> int:
    return int(con.execute(f"select count(*) from stitch.{table}").fetchall()[0][0])
