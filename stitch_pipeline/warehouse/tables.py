"""The tables that Python fills, and the small ones by which it tells dbt what to do."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple
from datetime import UTC, datetime

import duckdb

from stitch_pipeline.landing.reading import BLOCKED_IDS
from stitch_pipeline.planning.sql_text import literals
from stitch_pipeline.settings import ProjectSettings
from stitch_pipeline.settings.decisions import Decision, DecisionKind, consequences
from stitch_pipeline.settings.rules import UNLIMITED_DAYS
from stitch_pipeline.warehouse.duckdb_old import transaction

RAW_EVENT_COLUMNS: dict[str, str] = {
    "source": "varchar not null",
    "event_id": "varchar not null",
    "project_id": "varchar not null",
    "occurred_at": "timestamp not null",
    "received_at": "timestamp",
    "event_date": "date not null",
    "event_type": "varchar not null",
    "event_name": "varchar",
    "platform": "varchar",
    "anonymous_id": "varchar",
    "user_id": "varchar",
    "source_session_id": "varchar",
    "page_url": "varchar",
    "page_path": "varchar",
    "page_title": "varchar",
    "referrer": "varchar",
    "utm_source": "varchar",
    "utm_medium": "varchar",
    "utm_campaign": "varchar",
    "traits": "varchar",
    "properties": "varchar",
    "landing_file": "varchar not null",
    "blocked_anonymous_id": "varchar",
    "blocked_user_id": "varchar",
}

_OVERRIDE_COLUMNS = {
    "project_id": "varchar not null",
    "decision": "varchar not null",
    "id": "varchar not null",
    "other_id": "varchar not null",
    "reason": "varchar not null",
}

_TABLES: dict[str, dict[str, str]] = {
    "raw_events": RAW_EVENT_COLUMNS,
    "duplicate_events": RAW_EVENT_COLUMNS,
    "quarantined_events": {
        "quarantine_date": "date not null",
        "landing_file": "varchar not null",
        "line": "bigint",
        "field": "varchar",
        "problem": "varchar",
        "occurred_at": "timestamp",
        "reason": "varchar not null",
        "remedy": "varchar",
        "raw_row": "varchar",
    },
    "landing_files": {
        "landing_file": "varchar not null",
        "version": "varchar not null",
        "days": "date[] not null",
        "row_count": "bigint not null",
        "problem": "varchar",
        "loaded_at": "timestamp not null",
    },
    # What the models are to do, per project; rewritten at the start of each run.
    "project_settings": {
        "project_id": "varchar not null",
        "is_stitched": "boolean not null",
        "sessions_are_stitched": "boolean not null",
        "policy": "varchar not null",
        "lookback_days": "integer not null",
        "carry_forward_days": "integer not null",
        "max_users_per_device": "integer not null",
        "links_on_identify_only": "boolean not null",
        # Whether `persons` are resolved: as set, whatever policy a single run follows.
        "resolves_persons": "boolean not null",
        "max_ids_per_person": "integer not null",
    },
    # Policy `graph`: kinds of which a person has one value only, in the order in which they cut.
    "unique_identifiers": {
        "project_id": "varchar not null",
        "cut": "integer not null",
        "id_kind": "varchar not null",
    },
    # Where further identifiers stand on an event, and values that are none.
    "identifier_fields": {
        "project_id": "varchar not null",
        "id_kind": "varchar not null",
        "place": "varchar not null",
        "json_path": "varchar not null",
        "preference": "integer not null",
        "is_trimmed": "boolean not null",
        "is_lower": "boolean not null",
        "is_digits": "boolean not null",
    },
    "blocked_identifiers": {"project_id": "varchar not null", "value": "varchar not null"},
    # Here and not by their models, because views and the look for stale rows read them before a first build.
    "identifier_links": {
        "project_id": "varchar",
        "event_date": "date",
        "id_kind": "varchar",
        "id": "varchar",
        "linked_kind": "varchar",
        "linked_id": "varchar",
        "first_seen_at": "timestamp",
        "last_seen_at": "timestamp",
        "event_count": "bigint",
        "first_event_id": "varchar",
    },
    "persons": {
        "project_id": "varchar",
        "id_kind": "varchar",
        "id": "varchar",
        "person_id": "varchar",
        "component_id": "varchar",
        "first_seen_at": "timestamp",
    },
    # The human decisions that are followed, and all that ever were, with since when and until when (UTC).
    "overrides": _OVERRIDE_COLUMNS,
    "override_history": {
        **_OVERRIDE_COLUMNS,
        "followed_since": "timestamp not null",
        "followed_until": "timestamp",
    },
    # What they amount to, as the models ask for it; `line` is the decision as it was written.
    "person_names": {
        "project_id": "varchar not null",
        "user_id": "varchar not null",
        "person_id": "varchar not null",
        "line": "varchar not null",
    },
    "wrong_links": {
        "project_id": "varchar not null",
        "anonymous_id": "varchar not null",
        "user_id": "varchar not null",
        "line": "varchar not null",
    },
    "shared_devices": {
        "project_id": "varchar not null",
        "anonymous_id": "varchar not null",
        "line": "varchar not null",
    },
    "never_same": {
        "project_id": "varchar not null",
        "person_id": "varchar not null",
        "other_person_id": "varchar not null",
        "line": "varchar not null",
    },
    # The rules of each project whose consequences for its rows have been looked for (see `stale.follow_rules`), and
    # by which id a person went: with since when and until when (UTC).
    "rules_history": {
        "project_id": "varchar not null",
        "policy": "varchar not null",
        "stitching": "boolean not null",
        "rules": "varchar not null",
        "followed_since": "timestamp not null",
        "followed_until": "timestamp",
    },
    "person_name_history": {
        "project_id": "varchar not null",
        "user_id": "varchar not null",
        "person_id": "varchar not null",
        "followed_since": "timestamp not null",
        "followed_until": "timestamp",
    },
    # A model fills it. It is made here because that model reads it, and never makes it anew.
    "user_mapping_history": {
        "project_id": "varchar",
        "anonymous_id": "varchar",
        "user_id": "varchar",
        "stitched_user_id": "varchar",
        "stitched_by": "varchar",
        "valid_from": "timestamp",
        "valid_until": "timestamp",
        "known_since": "timestamp",
        "known_until": "timestamp",
    },
    "conversion_events": {
        "project_id": "varchar not null",
        "event_name": "varchar not null",
        "funnel_position": "integer not null",
    },
    # Work found but not done: devices whose links changed, users whose sessions changed.
    "pending_devices": {
        "grain": "varchar not null",
        "project_id": "varchar not null",
        "anonymous_id": "varchar not null",
    },
    # Ids whose links changed, of projects that resolve persons: these may be other people's now.
    "pending_ids": {"project_id": "varchar not null", "id_kind": "varchar not null", "id": "varchar not null"},
    "pending_users": {"project_id": "varchar not null", "stitched_user_id": "varchar not null"},
    # What the models of the last run changed, per model and day.
    "changed_rows": {
        "model": "varchar not null",
        "day": "date",
        "rows_changed": "bigint not null",
    },
    # The version of the dbt project whose views are in place.
    "views_version": {"digest": "varchar not null"},
}

# Rewritten as a whole with the rules of every project.
TABLES_OF_RULES = (
    "project_settings",
    "conversion_events",
    "unique_identifiers",
    "identifier_fields",
    "blocked_identifiers",
)
TABLES_OF_DECISIONS = ("person_names", "wrong_links", "shared_devices", "never_same")


def create_tables(con: duckdb.DuckDBPyConnection) -> None:
    con.execute("create schema if not exists stitch")
    for table, columns in _TABLES.items():
        con.execute(f"create table if not exists stitch.{table} ({', '.join(f'{n} {t}' for n, t in columns.items())})")
    # A warehouse of version 0.1 has no codes; rows that are there keep none until their file is loaded again.
    con.execute("alter table stitch.quarantined_events add column if not exists problem varchar")
    con.execute("alter table stitch.quarantined_events add column if not exists occurred_at timestamp")


def write_project_settings(
    con: duckdb.DuckDBPyConnection, rules: Mapping[str, ProjectSettings], resolved: Collection[str] | None = None
) -> None:
    """Make the rules of each project readable to the models.

    ``resolved`` are the projects whose persons are resolved, by default those whose rules are ``graph``.
    """
    if resolved is None:
        resolved = [project for project, own in rules.items() if own.resolves_persons]
    with transaction(con):
        for table in TABLES_OF_RULES:
            con.execute(f"delete from stitch.{table}")
        insert_rows(
            con,
            "stitch.project_settings",
            (
                (
                    project,
                    own.stitching,
                    own.stitching and own.session_stitching,
                    own.policy.value,
                    UNLIMITED_DAYS if own.lookback_days is None else own.lookback_days,
                    UNLIMITED_DAYS if own.carry_forward_days is None else own.carry_forward_days,
                    own.max_users_per_device,
                    own.link_on == "identify",
                    project in resolved,
                    own.max_ids_per_person,
                )
                for project, own in rules.items()
            ),
        )
        insert_rows(
            con,
            "stitch.conversion_events",
            (
                (project, event, position)
                for project, own in rules.items()
                for position, event in enumerate(own.conversion_events, start=1)
            ),
        )
        insert_rows(
            con,
            "stitch.unique_identifiers",
            (
                (project, cut, kind)
                for project, own in rules.items()
                for cut, kind in enumerate(dict.fromkeys(own.unique_identifiers), start=1)
            ),
        )
        insert_rows(con, "stitch.identifier_fields", _identifier_fields(rules))
        insert_rows(
            con,
            "stitch.blocked_identifiers",
            (
                (project, value)
                for project, own in rules.items()
                if own.identifiers
                for value in dict.fromkeys((*BLOCKED_IDS, *(value.strip().lower() for value in own.blocked_ids)))
            ),
        )


def _identifier_fields(rules: Mapping[str, ProjectSettings]) -> Iterator[tuple[object, ...]]:
    for project, own in rules.items():
        for kind, found in own.identifiers.items():
            for preference, path in enumerate(found.paths, start=1):
                place, *names = path.split(".")
                json_path = "$" + "".join('."' + name.replace('"', '\\"') + '"' for name in names)
                steps = ("trim" in found.normalise, "lower" in found.normalise, "digits" in found.normalise)
                yield project, kind, place, json_path, preference, *steps


def followed_overrides(con: duckdb.DuckDBPyConnection) -> list[Decision]:
    """The overrides by which the models answer."""
    rows = con.execute("select project_id, decision, id, other_id, reason from stitch.overrides").fetchall()
    return [Decision(project, DecisionKind(decision), *others) for project, decision, *others in rows]


def write_overrides(con: duckdb.DuckDBPyConnection, overrides: Sequence[Decision], joined: Sequence[str] = ()) -> None:
    """Have the models answer by these overrides, and remember since when. The caller's transaction holds it.

    In the projects of ``joined``, persons' names follow from their links as well: the model ``persons`` remembers them.
    """
    con.execute("delete from stitch.overrides")
    insert_rows(con, "stitch.overrides", map(astuple, overrides))
    write_consequences(con, overrides)
    now = utc_now()
    _remember(con, "override_history", "select project_id, decision, id, other_id, reason from stitch.overrides", now)
    elsewhere = literals(joined) or "null"
    _remember(
        con,
        "person_name_history",
        "select project_id, user_id, person_id from stitch.person_names "
        f"where (project_id in ({elsewhere})) is not true "
        "union all select project_id, user_id, person_id from stitch.person_name_history "
        f"where followed_until is null and project_id in ({elsewhere})",
        now,
    )


def followed_rules(con: duckdb.DuckDBPyConnection) -> dict[str, str]:
    """The rules by which answers are given, by project."""
    return dict(
        con.execute("select project_id, rules from stitch.rules_history where followed_until is null").fetchall()
    )


def remember_rules(con: duckdb.DuckDBPyConnection, rules: Mapping[str, str]) -> None:
    """Note for these projects by which rules answers are given from now on. The caller's transaction holds it."""
    now = utc_now()
    con.execute(
        "update stitch.rules_history set followed_until = ? "
        "where followed_until is null and list_contains(?, project_id)",
        [now, list(rules)],
    )
    parsed = {project: json.loads(own) for project, own in rules.items()}
    insert_rows(
        con,
        "stitch.rules_history",
        ((project, own["policy"], own["stitching"], rules[project], now, None) for project, own in parsed.items()),
    )


def _remember(con: duckdb.DuckDBPyConnection, history: str, in_force: str, now: datetime) -> None:
    """End what the history has and is in force no more; begin what it has not."""
    columns = ", ".join(name for name in _TABLES[history] if not name.startswith("followed_"))
    known = f"select {columns} from stitch.{history} where followed_until is null"
    con.execute(f"create or replace temp table ended as {known} except {in_force}")
    con.execute(f"create or replace temp table begun as {in_force} except {known}")
    con.execute(
        f"update stitch.{history} set followed_until = ? "
        f"where followed_until is null and ({columns}) in (select ({columns}) from temp.ended)",
        [now],
    )
    con.execute(f"insert into stitch.{history} select *, ?, null from temp.begun", [now])


def utc_now() -> datetime:
    """As the warehouse keeps times: UTC, without a zone."""
    return datetime.now(UTC).replace(tzinfo=None)


def write_consequences(con: duckdb.DuckDBPyConnection, overrides: Sequence[Decision]) -> None:
    """Only what the models read."""
    follows = consequences(overrides)
    for table in TABLES_OF_DECISIONS:
        con.execute(f"delete from stitch.{table}")
    insert_rows(con, "stitch.person_names", ((*key, *named) for key, named in follows.person_names.items()))
    insert_rows(con, "stitch.wrong_links", ((*key, line) for key, line in follows.wrong_links.items()))
    insert_rows(con, "stitch.shared_devices", ((*key, line) for key, line in follows.shared_devices.items()))
    insert_rows(con, "stitch.never_same", ((*key, line) for key, line in follows.never_same.items()))


def projects(con: duckdb.DuckDBPyConnection) -> list[str]:
    """Every project that has an event."""
    rows = con.execute("select distinct project_id from stitch.raw_events order by project_id").fetchall()
    return [row[0] for row in rows]


def views_version(con: duckdb.DuckDBPyConnection) -> str | None:
    rows = con.execute("select digest from stitch.views_version").fetchall()
    return rows[0][0] if rows else None


def set_views_version(con: duckdb.DuckDBPyConnection, digest: str) -> None:
    con.execute("delete from stitch.views_version")
    con.execute("insert into stitch.views_version values (?)", [digest])


def insert_rows(con: duckdb.DuckDBPyConnection, table: str, rows: Iterable[tuple[object, ...]]) -> None:
    rows = list(rows)
    if rows:
        # One statement: one per row takes a second for a hundred projects.
        places = ", ".join(f"({', '.join('?' * len(row))})" for row in rows)
        con.execute(f"insert into {table} values {places}", [value for row in rows for value in row])
