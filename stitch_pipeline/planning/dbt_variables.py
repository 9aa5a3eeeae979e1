"""The variables of one dbt run, as ``dbt_project.yml`` declares them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

from stitch_pipeline.planning.days import DayRange


def dbt_variables(
    window: DayRange,
    *,
    known_at: datetime,
    session_timeout_minutes: int,
    view_stitching: bool,
    step_days: int = 1,
    only_pending: bool = False,
    restitch_only: bool = False,
    exceptions: Mapping[str, Any] | None = None,
    reconcile: bool = False,
    stale_grains: Collection[str] = (),
    just_built: Collection[str] = (),
    never_stale: Collection[str] = (),
) -> dict[str, Any]:
    """The variables as JSON can hold them. ``dbt_project.yml`` explains each; ``known_at`` is UTC without a zone."""
    return {
        "first_day": window.first.isoformat(),
        "last_day": window.last.isoformat(),
        "session_timeout_minutes": session_timeout_minutes,
        "only_pending": only_pending,
        "restitch_only": restitch_only,
        "view_stitching": view_stitching,
        "step_days": step_days,
        "known_at": known_at.isoformat(sep=" ", timespec="microseconds"),
        "exceptions": dict(exceptions or {}),
        "reconcile": reconcile,
        "stale_grains": list(stale_grains),
        "just_built": list(just_built),
        "never_stale": list(never_stale),
    }


def days_per_step(window: DayRange, events: int, events_per_step: int) -> int:
    """How many days of the window the models process at once; at least one.

    ``events`` is the number of events in the window, ``events_per_step`` about how many a step may have.
    """
    days = (window.last - window.first).days + 1
    return min(days, max(1, days * events_per_step // max(events, 1)))
