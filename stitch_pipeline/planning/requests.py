"""Which runs a sensor requests, given what is stale and what has been requested already.

A sensor here is level-triggered: it looks at what is stale now, not at what happened since it last looked. So it needs
no cursor, and a lost tick or a failed run loses nothing. The run key prevents a second request: it names the days and
the state that made them stale. If a run ends and the state is still the same, the request is made again under a new
attempt number, a limited number of times; after that a person must look. A newer state starts a new count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Literal

from stitch_pipeline.planning.days import DayRange, ranges

MAX_ATTEMPTS = 3

RunState = Literal["waiting", "running", "succeeded", "failed"]


@dataclass(frozen=True)
class Request:
    """One run over a range of days, or, if ``days`` is None, over no particular days.

    ``base_key`` is the run key without the attempt number.
    """

    days: DayRange | None
    base_key: str
    attempt: int = 1

    @property
    def run_key(self) -> str:
        return f"{self.base_key}#{self.attempt}"


@dataclass(frozen=True)
class Plan:
    requests: tuple[Request, ...]
    gave_up: tuple[DayRange | None, ...]
    """Ranges for which MAX_ATTEMPTS runs ended although the state is still the same."""


def plan_requests(
    stale: Iterable[date],
    *,
    kind: str,
    state: Callable[[DayRange], str],
    covered: Sequence[DayRange],
    past: Callable[[str], Sequence[RunState]],
) -> Plan:
    """Requests for the ``stale`` days, one per range.

    ``state(days)`` names what made a range stale (a version or an event id). ``covered`` are the ranges of unfinished
    runs that will see the newest state, or record themselves what they left. ``past(base_key)`` returns the states of
    the runs made for a key, oldest first.
    """
    uncovered = {day for day in stale if not any(day in days for days in covered)}
    plans = [
        plan_request(f"{kind}:{days.first}:{days.last}:{state(days)}", days, past=past) for days in ranges(uncovered)
    ]
    return Plan(
        tuple(request for plan in plans for request in plan.requests),
        tuple(days for plan in plans for days in plan.gave_up),
    )


def plan_request(base_key: str, days: DayRange | None, *, past: Callable[[str], Sequence[RunState]]) -> Plan:
    """The next attempt at one request, unless an attempt is unfinished or there have been MAX_ATTEMPTS."""
    runs = past(base_key)
    if any(run in ("waiting", "running") for run in runs):
        return Plan((), ())
    if len(runs) >= MAX_ATTEMPTS:
        return Plan((), (days,))
    return Plan((Request(days, base_key, attempt=len(runs) + 1),), ())
