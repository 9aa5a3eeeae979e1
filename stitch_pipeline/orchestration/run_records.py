"""What Dagster's own storage holds: which runs were requested, and the record that each run leaves of what it did.

Sensors and schedules read these and never the warehouse, which a run may have locked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any, cast

from dagster import (
    AssetKey,
    AssetObservation,
    AssetRecordsFilter,
    DagsterInstance,
    DagsterRunStatus,
    IntMetadataValue,
    JsonMetadataValue,
    MetadataValue,
    RunRequest,
    RunsFilter,
)
from dagster._core.storage.tags import ASSET_PARTITION_RANGE_END_TAG, ASSET_PARTITION_RANGE_START_TAG

from stitch_pipeline.planning.days import DayRange, ranges
from stitch_pipeline.planning.requests import Request, RunState
from stitch_pipeline.stitching.build import Stale

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
    """The states of the runs for a request, oldest first."""
    runs = instance.get_runs(filters=RunsFilter(tags={REQUEST_TAG: base_key}))
    return [_STATES.get(run.status, "running") for run in reversed(runs)]


def covered_ranges(instance: DagsterInstance, job_name: str, *states: RunState) -> list[DayRange]:
    """The day ranges of the job's runs that are in one of the given states."""
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


def run_request(request: Request, run_config: Mapping[str, Any] | None = None) -> RunRequest:
    """The request in Dagster's terms. Its tags hold the base key and, if it has days, the partition range."""
    tags = {REQUEST_TAG: request.base_key}
    if request.days:
        tags[ASSET_PARTITION_RANGE_START_TAG] = request.days.first.isoformat()
        tags[ASSET_PARTITION_RANGE_END_TAG] = request.days.last.isoformat()
    return RunRequest(run_key=request.run_key, run_config=run_config, tags=tags)


STALE_SESSION_DAYS = "stale_session_days"
STALE_PAGE_VIEW_DAYS = "stale_page_view_days"
_RECORDED_ON = AssetKey("identity_map")
# Newest observations to search, because other observations of the asset may lie between two records.
_OBSERVATIONS = 100
_TABLE_OF_GRAIN = {
    "sessions": "stitched_sessions",
    "page_views": "page_views",
    "mapping": "user_mapping_history",
    "users": "users",
}


def run_record(
    changed: Mapping[str, Mapping[Any, int]], seconds: Mapping[str, float], stale: Stale | None
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
    return AssetObservation(_RECORDED_ON, metadata=metadata)


def stale_metadata(stale: Stale) -> dict[str, MetadataValue[Any]]:
    """The stale days as ranges (ISO dates, both included), and the numbers of stale rows and partitions per table."""
    metadata: dict[str, MetadataValue[Any]] = {}
    for grain, key in (("sessions", STALE_SESSION_DAYS), ("page_views", STALE_PAGE_VIEW_DAYS)):
        # A record that repeated the days of another grain would make its requests new ones.
        if grain not in stale.checked:
            continue
        found = ranges(stale.days(grain))
        metadata[key] = MetadataValue.json([[str(days.first), str(days.last)] for days in found])
    for grain, table in _TABLE_OF_GRAIN.items():
        if ("page_views" if grain == "page_views" else "sessions") not in stale.checked:
            continue
        rows = stale.rows.get(grain, {})
        has_days = grain in ("sessions", "page_views")
        # A re-stitch of sessions also brings the other two up to date, so they count only if no session is stale.
        if has_days or (rows and "sessions" not in stale.rows):
            metadata[f"{table}_stale_rows"] = MetadataValue.int(sum(rows.values()))
        if has_days:
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


@dataclass(frozen=True)
class StaleRecord:
    """The days that a run's record lists as stale, and the event id of the record."""

    storage_id: int
    days: frozenset[date]


def newest_stale_record(instance: DagsterInstance, metadata_key: str) -> StaleRecord | None:
    """The newest record with ``metadata_key``; None if there is none.

    A run writes a record while it has the warehouse to itself, and the record lists everything that is stale at that
    moment. So the newest is complete, and older ones need not be read.
    """
    for record in instance.fetch_observations(AssetRecordsFilter(_RECORDED_ON), limit=_OBSERVATIONS).records:
        observation = record.asset_observation
        value = observation.metadata.get(metadata_key) if observation else None
        if isinstance(value, JsonMetadataValue):
            days = frozenset(
                day
                for first, last in cast(list[tuple[str, str]], value.value)
                for day in DayRange(date.fromisoformat(first), date.fromisoformat(last))
            )
            return StaleRecord(record.storage_id, days)
    return None
