"""What is left to do, what fails and what a person should know: for ``stitch status`` and the end of ``settle``.

Belongs here: what index, run storage and triggers say. Does not: opening the warehouse, which a run may have locked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from dagster import DagsterInstance

from stitch_pipeline.landing.index import LandingIndex
from stitch_pipeline.orchestration.assets.landing import HELD_BACK_REMEDY
from stitch_pipeline.orchestration.triggers import TRIGGERS, Now, about
from stitch_pipeline.settings import Settings
from stitch_pipeline.warehouse.engine import engine_of


@dataclass(frozen=True)
class TriggerStatus:
    """What one trigger would do now."""

    name: str
    job_name: str
    requests: Sequence[str]
    """The days that it requests, or "all days"."""
    paused: Sequence[str]
    """A sentence for each request that waits after a failure."""
    needs_a_person: bool
    otherwise: str
    """Why it requests nothing, if it does not."""


@dataclass(frozen=True)
class Status:
    """The state of a deployment."""

    warehouse: str
    exists: bool
    last_look: str | None
    """When the index was last renewed by a run (UTC)."""
    triggers: Sequence[TriggerStatus]
    notices: Sequence[str]

    @property
    def is_settled(self) -> bool:
        """Whether no trigger requests anything, now or after a pause."""
        return not any(trigger.requests or trigger.paused for trigger in self.triggers)


def status(settings: Settings, instance: DagsterInstance) -> Status:
    """Evaluate every trigger, and launch nothing. The landing zone is listed, and new files are indexed."""
    engine = engine_of(settings)
    triggers = []
    for trigger in TRIGGERS:
        if not trigger.settles:
            continue
        wanted = trigger.wanted(settings, instance, Now(datetime.now(UTC)))
        triggers.append(
            TriggerStatus(
                name=trigger.name,
                job_name=trigger.job_name,
                requests=[str(request.days or "all days") for request in wanted.plan.requests],
                paused=[about(paused, trigger.job_name, instance) for paused in wanted.plan.paused],
                needs_a_person=bool(wanted.failing),
                otherwise=wanted.otherwise,
            )
        )
    copy = LandingIndex(settings.index_path).copy()
    return Status(
        warehouse=engine.place,
        exists=engine.exists(),
        last_look=copy.noted_at if copy else None,
        triggers=triggers,
        notices=notices(settings),
    )


def notices(settings: Settings) -> list[str]:
    """What a person should know even when nothing is left to do, one sentence each."""
    index = LandingIndex(settings.index_path)
    found = []
    files = [file for file in index.files().values() if file.version is not None]
    unreadable = [file for file in files if file.problem is not None]
    bad = [file for file in files if file.bad_row_count and file.problem is None]
    if bad:
        found.append(
            f"{_count(sum(file.bad_row_count for file in bad), 'row')} of {_count(len(bad), 'file')} cannot be events: "
            "stitch.quarantined_events has each with its reason and remedy"
        )
    if unreadable:
        found.append(
            f"{_count(len(unreadable), 'file')} cannot be read, for instance {unreadable[0].landing_file}: "
            f"{unreadable[0].problem}"
        )
    vanished = index.held_back()
    if vanished:
        found.append(
            f"{vanished.count:,} of {vanished.known:,} files are gone from the landing zone, for instance "
            f"{vanished.examples[0]}. {HELD_BACK_REMEDY}"
        )
    return found


def _count(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'s' * (number != 1)}"
