"""The tables of the warehouse. All are created here; the internal control tables are also described here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from stitch_pipeline.settings.rules import StitchingRules, as_stored, is_window
from stitch_pipeline.warehouse import dbt_project
from stitch_pipeline.warehouse.migrations import migrate
from stitch_pipeline.warehouse.port import Warehouse, WarehouseError

_DECISION_COLUMNS = {
    "project_id": "varchar not null",
    "decision": "varchar not null",
    "id": "varchar not null",
    "other_id": "varchar not null",
    "reason": "varchar not null",
}

_CONSEQUENCE_COLUMNS = {
    "project_id": "varchar not null",
    "kind": "varchar not null",
    "id": "varchar not null",
    "other_id": "varchar not null",
    "line": "varchar not null",
}


def _columns_of_rule(name: str, default: Any) -> dict[str, str]:
    if is_window(name):
        return dict.fromkeys(as_stored(name, default), "integer")
    kind = "boolean" if isinstance(default, bool) else "integer" if isinstance(default, int) else "varchar"
    return {name: f"{kind} not null"}


COLUMNS_OF_RULES = {
    "project_id": "varchar not null",
    **{
        column: declared
        for name, field in StitchingRules.model_fields.items()
        for column, declared in _columns_of_rule(name, field.default).items()
    },
    # Whether `persons` are resolved. A run exception does not change it.
    "resolves_persons": "boolean not null",
    # Policy `graph`: who gets an id that is equally near to two persons.
    "contested_ids": "varchar not null",
    # The rules that decide answers, as text: another text may mean other answers.
    "crediting_rules": "varchar not null",
}

# Internal control tables, each described only here. The other tables are described in dbt's YAML.
_CONTROL_TABLES: dict[str, dict[str, str]] = {
    # The rules of each project, as configured and as followed.
    "configured_rules": COLUMNS_OF_RULES,
    "project_settings": COLUMNS_OF_RULES,
    # Policy `graph`: the kinds of ids with few values per person, in the order of their cuts.
    "unique_identifiers": {
        "project_id": "varchar not null",
        "cut": "integer not null",
        "id_kind": "varchar not null",
        "max_values": "integer not null",
    },
    # Policy `graph`: how many ids of another kind an id may be tied to.
    "id_limits": {
        "project_id": "varchar not null",
        "id_kind": "varchar not null",
        "other_kind": "varchar not null",
        "max_count": "integer not null",
    },
    # The places of further identifiers on an event, and the values that are not identifiers.
    "identifier_fields": {
        "project_id": "varchar not null",
        "id_kind": "varchar not null",
        "place": "varchar not null",
        "json_path": "varchar not null",
        "preference": "integer not null",
        "is_trimmed": "boolean not null",
        "is_lower": "boolean not null",
        "is_digits": "boolean not null",
        # Regular expressions; null for none.
        "valid_pattern": "varchar",
        "blocked_pattern": "varchar",
    },
    "blocked_identifiers": {"project_id": "varchar not null", "value": "varchar not null"},
    # Decisions: the lines as written, the interval (UTC) in which each was followed, and their consequences as
    # configured and as followed. `line` is the text of the decision.
    "decision_lines": _DECISION_COLUMNS,
    "decision_history": {
        **_DECISION_COLUMNS,
        "followed_since": "timestamp not null",
        "followed_until": "timestamp",
    },
    "configured_decisions": _CONSEQUENCE_COLUMNS,
    "decisions": _CONSEQUENCE_COLUMNS,
    # The rules of each project and the canonical ids of its users, each with the interval (UTC) in which it was
    # followed.
    "rules_history": {
        "project_id": "varchar not null",
        "policy": "varchar not null",
        "stitching": "boolean not null",
        "keep_own_user": "boolean not null",
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
    # What was forgotten: the lines of forgotten.csv for which every table was searched. Hashes, never an id.
    "forgotten_ids": {
        "project_id": "varchar not null",
        "kind": "varchar not null",
        "hash": "varchar not null",
        "mode": "varchar not null",
    },
    # The projects with hashed ids, and of which key: its fingerprint, from which the key cannot be found.
    "hash_keys": {"project_id": "varchar not null", "fingerprint": "varchar not null"},
    "conversion_events": {
        "project_id": "varchar not null",
        "event_name": "varchar not null",
        "funnel_position": "integer not null",
    },
    # The queues; their files in dbt_project/macros/pending say what is queued and who reads it.
    "pending_devices": {
        "grain": "varchar not null",
        "project_id": "varchar not null",
        "anonymous_id": "varchar not null",
        "linked_on": "date",
    },
    "pending_ids": {"project_id": "varchar not null", "id_kind": "varchar not null", "id": "varchar not null"},
    "pending_users": {"project_id": "varchar not null", "stitched_user_id": "varchar not null"},
    "pending_days": {"day": "date not null"},
    # What users did on a day in events without a device, for `users` and `visitor_stats`: a row per user and day. The
    # campaign and the referrer are those of the first of these events, the traits the last known.
    "activity_without_device": {
        "project_id": "varchar not null",
        "event_date": "date not null",
        "user_id": "varchar not null",
        "first_seen_at": "timestamp not null",
        "last_seen_at": "timestamp not null",
        "event_count": "bigint not null",
        "page_view_count": "bigint not null",
        "first_event_id": "varchar not null",
        "utm_source": "varchar",
        "utm_medium": "varchar",
        "utm_campaign": "varchar",
        "referrer": "varchar",
        "traits": "varchar",
    },
    # Rows that the last run of each model wrote or deleted, per day.
    "changed_rows": {
        "model": "varchar not null",
        "day": "date",
        "rows_changed": "bigint not null",
    },
    # The published copy (`stitching/publish.py`): days of tables whose file is older than their rows, null for a table
    # without days; and one row that says for which directory this queue holds.
    "unpublished": {"table_name": "varchar not null", "day": "date"},
    "published": {"token": "varchar not null", "directory": "varchar not null"},
    # Days with changed events of which not everything is rebuilt yet, and when each was marked (UTC).
    "changed_days": {"day": "date not null", "changed_at": "timestamp not null"},
    # The settings under which links and sessions were built: one row (`Settings.building_rules`).
    "built_rules": {"rules": "varchar not null"},
    # The number of stale rows by grain and day, as of the last look.
    "stale_partitions": {"grain": "varchar not null", "day": "date", "row_count": "bigint not null"},
    # The version of the dbt project that created the views.
    "views_version": {"digest": "varchar not null"},
}

# Their rows come from the settings alone: Python writes them in every run (project_settings in a trial; otherwise the
# model of this name).
TABLES_OF_RULES = (
    "project_settings",
    "conversion_events",
    "unique_identifiers",
    "id_limits",
    "identifier_fields",
    "blocked_identifiers",
)


class Column(NamedTuple):
    name: str
    data_type: str
    description: str
    is_required: bool
    tags: list[str]


class Table(NamedTuple):
    description: str
    columns: list[Column]
    tags: list[str]


def described_tables() -> dict[str, Table]:
    """The tables that dbt's YAML describes, by name: the loaded tables and the models that are tables."""
    parsed = dbt_project.manifest()
    models = [
        node
        for node in parsed["nodes"].values()
        if node["config"]["materialized"] == "in_place" and "internal" not in node["tags"]
    ]
    return {
        node["name"]: Table(node["description"], [_column(column) for column in node["columns"].values()], node["tags"])
        for node in (*parsed["sources"].values(), *models)
    }


def _column(described: Mapping[str, Any]) -> Column:
    is_required = any(constraint["type"] == "not_null" for constraint in described["constraints"])
    return Column(described["name"], described["data_type"], described["description"], is_required, described["tags"])


def create_tables(warehouse: Warehouse) -> None:
    """Migrate an older warehouse, create missing tables and add missing nullable columns, before any model runs.

    Raises WarehouseError if a newer version wrote the warehouse, or if the columns of a stored table differ from its
    description in any other way.
    """
    warehouse.create_schema()
    migrate(warehouse)
    stored: dict[str, list[str]] = {}
    for table, column in warehouse.rows(
        "select table_name, column_name from information_schema.columns "
        "where table_catalog = current_database() and table_schema = current_schema() "
        "order by table_name, ordinal_position"
    ):
        stored.setdefault(table, []).append(column)
    for table, columns in _all_tables().items():
        is_from_settings = table in (*TABLES_OF_RULES, "configured_rules")
        if is_from_settings and stored.get(table, list(columns)) != list(columns):
            # Nothing is lost: every run writes it from the settings.
            warehouse.execute(f"drop table {table}")
            del stored[table]
        if table not in stored:
            _create_table(warehouse, table, columns)
        elif set(stored[table]) != set(columns):
            _add_columns(warehouse, table, set(stored[table]), columns)


def index_rows(warehouse: Warehouse) -> None:
    """Create what finds few rows of a large table, where it is missing; at the end of a run."""
    warehouse.index_rows(_all_tables())


def _create_table(warehouse: Warehouse, table: str, columns: Mapping[str, str]) -> None:
    declared = ", ".join(f"{name} {warehouse.dialect.declared(definition)}" for name, definition in columns.items())
    with warehouse.transaction():
        warehouse.execute(f"create table {table} ({declared})")
        for statement in warehouse.dialect.indexes(table, columns):
            warehouse.execute(statement)


def _all_tables() -> dict[str, dict[str, str]]:
    """The columns of every table, each with its type and constraint."""
    described = {
        name: {column.name: column.data_type + " not null" * column.is_required for column in table.columns}
        for name, table in described_tables().items()
    }
    return {**described, **_CONTROL_TABLES}


def _add_columns(warehouse: Warehouse, table: str, stored: set[str], columns: Mapping[str, str]) -> None:
    """Add the nullable columns that a newer version of the project introduced.

    Raises WarehouseError if anything else differs.
    """
    missing = [name for name in columns if name not in stored]
    if stored - set(columns) or any(columns[name].endswith(" not null") for name in missing):
        raise WarehouseError(
            f"The table stitch.{table} was created by another version of this project (its columns differ: "
            f"{', '.join(sorted(stored ^ set(columns)))}): run `stitch rebuild`, which keeps the warehouse aside and "
            "builds every table from the landing zone."
        )
    for name in missing:
        warehouse.execute(f"alter table {table} add column {name} {warehouse.dialect.declared(columns[name])}")
