"""The jobs: what sensors and schedules launch, and what a person launches from the launchpad."""

from collections.abc import Iterator
from typing import Any

from dagster import (
    AssetKey,
    AssetObservation,
    AssetSelection,
    Config,
    JobDefinition,
    OpExecutionContext,
    Output,
    define_asset_job,
    job,
    op,
)
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition
from pydantic import Field

from stitch_pipeline.assets.landing_zone import POOL
from stitch_pipeline.assets.models import ModelsConfig, keep_views, stale_partitions, write_rules
from stitch_pipeline.landing.index import LandingIndex
from stitch_pipeline.settings import Settings
from stitch_pipeline.warehouse import loading, stale
from stitch_pipeline.warehouse.duckdb_file import WarehouseResource

BUILD_JOB = "build_job"
RESTITCH_JOB = "restitch_job"
RESTITCH_PAGE_VIEWS_JOB = "restitch_page_views_job"
RECONCILE_JOB = "reconcile_job"


def models_config(**values: bool | str) -> dict[str, Any]:
    """Run config for the dbt models, as the launchpad and backfills take it."""
    return {"ops": {"stitch_models": {"config": values}}}


def reconcile_config() -> dict[str, Any]:
    """Run config for looking only at the projects whose stitching rules have changed."""
    return {"ops": {"find_stale_partitions": {"config": {"only_changed_rules": True}}}}


def asset_jobs() -> list[UnresolvedAssetJobDefinition]:
    return [
        define_asset_job(
            BUILD_JOB,
            AssetSelection.assets(
                "raw_events",
                "quarantined_events",
                "identity_map",
                "sessions",
                "stitched_sessions",
                "users",
                "page_views",
                "visitor_stats",
            ),
            description="Everything for the given days, from the landing zone to the statistics.",
        ),
        define_asset_job(
            RESTITCH_JOB,
            AssetSelection.assets("stitched_sessions", "users", "visitor_stats"),
            config=models_config(only_pending=True),
            description="Bring sessions, users and statistics of the given days up to date with the links.",
        ),
        define_asset_job(
            RESTITCH_PAGE_VIEWS_JOB,
            AssetSelection.assets("page_views"),
            config=models_config(restitch_only=True, view_stitching=True),
            description="Bring the page views of the given days up to date with the links, now.",
        ),
    ]


class ReconcileConfig(Config):
    """What to look at. By default everything."""

    only_changed_rules: bool = Field(
        default=False,
        description="Look only at projects whose stitching rules have changed, and at what is known to be pending.",
    )


def reconcile_job(settings: Settings) -> JobDefinition:
    @op(pool=POOL, description="Compare every stored answer with the one that the links give now.")
    def find_stale_partitions(
        context: OpExecutionContext, config: ReconcileConfig, warehouse: WarehouseResource
    ) -> Iterator[AssetObservation | Output[None]]:
        index = LandingIndex(settings.index_path)
        if not config.only_changed_rules:
            index.refresh(settings)
        with warehouse.get_connection() as con:
            write_rules(con, settings, ModelsConfig())
            keep_views(con, warehouse.path, settings)
            if not config.only_changed_rules:
                index.set_loaded(loading.loaded_files(con))
                stale.suspect_every_device(con)
            metadata = stale_partitions(con, settings)
        yield AssetObservation(AssetKey("identity_map"), metadata=metadata)
        # Not before the event log has it: see LandingIndex.
        index.set_followed_rules(settings.all_crediting_rules)
        yield Output(None)

    @job(
        name=RECONCILE_JOB,
        description=(
            "Look for wrong answers over all days, of all devices or of the projects whose rules changed. It mends "
            "nothing itself: the sensors read what it found and ask for exactly those partitions."
        ),
    )
    def reconcile() -> None:
        find_stale_partitions()

    return reconcile
