"""What is left to do, what fails and what a person should know: for ``stitch status`` and the end of ``settle``.

Belongs here: what index, run storage and triggers say. Does not: opening the warehouse, which a run may have locked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from dagster import DagsterInstance, DagsterRunStatus, RunsFilter

from stitch_pipeline.landing.extracts import is_extract
from stitch_pipeline.landing.index import LandingIndex
from stitch_pipeline.orchestration.jobs import JOBS
from stitch_pipeline.orchestration.placement import name_of, names_of
from stitch_pipeline.orchestration.run_records import underway
from stitch_pipeline.orchestration.triggers import Now, about, settling
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
    """A sentence for each request that waits after a failure, and for each feed whose table cannot be read."""
    needs_a_person: bool
    otherwise: str
    """Why it requests nothing, if it does not."""
    waits_for_schedule: bool
    """Whether what it requests waits for a time of day, as the re-stitch of page views does."""


@dataclass(frozen=True)
class Landing:
    """What has landed, by what the index of the landing zone knows."""

    loaded_files: int
    loaded_rows: int
    """Rows of the loaded files, with the quarantined ones and duplicates."""
    quarantined_rows: int
    unreadable_files: int
    pending_files: int
    """Files that are new, changed or gone since they were loaded."""
    pending_days: int
    """Days that these files touch, or whose events changed since they were built."""
    first_day: date | None
    last_day: date | None
    """The newest day with loaded events (UTC)."""

    def days_behind(self, today: date) -> int | None:
        """How many closed days after the newest one have no event yet; None if nothing is loaded."""
        return None if self.last_day is None else max((today - timedelta(days=1) - self.last_day).days, 0)


@dataclass(frozen=True)
class LastRun:
    """The last run of one of the jobs that succeeded."""

    job_name: str
    ended_at: datetime
    """UTC."""


@dataclass(frozen=True)
class Status:
    """The state of a deployment."""

    warehouse: str
    exists: bool
    last_look: str | None
    """When the index was last renewed by a run (UTC)."""
    landing: Landing
    days_behind: int | None
    """See ``Landing.days_behind``."""
    last_success: LastRun | None
    underway: Sequence[str]
    """Jobs with a run that is queued or has started."""
    triggers: Sequence[TriggerStatus]
    notices: Sequence[str]

    @property
    def is_settled(self) -> bool:
        """Whether no trigger requests anything, now or after a pause. What waits for a schedule does not count."""
        return not any(
            (trigger.requests and not trigger.waits_for_schedule) or trigger.paused for trigger in self.triggers
        )


def status(settings: Settings, instance: DagsterInstance) -> Status:
    """Evaluate every trigger, and launch nothing. The landing zone is listed, and new files are indexed."""
    engine = engine_of(settings)
    triggers = []
    for trigger in settling(settings):
        wanted = trigger.wanted(settings, instance, Now(datetime.now(UTC), looks_at_tables=False))
        triggers.append(
            TriggerStatus(
                name=name_of(settings, trigger.name),
                job_name=name_of(settings, trigger.job_name),
                requests=[str(request.days or "all days") for request in wanted.plan.requests],
                paused=[
                    *wanted.complaints,
                    *(about(paused, name_of(settings, trigger.job_name), instance) for paused in wanted.plan.paused),
                    *([] if wanted.is_complete else [wanted.otherwise]),
                ],
                needs_a_person=bool(wanted.failing or wanted.problems),
                otherwise=wanted.otherwise,
                waits_for_schedule=trigger.cron is not None,
            )
        )
    index = LandingIndex(settings.index_path)
    copy, landing = index.copy(), _landing(index)
    return Status(
        warehouse=engine.place,
        exists=engine.exists(),
        last_look=copy.noted_at if copy else None,
        landing=landing,
        days_behind=landing.days_behind(datetime.now(UTC).date()),
        last_success=_last_success(settings, instance),
        underway=underway(instance, names_of(settings, JOBS)),
        triggers=triggers,
        notices=notices(settings),
    )


def _landing(index: LandingIndex) -> Landing:
    files, copy = index.files().values(), index.copy()
    loaded = [file for file in files if file.loaded_version is not None]
    pending = [file for file in files if file.is_pending]
    # A file without an event is filed under the day on which it was written.
    days = {day for file in loaded if file.row_count > file.bad_row_count for day in file.loaded_days}
    return Landing(
        loaded_files=len(loaded),
        loaded_rows=sum(file.row_count for file in loaded),
        quarantined_rows=sum(file.bad_row_count for file in loaded if file.problem is None),
        unreadable_files=sum(file.problem is not None for file in files),
        pending_files=len(pending),
        pending_days=len(
            {day for file in pending for day in file.touched_days}.union(copy.changed_days if copy else ())
        ),
        first_day=min(days, default=None),
        last_day=max(days, default=None),
    )


def _last_success(settings: Settings, instance: DagsterInstance) -> LastRun | None:
    # Per job, because the instance may run jobs of others as well.
    ended = [
        LastRun(job_name, datetime.fromtimestamp(record.end_time, UTC))
        for job_name in names_of(settings, JOBS)
        for record in instance.get_run_records(
            RunsFilter(job_name=job_name, statuses=[DagsterRunStatus.SUCCESS]), limit=1
        )
        if record.end_time is not None
    ]
    return max(ended, key=lambda run: run.ended_at, default=None)


def notices(settings: Settings) -> list[str]:
    """What a person should know even when nothing is left to do, one sentence each."""
    index = LandingIndex(settings.index_path)
    found = []
    files = [file for file in index.files().values() if file.version is not None]
    unreadable = [file for file in files if file.problem is not None]
    bad = [file for file in files if file.bad_row_count and file.problem is None]
    if bad:
        in_tables = any(is_extract(settings, file.landing_file) for file in bad)
        found.append(
            f"{_count(sum(file.bad_row_count for file in bad), 'row')} of {_count(len(bad), 'file')} cannot be events: "
            "stitch.quarantined_events has each with its reason and remedy"
            + ("; rows that were corrected in a table are read by `stitch settle --reconcile`" if in_tables else "")
        )
    if unreadable:
        found.append(
            f"{_count(len(unreadable), 'file')} cannot be read, for instance {unreadable[0].landing_file}: "
            f"{unreadable[0].problem}"
        )
    return [*found, *settings.hashing.sentences]


def _count(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'s' * (number != 1)}"
