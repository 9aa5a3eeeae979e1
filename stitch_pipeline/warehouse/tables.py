"""The tables that Python fills, and the small ones by which it tells dbt what to do."""

from __future__ import annotations

from typing import Any

from stitch_pipeline.settings.rules import StitchingRules, as_stored
from stitch_pipeline.warehouse.port import Warehouse

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


def _type_of(annotation: Any) -> str:
    if annotation is bool:
        return "boolean not null"
    return "varchar not null" if isinstance(annotation, type) and issubclass(annotation, str) else "integer not null"


COLUMNS_OF_RULES = {
    "project_id": "varchar not null",
    **{name: _type_of(type(as_stored(field.default))) for name, field in StitchingRules.model_fields.items()},
    # Whether `persons` are resolved: as set, whatever policy a single run follows.
    "resolves_persons": "boolean not null",
    # The rules on which answers depend, as text: another text is another answer.
    "crediting_rules": "varchar not null",
}

_TABLES: dict[str, dict[str, str]] = {
    "raw_events": RAW_EVENT_COLUMNS,
    "duplicate_events": RAW_EVENT_COLUMNS,
    "quarantined_events": {
        "quarantine_date": "date not null",
        "landing_file": "varchar not null",
        "line": "bigint",
        "field": "varchar",
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
    # The rules of each project, as configured and as followed.
    "configured_rules": COLUMNS_OF_RULES,
    "project_settings": COLUMNS_OF_RULES,
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
    "identity_map": {
        "project_id": "varchar",
        "event_date": "date",
        "anonymous_id": "varchar",
        "user_id": "varchar",
        "first_seen_at": "timestamp",
        "last_seen_at": "timestamp",
        "event_count": "bigint",
        "first_event_id": "varchar",
        "traits": "varchar",
    },
    "sessions": {
        "project_id": "varchar",
        "session_id": "varchar",
        "session_date": "date",
        "anonymous_id": "varchar",
        "user_id": "varchar",
        "started_at": "timestamp",
        "ended_at": "timestamp",
        "event_count": "bigint",
        "page_view_count": "bigint",
        "first_page_path": "varchar",
        "last_page_path": "varchar",
        "referrer": "varchar",
        "utm_source": "varchar",
        "utm_medium": "varchar",
        "utm_campaign": "varchar",
        "platform": "varchar",
        "source_session_id": "varchar",
    },
    "stitched_sessions": {
        "project_id": "varchar",
        "session_id": "varchar",
        "session_date": "date",
        "anonymous_id": "varchar",
        "user_id": "varchar",
        "started_at": "timestamp",
        "ended_at": "timestamp",
        "event_count": "bigint",
        "page_view_count": "bigint",
        "first_page_path": "varchar",
        "last_page_path": "varchar",
        "referrer": "varchar",
        "utm_source": "varchar",
        "utm_medium": "varchar",
        "utm_campaign": "varchar",
        "platform": "varchar",
        "source_session_id": "varchar",
        "stitched_user_id": "varchar",
        "stitched_by": "varchar",
        "linked_at": "timestamp",
        "link_event_id": "varchar",
    },
    "page_views": {
        "project_id": "varchar",
        "event_id": "varchar",
        "event_date": "date",
        "occurred_at": "timestamp",
        "anonymous_id": "varchar",
        "user_id": "varchar",
        "session_id": "varchar",
        "page_url": "varchar",
        "page_path": "varchar",
        "page_title": "varchar",
        "stitched_user_id": "varchar",
        "stitched_by": "varchar",
    },
    "users": {
        "project_id": "varchar",
        "stitched_user_id": "varchar",
        "is_identified": "boolean",
        "first_seen_at": "timestamp",
        "last_seen_at": "timestamp",
        "identified_at": "timestamp",
        "session_count": "bigint",
        "page_view_count": "bigint",
        "event_count": "bigint",
        "device_count": "bigint",
        "first_touch_source": "varchar",
        "first_touch_medium": "varchar",
        "first_touch_campaign": "varchar",
        "first_touch_referrer": "varchar",
        "traits": "varchar",
    },
    "visitor_stats": {
        "project_id": "varchar",
        "stat_date": "date",
        "page_views": "bigint",
        "visits": "bigint",
        "visitors": "bigint",
        "visitors_unstitched": "bigint",
        "bounces": "bigint",
        "total_time_seconds": "double",
    },
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
    # Decisions as they are written, since when and until when (UTC) each was followed, and what they amount to:
    # as configured and as followed. `line` is the decision as a person would quote it.
    "decision_lines": _DECISION_COLUMNS,
    "decision_history": {
        **_DECISION_COLUMNS,
        "followed_since": "timestamp not null",
        "followed_until": "timestamp",
    },
    "configured_decisions": _CONSEQUENCE_COLUMNS,
    "decisions": _CONSEQUENCE_COLUMNS,
    # The rules of each project and the canonical ids of its users, with since when and until when (UTC) each was
    # followed.
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
    # Stored rows that hold a wrong answer, by grain and day, as of the last look.
    "stale_partitions": {"grain": "varchar not null", "day": "date", "row_count": "bigint not null"},
    # The version of the dbt project whose views are in place.
    "views_version": {"digest": "varchar not null"},
}

# Rewritten as a whole with the rules of every project; `decisions` with those of overrides.csv.
TABLES_OF_RULES = (
    "project_settings",
    "conversion_events",
    "unique_identifiers",
    "identifier_fields",
    "blocked_identifiers",
)


def create_tables(warehouse: Warehouse) -> None:
    warehouse.execute("create schema if not exists stitch")
    for table, columns in _TABLES.items():
        described = ", ".join(f"{name} {column_type}" for name, column_type in columns.items())
        warehouse.execute(f"create table if not exists stitch.{table} ({described})")
