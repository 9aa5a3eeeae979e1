"""The schedules: the day that has closed, page views at their own pace, and the nightly look at everything."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, timedelta

from dagster import (
    DefaultScheduleStatus,
    RunRequest,
    ScheduleDefinition,
    ScheduleEvaluationContext,
    SkipReason,
    schedule,
)

from stitch_pipeline.orchestration.jobs import BUILD_JOB, RECONCILE_JOB, RESTITCH_PAGE_VIEWS_JOB, models_config
from stitch_pipeline.orchestration.run_records import run_request
from stitch_pipeline.orchestration.sensors import view_stitching_plan
from stitch_pipeline.planning.days import DayRange
from stitch_pipeline.planning.requests import Request
from stitch_pipeline.settings import Settings


def schedules(settings: Settings) -> list[ScheduleDefinition]:
    @schedule(
        name="daily_schedule",
        job_name=BUILD_JOB,
        cron_schedule=settings.daily_cron,
        execution_timezone="UTC",
        default_status=DefaultScheduleStatus.RUNNING,
        description=f"The day that has closed, and the {settings.days_late} days before it.",
    )
    def daily_schedule(context: ScheduleEvaluationContext) -> RunRequest | SkipReason:
        closed = context.scheduled_execution_time.astimezone(UTC).date() - timedelta(days=1)
        if closed < settings.start_date:
            return SkipReason(f"The first partition, {settings.start_date}, has not closed yet")
        first = max(settings.start_date, closed - timedelta(days=settings.days_late))
        return run_request(Request(DayRange(first, closed), base_key=f"daily:{closed}"))

    @schedule(
        name="reconcile_schedule",
        job_name=RECONCILE_JOB,
        cron_schedule=settings.reconcile_cron,
        execution_timezone="UTC",
        default_status=DefaultScheduleStatus.RUNNING,
        description="Looks for wrong answers over everything, so that nothing is lost to a missed tick.",
    )
    def reconcile_schedule(context: ScheduleEvaluationContext) -> RunRequest:
        return RunRequest(run_key=f"reconcile:{context.scheduled_execution_time.isoformat()}")

    # A cron expression is needed even for a schedule that is off; it is then stopped and skips if started.
    @schedule(
        name="view_stitching_schedule",
        job_name=RESTITCH_PAGE_VIEWS_JOB,
        cron_schedule=settings.view_stitching if settings.view_stitching_is_on else "0 4 * * 0",
        execution_timezone="UTC",
        default_status=DefaultScheduleStatus.RUNNING
        if settings.view_stitching_is_on
        else DefaultScheduleStatus.STOPPED,
        description="Page views whose users changed since the last time; only those partitions, only those rows.",
    )
    def view_stitching_schedule(context: ScheduleEvaluationContext) -> Iterator[RunRequest | SkipReason]:
        if not settings.view_stitching_is_on:
            yield SkipReason("View stitching is off (STITCH_VIEW_STITCHING)")
            return
        plan = view_stitching_plan(context.instance)
        config = models_config(only_pending=True, restitch_only=True, view_stitching=True)
        if not plan.requests:
            yield SkipReason("No page view is credited wrongly")
        for request in plan.requests:
            yield run_request(request, run_config=config)

    return [daily_schedule, reconcile_schedule, view_stitching_schedule]
