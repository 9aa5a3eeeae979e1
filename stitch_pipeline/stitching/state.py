"""What the warehouse knows about itself: what is loaded, what must be rebuilt, which partitions are stale.

Belongs here: reading that state, and the marks of changed days. Does not: the copy of it (``landing.index``), or who
needs it (``orchestration.triggers``).
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime

from stitch_pipeline.landing.index import WarehouseState
from stitch_pipeline.stitching.build import stored_stale
from stitch_pipeline.stitching.load import loaded_files
from stitch_pipeline.warehouse.port import Warehouse


def read_state(warehouse: Warehouse) -> WarehouseState:
    """The state of a warehouse that is open for writing. Call it after the last change."""
    stale = stored_stale(warehouse)
    return WarehouseState(
        loaded=loaded_files(warehouse),
        changed_days=changed_days(warehouse),
        built_rules=built_rules(warehouse),
        stale={grain: stale.days(grain) for grain in ("sessions", "page_views")},
        marker=warehouse.marker(),
    )


def changed_days(warehouse: Warehouse) -> dict[date, datetime]:
    """Days with changed events of which not everything is rebuilt, and when each was marked (UTC)."""
    rows = warehouse.rows("select day, max(changed_at) from changed_days group by day")
    return {day: at.replace(tzinfo=UTC) for day, at in rows}


def clear_changed_days(warehouse: Warehouse, days: Iterable[date]) -> None:
    """Clear the marks of days. Call it after everything that they reach is built."""
    with warehouse.transaction():
        for day in days:
            warehouse.execute("delete from changed_days where day = $day", day=day)


def built_rules(warehouse: Warehouse) -> str | None:
    """The settings under which links and sessions were built; None before the first load."""
    rows = warehouse.rows("select rules from built_rules")
    return str(rows[0][0]) if rows else None


def build_under(warehouse: Warehouse, rules: str) -> None:
    """Mark every day with an event as changed if links and sessions were built under other settings than ``rules``."""
    if built_rules(warehouse) == rules:
        return
    with warehouse.transaction():
        warehouse.execute(
            "insert into changed_days select distinct event_date, $now::timestamp from raw_events",
            now=datetime.now(UTC).replace(tzinfo=None),
        )
        warehouse.execute("delete from built_rules")
        warehouse.insert_rows("built_rules", [(rules,)])
