"""Nothing of one project reaches another: beside others a project is what it is alone, row by row.

The projects have the same events under the same ids, and each follows a policy, decisions and settings of its own.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from histories import DEVICES, POLICIES, History, Land, Rule, Step, history, land, stitch_toml
from warehouses import TABLES, VIEWS, Row, Warehouse, differences, ephemeral_warehouse

from stitch_pipeline.settings import SettingsError
from stitch_pipeline.stitching.explain import Explanation, explain
from stitch_pipeline.stitching.preview import Proposal, RulesPreview, preview_rules

# Names that would meet if any were cut, joined, folded or unquoted. `default` is the project of events that name none.
PROJECTS = ("a", "a|b", "A", "default", 'b\'s "2", ä')
OWN_SETTINGS = {
    "a": 'blocked_ids = ["u3"]',
    "a|b": 'blocked_ids = ["d3"]\nconversion_events = ["visit", "signup"]',
}
# Rows in quarantine have no project.
COMPARED = (
    *(table for table in TABLES if table != "quarantined_events"),
    *VIEWS,
    *("user_mapping_history", "rules_history", "decision_history", "person_name_history"),
    *("project_settings", "decisions", "conversion_events", "blocked_identifiers"),
)
# When a run took place, which by nature is not the same in two deployments.
TIMES_OF_RUNS = ("known_since", "known_until", "followed_since", "followed_until", "candidate_loaded_at")
PROPOSALS: Sequence[Mapping[str, Any]] = (
    *({"policy": policy} for policy in POLICIES),
    {"lookback_days": 0, "max_users_per_device": 1},
)


@pytest.mark.slow
def test_a_project_beside_others_is_what_it_is_alone() -> None:
    compare(seed=1, alone=("a|b",))


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("seed", range(1, 7))
def test_each_project_beside_others_is_what_it_is_alone(seed: int) -> None:
    compare(seed, PROJECTS)


def compare(seed: int, alone: Sequence[str]) -> None:
    """Play a history in all projects together, and in each of some alone."""
    lived = twins(seed)
    with tempfile.TemporaryDirectory() as directory, ephemeral_warehouse(Path(directory) / "together") as together:
        play(lived, together)
        for number, project in enumerate(alone):
            with ephemeral_warehouse(Path(directory) / f"alone{number}") as apart:
                play(only(lived, project), apart)
                for table in COMPARED:
                    found = differences(rows_of(together, table, project), rows_of(apart, table, project))
                    assert not found, f"project {project!r}, {table}"
                assert explanations(together, project) == explanations(apart, project)
                for rules in PROPOSALS:
                    assert preview(together, project, rules) == preview(apart, project, rules), (project, rules)
        assert sum(len(together.rows(table)) for table in ("raw_events", "stitched_sessions")) > 100


def twins(seed: int) -> History:
    """A history in which the same happens in every project, each under other rules."""
    steps: list[Step] = []
    for step in history(seed, rounds=1).steps:
        if isinstance(step, Land):
            in_each = [{**event, "project_id": project} for event in step.events for project in PROJECTS]
            steps.append(replace(step, events=tuple(in_each)))
        elif isinstance(step, Rule):
            rules = list(step.rules.values())
            of_projects = {
                # The policies wander, so that a change of rules changes each of them.
                project: replace(rules[n % len(rules)], policy=POLICIES[(n + len(steps)) % len(POLICIES)])
                for n, project in enumerate(PROJECTS)
            }
            steps.append(Rule(of_projects))
        else:
            steps.append(step)
    return History(tuple(steps))


def only(found: History, project: str) -> History:
    """The history as a deployment has it that knows this project alone."""
    steps: list[Step] = []
    for step in found.steps:
        if isinstance(step, Land):
            own = tuple(event for event in step.events if event["project_id"] == project)
            steps.append(replace(step, events=own))
        else:
            steps.append(Rule({project: step.rules[project]}) if isinstance(step, Rule) else step)
    return History(tuple(steps))


def play(found: History, warehouse: Warehouse) -> None:
    for step in found.steps:
        if isinstance(step, Land):
            events = [{**event, "project_id": _sent(event["project_id"])} for event in step.events]
            land(warehouse, replace(step, events=tuple(events)))
        elif isinstance(step, Rule):
            text = stitch_toml(step.rules)
            for project, own in OWN_SETTINGS.items():
                header = f"[projects.{json.dumps(project)}]\n"
                text = text.replace(header, f"{header}{own}\n")
            warehouse.write_stitch_toml(text)
            warehouse.write_overrides(
                f"{_quoted(project)},{','.join(line)}," for project, own in step.rules.items() for line in own.decisions
            )
        else:
            History((step,)).play(warehouse)
    warehouse.settle()


def _sent(project: str) -> str | None:
    return None if project == "default" else project


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def rows_of(warehouse: Warehouse, table: str, project: str) -> list[Row]:
    return [
        {name: value for name, value in row.items() if name not in TIMES_OF_RUNS}
        for row in warehouse.rows(table)
        # What was known in between depends on when each run took place.
        if row["project_id"] == project and row.get("known_until") is None
    ]


def explanations(warehouse: Warehouse, project: str) -> list[Explanation | str]:
    """What ``why`` says of every device, and of one that no project has."""
    return [explanation(warehouse, project, device) for device in (*DEVICES, "none")]


def explanation(warehouse: Warehouse, project: str, device: str) -> Explanation | str:
    try:
        found = explain(warehouse.settings, project, device)
    except SettingsError as error:
        return str(error)
    return replace(
        found,
        candidates=[replace(candidate, loaded_at=None) for candidate in found.candidates],
        rows=[
            replace(
                row,
                deciding=row.deciding and replace(row.deciding, loaded_at=None),
                losing=[(why, [replace(one, loaded_at=None) for one in losing]) for why, losing in row.losing],
            )
            for row in found.rows
        ],
    )


def preview(warehouse: Warehouse, project: str, rules: Mapping[str, Any]) -> RulesPreview:
    return preview_rules(warehouse.settings, Proposal(project, rules))
