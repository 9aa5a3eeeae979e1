"""The sensors: what has landed, what a login has changed, and what changed rules would change.

All are level-triggered (see ``planning.requests``): each tick compares what is wanted with what has been
asked for, so they keep no cursor and a missed tick costs time and nothing else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import date

from dagster import (
    DagsterInstance,
    DefaultSensorStatus,
    SensorDefinition,
    SensorEvaluationContext,
    SensorResult,
    SkipReason,
    sensor,
)

from stitch_pipeline.landing.index import IndexedFile, LandingIndex
from stitch_pipeline.orchestration.abandoned_runs import fail_abandoned_runs
from stitch_pipeline.orchestration.assets.models import STALE_PAGE_VIEW_DAYS, STALE_RECORDS, STALE_SESSION_DAYS
from stitch_pipeline.orchestration.jobs import (
    BUILD_JOB,
    RECONCILE_JOB,
    RESTITCH_JOB,
    RESTITCH_PAGE_VIEWS_JOB,
    models_config,
    reconcile_config,
)
from stitch_pipeline.orchestration.partitions import last_day
from stitch_pipeline.orchestration.run_records import (
    StaleRecord,
    covered_ranges,
    newest_stale_record,
    run_request,
    run_states,
)
from stitch_pipeline.planning.days import DayRange, days_to_rebuild
from stitch_pipeline.planning.requests import Plan, plan_request, plan_requests
from stitch_pipeline.settings import Settings


def landing_plan(settings: Settings, instance: DagsterInstance) -> tuple[Plan, int]:
    """Runs of ``build_job`` to ask for, and how many new files are still to be looked into."""
    fail_abandoned_runs(settings, instance)
    index = LandingIndex(settings.index_path)
    left = index.refresh(settings, settings.index_seconds_per_tick)
    if not settings.duckdb_path.exists():
        index.set_loaded({})
    index.follow_rules(settings.building_rules)
    pending = index.pending()
    changed = index.changed_days()
    # A run that has started clears the days that it changes itself; files that came after it are pending.
    underway = covered_ranges(instance, BUILD_JOB, "waiting", "running")
    unbuilt = {
        day: at
        for day, at in changed.items()
        if not all(
            any(reached in days for days in underway)
            for reached in days_to_rebuild([day], settings.start_date, last_day())
        )
    }
    stale = days_to_rebuild(
        [day for file in pending for day in file.touched_days] + list(unbuilt), settings.start_date, last_day()
    )
    plan = plan_requests(
        stale,
        kind="build",
        state=lambda days: _landing_state(days, pending, unbuilt),
        covered=covered_ranges(instance, BUILD_JOB, "waiting"),
        past=lambda base_key: run_states(instance, base_key),
    )
    return plan, left


def rules_plan(settings: Settings, instance: DagsterInstance) -> Plan:
    """The run of ``reconcile_job`` to ask for when the stitching rules are not those that were followed last."""
    index = LandingIndex(settings.index_path)
    rules = settings.all_crediting_rules
    if not settings.duckdb_path.exists():
        index.set_followed_rules(rules)
    followed = index.followed_rules()
    if followed and followed[0] == rules:
        return Plan((), ())
    # Rules that are changed and changed back are asked for anew, hence the time.
    change = hashlib.sha256(f"{followed} {rules}".encode()).hexdigest()[:16]
    return plan_request(f"rules:{change}", None, past=lambda base_key: run_states(instance, base_key))


def restitch_plan(instance: DagsterInstance) -> Plan:
    """Runs of ``restitch_job`` to ask for."""
    record = newest_stale_record(instance, STALE_SESSION_DAYS, STALE_RECORDS["sessions"])
    return _plan_from_record(instance, RESTITCH_JOB, record)


def view_stitching_plan(instance: DagsterInstance) -> Plan:
    """Runs of ``restitch_page_views_job`` to ask for."""
    record = newest_stale_record(instance, STALE_PAGE_VIEW_DAYS, STALE_RECORDS["page_views"])
    return _plan_from_record(instance, RESTITCH_PAGE_VIEWS_JOB, record)


def _plan_from_record(instance: DagsterInstance, job_name: str, record: StaleRecord | None) -> Plan:
    if record is None:
        return Plan((), ())
    return plan_requests(
        record.days,
        kind=job_name,
        state=lambda days: str(record.storage_id),
        # What a run under way does not mend it lists itself when it ends, and then it is asked for.
        covered=covered_ranges(instance, job_name, "waiting", "running"),
        past=lambda base_key: run_states(instance, base_key),
    )


def _landing_state(days: DayRange, pending: Iterable[IndexedFile], unbuilt: dict[date, float]) -> str:
    def reaches(changed: Iterable[date]) -> bool:
        return bool(days_to_rebuild(changed, days.first, days.last))

    parts = sorted(
        [f"{file.landing_file}@{file.version}" for file in pending if reaches(file.touched_days)]
        + [f"{day}@{at}" for day, at in unbuilt.items() if reaches([day])]
    )
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def sensors(settings: Settings) -> list[SensorDefinition]:
    @sensor(
        name="landing_sensor",
        job_name=BUILD_JOB,
        minimum_interval_seconds=settings.sensor_interval_seconds,
        default_status=DefaultSensorStatus.RUNNING,
        description="New, changed and vanished files of the landing zone: asks to build the days they touch.",
    )
    def landing_sensor(context: SensorEvaluationContext) -> SensorResult | SkipReason:
        plan, left = landing_plan(settings, context.instance)
        requests = [run_request(request) for request in plan.requests]
        if requests:
            return SensorResult(run_requests=requests)
        return SkipReason(
            _gave_up(plan) or (f"{left} files are still to be read" if left else "Nothing new has landed")
        )

    @sensor(
        name="identify_sensor",
        job_name=RESTITCH_JOB,
        minimum_interval_seconds=settings.sensor_interval_seconds,
        default_status=DefaultSensorStatus.RUNNING,
        description="Logins that changed whose past sessions are: asks to re-stitch exactly those partitions.",
    )
    def identify_sensor(context: SensorEvaluationContext) -> SensorResult | SkipReason:
        plan = restitch_plan(context.instance)
        config = models_config(only_pending=True)
        requests = [run_request(request, run_config=config) for request in plan.requests]
        if requests:
            return SensorResult(run_requests=requests)
        return SkipReason(_gave_up(plan) or "No partition is known to hold a wrong answer")

    @sensor(
        name="rules_sensor",
        job_name=RECONCILE_JOB,
        minimum_interval_seconds=settings.sensor_interval_seconds,
        default_status=DefaultSensorStatus.RUNNING,
        description="A changed policy, lookback, switch or override: asks which stored answers it changes.",
    )
    def rules_sensor(context: SensorEvaluationContext) -> SensorResult | SkipReason:
        plan = rules_plan(settings, context.instance)
        requests = [run_request(request, run_config=reconcile_config()) for request in plan.requests]
        if requests:
            return SensorResult(run_requests=requests)
        return SkipReason(_gave_up(plan) or "The stitching rules are those that were followed last")

    return [landing_sensor, identify_sensor, rules_sensor]


def _gave_up(plan: Plan) -> str | None:
    if not plan.gave_up:
        return None
    days = ", ".join(str(days or "changed rules") for days in plan.gave_up)
    return f"Gave up on {days} after repeated failures: see the failed runs, mend the cause and launch the job by hand"
