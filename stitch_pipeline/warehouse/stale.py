"""Which partitions hold a wrong answer: the questions that re-stitching asks of the warehouse."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date
from typing import Literal

import duckdb

from stitch_pipeline.planning.days import DayRange
from stitch_pipeline.settings import Policy

Grain = Literal["sessions", "page_views"]
_VIEWS: dict[Grain, tuple[str, str]] = {
    "sessions": ("stale_sessions", "session_date"),
    "page_views": ("stale_page_views", "event_date"),
}
_LINKED_IDS = (("id_kind", "id"), ("linked_kind", "linked_id"))


def stale_rows(con: duckdb.DuckDBPyConnection, grain: Grain, just_built: DayRange | None = None) -> dict[date, int]:
    """How many rows of pending devices are credited wrongly, per day; and the end of what is not pending any more.

    Days within ``just_built`` were computed with the present links and are not looked at again. Devices
    without a wrong row are taken off the list of pending ones.
    """
    view, day = _VIEWS[grain]
    if not _exists(con, view):
        return {}
    outside = f"where not {day} between $first and $last" if just_built else ""
    window = {"first": just_built.first, "last": just_built.last} if just_built else {}
    con.begin()
    try:
        con.execute(
            f"create or replace temp table still_stale as "
            f"select project_id, anonymous_id, {day} as day, count(*) as row_count from stitch.{view} {outside} "
            f"group by all",
            window,
        )
        con.execute(
            "delete from stitch.pending_devices where grain = $grain and (project_id, anonymous_id) not in "
            "(select project_id, anonymous_id from temp.still_stale)",
            {"grain": grain},
        )
        found = con.execute("select day, sum(row_count)::bigint from temp.still_stale group by day").fetchall()
        con.commit()
    except BaseException:
        con.rollback()
        raise
    return dict(found)


def suspect_every_device(con: duckdb.DuckDBPyConnection) -> None:
    """Make every device pending, so that the next ``stale_rows`` looks at everything; and every id, before that."""
    _suspect(con, "true", [])
    _suspect_ids(con, "project_id in (select project_id from stitch.project_settings where resolves_persons)", [])


def has_pending_ids(con: duckdb.DuckDBPyConnection) -> bool:
    """Whether ``persons`` has to be resolved before anybody asks who a row belongs to."""
    return bool(con.execute("select 1 from stitch.pending_ids limit 1").fetchall())


def follow_rules(con: duckdb.DuckDBPyConnection, rules: Mapping[str, str]) -> None:
    """Make the devices of every project pending whose rules are not those that were followed last.

    That the rules are followed is remembered in the same transaction, so a run that is killed at any moment
    leaves either the old rules remembered or the devices on the list.
    """
    followed = dict(con.execute("select project_id, rules from stitch.followed_rules").fetchall())
    changed = [project for project, own in rules.items() if followed.get(project) != own]
    if not changed:
        return
    con.begin()
    try:
        _suspect(con, "list_contains(?, project_id)", [changed])
        # Projects that follow `graph` now, or did: who is whom may follow from the rules that changed.
        joined = [project for project in changed if _joins_ids(rules[project]) or _joins_ids(followed.get(project))]
        if joined:
            _suspect_ids(con, "list_contains(?, project_id)", [joined])
        con.execute("delete from stitch.followed_rules where list_contains(?, project_id)", [changed])
        con.executemany("insert into stitch.followed_rules values (?, ?)", [[name, rules[name]] for name in changed])
        con.commit()
    except BaseException:
        con.rollback()
        raise


def _suspect(con: duckdb.DuckDBPyConnection, condition: str, parameters: list[list[str]]) -> None:
    tables = [table for table in ("sessions", "stitched_sessions") if _exists(con, table)]
    for grain in _VIEWS:
        for table in tables:
            con.execute(
                f"insert into stitch.pending_devices "
                f"select distinct '{grain}', project_id, anonymous_id from stitch.{table} where {condition} "
                f"except select grain, project_id, anonymous_id from stitch.pending_devices",
                parameters,
            )

    if _exists(con, "page_views"):
        # Views without a device are pending under their user.
        con.execute(
            f"insert into stitch.pending_devices "
            f"select distinct 'page_views', project_id, user_id from stitch.page_views "
            f"where anonymous_id is null and user_id is not null and {condition} "
            f"except select grain, project_id, anonymous_id from stitch.pending_devices",
            parameters,
        )


def _joins_ids(rules: str | None) -> bool:
    return rules is not None and json.loads(rules)["policy"] == Policy.graph


def _suspect_ids(con: duckdb.DuckDBPyConnection, condition: str, parameters: list[list[str]]) -> None:
    queries = ["select project_id, id_kind, id from stitch.persons"]
    queries += [f"select project_id, {kind}, {column} from stitch.identifier_links" for kind, column in _LINKED_IDS]
    if _exists(con, "identity_map"):
        queries += [
            "select project_id, 'user', user_id from stitch.identity_map",
            "select project_id, 'device', anonymous_id from stitch.identity_map",
        ]
    for query in queries:
        con.execute(
            f"insert into stitch.pending_ids {query} where {condition} "
            f"except select project_id, id_kind, id from stitch.pending_ids",
            parameters,
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
