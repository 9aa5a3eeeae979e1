"""Days (UTC dates) and ranges of days."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta


@dataclass(frozen=True, order=True)
class DayRange:
    """The days from ``first`` to ``last``, both included."""

    first: date
    last: date

    def __post_init__(self) -> None:
        if self.first > self.last:
            raise ValueError(f"a range of days ends before it starts: {self.first} to {self.last}")

    def __iter__(self) -> Iterator[date]:
        return (self.first + timedelta(days=n) for n in range(len(self)))

    def __len__(self) -> int:
        return (self.last - self.first).days + 1

    def __contains__(self, day: date) -> bool:
        return self.first <= day <= self.last

    def __str__(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first} to {self.last}"


def ranges(days: Iterable[date]) -> list[DayRange]:
    """The fewest ranges that hold exactly ``days``."""
    joined: list[DayRange] = []
    for day in sorted(set(days)):
        if joined and joined[-1].last + timedelta(days=1) == day:
            joined[-1] = DayRange(joined[-1].first, day)
        else:
            joined.append(DayRange(day, day))
    return joined


def days_to_rebuild(changed: Iterable[date], first_day: date, last_day: date) -> set[date]:
    """The partitions that depend on the events of the ``changed`` days.

    A session of D reads the events of D-1, D and D+1, so a change on D reaches the sessions of D-1 to D+1. A page view
    belongs to a session that starts on its own day or the day before, so the change reaches the page views of D to D+2.
    Days outside ``first_day`` to ``last_day`` have no partition (yet).
    """
    reached = {day + timedelta(days=n) for day in changed for n in range(-1, 3)}
    return {day for day in reached if first_day <= day <= last_day}


def settled_by(changed: Iterable[date], built: DayRange, first_day: date, last_day: date) -> set[date]:
    """The ``changed`` days that need no further build after one of ``built``: all partitions they reach lie in it."""
    return {
        day
        for day in changed
        if (reached := days_to_rebuild([day], first_day, last_day)) and all(d in built for d in reached)
    }
