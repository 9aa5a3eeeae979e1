"""The code location. ``workspace.yaml``, ``dagster`` and ``dg`` all load ``defs`` from here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dagster import Definitions, in_process_executor

from stitch_pipeline.orchestration.assets.landing import landing_zone_assets
from stitch_pipeline.orchestration.assets.report import report_asset
from stitch_pipeline.orchestration.jobs import asset_jobs, forget_job, preview_rules_job, reconcile_job
from stitch_pipeline.orchestration.resource import warehouse_resource
from stitch_pipeline.orchestration.schedules import schedules
from stitch_pipeline.orchestration.sensors import sensors
from stitch_pipeline.settings import Settings
from stitch_pipeline.startup import large_imports

with large_imports():  # of dbt: a run's process pays for them before it can begin
    from stitch_pipeline.orchestration.assets.models import model_assets


def build_defs(settings: Settings, resource_overrides: Mapping[str, Any] | None = None) -> Definitions:
    """All of Dagster's definitions for these settings. ``resource_overrides`` replaces resources by name."""
    return Definitions(
        assets=[landing_zone_assets(settings), *model_assets(settings), report_asset(settings)],
        jobs=[*asset_jobs(), reconcile_job(settings), preview_rules_job(settings), forget_job(settings)],
        sensors=sensors(settings),
        schedules=schedules(settings),
        resources={
            "warehouse": warehouse_resource(settings),
            **(resource_overrides or {}),
        },
        # A process per step costs seconds per step, and the warehouse takes one writer anyway.
        executor=in_process_executor,
    )


defs = build_defs(Settings.load())
