"""Which engine a deployment uses."""

from stitch_pipeline.settings import Settings, SettingsError
from stitch_pipeline.warehouse.duckdb import DuckDBEngine
from stitch_pipeline.warehouse.port import Engine


def engine_of(settings: Settings) -> Engine:
    """The engine that the settings configure. Nothing is opened."""
    if settings.warehouse is not None:
        try:
            from stitch_pipeline.warehouse.postgres import PostgresEngine
        except ImportError:
            raise SettingsError(
                "STITCH_WAREHOUSE names a PostgreSQL server, and the client for it is not installed: install "
                "'stitch-pipeline[postgres]'."
            ) from None
        return PostgresEngine(
            settings.warehouse.get_secret_value(),
            settings.warehouse_schema,
            settings.lock_wait_seconds,
            settings.memory_limit,
        )
    return DuckDBEngine(settings.duckdb_path, settings.lock_wait_seconds, settings.memory_limit)
