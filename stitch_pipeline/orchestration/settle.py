"""The loop of sensors and runs without a daemon: until nothing is asked for any more.

The same plans, the same jobs and the same event log as with the daemon; only who ticks is different.
The demo, the tests and the benchmarks stand on it, and so can a cron entry.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from dagster import DagsterInstance, Definitions, IntMetadataValue, MetadataValue, RunRequest

from stitch_pipeline.orchestration.abandoned_runs import SETTLE_TAG, sole_settler
from stitch_pipeline.orchestration.jobs import (
    BUILD_JOB,
    RECONCILE_JOB,
    RESTITCH_JOB,
    RESTITCH_PAGE_VIEWS_JOB,
    models_config,
    reconcile_config,
)
from stitch_pipeline.orchestration.run_records import run_request
from stitch_pipeline.orchestration.sensors import landing_plan, restitch_plan, rules_plan, view_stitching_plan
from stitch_pipeline.planning.days import DayRange
from stitch_pipeline.planning.requests import Plan
from stitch_pipeline.settings import Settings

MAX_ROUNDS = 100


@dataclass(frozen=True)
class RunSummary:
    """One run: what it was for and what it did."""

    job_name: str
    days: DayRange | None
    succeeded: bool
    seconds: float
    rows_changed: Mapping[str, int]
    """Rows written or taken out, per table."""
    partitions_changed: Mapping[str, int]
    run_id: str
    rows_stale: Mapping[str, int] = field(default_factory=dict)
    """Rows per table that a look for wrong answers found: what is to be re-stitched next."""
    partitions_stale: Mapping[str, int] = field(default_factory=dict)
    error: str | None = None
    was_interrupted: bool = False
    """A signal ended it: whoever sent the signal does not want another run."""


@dataclass
class Settled:
    """Everything that was run. ``is_settled`` is False if something failed for good or never came to rest."""

    runs: list[RunSummary] = field(default_factory=list)
    gave_up: list[str] = field(default_factory=list)

    @property
    def is_settled(self) -> bool:
        return not self.gave_up


def settle(
    settings: Settings,
    defs: Definitions,
    instance: DagsterInstance,
    *,
    reconcile: bool = False,
    view_stitching: bool = False,
    report: Callable[[RunSummary | str], None] = lambda event: None,
) -> Settled:
    """Tick the sensors and run what they ask for until they ask for nothing.

    ``reconcile`` first looks for wrong answers over everything; ``view_stitching`` also does what
    ``view_stitching_schedule`` would.
    """
    with sole_settler(settings, instance):
        return _settle(settings, defs, instance, reconcile, view_stitching, report)


def _settle(
    settings: Settings,
    defs: Definitions,
    instance: DagsterInstance,
    reconcile: bool,
    view_stitching: bool,
    report: Callable[[RunSummary | str], None],
) -> Settled:
    settled = Settled()
    if reconcile:
        report("looking for wrong answers over everything")
        summary = _run(defs, instance, RECONCILE_JOB, RunRequest(), None, report)
        settled.runs.append(summary)
        if not summary.succeeded:
            settled.gave_up.append(RECONCILE_JOB)
            return settled
    pending_config = models_config(only_pending=True)
    views_config = models_config(only_pending=True, restitch_only=True, view_stitching=True)
    for _ in range(MAX_ROUNDS):
        plan, left = landing_plan(settings, instance)
        work: list[tuple[str, Plan, dict[str, Any] | None]] = [(BUILD_JOB, plan, None)]
        if not plan.requests:
            plan = rules_plan(settings, instance)
            work.append((RECONCILE_JOB, plan, reconcile_config()))
        if not plan.requests:
            work.append((RESTITCH_JOB, restitch_plan(instance), pending_config))
            if view_stitching and settings.view_stitching_is_on:
                work.append((RESTITCH_PAGE_VIEWS_JOB, view_stitching_plan(instance), views_config))
        requested = False
        for job_name, plan, config in work:
            for request in plan.requests:
                requested = True
                run = run_request(request, run_config=config)
                summary = _run(defs, instance, job_name, run, request.days, report)
                settled.runs.append(summary)
                if summary.was_interrupted:
                    settled.gave_up.append("interrupted")
                    return settled
        if not requested and not left:
            settled.gave_up = [f"{job}: {days}" for job, plan, _ in work for days in plan.gave_up]
            return settled
    settled.gave_up.append(f"still asked for more after {MAX_ROUNDS} rounds")
    return settled


def _run(
    defs: Definitions,
    instance: DagsterInstance,
    job_name: str,
    request: RunRequest,
    days: DayRange | None,
    report: Callable[[RunSummary | str], None],
) -> RunSummary:
    is_about_rules = request.run_config == reconcile_config()
    report(f"{job_name}: {'changed rules' if is_about_rules else days or 'all days'}")
    started = time.monotonic()
    result = defs.resolve_job_def(job_name).execute_in_process(
        instance=instance,
        run_config=request.run_config or None,
        tags={SETTLE_TAG: "true", **request.tags, **({"dagster/run_key": request.run_key} if request.run_key else {})},
        raise_on_error=False,
    )
    rows: dict[str, int] = {}
    partitions: dict[str, int] = {}
    for event in result.get_asset_materialization_events():
        materialization = event.step_materialization_data.materialization
        table = materialization.asset_key.path[-1]
        if "rows_changed_in_run" in materialization.metadata:  # the same for every partition of the run
            rows[table] = _number(materialization.metadata["rows_changed_in_run"])
            partitions[table] = _number(materialization.metadata["partitions_changed"])
    rows_stale: dict[str, int] = {}
    partitions_stale: dict[str, int] = {}
    for event in result.get_asset_observation_events():
        found = event.asset_observation_data.asset_observation.metadata
        for table in ("stitched_sessions", "page_views", "user_mapping_history", "users"):
            if f"{table}_stale_rows" in found:
                rows_stale[table] = _number(found[f"{table}_stale_rows"])
            if f"{table}_stale_partitions" in found:
                partitions_stale[table] = _number(found[f"{table}_stale_partitions"])
    failure = next((event for event in result.all_events if event.is_step_failure), None)
    error = failure.step_failure_data.error if failure else None
    summary = RunSummary(
        job_name=job_name,
        days=days,
        succeeded=result.success,
        seconds=time.monotonic() - started,
        rows_changed=rows,
        partitions_changed=partitions,
        run_id=result.run_id,
        rows_stale=rows_stale,
        partitions_stale=partitions_stale,
        was_interrupted=error is not None and error.cls_name == "DagsterExecutionInterruptedError",
        error=None if error is None else (error.cause.message if error.cause else error.message).strip(),
    )
    report(summary)
    return summary


def _number(value: MetadataValue[Any]) -> int:
    return (value.value or 0) if isinstance(value, IntMetadataValue) else 0
