"""Numbers about tables and partitions, mostly for the metadata that the UI shows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date
from typing import Any

from stitch_pipeline.planning.days import DayRange
from stitch_pipeline.planning.sql_text import literal, literals
from stitch_pipeline.warehouse.port import Dialect, Warehouse

STITCHED_RULES = ("own", "link before", "link after")
"""The values of ``stitched_by`` on rows that are credited to a user."""
IS_STITCHED = f"stitched_by in ({literals(STITCHED_RULES)})"
_STITCH_RATE = f"round(avg(case when {IS_STITCHED} then 1.0 else 0.0 end), 4)"
_ON_SHARED_DEVICES = "count(*) filter (where stitched_by = 'shared device')"


def _count_distinct(dialect: Dialect, column: str, condition: str = "true") -> str:
    # By hash, because counting the ids themselves takes twice as long.
    id_hash = dialect.hash_of("project_id", column)
    return f"count(distinct {id_hash}) filter (where {column} is not null and {condition})"


def _facts_of(dialect: Dialect) -> dict[str, tuple[str, dict[str, str]]]:
    """By table: its day column, and SQL for the metadata of a day, the most important first.

    The UI plots numbers in the order of their names and not in this one. The names in ``stitched_sessions`` are such
    that its first four plots are rows changed, stitch rate, and visitors after and before.
    """
    return {
        "raw_events": (
            "event_date",
            {
                "rows": "count(*)",
                "devices": _count_distinct(dialect, "anonymous_id"),
                "blocked_ids": "count(blocked_anonymous_id) + count(blocked_user_id) + count(blocked_previous_id)",
            },
        ),
        "quarantined_events": (
            "quarantine_date",
            {
                "rows": "count(*)",
                "files": "count(distinct landing_file)",
                "before_start_date": "count(*) filter (where problem = 'before_start_date')",
                "in_the_future": "count(*) filter (where problem = 'in_the_future')",
            },
        ),
        "identity_map": ("event_date", {"rows": "count(*)", "devices": _count_distinct(dialect, "anonymous_id")}),
        "identifier_links": ("event_date", {"rows": "count(*)"}),
        "sessions": (
            "session_date",
            {"rows": "count(*)", "events": "cast(coalesce(sum(event_count), 0) as bigint)"},
        ),
        "stitched_sessions": (
            "session_date",
            {
                "stitch_rate": _STITCH_RATE,
                "visitors_before": _count_distinct(dialect, "anonymous_id"),
                "visitors_after": _count_distinct(dialect, "stitched_user_id"),
                "visits": "count(*)",
                "visitors_identified": _count_distinct(dialect, "stitched_user_id", IS_STITCHED),
                "withheld_on_shared_devices": _ON_SHARED_DEVICES,
            },
        ),
        "page_views": (
            "event_date",
            {"stitch_rate": _STITCH_RATE, "rows": "count(*)", "withheld_on_shared_devices": _ON_SHARED_DEVICES},
        ),
        "visitor_stats": (
            "stat_date",
            {
                "visitors_before": "cast(coalesce(sum(visitors_unstitched), 0) as bigint)",
                "visitors_after": "cast(coalesce(sum(visitors), 0) as bigint)",
                "rows": "count(*)",
            },
        ),
    }


_FIRST = ("stitch_rate", "visitors_before", "visitors_after")


def facts_per_day(warehouse: Warehouse, table: str, days: Iterable[date]) -> dict[date, dict[str, Any]]:
    """The table's numbers for each of the days; for a day without a row only that it has none.

    ``visits`` are the rows of ``stitched_sessions``, and ``rows`` those of the others. Empty for a table without days.
    """
    described = _facts_of(warehouse.dialect).get(table)
    if described is None:
        return {}
    day, facts = described
    days = sorted(days)
    listed = ", ".join(f"({literal(one.isoformat())})" for one in days)
    found = warehouse.rows(
        f"select {', '.join([day, *facts.values()])} from {table} "
        f"where {day} between $first and $last "
        f"and {day} in (select cast(listed.day as date) from (values {listed}) as listed (day)) "
        f"group by {day}",
        first=days[0],
        last=days[-1],
    )
    by_day = {row[0]: dict(zip(facts, row[1:], strict=True)) for row in found}
    (row_count,) = (name for name, sql in facts.items() if sql == "count(*)")
    facts_by_day: dict[date, dict[str, Any]] = {day: by_day.get(day, {row_count: 0}) for day in days}
    if table == "identity_map":
        for event_date, events in _events_that_do_not_link(warehouse, DayRange(days[0], days[-1])).items():
            if event_date in facts_by_day:
                facts_by_day[event_date]["events_that_do_not_link"] = events
    return facts_by_day


def _events_that_do_not_link(warehouse: Warehouse, window: DayRange) -> dict[date, int]:
    """Per day, events with both ids that make no link, because in their project only identify events link."""
    return dict(
        warehouse.rows(
            """
            select event_date, count(*) from raw_events
            where event_date between $first and $last and event_type not in ('identify', 'alias', 'merge')
              and anonymous_id is not null and user_id is not null
              and project_id in (select project_id from project_settings where link_on = 'identify')
            group by event_date
            """,
            first=window.first,
            last=window.last,
        )
    )


def changed_rows(warehouse: Warehouse, models: Iterable[str]) -> dict[str, dict[date | None, int]]:
    """Rows that the last run of each model wrote or deleted, per day; under None for a table without days."""
    changed: dict[str, dict[date | None, int]] = {model: {} for model in models}
    for model, day, count in warehouse.rows("select model, day, rows_changed from changed_rows"):
        if model in changed:
            changed[model][day] = count
    return changed


def events_in_window(warehouse: Warehouse, window: DayRange) -> int:
    """The number of events on the days of the window."""
    ((count,),) = warehouse.rows(
        "select count(*) from raw_events where event_date between $first and $last",
        first=window.first,
        last=window.last,
    )
    return int(count)


def numbers_of_partitions(
    warehouse: Warehouse, window: DayRange, changed: Mapping[str, Mapping[date | None, int]]
) -> dict[str, dict[date, dict[str, Any]]]:
    """By table and day what the UI shows of a partition: stitch rate, visitors, rows changed, then the rest.

    ``changed`` are the rows that the run wrote or deleted, as ``changed_rows`` returns them. The days are those of the
    window and other days with changed rows. A table without days has its numbers on the window's last day only.
    """
    numbers: dict[str, dict[date, dict[str, Any]]] = {}
    for table, rows_changed in changed.items():
        per_day = facts_per_day(warehouse, table, {*window, *(day for day in rows_changed if day is not None)})
        for day, facts in per_day.items():
            first = {name: facts.pop(name) for name in _FIRST if name in facts}
            per_day[day] = {**first, "rows_changed": rows_changed.get(day, 0), **facts}
        if not per_day:
            ((rows,),) = warehouse.rows(f"select count(*) from {table}")
            per_day[window.last] = {"rows": rows, "rows_changed": sum(rows_changed.values())}
        numbers[table] = per_day
    return numbers
