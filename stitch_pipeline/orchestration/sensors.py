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

from stitch_pipeline.orchestration.run_records import run_request
from stitch_pipeline.orchestration.triggers import TRIGGERS, Now, Trigger, why_nothing
from stitch_pipeline.settings import Settings


def sensors(settings: Settings) -> list[SensorDefinition]:
    """One sensor per trigger without a cron expression."""
    return [_sensor(settings, trigger) for trigger in TRIGGERS if trigger.cron is None]


def _sensor(settings: Settings, trigger: Trigger) -> SensorDefinition:
    def tick(context: SensorEvaluationContext) -> SensorResult | SkipReason:
        wanted = trigger.wanted(settings, context.instance, Now(datetime.now(UTC)))
        if wanted.plan.requests:
            return SensorResult([run_request(request, trigger.run_config) for request in wanted.plan.requests])
        return SkipReason(why_nothing(trigger, wanted, context.instance))

    return SensorDefinition(
        name=trigger.name,
        evaluation_fn=tick,
        job_name=trigger.job_name,
        minimum_interval_seconds=settings.sensor_interval_seconds,
        default_status=DefaultSensorStatus.RUNNING,
        description=trigger.description,
    )
