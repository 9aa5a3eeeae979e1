"""The figures of the report: what stitching did for each project, and the state of the deployment.

Belongs here: the queries. Does not: how a page shows the figures (``report``), or when (``orchestration``). Every
figure is a count, a share or a time. No id of a device, user or identifier is returned.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any

from stitch_pipeline.landing.index import LandingIndex
from stitch_pipeline.settings import Settings, SettingsError
from stitch_pipeline.stitching.build import TABLES
from stitch_pipeline.stitching.facts import IS_STITCHED
from stitch_pipeline.stitching.views import refuse_other_views
from stitch_pipeline.warehouse.engine import engine_of
from stitch_pipeline.warehouse.port import Row, Warehouse

DEVICES_SHOWN = 6
"""Persons with as many devices, or more, are one bar of the distribution."""
_HOUR = 3600
TIMES_TO_LOGIN: Sequence[tuple[str, float]] = (
    ("under 1 hour", _HOUR),
    ("1 to 24 hours", 24 * _HOUR),
    ("1 to 3 days", 3 * 24 * _HOUR),
    ("3 to 7 days", 7 * 24 * _HOUR),
    ("7 to 14 days", 14 * 24 * _HOUR),
    ("14 to 30 days", 30 * 24 * _HOUR),
    ("30 days or more", float("inf")),
)
"""The bars of the distribution of time to login, each with its end in seconds, exclusive."""


@dataclass(frozen=True)
class Day:
    """One project's UTC day; sessions belong to the day they start on."""

    day: date
    sessions: int = 0
    sessions_with_own_user: int = 0
    sessions_credited: int = 0
    visitors_unstitched: int = 0
    visitors: int = 0


@dataclass(frozen=True)
class LastAnswer:
    """The last time at which devices were found to have another user than before."""

    known_since: datetime
    """Of the run that found it, UTC."""
    devices: int
    users: int
    """The users that these devices' anonymous rows are credited to now."""


@dataclass(frozen=True)
class Guarded:
    """What a guard held back."""

    guard: str
    field: str
    """The kind of value: anonymous_id, user_id or landing_file."""
    values: int
    events: int
    first_seen_at: datetime | None
    last_seen_at: datetime | None


@dataclass
class Project:
    """The figures of one project over all its days."""

    project_id: str
    events: int = 0
    first_event_day: date | None = None
    last_event_day: date | None = None
    sessions: int = 0
    sessions_with_own_user: int = 0
    sessions_credited: int = 0
    page_views: int = 0
    page_views_with_own_user: int = 0
    page_views_credited: int = 0
    visitors_unstitched: int = 0
    visitors: int = 0
    persons: int = 0
    devices_of_persons: int = 0
    persons_with_login: int = 0
    median_hours_to_login: float | None = None
    days: list[Day] = field(default_factory=list)
    devices_per_person: dict[int, int] = field(default_factory=dict)
    """Persons by their number of devices; ``DEVICES_SHOWN`` stands for more as well."""
    time_to_login: dict[str, int] = field(default_factory=dict)
    """Persons by the time from the first touch to the login, in the order of ``TIMES_TO_LOGIN``."""
    last_answer: LastAnswer | None = None
    restitched: dict[str, dict[date, int]] = field(default_factory=dict)
    """By table and day the anonymous rows that are credited otherwise than before the last answer was known."""
    guards: list[Guarded] = field(default_factory=list)


@dataclass(frozen=True)
class JobState:
    """The last run of a job, as the orchestrator records it."""

    name: str
    ended_at: datetime | None
    """UTC; None while the run goes on."""
    state: str
    """waiting, running, succeeded or failed."""
    failures: int
    """How many of the last runs failed in a row."""


@dataclass(frozen=True)
class Deployment:
    """What is of no single project: quarantined rows, the last runs, and what is left to do."""

    files: int = 0
    unreadable_files: int = 0
    last_loaded_at: datetime | None = None
    last_run_at: datetime | None = None
    """When a run last left the warehouse, UTC."""
    files_waiting: int = 0
    """New, changed and vanished files that the index knows and no run has loaded."""
    files_held_back: int = 0
    days_to_build: int = 0
    stale_days: Mapping[str, int] = field(default_factory=dict)
    """Days with stored rows that are known to be wrong, by grain."""
    changed_rows: Mapping[str, Mapping[date | None, int]] = field(default_factory=dict)
    """By table and day the rows that its last run wrote or deleted; under None for a table without days."""
    quarantine: Sequence[tuple[str, str, int]] = ()
    """Problem code, feed and number of rows."""
    guards: Sequence[Guarded] = ()
    """What the guards of time held back: quarantined rows, which have no project."""
    jobs: Sequence[JobState] = ()


@dataclass(frozen=True)
class Figures:
    """The figures of a report, as of ``read_at`` (UTC)."""

    read_at: datetime
    projects: Sequence[Project]
    deployment: Deployment


def headline(project: Project) -> dict[str, Any]:
    """The numbers that matter most; shares from 0 to 1, and None where there is nothing to divide by."""
    before = share(project.sessions_with_own_user, project.sessions)
    after = share(project.sessions_credited, project.sessions)
    return {
        "sessions": project.sessions,
        "credited_before": before,
        "stitch_rate": after,
        "lift": None if before is None or after is None else after - before,
        "visitors_before": project.visitors_unstitched,
        "visitors_after": project.visitors,
        "devices_per_person": project.devices_of_persons / project.persons if project.persons else None,
        "median_hours_to_login": project.median_hours_to_login,
    }


def share(part: int, whole: int) -> float | None:
    """The part as a share from 0 to 1; None of nothing."""
    return part / whole if whole else None


def read_figures(settings: Settings, project_id: str | None = None, jobs: Sequence[JobState] = ()) -> Figures:
    """Read the figures of every project with events, or of one. The warehouse is opened for reading only.

    ``jobs`` are added as they are: a caller that knows the orchestrator has them.
    A warehouse that does not exist yet has no project. Raises WarehouseBusy if another process has the warehouse open
    for too long, WarehouseError if it cannot be read, and SettingsError if it has no such project.
    """
    engine = engine_of(settings)
    read_at = datetime.now(UTC).replace(tzinfo=None)
    projects: list[Project] = []
    deployment: dict[str, Any] = {}
    if engine.exists():
        with engine.open(read_only=True) as warehouse:
            refuse_other_views(warehouse, engine.place)
            projects = _projects(warehouse)
            deployment = _deployment(warehouse)
    if project_id is not None:
        named = [project for project in projects if project.project_id == project_id]
        if not named:
            raise SettingsError(f"There is no project '{project_id}' with events in the warehouse '{engine.place}'.")
        projects = named
    return Figures(read_at, projects, Deployment(jobs=jobs, **deployment, **_indexed(settings)))


def _projects(warehouse: Warehouse) -> list[Project]:
    found: dict[str, Project] = {}
    for row in warehouse.records(
        "select project_id, count(*) as events, min(event_date) as first_event_day, max(event_date) as last_event_day "
        "from raw_events group by project_id order by project_id"
    ):
        found[row["project_id"]] = Project(**row)
    for query in (_SESSIONS, _PAGE_VIEWS, _PERSONS, _LOGINS):
        for row in warehouse.records(query):
            project = found.get(row.pop("project_id"))
            for name, value in row.items():
                if project:
                    setattr(project, name, value)
    for project_id, people in warehouse.rows(_PEOPLE_WITHOUT_SESSIONS):
        if project_id in found:
            found[project_id].visitors += people
    for project_id, days in _days(warehouse).items():
        if project_id in found:
            found[project_id].days = days
    for project_id, devices, persons in warehouse.rows(_DEVICES_PER_PERSON):
        if project_id in found:
            found[project_id].devices_per_person[devices] = persons
    for project_id, position, persons in warehouse.rows(_times_to_login()):
        if project_id in found:
            found[project_id].time_to_login[TIMES_TO_LOGIN[position][0]] = persons
    for project_id, *answer in warehouse.rows(_LAST_ANSWERS):
        if project_id in found:
            found[project_id].last_answer = LastAnswer(*answer)
    for table, query in _RESTITCHED.items():
        for project_id, day, rows in warehouse.rows(query):
            if project_id in found:
                found[project_id].restitched.setdefault(table, {})[day] = rows
    for project_id, *guarded in warehouse.rows(_guards("project_id is not null")):
        if project_id in found:
            found[project_id].guards.append(Guarded(*guarded))
    return list(found.values())


def _days(warehouse: Warehouse) -> dict[str, list[Day]]:
    days: defaultdict[str, list[Day]] = defaultdict(list)
    for project_id, *figures in warehouse.rows(_DAYS):
        days[project_id].append(Day(*figures))
    return days


def _deployment(warehouse: Warehouse) -> dict[str, Any]:
    ((files, unreadable, last_loaded_at),) = warehouse.rows(
        "select count(*), count(problem), max(loaded_at) from landing_files"
    )
    ((days_to_build,),) = warehouse.rows("select count(distinct day) from changed_days")
    changed: dict[str, dict[date | None, int]] = {}
    for table, day, rows in warehouse.rows("select model, day, rows_changed from changed_rows order by day"):
        changed.setdefault(table, {})[day] = rows
    return {
        "files": files,
        "unreadable_files": unreadable,
        "last_loaded_at": last_loaded_at,
        "days_to_build": days_to_build,
        "stale_days": dict(
            warehouse.rows("select grain, count(*) from stale_partitions group by grain order by grain")
        ),
        "changed_rows": {table: changed[table] for table in TABLES if table in changed},
        "quarantine": _counted(
            warehouse.rows(
                "select coalesce(problem, 'unknown'), split_part(landing_file, '/', 1), count(*) "
                "from quarantined_events group by 1, 2 order by 3 desc, 1, 2"
            )
        ),
        "guards": [Guarded(*guarded) for _, *guarded in warehouse.rows(_guards("project_id is null"))],
    }


def _counted(rows: Iterable[Row]) -> list[tuple[str, str, int]]:
    return [(problem, feed, count) for problem, feed, count in rows]


def _indexed(settings: Settings) -> dict[str, Any]:
    """What the index knows; nothing if there is none, because a reader creates no file."""
    if not settings.index_path.exists():
        return {}
    index = LandingIndex(settings.index_path)
    copy, held_back = index.copy(), index.held_back()
    return {
        "last_run_at": datetime.fromisoformat(copy.noted_at).replace(tzinfo=None) if copy else None,
        "files_waiting": len(index.pending()),
        "files_held_back": held_back.count if held_back else 0,
    }


_SESSIONS = f"""
    select
      project_id,
      count(*) as sessions,
      count(user_id) as sessions_with_own_user,
      count(case when {IS_STITCHED} then 1 end) as sessions_credited,
      count(distinct anonymous_id) as visitors_unstitched,
      count(distinct stitched_user_id) as visitors
    from stitched_sessions
    group by project_id
"""
_PAGE_VIEWS = f"""
    select
      project_id,
      count(*) as page_views,
      count(user_id) as page_views_with_own_user,
      count(case when {IS_STITCHED} then 1 end) as page_views_credited
    from page_views
    group by project_id
"""
# Persons without a session have no device and no time to a login.
_PERSONS = """
    select project_id, count(*) as persons, cast(sum(device_count) as bigint) as devices_of_persons
    from users
    where is_identified and session_count > 0
    group by project_id
"""
_PEOPLE_WITHOUT_SESSIONS = """
    select users.project_id, count(*) as people
    from users
    inner join project_settings as settings on users.project_id = settings.project_id
    where settings.count_people_without_devices and users.session_count = 0
    group by users.project_id
"""
# A login inside the first session may have begun a moment before the first session that is credited to the user.
_SECONDS_TO_LOGIN = "greatest(extract(epoch from (identified_at - first_seen_at)), 0)"
_LOGINS = f"""
    select
      project_id,
      count(*) as persons_with_login,
      percentile_cont(0.5) within group (order by {_SECONDS_TO_LOGIN}) / {_HOUR} as median_hours_to_login
    from users
    where is_identified and identified_at is not null and session_count > 0
    group by project_id
"""
_DAYS = f"""
    with sessions as (
      select
        project_id,
        session_date,
        count(*) as sessions,
        count(user_id) as with_own_user,
        count(case when {IS_STITCHED} then 1 end) as credited
      from stitched_sessions
      group by project_id, session_date
    )
    select
      coalesce(stats.project_id, sessions.project_id),
      coalesce(stats.stat_date, sessions.session_date),
      coalesce(sessions.sessions, 0),
      coalesce(sessions.with_own_user, 0),
      coalesce(sessions.credited, 0),
      coalesce(stats.visitors_unstitched, 0),
      coalesce(stats.visitors, 0)
    from visitor_stats as stats
    full outer join sessions on stats.project_id = sessions.project_id and stats.stat_date = sessions.session_date
    order by 1, 2
"""
_DEVICES_PER_PERSON = f"""
    select project_id, cast(least(device_count, {DEVICES_SHOWN}) as integer), count(*)
    from users
    where is_identified and session_count > 0
    group by 1, 2
    order by 1, 2
"""
_LATEST = """
    with latest as (
      select project_id, max(greatest(known_since, coalesce(known_until, known_since))) as latest_at
      from user_mapping_history
      group by project_id
    )
"""
_LAST_ANSWERS = f"""
    {_LATEST}
    select
      history.project_id,
      latest.latest_at,
      count(distinct history.anonymous_id),
      count(distinct case when history.known_since = latest.latest_at then history.user_id end)
    from user_mapping_history as history
    inner join latest on history.project_id = latest.project_id
    where history.known_since = latest.latest_at or history.known_until = latest.latest_at
    group by history.project_id, latest.latest_at
"""


def _restitched(table: str, day: str, time: str) -> str:
    """Anonymous rows by project and day of which the answer before the latest one was another.

    The answer of a device without an interval is the device's own id.
    """

    def interval(name: str, known: str) -> str:
        return (
            f"user_mapping_history as {name} on rows_now.project_id = {name}.project_id "
            f"and rows_now.anonymous_id = {name}.anonymous_id and {name}.{known} = latest.latest_at "
            f"and rows_now.{time} >= {name}.valid_from "
            f"and ({name}.valid_until is null or rows_now.{time} < {name}.valid_until)"
        )

    return f"""
        {_LATEST}
        select rows_now.project_id, rows_now.{day}, count(*)
        from {table} as rows_now
        inner join latest on rows_now.project_id = latest.project_id
        left join {interval("since", "known_since")}
        left join {interval("until", "known_until")}
        where
          rows_now.user_id is null
          and rows_now.stitched_user_id = coalesce(since.stitched_user_id, rows_now.anonymous_id)
          and coalesce(since.stitched_user_id, rows_now.anonymous_id)
          != coalesce(until.stitched_user_id, rows_now.anonymous_id)
        group by 1, 2
        order by 1, 2
    """


_RESTITCHED = {
    "stitched_sessions": _restitched("stitched_sessions", "session_date", "started_at"),
    "page_views": _restitched("page_views", "event_date", "occurred_at"),
}


def _times_to_login() -> str:
    cases = " ".join(
        f"when seconds < {end:.0f} then {position}" for position, (_, end) in enumerate(TIMES_TO_LOGIN[:-1])
    )
    return f"""
        select project_id, case {cases} else {len(TIMES_TO_LOGIN) - 1} end, count(*)
        from (
          select project_id, {_SECONDS_TO_LOGIN} as seconds
          from users
          where is_identified and identified_at is not null and session_count > 0
        ) as logins
        group by 1, 2
        order by 1, 2
    """


def _guards(condition: str) -> str:
    return f"""
        select
          project_id, guard, field, count(*), cast(sum(event_count) as bigint), min(first_seen_at), max(last_seen_at)
        from guard_report
        where {condition}
        group by project_id, guard, field
        order by 5 desc, guard, field
    """
