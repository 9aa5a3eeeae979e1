"""The daily partitions and how a partition of one asset depends on those of another.

Partitions are UTC days. The current day is one of them, so that what lands now is visible now; the
schedule takes it up again once it has closed.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from functools import cache

from dagster import AssetExecutionContext, DailyPartitionsDefinition, TimeWindowPartitionMapping

from stitch_pipeline.planning.days import DayRange
from stitch_pipeline.settings import Settings


def daily_partitions(settings: Settings) -> DailyPartitionsDefinition:
    return DailyPartitionsDefinition(start_date=settings.start_date.isoformat(), end_offset=1)


def last_day() -> date:
    """The newest partition's day: today in UTC."""
    return datetime.now(UTC).date()


def window_of(context: AssetExecutionContext) -> DayRange:
    """The days of a run, whether it was started for one partition or for a range."""
    window = context.partition_time_window
    return DayRange(window.start.date(), window.end.date() - timedelta(days=1))


@cache
def neighbours(before: int, after: int) -> TimeWindowPartitionMapping:
    """A partition depends on the upstream days from ``before`` days earlier to ``after`` days later."""
    return TimeWindowPartitionMapping(
        start_offset=-before, end_offset=after, allow_nonexistent_upstream_partitions=True
    )
