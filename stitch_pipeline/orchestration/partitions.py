"""The daily partitions.

Partitions are UTC days. The current day is one of them, so events that land now are visible now. ``daily_schedule``
builds it again once it has closed.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

from dagster import AssetExecutionContext, DailyPartitionsDefinition

from stitch_pipeline.planning.days import DayRange
from stitch_pipeline.settings import Settings


def daily_partitions(settings: Settings) -> DailyPartitionsDefinition:
    """UTC days from the start date up to and including today."""
    return DailyPartitionsDefinition(start_date=settings.start_date.isoformat(), end_offset=1)


def last_day() -> date:
    """The day of the newest partition: today in UTC."""
    return datetime.now(UTC).date()


def window_of(context: AssetExecutionContext) -> DayRange:
    """The days of a run over one partition or over a range of partitions."""
    window = context.partition_time_window
    return DayRange(window.start.date(), window.end.date() - timedelta(days=1))
