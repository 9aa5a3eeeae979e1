"""Preview what other rules would change: compare stored rows with the rules' answers, and write nothing.

``preview_rules_job`` shows the preview in Dagster, ``stitch preview`` on a terminal. Rules on which links and sessions
themselves depend (``link_on``, the session timeout, identifiers, blocked ids) cannot be tried: they need a rebuild of
every day.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from stitch_pipeline.planning.sql_text import literal
from stitch_pipeline.settings import ProjectSettings, Settings, SettingsError
from stitch_pipeline.settings.rules import StitchingRules, as_text, rules_with
from stitch_pipeline.stitching.rules import no_such_project, project_ids
from stitch_pipeline.stitching.views import RulesTrial, rules_trial
from stitch_pipeline.warehouse.engine import engine_of
from stitch_pipeline.warehouse.port import Warehouse

SAMPLE_ROWS_PER_TABLE = 10
# Per table: the view that lists the differing rows, its day column and its row id column.
_TABLES = {
    "sessions": ("stale_sessions", "session_date", "session_id"),
    "page_views": ("stale_page_views", "event_date", "event_id"),
}


@dataclass(frozen=True)
class Proposal:
    """Rules to try."""

    project_id: str | None = None
    """The project to try them on; by default every project."""
    rules: Mapping[str, Any] = field(default_factory=dict)
    """By name, as in the settings. A rule that is absent stays as it is set."""


@dataclass(frozen=True)
class ChangedRule:
    """A rule that the proposal changes in a project, with both values as a person writes them."""

    project_id: str
    rule: str
    in_force: str
    proposed: str


@dataclass(frozen=True)
class ChangeOfDay:
    """How many rows would move on one UTC day, and on how many devices."""

    day: date
    sessions: int
    page_views: int
    devices: int


@dataclass(frozen=True)
class MovingRow:
    """A session or page view that would be credited to another canonical id."""

    table: str
    project_id: str
    day: date
    anonymous_id: str
    row_id: str
    before: str
    after: str


@dataclass(frozen=True)
class RulesPreview:
    """What would change, compared with the stored rows.

    A row *moves* if it would be credited to another canonical id. It *changes* if it moves, or if only its reason (rule
    or link) would be another. A re-stitch writes the rows that change.
    """

    changed_rules: Sequence[ChangedRule]
    sessions: int
    page_views: int
    sessions_that_move: int
    sessions_that_change: int
    page_views_that_move: int
    page_views_that_change: int
    people_that_change: int
    """Persons and unknown visitors (rows of ``users``) who gain or lose a session."""
    visitors_before: int
    visitors_after: int
    """Rows of ``users``."""
    due_anyway: int
    """Sessions and page views that a re-stitch would write now, whether or not the proposal is followed."""
    days: Sequence[ChangeOfDay]
    sample: Sequence[MovingRow]
    views_are_stitched: bool
    """False if view stitching is off: then no page view would change, and none is compared."""


def preview_rules(settings: Settings, proposal: Proposal) -> RulesPreview:
    """Compare the stored rows with the answers under the proposal. Nothing is written to the warehouse.

    Raises SettingsError if the project has no events or a rule's value is invalid, and WarehouseError if the warehouse
    cannot be read.
    """
    in_project = "true" if proposal.project_id is None else f"project_id = {literal(proposal.project_id)}"
    stored = engine_of(settings).dialect.stored
    devices = " union ".join(
        f"select project_id, anonymous_id from {stored(table)} where {in_project}"
        for table in ("sessions", "stitched_sessions")
    )
    # Page views without a device are pending under '', because the canonical id of their user may change.
    devices += (
        f" union select project_id, '' from {stored('page_views')} "
        f"where anonymous_id is null and user_id is not null and {in_project}"
    )
    grains = ", ".join(f"({literal(grain)})" for grain in _TABLES)
    # Every device is pending, as after a change of rules.
    pending = (
        "select grain, project_id, anonymous_id, cast(null as date) as linked_on "
        f"from ({devices}) as devices, (values {grains}) as g (grain)"
    )
    views = [view for view, _, _ in _TABLES.values()]
    with rules_trial(settings, views, {"pending_devices": pending}) as trial:
        warehouse = trial.warehouse
        known = project_ids(warehouse)
        if proposal.project_id is not None and proposal.project_id not in known:
            raise SettingsError(no_such_project(proposal.project_id, known))
        _refuse_rules_of_one_project(proposal)
        concerned = known if proposal.project_id is None else [proposal.project_id]
        hashing = settings.hashing
        for decision in settings.decisions:
            if decision.project_id in concerned:
                # Raises SettingsError if its key is missing: nobody can tell then what the decision is about.
                hashing.stored(decision.project_id, decision.id)
        in_force = {project: settings.rules(project) for project in concerned}
        proposed = {project: own.changed_by(proposal.rules) for project, own in in_force.items()}
        _keep_differing(trial, settings, in_force, "due")
        _keep_differing(trial, settings, proposed, "proposed")
        return RulesPreview(
            changed_rules=_changed_rules(in_force, proposed),
            days=_days(warehouse),
            sample=_sample(warehouse),
            views_are_stitched=settings.view_stitching_is_on,
            due_anyway=_count(warehouse, "from due"),
            **_totals(warehouse, in_project),
        )


def _refuse_rules_of_one_project(proposal: Proposal) -> None:
    """Raise SettingsError if rules that only a project can set are to be tried on all of them."""
    own = [name for name in proposal.rules if name not in StitchingRules.model_fields]
    if own and proposal.project_id is None:
        raise SettingsError(f"{own[0]} is set per project: name the project to try it on.")


def _keep_differing(trial: RulesTrial, settings: Settings, rules: Mapping[str, ProjectSettings], name: str) -> None:
    """Create the table ``name`` with all rows that the rules would change."""
    trial.follow(rules, settings.followed_decisions)
    differing = " union all ".join(
        f"select '{table}' as grain, project_id, {day} as day, anonymous_id, {row_id} as row_id, "
        f"stitched_user_id as before, right_user_id as after from {view}"
        for table, (view, day, row_id) in _TABLES.items()
        if table == "sessions" or settings.view_stitching_is_on
    )
    trial.warehouse.create_temporary(name, f"as {differing}")


def _totals(warehouse: Warehouse, in_project: str) -> dict[str, int]:
    totals = {}
    for table in _TABLES:
        stored = "stitched_sessions" if table == "sessions" else table
        totals[table] = _count(warehouse, f"from {stored} where {in_project}")
        totals[f"{table}_that_change"] = _count(warehouse, f"from proposed where grain = '{table}'")
        totals[f"{table}_that_move"] = _count(warehouse, f"from proposed where grain = '{table}' and before <> after")
    moving = "from proposed where grain = 'sessions' and before is distinct from after"
    totals["people_that_change"] = _count(
        warehouse,
        f"from (select project_id, before {moving} and before is not null "
        f"union select project_id, after {moving}) as people",
    )
    totals["visitors_before"] = _count(
        warehouse,
        f"from (select distinct project_id, stitched_user_id from stitched_sessions where {in_project}) as visitors",
    )
    totals["visitors_after"] = _count(
        warehouse,
        f"""
        from (
          select project_id, stitched_user_id from stitched_sessions
          where {in_project} and (project_id, session_id) not in (select project_id, row_id {moving})
          union
          select project_id, after {moving}
        ) as visitors
        """,
    )
    return totals


def _count(warehouse: Warehouse, rows: str) -> int:
    return int(warehouse.rows(f"select count(*) {rows}")[0][0])


def _days(warehouse: Warehouse) -> list[ChangeOfDay]:
    found = warehouse.rows(
        "select day, count(*) filter (where grain = 'sessions'), count(*) filter (where grain = 'page_views'), "
        "count(distinct (project_id, anonymous_id)) from proposed where before <> after group by day order by day"
    )
    return [ChangeOfDay(*row) for row in found]


def _sample(warehouse: Warehouse) -> list[MovingRow]:
    """The newest rows that move, one per device and table, so that they show different people."""
    found = warehouse.rows(
        """
        select grain, project_id, day, anonymous_id, row_id, before, after
        from (
          select
            *, row_number() over (partition by grain, project_id, anonymous_id order by day desc, row_id) as place
          from proposed where before <> after
        ) as moving
        where place = 1
        order by day desc, project_id, anonymous_id
        """
    )
    rows = [MovingRow(*row) for row in found]
    return [row for table in _TABLES for row in [each for each in rows if each.table == table][:SAMPLE_ROWS_PER_TABLE]]


def _changed_rules(
    in_force: Mapping[str, ProjectSettings], proposed: Mapping[str, ProjectSettings]
) -> list[ChangedRule]:
    return [
        ChangedRule(project, rule, as_text(before), as_text(after))
        for project, own in in_force.items()
        for rule in rules_with("preview")
        if (before := getattr(own, rule)) != (after := getattr(proposed[project], rule))
    ]


def how_to_follow(settings: Settings, proposal: Proposal) -> str:
    """The setting that makes runs follow the proposal, and where to write it; empty if nothing is proposed."""
    if not proposal.rules:
        return ""
    proposed = settings.rules(proposal.project_id or "").changed_by(proposal.rules)
    values = {name: getattr(proposed, name) for name in proposal.rules}
    if proposal.project_id is None:
        wanted = " ".join(f"STITCH_{name.upper()}={as_text(value)}" for name, value in values.items())
        return f"set {wanted} (and remove other values for it from stitch.toml)"
    lines = [line for name, value in values.items() for line in _toml(name, value)]
    return f"in stitch.toml, under [projects.{json.dumps(proposal.project_id)}]: " + ", ".join(lines)


def _toml(key: str, value: Any) -> list[str]:
    """The lines of TOML that set a key to the value. TOML's strings and lists are written as JSON's."""
    if isinstance(value, Mapping) and value:
        return [line for name, own in value.items() for line in _toml(f"{key}.{name}", own)]
    return [f"{key} = {json.dumps(as_text(None) if value is None else value)}"]


def sentences(preview: RulesPreview) -> list[str]:
    """The numbers in words, for the log and the terminal."""
    views = (
        f"{preview.page_views_that_move:,} of {preview.page_views:,} page views"
        if preview.views_are_stitched
        else "no page views (view stitching is off)"
    )
    reasons_only = preview.sessions_that_change - preview.sessions_that_move
    found = [
        f"{preview.sessions_that_move:,} of {preview.sessions:,} sessions and {views} would be credited to somebody "
        f"else, on {len(preview.days):,} day{'s' * (len(preview.days) != 1)}",
        f"{preview.people_that_change:,} people or unknown visitors would gain or lose a session; "
        f"visitors {preview.visitors_before:,} before, {preview.visitors_after:,} after",
    ]
    if reasons_only:
        found.append(f"sessions that would keep their user, for another reason: {reasons_only:,}")
    if preview.due_anyway:
        found.append(
            f"{preview.due_anyway:,} rows are due to be re-stitched anyway: run `stitch settle --view-stitching` first "
            "to tell apart"
        )
    return found
