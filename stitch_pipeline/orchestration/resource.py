"""The warehouse as a Dagster resource."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import duckdb
from dagster import AssetExecutionContext, OpExecutionContext
from dagster_duckdb import DuckDBResource
from pydantic import Field

from stitch_pipeline.landing.index import LandingIndex
from stitch_pipeline.orchestration.placement import Placement
from stitch_pipeline.orchestration.pool import missing_limit
from stitch_pipeline.settings import Settings
from stitch_pipeline.stitching.publish import PublishingFailed, publish
from stitch_pipeline.stitching.state import read_state
from stitch_pipeline.warehouse.duckdb import DuckDBEngine, DuckDBWarehouse
from stitch_pipeline.warehouse.engine import engine_of
from stitch_pipeline.warehouse.port import Engine, Warehouse, WarehouseBusy

BUSY_TAG = "stitch/warehouse_was_busy"


@dataclass
class OpenedInRun:
    """The warehouse of a run, and what the run says about it for the index (``LandingIndex.note``)."""

    engine: Engine
    warehouse: Warehouse
    continues: bool
    """Whether the index described the warehouse before, and the run looks at all that it may make stale."""
    looked_at: Collection[str] = ()
    followed_rules: str | None = None
    publishes: bool = True
    """Whether to publish what changed; off where a later step of the run does."""


class WarehouseResource(Protocol):
    """What a run opens, whatever the engine."""

    @property
    def engine(self) -> Engine:
        """The engine with this resource's configuration."""

    def open(self) -> AbstractContextManager[Warehouse]:
        """Open the warehouse for writing until the context ends. Raises as ``Engine.open`` does."""


@dataclass(frozen=True)
class DatabaseResource:
    """A warehouse that is a server's. Dagster shows its fields, so it has none with a secret; set STITCH_WAREHOUSE."""

    engine: Engine

    def open(self) -> AbstractContextManager[Warehouse]:
        return self.engine.open()


class DuckDBWarehouseResource(DuckDBResource):
    """The DuckDB file that holds every table. Set it with STITCH_DUCKDB_PATH rather than here."""

    lock_wait_seconds: float = Field(
        default=60.0, description="How long to wait for another process that has the file open."
    )
    memory_limit: str | None = Field(
        default=None, description="How much memory DuckDB may use, for instance 4GB; by default most of the machine's."
    )

    @property
    def engine(self) -> Engine:
        """The engine with this resource's configuration."""
        return DuckDBEngine(Path(self.database), self.lock_wait_seconds, self.memory_limit)

    def open(self) -> AbstractContextManager[Warehouse]:
        """Open the warehouse for writing until the context ends. Raises as ``Engine.open`` does."""
        return self.engine.open()

    # Overrides DuckDBResource.get_connection, which keeps the file's lock when the body raises.
    @contextmanager
    def get_connection(self) -> Iterator[duckdb.DuckDBPyConnection]:
        with self.engine.open() as warehouse:
            assert isinstance(warehouse, DuckDBWarehouse)
            yield warehouse.connection


@contextmanager
def open_in_run(
    context: AssetExecutionContext | OpExecutionContext, settings: Settings, placement: Placement
) -> Iterator[OpenedInRun]:
    """Open the warehouse in a run, and renew the index's copy of its state when it is closed.

    If the body raises, the copy is as before, so that ``recovery_sensor`` requests a look. A run that finds the
    warehouse busy is tagged so, because that is not a failure.
    """
    resource: WarehouseResource = getattr(context.resources, placement.warehouse_key(settings))
    warning = missing_limit(context.instance, placement.pool_name(settings))
    if warning:
        context.log.warning(warning)
    index = LandingIndex(settings.index_path)
    try:
        with resource.open() as warehouse:
            opened = OpenedInRun(resource.engine, warehouse, continues=index.describes(warehouse.marker()))
            yield opened
            if opened.publishes:
                _publish(context, warehouse, settings)
            state = read_state(warehouse)
    except WarehouseBusy:
        context.instance.add_run_tags(context.run.run_id, {BUSY_TAG: "true"})
        raise
    index.note(state, continues=opened.continues, looked_at=opened.looked_at, followed_rules=opened.followed_rules)


def _publish(context: AssetExecutionContext | OpExecutionContext, warehouse: Warehouse, settings: Settings) -> None:
    """Publish what changed. A failure fails no run, because the warehouse is right and the next run tries again."""
    try:
        files = publish(warehouse, settings)
    except PublishingFailed as error:
        context.log.error(str(error))
    else:
        if files:
            context.log.info(f"{files:,} files published in '{settings.publishes_to}'")


def warehouse_resource(settings: Settings) -> WarehouseResource:
    """The resource as the settings configure it."""
    if settings.warehouse is not None:
        return DatabaseResource(engine_of(settings))
    return DuckDBWarehouseResource(
        database=str(settings.duckdb_path),
        lock_wait_seconds=settings.lock_wait_seconds,
        memory_limit=settings.memory_limit,
    )


def place_of(settings: Settings, table: str) -> dict[str, str]:
    """Metadata with which the UI shows where a table is stored."""
    engine = engine_of(settings)
    return {"dagster/table_name": f"{engine.database}.{engine.schema}.{table}", "dagster/uri": engine.place}
