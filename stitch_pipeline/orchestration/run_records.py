"""What Dagster's own storage holds: which runs there were, and the record that each run leaves of what it did.

Triggers read the runs. The record is for people: nothing is lost with it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from dagster import (
    AssetKey,
    AssetObservation,
    DagsterEventType,
    DagsterInstance,
    DagsterRun,
    DagsterRunStatus,
    IntMetadataValue,
    MetadataValue,
    RunRequest,
    RunsFilter,
)
from dagster._core.storage.tags import ASSET_PARTITION_RANGE_END_TAG, ASSET_PARTITION_RANGE_START_TAG
from dagster_shared.error import SerializableErrorInfo

from stitch_pipeline.orchestration.placement import key_of
from stitch_pipeline.orchestration.resource import BUSY_TAG
from stitch_pipeline.planning.days import DayRange, ranges
from stitch_pipeline.planning.requests import PastRun, Request, RunState
from stitch_pipeline.settings import Settings
from stitch_pipeline.stitching.build import Stale
from stitch_pipeline.stitching.figures import JobState

REQUEST_TAG = "stitch/request"

_STATES: dict[DagsterRunStatus, RunState] = {
    DagsterRunStatus.QUEUED: "waiting",
    DagsterRunStatus.NOT_STARTED: "waiting",
    DagsterRunStatus.STARTING: "running",
    DagsterRunStatus.STARTED: "running",
    DagsterRunStatus.CANCELING: "running",
    DagsterRunStatus.SUCCESS: "succeeded",
    DagsterRunStatus.FAILURE: "failed",
    DagsterRunStatus.CANCELED: "failed",
}


def past_runs(instance: DagsterInstance, job_name: str) -> list[PastRun]:
    """The newest runs of the job, newest first."""
    records = instance.get_run_records(RunsFilter(job_name=job_name), limit=_PAST_RUNS)
    return [
        PastRun(
            run_id=record.dagster_run.run_id,
            base_key=record.dagster_run.tags.get(REQUEST_TAG),
            days=_days_of(record.dagster_run),
            state=_STATES.get(record.dagster_run.status, "running"),
            ended_at=_utc(record.end_time) or record.update_timestamp.replace(tzinfo=UTC),
            found_warehouse_busy=BUSY_TAG in record.dagster_run.tags,
        )
        for record in records
    ]


def job_states(instance: DagsterInstance, job_names: Collection[str]) -> list[JobState]:
    """The last run of each of the jobs that has run."""
    found = []
    for name in job_names:
        runs = past_runs(instance, name)
        # A run that found the warehouse busy has not failed.
        ended = [run for run in runs if run.state in ("succeeded", "failed") and not run.found_warehouse_busy]
        failures = next((number for number, run in enumerate(ended) if run.state == "succeeded"), len(ended))
        if runs:
            last = runs[0]
            ended_at = last.ended_at if last.state in ("succeeded", "failed") else None
            found.append(JobState(name, ended_at and ended_at.replace(tzinfo=None), last.state, failures))
    return found


def words_of(error: SerializableErrorInfo) -> str:
    """The message of the error that ended a step. Of this project's own classes the module is left out."""
    return re.sub(r"^stitch_pipeline\.[\w.]+\.(\w+: )", r"\1", (error.cause or error).message.strip())


def failure_of(instance: DagsterInstance, run_id: str) -> str:
    """Why the run failed, in the words of the error that ended it."""
    failed = instance.all_logs(run_id, of_type={DagsterEventType.STEP_FAILURE, DagsterEventType.RUN_FAILURE})
    for entry in failed:
        event = entry.dagster_event
        data = event.event_specific_data if event else None
        error = getattr(data, "error", None)
        if error is not None:
            return words_of(error)
    return next((entry.user_message or entry.message for entry in failed), "the run was ended from outside")


def _days_of(run: DagsterRun) -> DayRange | None:
    if ASSET_PARTITION_RANGE_START_TAG not in run.tags:
        return None
    return DayRange(
        date.fromisoformat(run.tags[ASSET_PARTITION_RANGE_START_TAG]),
        date.fromisoformat(run.tags[ASSET_PARTITION_RANGE_END_TAG]),
    )


def _utc(timestamp: float | None) -> datetime | None:
    return None if timestamp is None else datetime.fromtimestamp(timestamp, UTC)


def _statuses(*states: RunState) -> list[DagsterRunStatus]:
    return [status for status, state in _STATES.items() if state in states]


def covered_ranges(instance: DagsterInstance, job_name: str, *states: RunState) -> list[DayRange]:
    """The day ranges of the job's runs that are in one of the given states."""
    runs = instance.get_runs(RunsFilter(job_name=job_name, statuses=_statuses(*states)))
    return [days for run in runs if (days := _days_of(run))]


def underway(instance: DagsterInstance, job_names: Collection[str]) -> list[str]:
    """Those of the jobs that have an unfinished run."""
    names = {run.job_name for run in instance.get_runs(RunsFilter(statuses=_statuses("waiting", "running")))}
    return [name for name in job_names if name in names]


def is_underway(instance: DagsterInstance, job_names: Collection[str], assets: Collection[AssetKey]) -> bool:
    """Whether a run that has started may change the warehouse: of one of the jobs, or of some of the assets alone.

    A run that waits in the queue does not count: where no daemon is alive, it waits for ever.
    """
    runs = instance.get_runs(RunsFilter(statuses=_statuses("running")))
    return any(run.job_name in job_names or (run.asset_selection or set()) & set(assets) for run in runs)


def run_request(request: Request, run_config: Mapping[str, Any] | None = None) -> RunRequest:
    """The request in Dagster's terms. Its tags hold the base key and, if it has days, the partition range."""
    tags = {REQUEST_TAG: request.base_key}
    if request.days:
        tags[ASSET_PARTITION_RANGE_START_TAG] = request.days.first.isoformat()
        tags[ASSET_PARTITION_RANGE_END_TAG] = request.days.last.isoformat()
    return RunRequest(run_key=request.run_key, run_config=run_config, tags=tags)


STALE_SESSION_DAYS = "stale_session_days"
STALE_PAGE_VIEW_DAYS = "stale_page_view_days"
_RECORDED_ON = "identity_map"
_PAST_RUNS = 100
_TABLE_OF_GRAIN = {
    "sessions": "stitched_sessions",
    "page_views": "page_views",
    "mapping": "user_mapping_history",
    "users": "users",
    "stats": "visitor_stats",
}


def run_record(
    settings: Settings, changed: Mapping[str, Mapping[Any, int]], seconds: Mapping[str, float], stale: Stale | None
) -> AssetObservation:
    """A run's numbers and the days that are stale now, as one event for all of its tables and partitions.

    ``changed`` counts the rows written or deleted, by table and day; ``seconds`` are the seconds that each model took;
    ``stale`` is None if the run did not look for stale rows.
    """
    metadata: dict[str, MetadataValue[Any]] = {}
    for table, per_day in changed.items():
        metadata[f"{table}_rows_changed"] = MetadataValue.int(sum(per_day.values()))
        metadata[f"{table}_partitions_changed"] = MetadataValue.int(len([day for day in per_day if day is not None]))
    metadata |= stale_metadata(stale) if stale else {}
    metadata |= {f"{name}_seconds": MetadataValue.float(round(float(took), 3)) for name, took in seconds.items()}
    return AssetObservation(key_of(settings, _RECORDED_ON), metadata=metadata)


def stale_metadata(stale: Stale) -> dict[str, MetadataValue[Any]]:
    """The stale days as ranges (ISO dates, both included), and the numbers of stale rows and partitions per table."""
    metadata: dict[str, MetadataValue[Any]] = {}
    for grain, key in (("sessions", STALE_SESSION_DAYS), ("page_views", STALE_PAGE_VIEW_DAYS)):
        if grain not in stale.checked:
            continue
        found = ranges(stale.days(grain))
        metadata[key] = MetadataValue.json([[str(days.first), str(days.last)] for days in found])
    for grain, table in _TABLE_OF_GRAIN.items():
        if ("page_views" if grain == "page_views" else "sessions") not in stale.checked:
            continue
        rows = stale.rows.get(grain, {})
        has_days = grain in ("sessions", "page_views")
        # A re-stitch of sessions also brings the others up to date, so they count only if no session is stale.
        counts = has_days or (rows and "sessions" not in stale.rows)
        if counts and grain != "stats":  # of which only the days are known
            metadata[f"{table}_stale_rows"] = MetadataValue.int(sum(rows.values()))
        if has_days or (counts and grain == "stats"):
            metadata[f"{table}_stale_partitions"] = MetadataValue.int(len(rows))
    return metadata


@dataclass(frozen=True)
class RunNumbers:
    """The numbers of a run's record, per table."""

    rows_changed: dict[str, int]
    partitions_changed: dict[str, int]
    rows_stale: dict[str, int]
    partitions_stale: dict[str, int]


def numbers_of(metadata: Mapping[str, MetadataValue[Any]]) -> RunNumbers:
    """The numbers in the metadata of a ``run_record``."""

    def ending(suffix: str) -> dict[str, int]:
        return {
            name.removesuffix(suffix): int(value.value or 0)
            for name, value in metadata.items()
            if name.endswith(suffix) and isinstance(value, IntMetadataValue)
        }

    return RunNumbers(
        ending("_rows_changed"), ending("_partitions_changed"), ending("_stale_rows"), ending("_stale_partitions")
    )
