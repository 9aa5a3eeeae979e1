"""The loop of triggers and runs without a daemon, until the triggers request nothing more.

Plans, jobs and event log are the same as with the daemon. The demo, the tests and the benchmarks use this loop, and a
cron entry can use it too.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import Any

from croniter import croniter
from dagster import (
    DagsterEventType,
    DagsterInstance,
    Definitions,
    ExecuteInProcessResult,
    MetadataValue,
    RunRequest,
)
from dagster._core.events import RunFailureReason

from stitch_pipeline.landing.index import LandingIndex
from stitch_pipeline.orchestration.abandoned_runs import SETTLE_TAG, sole_settler
from stitch_pipeline.orchestration.jobs import JOBS, RECONCILE_JOB, RESTITCH_PAGE_VIEWS_JOB
from stitch_pipeline.orchestration.origin import runs_of_job
from stitch_pipeline.orchestration.placement import config_of, name_of, names_of
from stitch_pipeline.orchestration.run_records import numbers_of, run_request, underway, words_of
from stitch_pipeline.orchestration.status import notices
from stitch_pipeline.orchestration.triggers import Now, settling
from stitch_pipeline.planning.days import DayRange
from stitch_pipeline.planning.interruption import noticed
from stitch_pipeline.settings import Settings

MAX_ROUNDS = 100


@dataclass(frozen=True)
class RunSummary:
    """One run: its purpose and what it did. ``days`` is None for a run over no particular days."""

    job_name: str
    """As the UI has it: with the key prefix."""
    days: DayRange | None
    succeeded: bool
    seconds: float
    rows_changed: Mapping[str, int]
    """Rows written or deleted, per table."""
    partitions_changed: Mapping[str, int]
    run_id: str
    rows_stale: Mapping[str, int] = field(default_factory=dict)
    """Stale rows that the run found, per table; they are re-stitched next."""
    partitions_stale: Mapping[str, int] = field(default_factory=dict)
    error: str | None = None
    failed_checks: Sequence[str] = ()
    """Names of asset checks that did not pass."""
    was_interrupted: bool = False
    """A signal ended the run, so ``settle`` starts no other."""


@dataclass
class Settled:
    """All runs of one ``settle``, and the requests that it gave up on."""

    runs: list[RunSummary] = field(default_factory=list)
    gave_up: list[str] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)
    """Stale rows that are left to a schedule."""
    notices: list[str] = field(default_factory=list)
    """What a person should know although everything is settled: quarantined rows, files that cannot be read."""

    @property
    def is_settled(self) -> bool:
        """False if a job failed for good, was interrupted, or requests did not end."""
        return not self.gave_up


def settle(
    settings: Settings,
    load_defs: Callable[[], Definitions],
    instance: DagsterInstance,
    *,
    reconcile: bool = False,
    view_stitching: bool | None = None,
    report: Callable[[RunSummary | str], None] = lambda event: None,
) -> Settled:
    """Evaluate the triggers and run what they request, until they request nothing.

    ``load_defs`` returns the definitions, and is called only if there is something to run.
    ``reconcile`` first looks for stale rows over all days and devices. ``view_stitching`` says whether
    ``view_stitching_schedule`` is evaluated too; None evaluates it if it was due since ``settle`` last did, so page
    views are as fresh as with a daemon. ``report`` receives a line when a run starts and a summary when it ends. Raises
    AlreadySettling if another ``settle`` does not end in time.
    """
    with sole_settler(settings, instance):
        index, began = LandingIndex(settings.index_path), datetime.now(UTC)
        last = index.page_views_settled_at()
        if view_stitching is None:
            view_stitching = last is not None and _is_due(settings, last, began)
        settled = _settle(settings, cache(load_defs), instance, reconcile, view_stitching, report)
        if last is None or (view_stitching and settled.is_settled):
            index.note_page_views_settled(began)
        return settled


def _is_due(settings: Settings, last: datetime, now: datetime) -> bool:
    """Whether ``view_stitching_schedule`` had a tick after ``last``."""
    return settings.view_stitching_is_on and croniter(settings.view_stitching, now).get_prev(datetime) > last


def _settle(
    settings: Settings,
    load_defs: Callable[[], Definitions],
    instance: DagsterInstance,
    reconcile: bool,
    view_stitching: bool,
    report: Callable[[RunSummary | str], None],
) -> Settled:
    settled = Settled()
    if reconcile:
        report("looking for stale rows over all days and devices")
        summary = _run(settings, load_defs(), instance, RECONCILE_JOB, RunRequest(), None, report)
        settled.runs.append(summary)
        if summary.was_interrupted or not summary.succeeded:
            settled.gave_up.append("interrupted" if summary.was_interrupted else summary.job_name)
            return settled
    started = datetime.now(UTC)
    for round_number in range(MAX_ROUNDS):
        settled.gave_up, settled.waiting = [], []
        is_complete = True
        for trigger in settling(settings):
            now = Now(datetime.now(UTC), gives_up=True, since=started, verifies_tables=reconcile and round_number == 0)
            wanted = trigger.wanted(settings, instance, now)
            if trigger.job_name == RESTITCH_PAGE_VIEWS_JOB and not view_stitching:
                days = sum(len(request.days) for request in wanted.plan.requests if request.days)
                if days:
                    waits_for = name_of(settings, trigger.name)
                    settled.waiting.append(f"page views of {days} day{'s' * (days != 1)} wait for {waits_for}")
                continue
            is_complete &= wanted.is_complete
            settled.gave_up += [
                f"{name_of(settings, trigger.job_name)}: {paused.request.days or 'all days'}"
                for paused in wanted.plan.paused
            ]
            settled.gave_up += wanted.complaints
            requests = wanted.plan.requests
            for request in requests:
                run = run_request(request, config_of(settings, trigger.run_config))
                summary = _run(settings, load_defs(), instance, trigger.job_name, run, request.days, report)
                settled.runs.append(summary)
                if summary.was_interrupted:
                    settled.gave_up.append("interrupted")
                    return settled
            if requests:
                break  # a trigger with precedence may want something now
        else:
            if is_complete:
                settled.notices = notices(settings)
                settled.waiting += [
                    f"{job}: a run is queued or running elsewhere"
                    for job in underway(instance, names_of(settings, JOBS))
                ]
                return settled
    settled.gave_up.append(f"more was requested even after {MAX_ROUNDS} rounds")
    return settled


def _run(
    settings: Settings,
    defs: Definitions,
    instance: DagsterInstance,
    job_name: str,
    request: RunRequest,
    days: DayRange | None,
    report: Callable[[RunSummary | str], None],
) -> RunSummary:
    about = "changed rules" if job_name == RECONCILE_JOB and request.run_config else "all days"
    own_name = name_of(settings, job_name)
    started = time.monotonic()
    with noticed() as signal_came, runs_of_job(instance, own_name, settings.code_location):
        report(f"{own_name}: {days or about}")
        result = defs.resolve_job_def(own_name).execute_in_process(
            instance=instance,
            run_config=request.run_config or None,
            tags={
                SETTLE_TAG: "true",
                **request.tags,
                **({"dagster/run_key": request.run_key} if request.run_key else {}),
            },
            raise_on_error=False,
        )
        was_interrupted = _was_interrupted(result) or signal_came()
    metadata: dict[str, MetadataValue[Any]] = {}
    for event in result.get_asset_observation_events():
        metadata |= event.asset_observation_data.asset_observation.metadata
    numbers = numbers_of(metadata)
    failure = next((event for event in result.all_events if event.is_step_failure), None)
    error = failure.step_failure_data.error if failure else None
    summary = RunSummary(
        job_name=own_name,
        days=days,
        succeeded=result.success,
        seconds=time.monotonic() - started,
        rows_changed=numbers.rows_changed,
        partitions_changed=numbers.partitions_changed,
        run_id=result.run_id,
        rows_stale=numbers.rows_stale,
        partitions_stale=numbers.partitions_stale,
        failed_checks=[check.check_name for check in result.get_asset_check_evaluations() if not check.passed],
        was_interrupted=was_interrupted,
        error=None if error is None else words_of(error),
    )
    report(summary)
    return summary


def _was_interrupted(result: ExecuteInProcessResult) -> bool:
    """Whether a signal ended the run, within a step or between two of them, or somebody canceled it."""
    return any(
        event.event_type is DagsterEventType.RUN_CANCELED
        or (
            event.event_type is DagsterEventType.RUN_FAILURE
            and event.job_failure_data.failure_reason is RunFailureReason.UNEXPECTED_TERMINATION
        )
        for event in result.all_events
    )
