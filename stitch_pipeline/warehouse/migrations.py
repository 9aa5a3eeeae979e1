"""The version of the warehouse's tables, and the steps from each version to the next.

Missing tables and new nullable columns need no step here (see ``tables.create_tables``).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import UTC, datetime

from stitch_pipeline.warehouse.port import Warehouse, WarehouseError


def _names_of_0_2(warehouse: Warehouse) -> None:
    """From any version without a number: names that changed, and what nothing reads any more."""
    tables = _names(warehouse, "BASE TABLE")
    if "override_history" in tables and "decision_history" not in tables:
        warehouse.execute("alter table override_history rename to decision_history")
    for view in ("all_persons", "stale_user_mappings"):
        warehouse.execute(f"drop view if exists {view}")
    for table in ("overrides", "person_names", "wrong_links", "shared_devices", "never_same"):
        warehouse.execute(f"drop table if exists {table}")
    # A table of 0.1 had this name and another meaning.
    if "project_id" in _columns(warehouse, "followed_rules"):
        warehouse.execute("drop table followed_rules")
    if {"quarantined_events", "landing_files"} <= set(tables) and "problem" not in _columns(
        warehouse, "quarantined_events"
    ):
        # Their files are read again, which gives each row its problem code.
        warehouse.execute(
            "update landing_files set version = 'read by 0.1' "
            "where landing_file in (select landing_file from quarantined_events)"
        )


def _rules_history_of_0_3(warehouse: Warehouse) -> None:
    """The history says of each time whether own users were kept. Before this version there was no such rule."""
    columns = _columns(warehouse, "rules_history")
    if columns and "keep_own_user" not in columns:
        warehouse.execute("alter table rules_history add column keep_own_user boolean default false")


def _activity_without_device(warehouse: Warehouse) -> None:
    """The days with events without a device are built again, which fills the new table."""
    tables = _names(warehouse, "BASE TABLE")
    if {"raw_events", "changed_days"} <= set(tables):
        warehouse.execute(
            "insert into changed_days select distinct event_date, $now::timestamp from raw_events "
            "where anonymous_id is null and user_id is not null",
            now=datetime.now(UTC).replace(tzinfo=None),
        )


# In this order, never changed and never removed: the number of a version is its place in the list.
MIGRATIONS: tuple[Callable[[Warehouse], None], ...] = (
    _names_of_0_2,
    _rules_history_of_0_3,
    _activity_without_device,
)
VERSION = len(MIGRATIONS)


def migrate(warehouse: Warehouse) -> None:
    """Bring the tables of an older version to this one, each step in one transaction with its number.

    Raises WarehouseError if a newer version of the project wrote the warehouse.
    """
    tables = _names(warehouse, "BASE TABLE")
    version = _stored_version(warehouse, tables)
    refuse_newer(version)
    if "schema_version" not in tables:
        # A warehouse without any table is new: there is nothing to migrate.
        version = 0 if tables else VERSION
        warehouse.execute(f"create table schema_version as select cast({version} as integer) as version")
    for number, step in enumerate(MIGRATIONS[version:], start=version + 1):
        with warehouse.transaction():
            step(warehouse)
            warehouse.execute(f"update schema_version set version = {number}")


def check_version(warehouse: Warehouse) -> None:
    """Raise WarehouseError if a newer version of the project wrote the warehouse. Writes nothing."""
    refuse_newer(_stored_version(warehouse, _names(warehouse, "BASE TABLE")))


def refuse_newer(version: int) -> None:
    """Raise WarehouseError for a version that this project does not know."""
    if version > VERSION:
        raise WarehouseError(
            f"A newer version of this project wrote the warehouse (its tables have version {version}, and this version "
            f"knows {VERSION}): install the newer version again, or run `stitch rebuild`, which keeps the warehouse "
            "aside and builds every table from the landing zone."
        )


def _stored_version(warehouse: Warehouse, tables: Collection[str]) -> int:
    if "schema_version" not in tables:
        return 0
    ((version,),) = warehouse.rows("select coalesce(max(version), 0) from schema_version")
    return int(version)


def _columns(warehouse: Warehouse, table: str) -> list[str]:
    return [
        name
        for (name,) in warehouse.rows(
            "select column_name from information_schema.columns where table_catalog = current_database() "
            "and table_schema = current_schema() and table_name = $table",
            table=table,
        )
    ]


def _names(warehouse: Warehouse, kind: str) -> list[str]:
    return [
        name
        for (name,) in warehouse.rows(
            "select table_name from information_schema.tables where table_catalog = current_database() "
            "and table_schema = current_schema() and table_type = $kind",
            kind=kind,
        )
    ]
