"""The rules and decisions as tables, which the models read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from stitch_pipeline.landing.reading import BLOCKED_IDS
from stitch_pipeline.settings import ProjectSettings
from stitch_pipeline.settings.decisions import Decision, consequences
from stitch_pipeline.settings.rules import as_stored
from stitch_pipeline.warehouse.port import Warehouse

RULES_TABLES = (
    *("project_settings", "conversion_events", "unique_identifiers", "identifier_fields", "blocked_identifiers"),
    *("person_names", "wrong_links", "shared_devices", "never_same"),
)
"""What ``write_rules`` rewrites."""


def write_rules(warehouse: Warehouse, rules: Mapping[str, ProjectSettings], decisions: Iterable[Decision]) -> None:
    """Make the rules of each project, and what follows from the decisions, readable to the models."""
    follows = consequences(decisions)
    rows: dict[str, Iterable[tuple[object, ...]]] = {
        "project_settings": _project_settings(rules),
        "conversion_events": (
            (project, event, position)
            for project, own in rules.items()
            for position, event in enumerate(own.conversion_events, start=1)
        ),
        "unique_identifiers": (
            (project, cut, kind)
            for project, own in rules.items()
            for cut, kind in enumerate(dict.fromkeys(own.unique_identifiers), start=1)
        ),
        "identifier_fields": _identifier_fields(rules),
        "blocked_identifiers": (
            (project, value)
            for project, own in rules.items()
            if own.identifiers
            for value in dict.fromkeys((*BLOCKED_IDS, *(value.strip().lower() for value in own.blocked_ids)))
        ),
        "person_names": ((*user, *named) for user, named in follows.person_names.items()),
        "wrong_links": ((*link, line) for link, line in follows.wrong_links.items()),
        "shared_devices": ((*device, line) for device, line in follows.shared_devices.items()),
        "never_same": ((*pair, line) for pair, line in follows.never_same.items()),
    }
    with warehouse.transaction():
        for table in RULES_TABLES:
            warehouse.execute(f"delete from stitch.{table}")
            warehouse.insert_rows(f"stitch.{table}", rows[table])


def projects(warehouse: Warehouse) -> list[str]:
    """Every project that has an event."""
    return [project for (project,) in warehouse.rows("select distinct project_id from stitch.raw_events order by 1")]


def _project_settings(rules: Mapping[str, ProjectSettings]) -> Iterator[tuple[object, ...]]:
    for project, own in rules.items():
        yield (
            project,
            own.stitching,
            own.stitching and own.session_stitching,
            own.policy.value,
            as_stored(own.lookback_days),
            as_stored(own.carry_forward_days),
            own.max_users_per_device,
            own.link_on == "identify",
            own.resolves_persons,
            own.max_ids_per_person,
        )


def _identifier_fields(rules: Mapping[str, ProjectSettings]) -> Iterator[tuple[object, ...]]:
    for project, own in rules.items():
        for kind, found in own.identifiers.items():
            for preference, path in enumerate(found.paths, start=1):
                place, *names = path.split(".")
                json_path = "$" + "".join('."' + name.replace('"', '\\"') + '"' for name in names)
                steps = ("trim" in found.normalise, "lower" in found.normalise, "digits" in found.normalise)
                yield project, kind, place, json_path, preference, *steps
