"""The triggers: the reasons to run a job, each with its job and config.

Sensors, schedules and ``settle`` iterate over the one list, ``TRIGGERS``, so a new trigger is an entry there. All are
level-triggered (see ``planning.requests``): each compares what is wanted with what was requested. So none keeps a
cursor, and a missed tick costs time and nothing else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

from dagster import DagsterInstance

from stitch_pipeline.landing.index import IndexedFile, LandingIndex
from stitch_pipeline.orchestration.abandoned_runs import fail_abandoned_runs
from stitch_pipeline.orchestration.jobs import BUILD_JOB, RECONCILE_JOB, RESTITCH_JOB, RESTITCH_PAGE_VIEWS_JOB
from stitch_pipeline.orchestration.partitions import last_day
from stitch_pipeline.orchestration.run_config import models_config, reconcile_config
from stitch_pipeline.orchestration.run_records import (
    STALE_PAGE_VIEW_DAYS,
    STALE_SESSION_DAYS,
    covered_ranges,
    newest_stale_record,
    run_states,
)
from stitch_pipeline.planning.days import DayRange, days_to_rebuild
from stitch_pipeline.planning.requests import Plan, Request, plan_request, plan_requests
from stitch_pipeline.settings import Settings
from stitch_pipeline.warehouse.engine import engine_of


@dataclass(frozen=True)
class Wanted:
    """What a trigger requests now, or why it requests nothing."""

    plan: Plan
    otherwise: str
    is_complete: bool = True
    """False if the next tick has more to look at."""

    @property
    def reason(self) -> str:
        """Why nothing is requested."""
        if not self.plan.gave_up:
            return self.otherwise
        days = ", ".join(str(days or "changed rules") for days in self.plan.gave_up)
        return (
            f"Gave up on {days} after repeated failures: see the failed runs, fix the cause and launch the job by hand"
        )


Cron = Callable[[Settings], str | None]


@dataclass(frozen=True)
class Trigger:
    """One reason to run a job."""

    name: str
    job_name: str
    description: str
    wanted: Callable[[Settings, DagsterInstance, datetime], Wanted]
    """Computes what is wanted at a time, which for a schedule is the time of its tick."""
    run_config: Mapping[str, Any] = field(default_factory=dict)
    cron: Cron | None = None
    """The schedule's cron expression (UTC); None stops the schedule. A trigger without a cron is a sensor."""
    settles: bool = True
    """Whether ``settle`` evaluates it, which has no time of day: the daily and the nightly schedule are left out."""


def _landing(settings: Settings, instance: DagsterInstance, now: datetime) -> Wanted:
    fail_abandoned_runs(settings, instance)
    index = LandingIndex(settings.index_path)
    left = index.refresh(settings, settings.index_seconds_per_tick)
    if not engine_of(settings).exists():
        index.set_loaded({})
    index.mark_all_days_if_rules_changed(settings.building_rules)
    pending = index.pending()
    # A run that has started clears the changed days that it builds; files that land after its start are pending.
    underway = covered_ranges(instance, BUILD_JOB, "waiting", "running")
    unbuilt = {
        day: at
        for day, at in index.changed_days().items()
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
    otherwise = f"{left} files are still to be read" if left else "Nothing new has landed"
    return Wanted(plan, otherwise, is_complete=not left)


def _landing_state(days: DayRange, pending: Iterable[IndexedFile], unbuilt: Mapping[date, float]) -> str:
    def reaches(changed: Iterable[date]) -> bool:
        return bool(days_to_rebuild(changed, days.first, days.last))

    parts = sorted(
        [f"{file.landing_file}@{file.version}" for file in pending if reaches(file.touched_days)]
        + [f"{day}@{at}" for day, at in unbuilt.items() if reaches([day])]
    )
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _rules(settings: Settings, instance: DagsterInstance, now: datetime) -> Wanted:
    index = LandingIndex(settings.index_path)
    rules = settings.all_crediting_rules
    if not engine_of(settings).exists():
        index.set_followed_rules(rules)
    followed = index.followed_rules()
    plan = Plan((), ())
    if not followed or followed[0] != rules:
        # ``followed`` includes a time, so rules that are changed and changed back are requested again.
        change = hashlib.sha256(f"{followed} {rules}".encode()).hexdigest()[:16]
        plan = plan_request(f"rules:{change}", None, past=lambda base_key: run_states(instance, base_key))
    return Wanted(plan, "The stitching rules are those that were followed last")


def _identify(settings: Settings, instance: DagsterInstance, now: datetime) -> Wanted:
    plan = _plan_from_record(settings, instance, RESTITCH_JOB, STALE_SESSION_DAYS)
    return Wanted(plan, "No partition is known to hold a wrong answer")


def _page_views(settings: Settings, instance: DagsterInstance, now: datetime) -> Wanted:
    if not settings.view_stitching_is_on:
        return Wanted(Plan((), ()), "View stitching is off (STITCH_VIEW_STITCHING)")
    plan = _plan_from_record(settings, instance, RESTITCH_PAGE_VIEWS_JOB, STALE_PAGE_VIEW_DAYS)
    return Wanted(plan, "No page view is credited wrongly")


def _plan_from_record(settings: Settings, instance: DagsterInstance, job_name: str, metadata_key: str) -> Plan:
    record = newest_stale_record(instance, metadata_key)
    if record is None:
        return Plan((), ())
    return plan_requests(
        # Days before a start date that was moved have rows but no partition.
        [day for day in record.days if settings.start_date <= day <= last_day()],
        kind=job_name,
        state=lambda days: str(record.storage_id),
        # An unfinished run records itself what is still stale when it ends, and that is requested then.
        covered=covered_ranges(instance, job_name, "waiting", "running"),
        past=lambda base_key: run_states(instance, base_key),
    )


def _daily(settings: Settings, instance: DagsterInstance, now: datetime) -> Wanted:
    closed = now.astimezone(UTC).date() - timedelta(days=1)
    if closed < settings.start_date:
        return Wanted(Plan((), ()), f"The first partition, {settings.start_date}, has not closed yet")
    first = max(settings.start_date, closed - timedelta(days=settings.days_late))
    return Wanted(Plan((Request(DayRange(first, closed), f"daily:{closed}"),), ()), "")


def _reconcile(settings: Settings, instance: DagsterInstance, now: datetime) -> Wanted:
    return Wanted(Plan((Request(None, f"reconcile:{now.isoformat()}"),), ()), "")


# In the order of precedence: ``settle`` evaluates a trigger only when those before it request nothing.
TRIGGERS = (
    Trigger(
        name="landing_sensor",
        job_name=BUILD_JOB,
        description="New, changed and vanished files of the landing zone: requests a build of the days they touch.",
        wanted=_landing,
    ),
    Trigger(
        name="rules_sensor",
        job_name=RECONCILE_JOB,
        description="A changed policy, lookback, switch or decision: requests a look at the answers it changes.",
        wanted=_rules,
        run_config=reconcile_config(only_changed_rules=True),
    ),
    Trigger(
        name="identify_sensor",
        job_name=RESTITCH_JOB,
        description="Logins that changed the users of past sessions: requests a re-stitch of those partitions.",
        wanted=_identify,
        run_config=models_config(only_pending=True),
    ),
    Trigger(
        name="view_stitching_schedule",
        job_name=RESTITCH_PAGE_VIEWS_JOB,
        description="Page views credited to another user since the last run: only those partitions, only those rows.",
        wanted=_page_views,
        run_config=models_config(only_pending=True, restitch_only=True, view_stitching=True),
        cron=lambda settings: settings.view_stitching if settings.view_stitching_is_on else None,
    ),
    Trigger(
        name="daily_schedule",
        job_name=BUILD_JOB,
        description="The day that has closed, and STITCH_DAYS_LATE days before it.",
        wanted=_daily,
        cron=lambda settings: settings.daily_cron,
        settles=False,
    ),
    Trigger(
        name="reconcile_schedule",
        job_name=RECONCILE_JOB,
        description="Looks for stale rows over all days and devices, so that nothing is lost to a missed tick.",
        wanted=_reconcile,
        cron=lambda settings: settings.reconcile_cron,
        settles=False,
    ),
)
