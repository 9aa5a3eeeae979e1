"""The schedules: the triggers that have a cron expression."""

from __future__ import annotations

from collections.abc import Iterator

from dagster import (
    DefaultScheduleStatus,
    RunRequest,
    ScheduleDefinition,
    ScheduleEvaluationContext,
    SkipReason,
)

from stitch_pipeline.orchestration.run_records import run_request
from stitch_pipeline.orchestration.triggers import TRIGGERS, Cron, Now, Trigger, why_nothing
from stitch_pipeline.settings import Settings

# Dagster needs an expression even for a schedule that is stopped.
_WEEKLY = "0 4 * * 0"


def schedules(settings: Settings) -> list[ScheduleDefinition]:
    """One schedule per trigger with a cron expression, in UTC."""
    return [_schedule(settings, trigger, trigger.cron) for trigger in TRIGGERS if trigger.cron is not None]


def _schedule(settings: Settings, trigger: Trigger, cron: Cron) -> ScheduleDefinition:
    def tick(context: ScheduleEvaluationContext) -> Iterator[RunRequest | SkipReason]:
        wanted = trigger.wanted(settings, context.instance, Now(context.scheduled_execution_time))
        yield from (run_request(request, trigger.run_config) for request in wanted.plan.requests)
        if not wanted.plan.requests:
            yield SkipReason(why_nothing(trigger, wanted, context.instance))

    expression = cron(settings)
    return ScheduleDefinition(
        name=trigger.name,
        execution_fn=tick,
        job_name=trigger.job_name,
        cron_schedule=expression or _WEEKLY,
        execution_timezone="UTC",
        default_status=DefaultScheduleStatus.RUNNING if expression else DefaultScheduleStatus.STOPPED,
        description=trigger.description,
    )
