"""The triggers: the reasons to run a job, each with its job and config.

Sensors, schedules and ``settle`` iterate over the one list, ``TRIGGERS``, so a new trigger is an entry there. All are
level-triggered (see ``planning.requests``): each compares what is wanted with what is, as the index knows it. So none
keeps a cursor, and a missed tick costs time and nothing else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

from dagster import AssetCheckEvaluation, DagsterInstance

from stitch_pipeline.landing.extracts import Looked, look_at_tables, problems, table_feeds, tables_never_read
from stitch_pipeline.landing.index import Copy, IndexedFile, LandingIndex
from stitch_pipeline.orchestration.abandoned_runs import fail_abandoned_runs
from stitch_pipeline.orchestration.assets.landing import HELD_BACK_REMEDY, WHOLE_ZONE_CHECK, whole_zone_check
from stitch_pipeline.orchestration.jobs import (
    BUILD_JOB,
    JOBS,
    RECONCILE_JOB,
    REPORT_JOB,
    RESTITCH_JOB,
    RESTITCH_PAGE_VIEWS_JOB,
    asset_keys,
)
from stitch_pipeline.orchestration.partitions import last_day
from stitch_pipeline.orchestration.placement import Placement, TriggerName, key_of, name_of, names_of
from stitch_pipeline.orchestration.run_config import models_config, reconcile_config
from stitch_pipeline.orchestration.run_records import (
    covered_ranges,
    failure_of,
    is_underway,
    past_runs,
)
from stitch_pipeline.planning.days import DayRange, days_to_rebuild
from stitch_pipeline.planning.requests import (
    PastRun,
    Patience,
    Paused,
    Plan,
    Request,
    RunState,
    plan_request,
    plan_requests,
)
from stitch_pipeline.settings import Settings
from stitch_pipeline.warehouse.engine import engine_of


@dataclass(frozen=True)
class Now:
    """When and how a trigger is evaluated."""

    time: datetime
    """UTC; for a schedule the time of its tick."""
    gives_up: bool = False
    """See ``Patience.gives_up``."""
    since: datetime | None = None
    """Failures before this time do not count, nor do earlier looks at tables."""
    verifies_tables: bool = False
    """Whether all rows of the tables that are feeds are compared now, and not only once a day."""
    looks_at_tables: bool = True
    """Off: what the last look at the tables that are feeds has found, without another one."""

    @property
    def states_that_count(self) -> tuple[RunState, ...]:
        """The states in which a run covers its days: ``settle`` does not wait for a queue, whose daemon may be gone."""
        return ("running",) if self.gives_up else ("waiting", "running")

    def counted(self, past: Sequence[PastRun]) -> Sequence[PastRun]:
        """The runs of ``past`` that have ended, or whose state covers their days."""
        return [run for run in past if run.state in ("succeeded", "failed", *self.states_that_count)]

    def patience(self, index: LandingIndex) -> Patience:
        forgotten_at = index.failures_forgotten_at()
        return Patience(max(self.since or forgotten_at, forgotten_at), self.gives_up)


@dataclass(frozen=True)
class Wanted:
    """What a trigger requests now, or why it requests nothing."""

    plan: Plan
    otherwise: str
    is_complete: bool = True
    """False if the next tick has more to look at."""
    problems: Mapping[str, str] = field(default_factory=dict)
    """What a person has to mend before all there is can be loaded: a sentence by what has it, such as a feed."""

    @property
    def failing(self) -> tuple[Paused, ...]:
        """Requests that failed so often that a person should look."""
        return tuple(paused for paused in self.plan.paused if paused.needs_a_person)

    @property
    def complaints(self) -> list[str]:
        """The problems, each with what has it."""
        return [f"{name}: {sentence}" for name, sentence in self.problems.items()]


def about(paused: Paused, job_name: str, instance: DagsterInstance) -> str:
    """A sentence on a request that is not made now: what failed, why, and how it goes on."""
    what = f"{job_name} of {paused.request.days}" if paused.request.days else job_name
    when = (
        "The next `settle` tries again" if paused.until is None else f"Next attempt after {paused.until:%H:%M:%S} UTC"
    )
    times = f"failed {paused.failures} times in a row" if paused.failures else "found the warehouse busy"
    error = failure_of(instance, paused.last_run_id)
    return f"{what} {times}: {error} (run {paused.last_run_id}). {when}; `stitch retry` tries at once."


class FailsAgainAndAgain(Exception):
    """A trigger waits because its runs keep failing. It fails the tick, so that people see it and can be alerted."""


Cron = Callable[[Settings], str | None]


@dataclass(frozen=True)
class Trigger:
    """One reason to run a job."""

    name: TriggerName
    job_name: str
    description: str
    wanted: Callable[[Settings, DagsterInstance, Now], Wanted]
    run_config: Mapping[str, Any] = field(default_factory=dict)
    cron: Cron | None = None
    """The schedule's cron expression (UTC); None stops the schedule. A trigger without a cron is a sensor."""
    applies: Callable[[Settings], bool] = lambda settings: True
    """Whether the deployment has what the trigger looks at."""
    settles: bool = True
    """Whether ``settle`` evaluates it, which has no time of day: the daily and the nightly schedule are left out."""


def why_nothing(settings: Settings, trigger: Trigger, wanted: Wanted, instance: DagsterInstance) -> str:
    """Why nothing is requested. Raises FailsAgainAndAgain if a person should look."""
    job_name = name_of(settings, trigger.job_name)
    sentences = [about(paused, job_name, instance) for paused in wanted.plan.paused]
    if wanted.failing or wanted.problems:
        raise FailsAgainAndAgain(" ".join([*wanted.complaints, *sentences]))
    return " ".join(sentences) or wanted.otherwise


def _feeds(settings: Settings, instance: DagsterInstance, now: Now) -> Wanted:
    """Copies rows of tables into the landing zone. It requests no run: ``_landing`` sees the files."""
    looked: list[Looked] = []
    if not now.looks_at_tables and (unread := tables_never_read(settings)):
        otherwise = f"The tables of {', '.join(unread)} were not read yet"
        return Wanted(Plan(), otherwise, is_complete=False, problems=problems(settings))
    if now.looks_at_tables:
        # `settle` copies all there is; a tick of a sensor must end soon.
        budget = None if now.gives_up else settings.index_seconds_per_tick
        looked = look_at_tables(settings, budget_seconds=budget, since=now.since, verify=now.verifies_tables)
    files = sum(one.files for one in looked)
    return Wanted(
        Plan(),
        f"{files} files of tables were written" if files else "No table has rows that are new, changed or gone",
        is_complete=all(one.is_complete for one in looked),
        problems=problems(settings),
    )


def _landing(settings: Settings, instance: DagsterInstance, now: Now) -> Wanted:
    fail_abandoned_runs(settings, instance)
    index = LandingIndex(settings.index_path)
    left = index.refresh(settings, settings.index_seconds_per_tick)
    _report_vanished(settings, instance, index)
    if not engine_of(settings).exists():
        index.forget_warehouse()
    copy = index.copy()
    if copy is None and engine_of(settings).exists():
        return Wanted(
            Plan(), f"The index is new: {name_of(settings, 'recovery_sensor')} requests a look at the warehouse first"
        )
    pending = index.pending()
    # A run that has started clears the changed days that it builds; files that land after its start are pending.
    build_job = name_of(settings, BUILD_JOB)
    underway = covered_ranges(instance, build_job, *now.states_that_count)
    unbuilt = {
        day: reason
        for day, reason in _unbuilt(settings, index, copy).items()
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
        state=lambda days: _landing_state(index.history(), days, pending, unbuilt),
        covered=() if now.gives_up else covered_ranges(instance, build_job, "waiting"),
        past=now.counted(past_runs(instance, build_job)) if stale else (),
        patience=now.patience(index),
        now=now.time,
    )
    otherwise = f"{left} files are still to be read" if left else "Nothing new has landed"
    if settings.hashing.missing:
        otherwise = " ".join([f"{otherwise}.", *settings.hashing.sentences])
    held_back = {}
    if vanished := index.held_back():
        held_back["landing zone"] = (
            f"{vanished.count:,} of {vanished.known:,} files are gone, for instance {vanished.examples[0]}. "
            f"{HELD_BACK_REMEDY}"
        )
    return Wanted(plan, otherwise, is_complete=not left, problems=held_back)


def _unbuilt(settings: Settings, index: LandingIndex, copy: Copy | None) -> dict[date, str]:
    """The loaded days that must be built again, each with the reason."""
    if copy is None:
        return {}
    unbuilt = {day: str(at) for day, at in copy.changed_days.items()}
    if copy.built_rules != settings.building_rules:
        loaded = {day for file in index.files().values() for day in file.loaded_days}
        unbuilt |= dict.fromkeys(loaded, settings.building_rules)
    return unbuilt


def _report_vanished(settings: Settings, instance: DagsterInstance, index: LandingIndex) -> None:
    """Turn the check red when files are held back, and green when they are not any more."""
    result = whole_zone_check(settings, index.held_back())
    if result.passed == bool(index.reported(WHOLE_ZONE_CHECK)):
        instance.report_runless_asset_event(
            AssetCheckEvaluation(
                check_name=WHOLE_ZONE_CHECK,
                asset_key=key_of(settings, "raw_events"),
                passed=result.passed,
                metadata=result.metadata,
            )
        )
        index.note_reported(WHOLE_ZONE_CHECK, () if result.passed else ("red",))


def _landing_state(history: str, days: DayRange, pending: Iterable[IndexedFile], unbuilt: Mapping[date, str]) -> str:
    def reaches(changed: Iterable[date]) -> bool:
        return bool(days_to_rebuild(changed, days.first, days.last))

    parts = sorted(
        [f"{file.landing_file}@{file.version}" for file in pending if reaches(file.touched_days)]
        + [f"{day}@{reason}" for day, reason in unbuilt.items() if reaches([day])]
    )
    return _digest(history, *parts)


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _recovery(settings: Settings, instance: DagsterInstance, now: Now) -> Wanted:
    index = LandingIndex(settings.index_path)
    # Read before the runs: a run that ends in between has renewed the copy.
    marker = engine_of(settings).marker()
    if marker is None or _is_written(settings, instance) or index.describes(marker):
        return Wanted(Plan(), "The index describes the warehouse")
    return _look(settings, f"recovery:{_digest(index.history(), marker)}", index, instance, now)


def _is_written(settings: Settings, instance: DagsterInstance) -> bool:
    return is_underway(instance, names_of(settings, JOBS), asset_keys(settings))


def _rules(settings: Settings, instance: DagsterInstance, now: Now) -> Wanted:
    index = LandingIndex(settings.index_path)
    copy, rules = index.copy(), settings.all_crediting_rules
    # Without a copy nothing is stored that could follow other rules, or recovery looks at everything.
    if copy is None or copy.followed_rules in (None, rules):
        return Wanted(Plan(), "The stitching rules are those that were followed last")
    # With the time of the copy, so rules that are changed and changed back are requested again.
    return _look(settings, f"rules:{_digest(copy.noted_at, rules)}", index, instance, now)


def _look(settings: Settings, base_key: str, index: LandingIndex, instance: DagsterInstance, now: Now) -> Wanted:
    """A run of ``reconcile_job``."""
    past = now.counted(past_runs(instance, name_of(settings, RECONCILE_JOB)))
    return Wanted(plan_request(base_key, None, past=past, patience=now.patience(index), now=now.time), "")


def _identify(settings: Settings, instance: DagsterInstance, now: Now) -> Wanted:
    plan = _restitch_plan(settings, instance, now, RESTITCH_JOB, "sessions")
    return Wanted(plan, "No partition is known to hold a wrong answer")


def _page_views(settings: Settings, instance: DagsterInstance, now: Now) -> Wanted:
    if not settings.view_stitching_is_on:
        return Wanted(Plan(), "View stitching is off (STITCH_VIEW_STITCHING)")
    plan = _restitch_plan(settings, instance, now, RESTITCH_PAGE_VIEWS_JOB, "page_views")
    return Wanted(plan, "No page view is credited wrongly")


def _restitch_plan(settings: Settings, instance: DagsterInstance, now: Now, job_name: str, grain: str) -> Plan:
    index = LandingIndex(settings.index_path)
    copy = index.copy()
    # Days before a start date that was moved have rows but no partition.
    stale = [day for day in copy.stale[grain] if settings.start_date <= day <= last_day()] if copy else []
    if copy is None or not stale:
        return Plan()
    return plan_requests(
        stale,
        kind=job_name,
        state=lambda days: copy.noted_at,
        # An unfinished run renews the copy when it ends, and what is still stale is requested then.
        covered=covered_ranges(instance, name_of(settings, job_name), *now.states_that_count),
        past=now.counted(past_runs(instance, name_of(settings, job_name))),
        patience=now.patience(index),
        now=now.time,
    )


def _daily(settings: Settings, instance: DagsterInstance, now: Now) -> Wanted:
    closed = now.time.astimezone(UTC).date() - timedelta(days=1)
    if closed < settings.start_date:
        return Wanted(Plan(), f"The first partition, {settings.start_date}, has not closed yet")
    first = max(settings.start_date, closed - timedelta(days=settings.days_late))
    return Wanted(Plan((Request(DayRange(first, closed), f"daily:{closed}"),)), "")


def _reconcile(settings: Settings, instance: DagsterInstance, now: Now) -> Wanted:
    return Wanted(Plan((Request(None, f"reconcile:{now.time.isoformat()}"),)), "")


def _report(settings: Settings, instance: DagsterInstance, now: Now) -> Wanted:
    return Wanted(Plan((Request(None, f"report:{now.time.isoformat()}"),)), "")


# In the order of precedence: ``settle`` evaluates a trigger only when those before it request nothing.
TRIGGERS = (
    Trigger(
        name="feeds_sensor",
        job_name=BUILD_JOB,
        description="New, changed and vanished rows of tables that are feeds: copies them into the landing zone.",
        wanted=_feeds,
        applies=lambda settings: bool(table_feeds(settings)),
    ),
    Trigger(
        name="landing_sensor",
        job_name=BUILD_JOB,
        description="New, changed and vanished files of the landing zone: requests a build of the days they touch.",
        wanted=_landing,
    ),
    Trigger(
        name="recovery_sensor",
        job_name=RECONCILE_JOB,
        description=(
            "A warehouse that changed without a record, by a run that was killed or a file that was restored: requests "
            "a look at what is pending."
        ),
        wanted=_recovery,
        run_config=reconcile_config(only_changed_rules=True),
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
    Trigger(
        name="report_schedule",
        job_name=REPORT_JOB,
        description="Writes the report of each project anew: HTML pages in STITCH_REPORT_DIR.",
        wanted=_report,
        cron=lambda settings: None if settings.report_cron == "off" else settings.report_cron,
        settles=False,
    ),
)


def included(settings: Settings, placement: Placement) -> list[Trigger]:
    """The triggers that are sensors and schedules of the code location."""
    return [
        trigger
        for trigger in TRIGGERS
        if trigger.applies(settings) and (placement.triggers is None or trigger.name in placement.triggers)
    ]


def settling(settings: Settings) -> list[Trigger]:
    """The triggers that ``settle`` evaluates, in their order."""
    return [trigger for trigger in TRIGGERS if trigger.settles and trigger.applies(settings)]
