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

from stitch_pipeline.orchestration.placement import Placement, config_of, name_of
from stitch_pipeline.orchestration.pool import warn_once
from stitch_pipeline.orchestration.run_records import run_request
from stitch_pipeline.orchestration.triggers import Cron, Now, Trigger, included, why_nothing
from stitch_pipeline.settings import Settings

# Dagster needs an expression even for a schedule that is stopped.
_WEEKLY = "0 4 * * 0"


def schedules(settings: Settings, placement: Placement) -> list[ScheduleDefinition]:
    """One schedule per included trigger with a cron expression, in UTC."""
    return [
        _schedule(settings, placement, trigger, trigger.cron)
        for trigger in included(settings, placement)
        if trigger.cron is not None
    ]


def _schedule(settings: Settings, placement: Placement, trigger: Trigger, cron: Cron) -> ScheduleDefinition:
    def tick(context: ScheduleEvaluationContext) -> Iterator[RunRequest | SkipReason]:
        warn_once(context.instance, placement.pool_name(settings), context.log)
        wanted = trigger.wanted(settings, context.instance, Now(context.scheduled_execution_time))
        yield from (run_request(request, run_config) for request in wanted.plan.requests)
        if not wanted.plan.requests:
            yield SkipReason(why_nothing(settings, trigger, wanted, context.instance))

    run_config = config_of(settings, trigger.run_config)
    expression = cron(settings)
    return ScheduleDefinition(
        name=name_of(settings, trigger.name),
        execution_fn=tick,
        job_name=name_of(settings, trigger.job_name),
        cron_schedule=expression or _WEEKLY,
        execution_timezone="UTC",
        default_status=DefaultScheduleStatus.RUNNING if expression else DefaultScheduleStatus.STOPPED,
        description=trigger.description,
    )
