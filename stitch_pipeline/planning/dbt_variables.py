"""What dbt is told about one run."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from stitch_pipeline.planning.days import DayRange


def dbt_variables(
    window: DayRange,
    *,
    session_timeout_minutes: int,
    only_pending: bool,
    restitch_only: bool,
    view_stitching: bool,
    follows_settings: bool,
    step_days: int,
    known_at: datetime,
) -> dict[str, Any]:
    """The variables that ``dbt_project.yml`` declares, for a run over ``window``."""
    return {
        "first_day": window.first.isoformat(),
        "last_day": window.last.isoformat(),
        "session_timeout_minutes": session_timeout_minutes,
        "only_pending": only_pending,
        "restitch_only": restitch_only,
        "view_stitching": view_stitching,
        "follows_settings": follows_settings,
        "step_days": step_days,
        "known_at": known_at.isoformat(sep=" ", timespec="microseconds"),
    }


def days_per_step(window: DayRange, events: int, events_per_step: int) -> int:
    """How many days of the window the models take at once, to look at ``events``; at least one."""
    days = (window.last - window.first).days + 1
    return min(days, max(1, days * events_per_step // max(events, 1)))
