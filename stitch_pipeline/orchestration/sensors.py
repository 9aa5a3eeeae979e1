"""The sensors: the triggers that Dagster evaluates every few seconds."""

from __future__ import annotations

from datetime import UTC, datetime

from dagster import (
    DefaultSensorStatus,
    SensorDefinition,
    SensorEvaluationContext,
    SensorResult,
    SkipReason,
)

from stitch_pipeline.orchestration.alerts import alert_of_problems
from stitch_pipeline.orchestration.placement import Placement, config_of, name_of
from stitch_pipeline.orchestration.pool import warn_once
from stitch_pipeline.orchestration.run_records import run_request
from stitch_pipeline.orchestration.triggers import Now, Trigger, included, why_nothing
from stitch_pipeline.settings import Settings


def sensors(settings: Settings, placement: Placement) -> list[SensorDefinition]:
    """One sensor per included trigger without a cron expression."""
    return [_sensor(settings, placement, trigger) for trigger in included(settings, placement) if trigger.cron is None]


def _sensor(settings: Settings, placement: Placement, trigger: Trigger) -> SensorDefinition:
    def tick(context: SensorEvaluationContext) -> SensorResult | SkipReason:
        warn_once(context.instance, placement.pool_name(settings), context.log)
        wanted = trigger.wanted(settings, context.instance, Now(datetime.now(UTC)))
        alert_of_problems(settings, name_of(settings, trigger.name), wanted.problems)
        if wanted.plan.requests:
            return SensorResult([run_request(request, run_config) for request in wanted.plan.requests])
        return SkipReason(why_nothing(settings, trigger, wanted, context.instance))

    run_config = config_of(settings, trigger.run_config)
    return SensorDefinition(
        name=name_of(settings, trigger.name),
        evaluation_fn=tick,
        job_name=name_of(settings, trigger.job_name),
        minimum_interval_seconds=settings.sensor_interval_seconds,
        default_status=DefaultSensorStatus.RUNNING,
        description=trigger.description,
    )
