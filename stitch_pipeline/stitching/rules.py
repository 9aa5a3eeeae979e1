"""Write the configured rules and decisions into the small tables that the models read.

Belongs here: settings as rows. Does not: what a change of them affects. The models in ``models/rules`` compare these
tables with the rules and decisions that were followed, queue the affected devices and ids, and keep the histories.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import astuple

from stitch_pipeline.landing.reading import BLOCKED_IDS
from stitch_pipeline.planning.sql_text import any_of, json_path, literals
from stitch_pipeline.settings import ProjectSettings, Settings
from stitch_pipeline.settings.decisions import Decision, consequences
from stitch_pipeline.settings.rules import PER_PERSON, StitchingRules, as_stored
from stitch_pipeline.stitching.hash_keys import refuse_other_keys
from stitch_pipeline.warehouse.port import Row, Warehouse

_LINE = "project_id, decision, id, other_id, reason"


def project_ids(warehouse: Warehouse) -> list[str]:
    """Every project that has an event."""
    rows = warehouse.rows("select distinct project_id from raw_events order by project_id")
    return [project for (project,) in rows]


def no_such_project(project_id: str, known: Sequence[str]) -> str:
    """The sentence on a project that is not among those with events."""
    listed = ", ".join(f"'{name}'" for name in known[:10]) + (", …" if len(known) > 10 else "")
    has = f"these have: {listed}" if known else "nor has any other yet"
    return f"There is no project '{project_id}' with events; {has}."


def configure(warehouse: Warehouse, settings: Settings) -> None:
    """Replace the configured rules and decisions with those of the settings. The models of the next run follow them.

    Decisions of projects with hashed ids stay as they are while the key is missing. Raises SettingsError if it is
    another key than that of the stored ids.
    """
    hashing = settings.hashing
    refuse_other_keys(warehouse, hashing)
    projects = sorted({*project_ids(warehouse), *settings.projects})
    rules = {project: settings.rules(project) for project in projects}
    crediting = {project: settings.crediting_rules(project) for project in projects}
    with warehouse.transaction():
        _replace(warehouse, "configured_rules", _rows_of_rules(rules, crediting))
        decisions = settings.followed_decisions
        _replace(warehouse, "configured_decisions", _rows_of_decisions(decisions), but_of=hashing.missing)
        _replace(warehouse, "decision_lines", map(astuple, decisions), but_of=hashing.missing)
        _write_what_belongs_to_rules(warehouse, rules)


def is_followed(warehouse: Warehouse) -> bool:
    """Whether what is configured is what is followed, so that the models in ``models/rules`` have nothing to do."""
    followed_lines = f"select {_LINE} from decision_history where followed_until is null"
    pairs = (
        ("select * from configured_rules", "select * from project_settings"),
        ("select * from configured_decisions", "select * from decisions"),
        (f"select {_LINE} from decision_lines", followed_lines),
    )
    differing = [
        f"select 1 from (({one}) except ({other})) as d" for pair in pairs for one, other in (pair, pair[::-1])
    ]
    return not warehouse.rows(" union all ".join(differing))


def follow(warehouse: Warehouse, rules: Mapping[str, ProjectSettings], decisions: Sequence[Decision]) -> None:
    """In a trial: follow these rules and decisions at once, and queue nothing that they affect."""
    _replace(warehouse, "project_settings", _rows_of_rules(rules, {}))
    _replace(warehouse, "decisions", _rows_of_decisions(decisions))
    _write_what_belongs_to_rules(warehouse, rules)


def _write_what_belongs_to_rules(warehouse: Warehouse, rules: Mapping[str, ProjectSettings]) -> None:
    _replace(
        warehouse,
        "conversion_events",
        (
            (project, event, position)
            for project, own in rules.items()
            for position, event in enumerate(own.conversion_events, start=1)
        ),
    )
    _replace(
        warehouse,
        "unique_identifiers",
        (
            (project, cut, kind, count)
            for project, own in rules.items()
            for cut, (kind, count) in enumerate(own.values_per_person.items(), start=1)
        ),
    )
    _replace(
        warehouse,
        "id_limits",
        (
            (project, kind, other, count)
            for project, own in rules.items()
            for kind, limits in own.limits.items()
            for other, count in limits.items()
            if other != PER_PERSON
        ),
    )
    _replace(warehouse, "identifier_fields", _identifier_fields(rules))
    blocked = {
        (project, bare)
        for project, own in rules.items()
        if own.identifiers
        for value in own.blocked_ids
        if (bare := value.strip().lower()) not in BLOCKED_IDS
    }
    _replace(warehouse, "blocked_identifiers", iter(sorted(blocked)))
    # In the warehouse, because 30,000 projects make 600,000 rows of it.
    warehouse.execute(
        "insert into blocked_identifiers select projects.project_id, blocked.value "
        "from (select distinct project_id from identifier_fields) as projects "
        f"cross join (select unnest(array[{literals(BLOCKED_IDS)}]) as value) as blocked"
    )


def _replace(warehouse: Warehouse, table: str, rows: Iterator[Row] | map[Row], *, but_of: Collection[str] = ()) -> None:
    """Replace the rows of a table, but not those of some projects."""
    kept = f" where project_id not in ({literals(sorted(but_of))})" if but_of else ""
    warehouse.execute(f"delete from {table}{kept}")
    warehouse.insert_rows(table, rows)


def _rows_of_rules(rules: Mapping[str, ProjectSettings], crediting: Mapping[str, str]) -> Iterator[Row]:
    """Rows with the columns of ``tables.COLUMNS_OF_RULES``, in that order."""
    for project, own in rules.items():
        values = (
            value for name in StitchingRules.model_fields for value in as_stored(name, getattr(own, name)).values()
        )
        yield project, *values, own.resolves_persons, own.contested_ids, crediting.get(project, "")


def _rows_of_decisions(decisions: Collection[Decision]) -> Iterator[Row]:
    follows = consequences(decisions)
    for (project, user), (person, line) in follows.person_names.items():
        yield project, "same_person", user, person, line
    for (project, device, user), line in follows.wrong_links.items():
        yield project, "wrong_link", device, user, line
    for (project, device), line in follows.shared_devices.items():
        yield project, "shared_device", device, "", line
    for (project, device), (first_device, line) in follows.same_devices.items():
        yield project, "same_device", device, first_device, line
    for (project, person, other), line in follows.never_same.items():
        yield project, "never_same", person, other, line


def _identifier_fields(rules: Mapping[str, ProjectSettings]) -> Iterator[Row]:
    for project, own in rules.items():
        for kind, found in own.identifiers.items():
            for preference, path in enumerate(found.paths, start=1):
                place, *names = path.split(".")
                # A hashed identifier was normalised and screened before it was hashed.
                normalise = () if own.hash_key else found.normalise
                steps = ("trim" in normalise, "lower" in normalise, "digits" in normalise)
                patterns = (None, None) if own.hash_key else (found.valid, any_of(found.blocked))
                yield project, kind, place, json_path(names), preference, *steps, *patterns
