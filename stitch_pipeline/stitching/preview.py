"""What other rules would change, asked of the data at hand: the question that a re-stitch asks, without the answer.

``preview_rules_job`` shows it in Dagster, ``python -m stitch_pipeline preview`` on a terminal. Rules on which links
and sessions themselves depend (``link_on``, the session timeout, blocked ids) cannot be tried so: they need every
day to be built again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import duckdb

from stitch_pipeline.planning.sql_text import literal
from stitch_pipeline.settings import Policy, ProjectSettings, Settings, SettingsError
from stitch_pipeline.settings.rules import UNLIMITED_DAYS
from stitch_pipeline.warehouse import tables as schema
from stitch_pipeline.warehouse.trial import STORED, overlay

SAMPLE_ROWS_PER_TABLE = 10
# Per table: the view that lists what differs, its day, and its row's id.
_TABLES = {
    "sessions": ("stale_sessions", "session_date", "session_id"),
    "page_views": ("stale_page_views", "event_date", "event_id"),
}


@dataclass(frozen=True)
class Proposal:
    """Rules to try, each None for as it is set; days as in the settings, 36,500 being unlimited."""

    project_id: str | None = None
    """Whose rules; by default every project's."""
    policy: Policy | None = None
    lookback_days: int | None = None
    carry_forward_days: int | None = None
    max_users_per_device: int | None = None

    @property
    def rules(self) -> dict[str, Any]:
        """What is proposed, by the name of the setting."""
        names = ("policy", "lookback_days", "carry_forward_days", "max_users_per_device")
        return {name: value for name in names if (value := getattr(self, name)) is not None}


@dataclass(frozen=True)
class ChangedRule:
    project_id: str
    rule: str
    in_force: str
    proposed: str


@dataclass(frozen=True)
class ChangeOfDay:
    """How much would move on one UTC day."""

    day: date
    sessions: int
    page_views: int
    devices: int


@dataclass(frozen=True)
class MovingRow:
    """A session or page view that would be credited to somebody else."""

    table: str
    project_id: str
    day: date
    anonymous_id: str
    row_id: str
    before: str
    after: str


@dataclass(frozen=True)
class RulesPreview:
    """What would change, compared with what is stored.

    A row *moves* if it would be credited to somebody else; it *changes* if it moves or only its reason would be
    another (rule or link). A re-stitch writes the rows that change.
    """

    changed_rules: Sequence[ChangedRule]
    sessions: int
    page_views: int
    sessions_that_move: int
    sessions_that_change: int
    page_views_that_move: int
    page_views_that_change: int
    people_that_change: int
    """People and unknown visitors (rows of ``users``) who gain or lose a session."""
    visitors_before: int
    visitors_after: int
    """Rows of ``users``."""
    due_anyway: int
    """Sessions and page views that a re-stitch would write now, whether or not the proposal is followed."""
    days: Sequence[ChangeOfDay]
    sample: Sequence[MovingRow]
    views_are_stitched: bool
    """Without view stitching no page view would be touched, and none is asked about."""


def preview_rules(settings: Settings, proposal: Proposal) -> RulesPreview:
    """Compare what is stored with what the proposal would give; nothing of the warehouse is written.

    Raises SettingsError if the project has no events, and WarehouseError if the warehouse cannot be read.
    """
    in_project = "true" if proposal.project_id is None else f"project_id = {literal(proposal.project_id)}"
    devices = " union ".join(
        f"select project_id, anonymous_id from {STORED}.stitch.{table} where {in_project}"
        for table in ("sessions", "stitched_sessions")
    )
    # Views without a device may be of a user who goes by another name.
    devices += (
        f" union select project_id, {literal(stale.NO_DEVICE)} from {STORED}.stitch.page_views "
        f"where anonymous_id is null and user_id is not null and {in_project}"
    )
    grains = ", ".join(f"({literal(grain)})" for grain in _TABLES)
    with overlay(
        settings.duckdb_path,
        wait_seconds=settings.lock_wait_seconds,
        views=["all_persons", *(view for view, _, _ in _TABLES.values())],
        replaced={
            # As if the rules had changed: every device is to be looked at, under the rules that are written here.
            "pending_devices": f"select grain, project_id, anonymous_id from ({devices}), (values {grains}) g (grain)",
            **{
                table: f"select * from {STORED}.stitch.{table} limit 0"
                for table in (*schema.TABLES_OF_RULES, *schema.TABLES_OF_DECISIONS, "persons")
            },
        },
    ) as con:
        projects = [proposal.project_id] if proposal.project_id is not None else schema.projects(con)
        if proposal.project_id is not None and proposal.project_id not in schema.projects(con):
            raise SettingsError(f"There is no project '{proposal.project_id}' with events: check the spelling.")
        schema.write_consequences(con, settings.decisions)
        in_force = {project: settings.rules(project) for project in projects}
        proposed = {project: own.model_copy(update=proposal.rules) for project, own in in_force.items()}
        _resolve(con, in_force, "due", settings.view_stitching_is_on)
        _resolve(con, proposed, "proposed", settings.view_stitching_is_on)
        return RulesPreview(
            changed_rules=_changed_rules(in_force, proposed),
            days=_days(con),
            sample=_sample(con),
            views_are_stitched=settings.view_stitching_is_on,
            due_anyway=_count(con, "from due"),
            **_totals(con, in_project),
        )


def write_rules_to_try(con: duckdb.DuckDBPyConnection, rules: Mapping[str, ProjectSettings]) -> None:
    """Lay rules, and the persons that follow from them, over those that are stored.

    The overlay replaces ``persons`` and the tables of the rules, and has the view ``all_persons``.
    """
    schema.write_project_settings(con, rules)
    con.execute("delete from stitch.persons")
    if any(own.resolves_persons for own in rules.values()):
        con.execute(
            "insert into stitch.persons select * from stitch.all_persons where project_id in "
            "(select project_id from stitch.project_settings where resolves_persons)"
        )


def _resolve(
    con: duckdb.DuckDBPyConnection, rules: Mapping[str, ProjectSettings], name: str, views_are_stitched: bool
) -> None:
    """Make the table ``name`` of all rows whose stored answer is not the one that the rules give."""
    write_rules_to_try(con, rules)
    differing = " union all ".join(
        f"select '{table}' as grain, project_id, {day} as day, anonymous_id, {row_id} as row_id, "
        f"stitched_user_id as before, right_user_id as after from stitch.{view}"
        for table, (view, day, row_id) in _TABLES.items()
        if table == "sessions" or views_are_stitched
    )
    con.execute(f"create temp table {name} as {differing}")


def _totals(con: duckdb.DuckDBPyConnection, in_project: str) -> dict[str, int]:
    totals = {}
    for table in _TABLES:
        stored = "stitched_sessions" if table == "sessions" else table
        totals[table] = _count(con, f"from stitch.{stored} where {in_project}")
        totals[f"{table}_that_change"] = _count(con, f"from proposed where grain = '{table}'")
        totals[f"{table}_that_move"] = _count(con, f"from proposed where grain = '{table}' and before <> after")
    moving = "from proposed where grain = 'sessions' and before is distinct from after"
    totals["people_that_change"] = _count(
        con,
        f"from (select project_id, before {moving} and before is not null union select project_id, after {moving})",
    )
    totals["visitors_before"] = _count(
        con, f"from (select distinct project_id, stitched_user_id from stitch.stitched_sessions where {in_project})"
    )
    totals["visitors_after"] = _count(
        con,
        f"""
        from (
          select project_id, stitched_user_id from stitch.stitched_sessions
          where {in_project} and (project_id, session_id) not in (select project_id, row_id {moving})
          union
          select project_id, after {moving}
        )
        """,
    )
    return totals


def _count(con: duckdb.DuckDBPyConnection, rows: str) -> int:
    return int(con.execute(f"select count(*) {rows}").fetchall()[0][0])


def _days(con: duckdb.DuckDBPyConnection) -> list[ChangeOfDay]:
    found = con.execute(
        "select day, count(*) filter (grain = 'sessions'), count(*) filter (grain = 'page_views'), "
        "count(distinct (project_id, anonymous_id)) from proposed where before <> after group by day order by day"
    ).fetchall()
    return [ChangeOfDay(*row) for row in found]


def _sample(con: duckdb.DuckDBPyConnection) -> list[MovingRow]:
    """The newest rows that move, one per device and table, so that they are of different people."""
    found = con.execute(
        """
        select grain, project_id, day, anonymous_id, row_id, before, after
        from proposed where before <> after
        qualify row_number() over (partition by grain, project_id, anonymous_id order by day desc, row_id) = 1
        order by day desc, project_id, anonymous_id
        """
    ).fetchall()
    rows = [MovingRow(*row) for row in found]
    return [row for table in _TABLES for row in [each for each in rows if each.table == table][:SAMPLE_ROWS_PER_TABLE]]


def _changed_rules(
    in_force: Mapping[str, ProjectSettings], proposed: Mapping[str, ProjectSettings]
) -> list[ChangedRule]:
    return [
        ChangedRule(project, rule, before, after)
        for project, own in in_force.items()
        for rule in Proposal.__dataclass_fields__
        if rule != "project_id"
        if (before := _shown(rule, getattr(own, rule))) != (after := _shown(rule, getattr(proposed[project], rule)))
    ]


def _shown(rule: str, value: Any) -> str:
    is_unlimited = value is None or (rule.endswith("_days") and value >= UNLIMITED_DAYS)
    return "unlimited" if is_unlimited else str(value)


def how_to_follow(proposal: Proposal) -> str:
    """What to write where to have the proposal followed; empty if nothing is proposed."""
    if not proposal.rules:
        return ""
    values = {
        name: "null" if name.endswith("_days") and value >= UNLIMITED_DAYS else value
        for name, value in proposal.rules.items()
    }
    if proposal.project_id is None:
        wanted = " ".join(f"STITCH_{name.upper()}={value}" for name, value in values.items())
        return f"set {wanted} (and take other values for it out of stitch.toml)"
    # A TOML basic string is written as a JSON string is.
    lines = [f"{name} = {json.dumps(value) if isinstance(value, str) else value}" for name, value in values.items()]
    return f"in stitch.toml, under [projects.{json.dumps(proposal.project_id)}]: " + ", ".join(lines)


def sentences(preview: RulesPreview) -> list[str]:
    """The numbers in words, for the log and the terminal."""
    views = (
        f"{preview.page_views_that_move:,} of {preview.page_views:,} page views"
        if preview.views_are_stitched
        else "no page views (view stitching is off)"
    )
    reasons_only = preview.sessions_that_change - preview.sessions_that_move
    told = [
        f"{preview.sessions_that_move:,} of {preview.sessions:,} sessions and {views} would be credited to somebody "
        f"else, on {len(preview.days):,} day{'s' * (len(preview.days) != 1)}",
        f"{preview.people_that_change:,} people or unknown visitors would gain or lose a session; "
        f"visitors {preview.visitors_before:,} before, {preview.visitors_after:,} after",
    ]
    if reasons_only:
        told.append(f"sessions that would keep their user, for another reason: {reasons_only:,}")
    if preview.due_anyway:
        told.append(f"{preview.due_anyway:,} rows are due to be re-stitched anyway: run `settle` first to tell apart")
    return told
