"""Which runs a trigger requests, given what is stale and how the runs before ended.

A trigger is level-triggered: it looks at what is stale now, not at what happened since it last looked. So it needs no
cursor, and a lost tick or a failed run loses nothing. A request names the days and the state that made them stale.
While that state lasts, the request is made again. After a failure there is a pause, which grows with every further
failure in a row and has an upper bound. So a cause that is gone (a full disk, a lock) heals without a person.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Literal

from stitch_pipeline.planning.days import DayRange, ranges

MAX_ATTEMPTS = 3
"""Failures in a row after which a person should look: ticks fail, and ``settle`` gives up."""
_FIRST_PAUSE, _LONGEST_PAUSE = timedelta(seconds=10), timedelta(minutes=15)

RunState = Literal["waiting", "running", "succeeded", "failed"]


@dataclass(frozen=True)
class Request:
    """One run over a range of days, or, if ``days`` is None, over no particular days.

    ``base_key`` names what is requested and why.
    """

    days: DayRange | None
    base_key: str
    follows: str = "first"
    """The id of the latest run for the same base key."""

    @property
    def run_key(self) -> str:
        """Unique for each attempt, because Dagster never launches the same key twice."""
        return f"{self.base_key}#{self.follows}"


@dataclass(frozen=True)
class PastRun:
    """A run of a job, requested by a trigger or by a person. Times are UTC."""

    run_id: str
    base_key: str | None
    days: DayRange | None
    state: RunState
    ended_at: datetime | None = None
    found_warehouse_busy: bool = False


@dataclass(frozen=True)
class Paused:
    """A request that is not made now, because its runs failed ``failures`` times in a row."""

    request: Request
    last_run_id: str
    failures: int
    until: datetime | None
    """When it is made again; None if not in this ``settle``."""

    @property
    def needs_a_person(self) -> bool:
        return self.failures >= MAX_ATTEMPTS


@dataclass(frozen=True)
class Plan:
    requests: tuple[Request, ...] = ()
    paused: tuple[Paused, ...] = ()


@dataclass(frozen=True)
class Patience:
    """How failures in a row delay the next attempt. ``since`` is a UTC time; failures before it are forgotten."""

    since: datetime
    gives_up: bool = False
    """Retry at once and give up after MAX_ATTEMPTS, as ``settle`` does. Otherwise pause, and never give up."""

    def pause(self, run: PastRun, failures: int) -> timedelta | None:
        """How long to wait after a run, the latest of some failures in a row; None is for good."""
        if self.gives_up:
            return timedelta(0) if failures < MAX_ATTEMPTS else None
        if run.found_warehouse_busy:
            return _FIRST_PAUSE  # the run has waited itself
        doubled: int = 2 ** min(failures - 1, 20)
        return min(_FIRST_PAUSE * doubled, _LONGEST_PAUSE)


def plan_requests(
    stale: Iterable[date],
    *,
    kind: str,
    state: Callable[[DayRange], str],
    covered: Sequence[DayRange],
    past: Sequence[PastRun],
    patience: Patience,
    now: datetime,
) -> Plan:
    """Requests for the ``stale`` days, one per range.

    ``state(days)`` names what made a range stale. ``covered`` are the ranges of unfinished runs that will see the
    newest state. ``past`` are the runs of the job, newest first. ``now`` is a UTC time.
    """
    uncovered = {day for day in stale if not any(day in days for days in covered)}
    plans = [
        plan_request(f"{kind}:{days.first}:{days.last}:{state(days)}", days, past=past, patience=patience, now=now)
        for days in ranges(uncovered)
    ]
    return Plan(
        tuple(request for plan in plans for request in plan.requests),
        tuple(paused for plan in plans for paused in plan.paused),
    )


def plan_request(
    base_key: str, days: DayRange | None, *, past: Sequence[PastRun], patience: Patience, now: datetime
) -> Plan:
    """The next attempt at one request, unless an attempt is unfinished or failures ask for a pause."""
    same = [run for run in past if run.base_key == base_key]
    if any(run.state in ("waiting", "running") for run in same):
        return Plan()
    request = Request(days, base_key, same[0].run_id if same else "first")
    failed = list(_failed_in_a_row(base_key, days, past, patience))
    if not failed:
        return Plan((request,))
    failures = len([run for run in failed if patience.gives_up or not run.found_warehouse_busy])
    pause = patience.pause(failed[0], failures)
    until = None if pause is None else (failed[0].ended_at or patience.since) + pause
    if until is not None and until <= now:
        return Plan((request,))
    return Plan((), (Paused(request, failed[0].run_id, failures, until),))


def _failed_in_a_row(
    base_key: str, days: DayRange | None, past: Sequence[PastRun], patience: Patience
) -> Iterable[PastRun]:
    """The latest runs over some of the days, newest first, up to one that succeeded.

    A run that succeeded and left the state as it was counts as failed, or the request would be repeated for ever.
    """
    for run in past:
        is_of_these_days = (
            days is None or run.days is None or (run.days.first <= days.last and days.first <= run.days.last)
        )
        if not is_of_these_days or run.state in ("waiting", "running"):
            continue
        if run.state == "succeeded" and run.base_key != base_key:
            return
        if run.ended_at is not None and run.ended_at < patience.since:
            return
        yield run
