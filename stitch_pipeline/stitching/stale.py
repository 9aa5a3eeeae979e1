"""Which partitions hold a wrong answer: the questions that re-stitching asks of the warehouse."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date
from typing import Literal

import duckdb

from stitch_pipeline.planning.days import DayRange
from stitch_pipeline.settings import Policy
from stitch_pipeline.settings.decisions import Decision, concerned
from stitch_pipeline.warehouse import tables as schema
from stitch_pipeline.warehouse.duckdb_old import transaction

Grain = Literal["sessions", "page_views"]
_VIEWS: dict[Grain, tuple[str, str]] = {
    "sessions": ("stale_sessions", "session_date"),
    "page_views": ("stale_page_views", "event_date"),
}
_LINKED_IDS = (("id_kind", "id"), ("linked_kind", "linked_id"))

NO_DEVICE = ""
"""Among pending devices: the rows of a project that have none. No device is called so, a blank id being none."""


def stale_rows(con: duckdb.DuckDBPyConnection, grain: Grain, just_built: DayRange | None = None) -> dict[date, int]:
    """How many rows of pending devices are credited wrongly, per day; and the end of what is not pending any more.

    Days within ``just_built`` were computed with the present links and are not looked at again. Devices
    without a wrong row are taken off the list of pending ones.
    """
    view, day = _VIEWS[grain]
    if not _exists(con, view) or not _is_pending(con, grain):
        return {}
    with _just_built(con, just_built), transaction(con):
        con.execute(
            f"create or replace temp table still_stale as "
            f"select project_id, coalesce(anonymous_id, '{NO_DEVICE}') as anonymous_id, {day} as day, "
            f"count(*) as row_count from stitch.{view} group by all"
        )
        _keep_pending_what_is_still_stale(con, grain)
        found = con.execute("select day, sum(row_count)::bigint from temp.still_stale group by day").fetchall()
    return dict(found)


@contextmanager
def _just_built(con: duckdb.DuckDBPyConnection, days: DayRange | None) -> Iterator[None]:
    """Tell the views which days need no look, for the time of one query."""
    if days is None:
        yield
        return
    con.execute("set variable built_first_day = ?", [days.first])
    con.execute("set variable built_last_day = ?", [days.last])
    try:
        yield
    finally:
        con.execute("reset variable built_first_day")
        con.execute("reset variable built_last_day")


def stale_users(con: duckdb.DuckDBPyConnection) -> int:
    """How many rows of ``users`` are to be looked at although their sessions may be right."""
    # Mostly nobody is pending, and then the sessions need not be read.
    if not _exists(con, "stitched_sessions") or not _count(con, "from stitch.pending_users"):
        return 0
    return _count(
        con,
        "from stitch.pending_users where (project_id, stitched_user_id) in "
        "(select project_id, stitched_user_id from stitch.stitched_sessions)",
    )


def stale_mappings(con: duckdb.DuckDBPyConnection) -> int:
    """How many spans of the mapping are to begin or to end; devices without one are taken off the list."""
    if not _exists(con, "stale_user_mappings") or not _is_pending(con, "mapping"):
        return 0
    with transaction(con):
        con.execute("create or replace temp table still_stale as select * from stitch.stale_user_mappings")
        _keep_pending_what_is_still_stale(con, "mapping")
        return _count(con, "from temp.still_stale")


def last_session_day(con: duckdb.DuckDBPyConnection) -> list[date]:
    """A day whose re-stitch also brings up to date what has no day; none if there is no session."""
    if not _exists(con, "sessions"):
        return []
    ((day,),) = con.execute("select max(session_date) from stitch.sessions").fetchall()
    return [] if day is None else [day]


def suspect_every_device(con: duckdb.DuckDBPyConnection) -> None:
    """Make every device pending, so that the next ``stale_rows`` looks at everything; and every id, before that."""
    _suspect_devices_of(con, "true", [])
    _suspect_ids(
        con,
        "project_id in (select project_id from stitch.project_settings where resolves_persons "
        "union select project_id from stitch.persons)",
        [],
    )


def has_pending_ids(con: duckdb.DuckDBPyConnection) -> bool:
    """Whether ``persons`` has to be resolved before anybody asks who a row belongs to."""
    return bool(con.execute("select 1 from stitch.pending_ids limit 1").fetchall())


def follow_rules(con: duckdb.DuckDBPyConnection, rules: Mapping[str, str], overrides: Sequence[Decision] = ()) -> None:
    """Make the devices of every project pending whose rules are not those that were followed last, and the
    devices that other overrides than those that were followed last concern.

    That the rules are followed is remembered in the same transaction, so a run that is killed at any moment
    leaves either the old rules remembered or the devices on the list.
    """
    followed = schema.followed_rules(con)
    changed = [project for project, own in rules.items() if followed.get(project) != own]
    decided = schema.followed_overrides(con)
    if not changed and set(decided) == set(overrides):
        return
    with transaction(con):
        if changed:
            _suspect_devices_of(con, "list_contains(?, project_id)", [changed])
            # Projects that follow `graph` now, or did: who is whom may follow from the rules that changed.
            joined = [project for project in changed if _joins_ids(rules[project]) or _joins_ids(followed.get(project))]
            if joined:
                _suspect_ids(con, "list_contains(?, project_id)", [joined])
            schema.remember_rules(con, {name: rules[name] for name in changed})
        if set(decided) != set(overrides):
            joined = [project for project, own in rules.items() if _joins_ids(own)]
            _suspect_concerned(con, decided, overrides, joined)
            schema.write_overrides(con, overrides, joined)


def _suspect_devices_of(con: duckdb.DuckDBPyConnection, condition: str, parameters: list[list[str]]) -> None:
    for table in ("sessions", "stitched_sessions"):
        if _exists(con, table):
            _suspect(con, f"select project_id, anonymous_id from stitch.{table} where {condition}", parameters)
    if _exists(con, "page_views"):
        _suspect(
            con,
            f"select project_id, anonymous_id from stitch.page_views where anonymous_id is null and {condition}",
            parameters,
        )


def _suspect_concerned(
    con: duckdb.DuckDBPyConnection, before: Sequence[Decision], after: Sequence[Decision], joined: Sequence[str]
) -> None:
    who = concerned(before, after)
    con.execute("create or replace temp table concerned (kind varchar, project_id varchar, id varchar)")
    schema.insert_rows(
        con,
        "temp.concerned",
        (
            (kind, *key)
            for kind, keys in (("device", who.devices), ("user", who.users), ("person", who.people))
            for key in sorted(keys)
        ),
    )
    _suspect(con, "select project_id, id as anonymous_id from temp.concerned where kind = 'device'", [])
    for table in ("identity_map", "sessions", "page_views"):
        if _exists(con, table):
            _suspect(
                con,
                f"select project_id, anonymous_id from stitch.{table} where (project_id, user_id) in "
                "(select project_id, id from temp.concerned where kind = 'user')",
                [],
            )
    # Where ids are joined to persons (``joined``), a line may tie them or cut them.
    queries = ["select project_id, case kind when 'device' then 'device' else 'user' end, id from temp.concerned"]
    # How many users a device or identifier counts may be others now, and with it whether it ties anything together.
    users = "in (select project_id, id from temp.concerned where kind != 'device')"
    queries.append(
        "select project_id, id_kind, id from stitch.identifier_links "
        f"where linked_kind = 'user' and (project_id, linked_id) {users}"
    )
    if _exists(con, "identity_map"):
        queries.append(
            f"select project_id, 'device', anonymous_id from stitch.identity_map where (project_id, user_id) {users}"
        )
    _note_ids(con, queries, "list_contains(?, project_id)", [list(joined)])
    con.execute(
        "insert into stitch.pending_users select project_id, id from temp.concerned where kind = 'person' "
        "except select project_id, stitched_user_id from stitch.pending_users"
    )


def _suspect(con: duckdb.DuckDBPyConnection, devices: str, parameters: list[list[str]]) -> None:
    for grain in (*_VIEWS, "mapping"):
        con.execute(
            f"insert into stitch.pending_devices "
            f"select distinct '{grain}', project_id, coalesce(anonymous_id, '{NO_DEVICE}') from ({devices}) as found "
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
    _note_ids(con, queries, condition, parameters)


def _note_ids(con: duckdb.DuckDBPyConnection, queries: list[str], condition: str, parameters: list[list[str]]) -> None:
    for query in queries:
        con.execute(
            f"insert into stitch.pending_ids from ({query}) where {condition} "
            "except select project_id, id_kind, id from stitch.pending_ids",
            parameters,
        )


def forget_pending(con: duckdb.DuckDBPyConnection, grain: Grain) -> None:
    con.execute("delete from stitch.pending_devices where grain = ?", [grain])


def _is_pending(con: duckdb.DuckDBPyConnection, grain: str) -> bool:
    # Asked first, because planning the view takes longer than all the rest if nothing is.
    return bool(con.execute("select 1 from stitch.pending_devices where grain = ? limit 1", [grain]).fetchall())


def _keep_pending_what_is_still_stale(con: duckdb.DuckDBPyConnection, grain: str) -> None:
    con.execute(
        "delete from stitch.pending_devices where grain = ? "
        "and (project_id, anonymous_id) not in (select project_id, anonymous_id from temp.still_stale)",
        [grain],
    )


def _count(con: duckdb.DuckDBPyConnection, rows: str) -> int:
    return int(con.execute(f"select count(*) {rows}").fetchall()[0][0])


def _exists(con: duckdb.DuckDBPyConnection, relation: str) -> bool:
    found = con.execute(
        "select count(*) from information_schema.tables where table_schema = 'stitch' and table_name = ?", [relation]
    ).fetchall()
    return bool(found[0][0])
