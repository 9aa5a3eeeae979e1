"""``python -m stitch_pipeline why``: which link made a row that user's, and why no other link did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import groupby
from typing import Any

import duckdb
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from stitch_pipeline.planning.sql_text import literal
from stitch_pipeline.settings import Settings, SettingsError
from stitch_pipeline.settings.rules import UNLIMITED_DAYS
from stitch_pipeline.warehouse.trial import STORED, overlay

_VIEW = "stitching_reasons"
# All that the view reads of a device; what it reads beside these is small.
_TABLES_OF_DEVICES = ("raw_events", "identity_map", "sessions", "stitched_sessions", "page_views")
_NAMED_PER_REASON = 3


@dataclass(frozen=True)
class Candidate:
    """A link of the device, or events that would have been one but for a guard. Times are naive UTC."""

    number: int
    user_id: str
    began_at: datetime
    event_count: int
    event_id: str
    event_type: str
    landing_file: str
    received_at: datetime | None
    loaded_at: datetime | None


@dataclass(frozen=True)
class ExplainedRow:
    """A session or event, whom it is credited to, and what became of each candidate."""

    grain: str
    """``session``, or the type of the event."""
    row_id: str
    began_at: datetime
    ended_at: datetime
    user_id: str | None
    stitched_user_id: str
    stitched_by: str
    stored_user_id: str | None
    """What stitched_sessions or page_views holds; None for an event that is no page or screen view."""
    deciding: Candidate | None
    losing: Sequence[tuple[str, Sequence[Candidate]]]
    """Why they did not decide, and which; without candidates one reason and nobody."""
    deciding_reason: str


@dataclass(frozen=True)
class Explanation:
    """All rows asked about of one device, oldest first, under the rules that the warehouse was last told."""

    project_id: str
    anonymous_id: str
    rules: str
    rows: Sequence[ExplainedRow]
    candidates: Sequence[Candidate]


def explain(settings: Settings, project_id: str, anonymous_id: str, at: str | None = None) -> Explanation:
    """Why each row of the device is whose it is; with ``at``, the rows of that UTC day or around that instant.

    ``at`` is ISO 8601, UTC unless it says otherwise. Raises SettingsError if it is not, or if there is no such
    project or device, and WarehouseError if the warehouse cannot be read.
    """
    wanted = None if at is None else _parse(at)
    is_asked = f"project_id = {literal(project_id)} and anonymous_id = {literal(anonymous_id)}"
    links = (
        f"{STORED}.stitch.identifier_links where project_id = {literal(project_id)} "
        f"and linked_kind = 'device' and linked_id = {literal(anonymous_id)}"
    )
    with overlay(
        settings.duckdb_path,
        wait_seconds=settings.lock_wait_seconds,
        views=[_VIEW],
        replaced={
            **{table: f"select * from {STORED}.stitch.{table} where {is_asked}" for table in _TABLES_OF_DEVICES},
            "identifier_links": f"select * from {links}",
            # The device, and whatever its rows and links name.
            "persons": (
                f"select * from {STORED}.stitch.persons where project_id = {literal(project_id)} and "
                f"(id = {literal(anonymous_id)} or id in (select id from {links}) "
                f"or id in (select user_id from {STORED}.stitch.raw_events where {is_asked}) "
                f"or id in (select person_id from {STORED}.stitch.person_names))"
            ),
        },
    ) as con:
        found = con.execute(
            f"select * from stitch.{_VIEW} "
            "order by row_at, grain <> 'session', row_id, candidate_at, candidate_event_id"
        )
        names = [column[0] for column in found.description]
        asked = [dict(zip(names, row, strict=True)) for row in found.fetchall()]
        if not asked:
            raise SettingsError(_what_is_unknown(con, project_id, anonymous_id))
        rules = _rules(con, project_id)
    candidates = _candidates(asked)
    rows = _rows(asked, candidates)
    return Explanation(
        project_id,
        anonymous_id,
        rules,
        rows if wanted is None else [row for row in rows if row in _around(rows, wanted)],
        list(candidates.values()),
    )


def print_explanation(explanation: Explanation, limit: int, console: Console) -> None:
    """Print a table of the candidates and the rows with their reasons, at most ``limit`` of each."""
    rows, candidates = explanation.rows, explanation.candidates
    console.print(
        f"[bold]{escape(explanation.project_id)}[/], device [bold]{escape(explanation.anonymous_id)}[/]: "
        + explanation.rules
    )
    if candidates:
        console.print("\nWhat names a user on this device (times are UTC):")
        table = Table(box=None, padding=(0, 1), header_style="dim")
        for column in ("#", "user", "began", "events", "first event", "landing file", "received", "loaded"):
            table.add_column(column, justify="right" if column in ("#", "events") else "left", overflow="fold")
        # Those that decide before any other: a device of many users has more candidates than anybody reads.
        deciding = {row.deciding.number for row in rows[:limit] if row.deciding}
        shown = sorted(candidates, key=lambda candidate: candidate.number not in deciding)[: max(limit, len(deciding))]
        for candidate in sorted(shown, key=lambda candidate: candidate.number):
            table.add_row(
                str(candidate.number),
                escape(candidate.user_id),
                _time(candidate.began_at),
                f"{candidate.event_count:,}",
                escape(f"{candidate.event_id} ({candidate.event_type})"),
                escape(candidate.landing_file),
                _time(candidate.received_at, "minutes"),
                _time(candidate.loaded_at, "minutes"),
            )
        console.print(table)
        _say_how_many_are_left(len(candidates) - len(shown), console)
    console.print("\nWhose each row is, and why:")
    # A session and its events mostly share their reasons: these are said once, below the last of them.
    for (_, lines), several in groupby(
        rows[:limit], key=lambda row: ((row.stitched_user_id, row.stitched_by), _lines(row))
    ):
        for row in several:
            own = f", own user {row.user_id}" if row.user_id else ""
            stored = "" if row.stored_user_id in (None, row.stitched_user_id) else f" (stored: {row.stored_user_id})"
            console.print(
                escape(f" {_time(row.began_at)}  {row.grain} {_shortened(row.row_id)}{own}: ")
                + f"[bold]{escape(row.stitched_user_id)}[/]"
                + escape(f"{stored}, {row.stitched_by}")
            )
        for line in lines:
            console.print(f"     [dim]{escape(line)}[/]")
    _say_how_many_are_left(len(rows) - limit, console)
    if any(row.stored_user_id not in (None, row.stitched_user_id) for row in rows):
        console.print("What is stored differs where a re-stitch is due: run `python -m stitch_pipeline settle`.")


def _say_how_many_are_left(count: int, console: Console) -> None:
    if count > 0:
        console.print(f" … and {count:,} more: ask with --at, or raise --limit")


def _lines(row: ExplainedRow) -> list[str]:
    lines = [] if row.deciding is None else [f"{_name(row.deciding)} {row.deciding_reason}"]
    for reason, losing in row.losing:
        named = ", ".join(map(_name, losing[:_NAMED_PER_REASON]))
        more = f" and {len(losing) - _NAMED_PER_REASON:,} more" if len(losing) > _NAMED_PER_REASON else ""
        lines.append(f"{named}{more}: {reason}" if losing else reason)
    return lines


def _name(candidate: Candidate) -> str:
    return f"#{candidate.number} {candidate.user_id}"


def _shortened(row_id: str) -> str:
    return row_id if len(row_id) <= 12 else row_id[:11] + "…"


def _time(value: datetime | None, precision: str = "seconds") -> str:
    return "" if value is None else value.isoformat(sep=" ", timespec=precision)


def _candidates(asked: Sequence[dict[str, Any]]) -> dict[tuple[str, str, datetime], Candidate]:
    found = {_key(row): row for row in asked if row["candidate_event_id"] is not None}
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
    asked: Sequence[dict[str, Any]], candidates: dict[tuple[str, str, datetime], Candidate]
) -> list[ExplainedRow]:
    of_row: dict[tuple[bool, str], list[dict[str, Any]]] = {}
    for row in asked:
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


def _parse(at: str) -> tuple[datetime, datetime]:
    """The first and last instant that are asked for: of a day, or one instant."""
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
    """Sessions and events that overlap what is wanted; of a kind that has none, its neighbours on either side."""
    first, last = wanted
    found = []
    for is_session in (True, False):
        kind = [row for row in rows if (row.grain == "session") == is_session]
        during = [row for row in kind if row.began_at <= last and row.ended_at >= first]
        before = [row for row in kind if row.ended_at < first][-1:]
        after = [row for row in kind if row.began_at > last][:1]
        found += during or before + after
    return found


def _rules(con: duckdb.DuckDBPyConnection, project_id: str) -> str:
    row = con.execute(
        "select policy, lookback_days, carry_forward_days, max_users_per_device, links_on_identify_only, is_stitched, "
        "sessions_are_stitched from stitch.project_settings where project_id = ?",
        [project_id],
    ).fetchall()[0]
    policy, lookback, carry_forward, max_users, is_identify_only, is_stitched, sessions_are_stitched = row
    return "; ".join(
        [
            f"policy {policy}",
            f"lookback {_days(lookback)}",
            f"carry forward {_days(carry_forward)}",
            f"shared with more than {max_users:,} users",
            *(["only identify events link"] if is_identify_only else []),
            *(["stitching off"] if not is_stitched else []),
            *(["session stitching off"] if is_stitched and not sessions_are_stitched else []),
        ]
    )


def _days(count: int) -> str:
    return "unlimited" if count >= UNLIMITED_DAYS else f"{count:,} day{'s' * (count != 1)}"


def _what_is_unknown(con: duckdb.DuckDBPyConnection, project_id: str, anonymous_id: str) -> str:
    projects = con.execute(f"select distinct project_id from {STORED}.stitch.raw_events order by 1").fetchall()
    names = [row[0] for row in projects]
    if project_id not in names:
        listed = ", ".join(f"'{name}'" for name in names[:10]) + (", …" if len(names) > 10 else "")
        has = f"these have: {listed}" if names else "nor has any other yet"
        return f"There is no project '{project_id}' with events; {has}."
    if con.execute("select count(*) from stitch.raw_events").fetchall()[0][0]:
        return f"Device '{anonymous_id}' is loaded but not stitched yet: run `python -m stitch_pipeline settle`."
    blocked = con.execute(
        f"select count(*) from {STORED}.stitch.raw_events where project_id = ? and blocked_anonymous_id = ?",
        [project_id, anonymous_id],
    ).fetchall()[0][0]
    if blocked:
        return (
            f"'{anonymous_id}' is a blocked id and no device: {blocked:,} event{'s' * (blocked != 1)} of project "
            f"'{project_id}' sent it as the anonymous id."
        )
    return (
        f"Project '{project_id}' has no device '{anonymous_id}' with events: give the anonymous id as the tracker "
        "sends it, letter case included."
    )
