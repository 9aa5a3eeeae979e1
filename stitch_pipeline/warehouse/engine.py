"""Which engine a deployment uses."""

from stitch_pipeline.settings import Settings
from stitch_pipeline.warehouse.duckdb import DuckDBEngine
from stitch_pipeline.warehouse.port import Engine


def engine_of(settings: Settings) -> Engine:
    """The engine that the settings configure. Nothing is opened."""
    return DuckDBEngine(settings.duckdb_path, settings.lock_wait_seconds, settings.memory_limit)
