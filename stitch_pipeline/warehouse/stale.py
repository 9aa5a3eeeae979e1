"""Which partitions hold a wrong answer: the questions that re-stitching asks of the warehouse."""

from __future__ import annotations

from datetime import date
from typing import Literal

import duckdb

from stitch_pipeline.planning.days import DayRange

Grain = Literal["sessions", "page_views"]
_VIEWS: dict[Grain, tuple[str, str]] = {
    "sessions": ("stale_sessions", "session_date"),
    "page_views": ("stale_page_views", "event_date"),
}


def stale_days(con: duckdb.DuckDBPyConnection, grain: Grain, just_built: DayRange | None = None) -> set[date]:
    """Days on which a row of a pending device is credited wrongly, and the end of what is not pending any more.

    Days within ``just_built`` were computed with the present links and are not looked at again. Devices
    without a wrong row are taken off the list of pending ones.
    """
    view, day = _VIEWS[grain]
    if not _exists(con, view):
        return set()
    outside = f"where not {day} between $first and $last" if just_built else ""
    window = {"first": just_built.first, "last": just_built.last} if just_built else {}
    con.begin()
    try:
        con.execute(
            f"create or replace temp table still_stale as "
            f"select distinct project_id, anonymous_id, {day} as day from stitch.{view} {outside}",
            window,
        )
        con.execute(
            "delete from stitch.pending_devices where grain = $grain and (project_id, anonymous_id) not in "
            "(select project_id, anonymous_id from temp.still_stale)",
            {"grain": grain},
        )
        days = {row[0] for row in con.execute("select distinct day from temp.still_stale").fetchall()}
        con.commit()
    except BaseException:
        con.rollback()
        raise
    return days


def suspect_every_device(con: duckdb.DuckDBPyConnection, grain: Grain) -> None:
    """Make every device pending, so that the next ``stale_days`` looks at everything."""
    con.execute(
        "insert into stitch.pending_devices "
        "select $grain, project_id, anonymous_id from stitch.sessions "
        "union select $grain, project_id, anonymous_id from stitch.stitched_sessions "
        "except select grain, project_id, anonymous_id from stitch.pending_devices",
        {"grain": grain},
    )


def forget_pending(con: duckdb.DuckDBPyConnection, grain: Grain) -> None:
    con.execute("delete from stitch.pending_devices where grain = ?", [grain])


def tables_exist(con: duckdb.DuckDBPyConnection, tables: list[str]) -> bool:
    return all(_exists(con, table) for table in tables)


def _exists(con: duckdb.DuckDBPyConnection, relation: str) -> bool:
    found = con.execute(
        "select count(*) from information_schema.tables where table_schema = 'stitch' and table_name = ?", [relation]
    ).fetchall()
    return bool(found[0][0])
