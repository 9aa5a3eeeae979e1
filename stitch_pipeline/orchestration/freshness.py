"""When the UI calls a table overdue."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import pairwise

from croniter import croniter
from dagster import FreshnessPolicy

from stitch_pipeline.settings import Settings

TABLES_WITH_FRESHNESS = ("raw_events", "stitched_sessions", "page_views", "users", "visitor_stats")
"""The tables that people read. The others are built in the same runs."""
# A run needs time, and may wait for others.
_GRACE = timedelta(hours=2)
_WEEK = timedelta(days=7)
_TICKS = (9, 1500)  # at least, and at most: of a schedule by the minute a week has ten thousand
_ANY_DATE = datetime(2024, 1, 1)


def freshness_policy(settings: Settings) -> FreshnessPolicy:
    """A warning when one run of ``daily_schedule`` is missing, and a failure when two are.

    A time window and not a deadline: Dagster counts a deadline as met by whatever was materialized since the one
    before it, so a missing run would show a day later. Either looks at the newest materialization of any partition, so
    a backfill of an old day counts too.
    """
    ticks = croniter(settings.daily_cron, _ANY_DATE)
    least, most = _TICKS
    times = [ticks.get_next(datetime) for _ in range(least)]
    while times[-1] - times[0] < _WEEK and len(times) < most:
        times.append(ticks.get_next(datetime))
    longest_pause = max(later - earlier for earlier, later in pairwise(times))
    return FreshnessPolicy.time_window(fail_window=2 * longest_pause + _GRACE, warn_window=longest_pause + _GRACE)
