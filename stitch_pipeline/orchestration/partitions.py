"""The daily partitions.

Partitions are UTC days. The current day is one of them, so that what lands now is visible now; the
schedule takes it up again once it has closed.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

from dagster import AssetExecutionContext, DailyPartitionsDefinition

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
