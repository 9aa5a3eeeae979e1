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
        "known_at": known_at.isoformat(sep=" ", timespec="microseconds"),
    }
