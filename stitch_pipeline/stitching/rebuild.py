"""Begin anew: keep the warehouse aside, and take over the histories that no file can bring back.

Everything else is built from the landing zone by the next ``settle``. Of a project whose ids are hashed from now on, or
with another key, no history is taken over: it has other ids.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from stitch_pipeline.planning.sql_text import literals
from stitch_pipeline.settings import Settings
from stitch_pipeline.warehouse.engine import engine_of
from stitch_pipeline.warehouse.port import Engine, Warehouse, WarehouseError
from stitch_pipeline.warehouse.tables import create_tables

HISTORIES = ("user_mapping_history", "decision_history", "rules_history", "person_name_history")


@dataclass(frozen=True)
class StartedAnew:
    """Where the former warehouse is kept, and by history the rows that were taken over, or why it begins anew."""

    kept_as: str
    rows_taken_over: Mapping[str, int]
    begins_anew: Mapping[str, str]


def start_anew(settings: Settings) -> StartedAnew:
    """Keep the warehouse aside and create one with the histories only. Call it with the lock of ``settle``.

    Raises WarehouseBusy if a process has the warehouse open, and WarehouseError if there is none.
    """
    engine = engine_of(settings)
    kept = engine.set_aside(f".set-aside-{datetime.now(UTC):%Y%m%dT%H%M%SZ}")
    # It only copies what is known elsewhere, and knows files as loaded that are not loaded any more.
    settings.index_path.unlink(missing_ok=True)
    rows: dict[str, int] = {}
    lost: dict[str, str] = {}
    with engine.open() as warehouse:
        create_tables(warehouse)
        try:
            others = _projects_with_other_ids(settings, kept)
        except Exception:  # as below; then no history of a project whose ids are hashed is taken over
            others = {*settings.hashing.keys, *settings.hashing.missing}
        for history in HISTORIES:
            try:
                rows[history] = _take_over(history, kept, warehouse, others)
            except Exception as error:  # whatever a damaged file brings up: the rest can be built all the same
                lost[history] = str(error).splitlines()[0]
    return StartedAnew(kept.place, rows, lost)


def _projects_with_other_ids(settings: Settings, kept: Engine) -> set[str]:
    """The projects whose ids are to be hashed with another key than they are in the former warehouse, or with none."""
    hashing = settings.hashing
    with kept.open(read_only=True) as stored:
        found = stored.rows(
            "select 1 from information_schema.tables where table_schema = current_schema() and table_name = 'hash_keys'"
        )
        before: dict[str, str] = dict(stored.rows("select project_id, fingerprint from hash_keys")) if found else {}
    now = {project: hashing.fingerprint(project) for project in hashing.keys}
    return {
        project
        for project in {*before, *now, *hashing.missing}
        if project not in before or (project not in hashing.missing and before[project] != now.get(project))
    }


def _take_over(history: str, kept: Engine, warehouse: Warehouse, others: Collection[str]) -> int:
    if warehouse.rows(f"select 1 from {history} limit 1"):
        raise WarehouseError("a run was faster and has begun it.")
    with kept.open(read_only=True) as stored:
        if not stored.rows(
            "select 1 from information_schema.tables where table_schema = current_schema() and table_name = $history",
            history=history,
        ):
            return 0  # of a version without this history
        columns = [column for (column,) in warehouse.rows(_COLUMNS, history=history)]
        but_others = f" where project_id not in ({literals(sorted(others))})" if others else ""
        rows = stored.rows(f"select {', '.join(columns)} from {history}{but_others}")
    with warehouse.transaction():
        warehouse.insert_rows(history, rows)
    return len(rows)


_COLUMNS = (
    "select column_name from information_schema.columns where table_catalog = current_database() "
    "and table_schema = current_schema() and table_name = $history order by ordinal_position"
)
