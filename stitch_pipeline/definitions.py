"""``build_defs`` for any code location, and ``defs``, the stand-alone one that ``workspace.yaml`` and ``dg`` load."""

from __future__ import annotations

from collections.abc import Sequence

from dagster import Definitions, ExecutorDefinition, definitions, in_process_executor

from stitch_pipeline.orchestration.alerts import alert_sensor
from stitch_pipeline.orchestration.assets.landing import landing_zone_assets
from stitch_pipeline.orchestration.assets.report import report_asset
from stitch_pipeline.orchestration.jobs import asset_jobs, forget_job, preview_rules_job, reconcile_job
from stitch_pipeline.orchestration.placement import OWNERS, placement_of
from stitch_pipeline.orchestration.resource import warehouse_resource
from stitch_pipeline.orchestration.schedules import schedules
from stitch_pipeline.orchestration.sensors import sensors
from stitch_pipeline.settings import Settings
from stitch_pipeline.startup import large_imports

with large_imports():  # of dbt: a run's process pays for them before it can begin
    from stitch_pipeline.orchestration.assets.models import model_assets


def build_defs(
    settings: Settings,
    *,
    group_name: str | None = None,
    owners: Sequence[str] = OWNERS,
    triggers: Sequence[str] | None = None,
    resource_key: str | None = None,
    pool: str | None = None,
    executor: ExecutorDefinition = in_process_executor,
) -> Definitions:
    """All of Dagster's definitions for these settings, which may be merged with those of others.

    ``Placement`` describes the arguments; ``Settings.key_prefix`` keeps keys and names apart. Nothing here applies to
    other definitions. So the executor is that of the jobs only, and an asset that is materialized outside of them runs
    with the executor of the code location. Raises SettingsError for a wrong argument.
    """
    placement = placement_of(
        group_name=group_name,
        owners=owners,
        triggers=triggers,
        resource_key=resource_key,
        pool=pool,
        executor=executor,
    )
    return Definitions(
        assets=[
            landing_zone_assets(settings, placement),
            *model_assets(settings, placement),
            report_asset(settings, placement),
        ],
        jobs=[
            *asset_jobs(settings, placement),
            reconcile_job(settings, placement),
            preview_rules_job(settings, placement),
            forget_job(settings, placement),
        ],
        sensors=[*sensors(settings, placement), alert_sensor(settings)],
        schedules=schedules(settings, placement),
        resources={placement.warehouse_key(settings): warehouse_resource(settings)},
    )


@definitions
def defs() -> Definitions:
    """Identity stitching as a Dagster code location: files in, stitched sessions, users and views out."""
    # A process per step costs seconds per step, and the warehouse takes one writer anyway.
    return Definitions.merge(build_defs(Settings.load()), Definitions(executor=in_process_executor))
