"""What Dagster's own records say: which runs were asked for, and which partitions are known to be stale.

Sensors and schedules read these and never the warehouse, which a run may hold locked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, cast

from dagster import (
    AssetKey,
    AssetRecordsFilter,
    DagsterInstance,
    DagsterRunStatus,
    JsonMetadataValue,
    RunRequest,
    RunsFilter,
)
from dagster._core.storage.tags import ASSET_PARTITION_RANGE_END_TAG, ASSET_PARTITION_RANGE_START_TAG

from stitch_pipeline.planning.days import DayRange
from stitch_pipeline.planning.requests import Request, RunState

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


def run_states(instance: DagsterInstance, base_key: str) -> list[RunState]:
    """States of the runs made for a request, oldest first."""
    runs = instance.get_runs(filters=RunsFilter(tags={REQUEST_TAG: base_key}))
    return [_STATES.get(run.status, "running") for run in reversed(runs)]


def covered_ranges(instance: DagsterInstance, job_name: str, *states: RunState) -> list[DayRange]:
    """The days of the job's runs that are in one of the given states, of those that have not ended."""
    unfinished = [status for status, state in _STATES.items() if state in states]
    runs = instance.get_runs(filters=RunsFilter(job_name=job_name, statuses=unfinished))
    return [
        DayRange(
            date.fromisoformat(run.tags[ASSET_PARTITION_RANGE_START_TAG]),
            date.fromisoformat(run.tags[ASSET_PARTITION_RANGE_END_TAG]),
        )
        for run in runs
        if ASSET_PARTITION_RANGE_START_TAG in run.tags
    ]


def run_request(request: Request, *, job_name: str | None = None, run_config: Any = None) -> RunRequest:
    tags = {REQUEST_TAG: request.base_key}
    if request.days:
        tags[ASSET_PARTITION_RANGE_START_TAG] = request.days.first.isoformat()
        tags[ASSET_PARTITION_RANGE_END_TAG] = request.days.last.isoformat()
    return RunRequest(run_key=request.run_key, job_name=job_name, run_config=run_config, tags=tags)


@dataclass(frozen=True)
class StaleRecord:
    """The newest word on which days hold a wrong answer, and the id of the event that says so."""

    storage_id: int
    days: frozenset[date]


def newest_stale_record(
    instance: DagsterInstance, metadata_key: str, materialized: Sequence[str]
) -> StaleRecord | None:
    """The newest of the events that carry ``metadata_key``: materializations of the given assets, and
    observations of ``identity_map``. Each was written by a run that had the warehouse to itself and lists all
    that was stale at that moment, so the newest is the whole truth and older ones need not be read.
    """
    records = [
        record
        for asset in materialized
        for record in instance.fetch_materializations(AssetRecordsFilter(AssetKey(asset)), limit=1).records
    ]
    records += instance.fetch_observations(AssetRecordsFilter(AssetKey("identity_map")), limit=1).records
    newest: StaleRecord | None = None
    for record in records:
        event = record.asset_materialization or record.asset_observation
        value = event.metadata.get(metadata_key) if event else None
        if not isinstance(value, JsonMetadataValue) or (newest and record.storage_id < newest.storage_id):
            continue
        days = frozenset(
            day
            for first, last in cast(list[tuple[str, str]], value.value)
            for day in DayRange(date.fromisoformat(first), date.fromisoformat(last))
        )
        newest = StaleRecord(record.storage_id, days)
    return newest
