"""Why each row of a device is credited to its user: which link decides, and why no other link does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from stitch_pipeline.planning.sql_text import literal, literals
from stitch_pipeline.settings import Settings, SettingsError
from stitch_pipeline.settings.rules import UNLIMITED_DAYS
from stitch_pipeline.stitching.rules import no_such_project
from stitch_pipeline.stitching.views import trial
from stitch_pipeline.warehouse.engine import engine_of
from stitch_pipeline.warehouse.port import Warehouse

_VIEW = "stitching_reasons"
_NAMED_PER_REASON = 3
# The large tables that the view reads. A trial reduces each to the device, and leaves the others, which are small.
_TABLES_OF_DEVICES = ("identity_map", "sessions", "stitched_sessions", "page_views")


@dataclass(frozen=True)
class Candidate:
    """A link of the device, or events that would be a link but for a guard. Times are UTC without a zone.

    ``number`` counts from 1, in the order of time; the fields after ``event_count`` describe the first event.
    """

    number: int
    user_id: str
    began_at: datetime
    event_count: int
    event_id: str
    event_type: str | None
    landing_file: str | None
    """None for a user who was forgotten, of whom no event is kept."""
    received_at: datetime | None
    loaded_at: datetime | None


@dataclass(frozen=True)
class ExplainedRow:
    """A session or event, the user it is credited to, and why each candidate decides or does not."""

    grain: str
    """``session``, or the type of the event."""
    row_id: str
    began_at: datetime
    ended_at: datetime
    user_id: str | None
    stitched_user_id: str
    stitched_by: str
    stored_user_id: str | None
    """The user in stitched_sessions or page_views; None for an event that is not a page or screen view."""
    deciding: Candidate | None
    losing: Sequence[tuple[str, Sequence[Candidate]]]
    """Reasons, each with the candidates that it rules out. A row without candidates has one reason with none."""
    deciding_reason: str


@dataclass(frozen=True)
class Explanation:
    """The rows of one device, oldest first, under the rules that the last run followed. ``rules`` is a text."""

    project_id: str
    anonymous_id: str
    rules: str
    rows: Sequence[ExplainedRow]
    candidates: Sequence[Candidate]


def explain(settings: Settings, project_id: str, anonymous_id: str, at: str | None = None) -> Explanation:
    """Why each row of the device is credited to its user; with ``at``, the rows of that UTC day or around that instant.

    ``at`` is ISO 8601, in UTC if it has no offset. Where ids are hashed, ``anonymous_id`` is the id or its hash. Raises
    SettingsError if ``at`` is wrong, the key is missing, or the project or device does not exist, and WarehouseError if
    the warehouse cannot be read.
    """
    wanted = None if at is None else parse_time(at)
    anonymous_id = settings.hashing.stored(project_id, anonymous_id)
    with trial_of_devices(settings, project_id, [anonymous_id], [_VIEW]) as warehouse:
        return explanation_of(warehouse, project_id, anonymous_id, wanted)


@contextmanager
def trial_of_devices(
    settings: Settings, project_id: str, anonymous_ids: Sequence[str], views: Sequence[str]
) -> Iterator[Warehouse]:
    """A trial in which the large tables hold only the rows of these devices. Raises as ``trial`` does."""
    in_project = f"project_id = {literal(project_id)}"
    devices = literals(anonymous_ids) or "null"  # a person may have none
    of_devices = f"{in_project} and anonymous_id in ({devices})"
    stored = engine_of(settings).dialect.stored
    # Events of other devices, or of none, may name one of these as the previous id.
    events = (
        f"{stored('raw_events')} where {in_project} and (anonymous_id in ({devices}) or previous_id in ({devices}))"
    )
    links = f"{stored('identifier_links')} where {in_project} and linked_kind = 'device' and linked_id in ({devices})"
    replaced = {
        **{table: f"select * from {stored(table)} where {of_devices}" for table in _TABLES_OF_DEVICES},
        "raw_events": f"select * from {events}",
        "identifier_links": f"select * from {links}",
        # The devices, and the ids in their rows and links.
        "persons": (
            f"select * from {stored('persons')} where {in_project} and "
            f"(id in ({devices}) or id in (select id from {links}) "
            f"or id in (select user_id from {events}) "
            f"or id in (select other_id from {stored('decisions')} "
            f"where {in_project} and kind = 'same_person'))"
        ),
    }
    with trial(settings, replaced, views) as (_, warehouse):
        yield warehouse


def explanation_of(
    warehouse: Warehouse, project_id: str, anonymous_id: str, wanted: tuple[datetime, datetime] | None
) -> Explanation:
    """The explanation of one device in a trial of ``stitching_reasons``. Raises SettingsError if it has no row."""
    found = warehouse.records(
        f"select * from {_VIEW} where anonymous_id = $device "
        "order by row_at, grain <> 'session', row_id, candidate_at, candidate_event_id, candidate_user_id",
        device=anonymous_id,
    )
    if not found:
        raise SettingsError(_what_is_unknown(warehouse, project_id, anonymous_id))
    candidates = _candidates(found)
    rows = _rows(found, candidates)
    return Explanation(
        project_id,
        anonymous_id,
        _rules(warehouse, project_id),
        rows if wanted is None else [row for row in rows if row in _around(rows, wanted)],
        list(candidates.values()),
    )


def sentences(row: ExplainedRow) -> list[str]:
    """Why the row is credited to its user: what decides, then what does not and why, each with its candidates."""
    lines = [] if row.deciding is None else [f"{_name(row.deciding)} {row.deciding_reason}"]
    for reason, losing in row.losing:
        named = ", ".join(map(_name, losing[:_NAMED_PER_REASON]))
        more = f" and {len(losing) - _NAMED_PER_REASON:,} more" if len(losing) > _NAMED_PER_REASON else ""
        lines.append(f"{named}{more}: {reason}" if losing else reason)
    return lines


def _name(candidate: Candidate) -> str:
    return f"#{candidate.number} {candidate.user_id}"


def _candidates(records: Sequence[dict[str, Any]]) -> dict[tuple[str, str, datetime], Candidate]:
    found = {_key(row): row for row in records if row["candidate_event_id"] is not None}
    return {
        key: Candidate(
            number,
            row["candidate_user_id"],
            row["candidate_at"],
            row["candidate_event_count"],
            row["candidate_event_id"],
            row["candidate_event_type"],
            row["candidate_landing_file"],
            row["candidate_received_at"],
            row["candidate_loaded_at"],
        )
        for number, (key, row) in enumerate(sorted(found.items(), key=lambda item: (item[0][2], item[0])), start=1)
    }


def _key(row: dict[str, Any]) -> tuple[str, str, datetime]:
    return row["candidate_event_id"], row["candidate_user_id"], row["candidate_at"]


def _rows(
    records: Sequence[dict[str, Any]], candidates: dict[tuple[str, str, datetime], Candidate]
) -> list[ExplainedRow]:
    of_row: dict[tuple[bool, str], list[dict[str, Any]]] = {}
    for row in records:
        of_row.setdefault((row["grain"] == "session", row["row_id"]), []).append(row)
    explained = []
    for several in of_row.values():
        first = several[0]
        losing: dict[str, list[Candidate]] = {}
        deciding, deciding_reason = None, ""
        for row in several:
            candidate = candidates.get(_key(row))
            if row["decides"] and deciding is None:
                deciding, deciding_reason = candidate, row["reason"]
            else:
                losing.setdefault(row["reason"], []).extend([candidate] if candidate else [])
        explained.append(
            ExplainedRow(
                first["grain"],
                first["row_id"],
                first["row_at"],
                first["row_ended_at"],
                first["user_id"],
                first["stitched_user_id"],
                first["stitched_by"],
                first["stored_user_id"],
                deciding,
                list(losing.items()),
                deciding_reason,
            )
        )
    return explained


def parse_time(at: str) -> tuple[datetime, datetime]:
    """The first and last instant of the requested time: of a day, or twice the same instant."""
    try:
        if len(at) == len("2026-03-01"):
            start = datetime.combine(date.fromisoformat(at), datetime.min.time())
            return start, start + timedelta(days=1) - timedelta(microseconds=1)
        instant = datetime.fromisoformat(at)
        if instant.tzinfo is not None:
            instant = instant.astimezone(UTC).replace(tzinfo=None)
    except (ValueError, OverflowError):
        raise SettingsError(
            f"--at '{at}' is not a time: write a UTC day such as 2026-03-01, or an instant such as "
            "2026-03-01T12:00:00Z."
        ) from None
    return instant, instant


def _around(rows: Sequence[ExplainedRow], wanted: tuple[datetime, datetime]) -> list[ExplainedRow]:
    """The sessions and the events that overlap the wanted time; if a kind has none, its neighbours on either side."""
    first, last = wanted
    found = []
    for is_session in (True, False):
        kind = [row for row in rows if (row.grain == "session") == is_session]
        during = [row for row in kind if row.began_at <= last and row.ended_at >= first]
        before = [row for row in kind if row.ended_at < first][-1:]
        after = [row for row in kind if row.began_at > last][:1]
        found += during or before + after
    return found


def _rules(warehouse: Warehouse, project_id: str) -> str:
    (rules,) = warehouse.records("select * from project_settings where project_id = $project", project=project_id)
    return "; ".join(
        [
            f"policy {rules['policy']}",
            f"lookback {_span(rules['lookback_days'], rules['lookback_minutes'])}",
            f"carry forward {_span(rules['carry_forward_days'], rules['carry_forward_minutes'])}",
            f"shared with more than {rules['max_users_per_device']:,} users",
            *(["only identify events link"] if rules["link_on"] == "identify" else []),
            *(["stitching off"] if not rules["stitching"] else []),
            *(["session stitching off"] if rules["stitching"] and not rules["session_stitching"] else []),
        ]
    )


def _span(days: int | None, minutes: int | None) -> str:
    if minutes is not None:
        count, unit = (minutes // 60, "hour") if minutes and minutes % 60 == 0 else (minutes, "minute")
    elif days is None or days >= UNLIMITED_DAYS:
        return "unlimited"
    else:
        count, unit = days, "day"
    return f"{count:,} {unit}{'s' * (count != 1)}"


def _what_is_unknown(warehouse: Warehouse, project_id: str, anonymous_id: str) -> str:
    # In the trial, `raw_events` holds only events of the devices.
    all_events = warehouse.dialect.stored("raw_events")
    projects = warehouse.rows(f"select distinct project_id from {all_events} order by project_id")
    names = [name for (name,) in projects]
    if project_id not in names:
        return no_such_project(project_id, names)
    if warehouse.rows("select 1 from raw_events where anonymous_id = $id limit 1", id=anonymous_id):
        return f"Device '{anonymous_id}' is loaded but not stitched yet: run `stitch settle`."
    ((blocked,),) = warehouse.rows(
        f"select count(*) from {all_events} where project_id = $project and blocked_anonymous_id = $id",
        project=project_id,
        id=anonymous_id,
    )
    if blocked:
        return (
            f"'{anonymous_id}' is a blocked id and no device: {blocked:,} event{'s' * (blocked != 1)} of project "
            f"'{project_id}' sent it as the anonymous id."
        )
    return (
        f"Project '{project_id}' has no device '{anonymous_id}' with events: give the anonymous id as the tracker "
        "sends it, letter case included."
    )
