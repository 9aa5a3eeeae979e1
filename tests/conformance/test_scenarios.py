"""Every scenario under every policy, as its file says: in batches as they arrive, and all at once.

The files in ``scenarios/`` are for reading. Each is a project per policy of one deployment, so that all of them
together cost what one costs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import md5

import pytest
from histories import POLICIES
from naive_post_hook import credited_users
from scenarios import Scenario, read_all
from warehouses import TABLES, Row, Warehouse, differences, ephemeral_warehouse

SCENARIOS = read_all()
BATCHES = sorted({event["batch"] for scenario in SCENARIOS for event in scenario.events})
READ = ("stitched_events", "page_views", "page_views_live", "stitched_sessions", "user_mapping", "users")


@dataclass(frozen=True)
class Told:
    """What a deployment holds in the end: all of it, and by table and project."""

    contents: Mapping[str, Sequence[Row]]
    of_project: Mapping[tuple[str, str], Sequence[Row]]

    def credited(self, table: str, scenario: Scenario, policy: str) -> dict[str, str]:
        key = {"stitched_sessions": "session_id", "user_mapping": "anonymous_id"}.get(table, "event_id")
        return {row[key]: row["stitched_user_id"] for row in self.of_project[table, scenario.project(policy)]}


@pytest.fixture(scope="module")
def in_batches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    with ephemeral_warehouse(tmp_path_factory.mktemp("batches"), stitch_toml=stitch_toml()) as warehouse:
        warehouse.write_overrides(override_lines())
        for batch in BATCHES:
            land(warehouse, batch)
            warehouse.settle(view_stitching=batch == BATCHES[-1])
        yield told(warehouse)


@pytest.fixture(scope="module")
def all_at_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    with ephemeral_warehouse(tmp_path_factory.mktemp("at-once"), stitch_toml=stitch_toml()) as warehouse:
        warehouse.write_overrides(override_lines())
        for batch in BATCHES:
            land(warehouse, batch)
        warehouse.settle()
        yield told(warehouse)


def stitch_toml() -> str:
    return "".join(scenario.stitch_toml(policy) for scenario in SCENARIOS for policy in POLICIES)


def override_lines() -> list[str]:
    return [line for scenario in SCENARIOS for policy in POLICIES for line in scenario.override_lines(policy)]


def land(warehouse: Warehouse, batch: int) -> None:
    events = [event for scenario in SCENARIOS for policy in POLICIES for event in scenario.landed(policy, batch)]
    warehouse.land_events(f"jitsu/batch-{batch}.ndjson", events)


def told(warehouse: Warehouse) -> Told:
    of_project: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for table in READ:
        for row in warehouse.rows(table):
            of_project[table, row["project_id"]].append(row)
    return Told(warehouse.contents(), of_project)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
@pytest.mark.parametrize("arrival", ["in_batches", "all_at_once"])
def test_scenario(arrival: str, scenario: Scenario, request: pytest.FixtureRequest) -> None:
    found: Told = request.getfixturevalue(arrival)
    views = {event["event_id"] for event in scenario.events if event["event_type"] in ("page", "screen")}
    for policy in POLICIES:
        events = scenario.event_answers[policy]
        page_views = {event_id: user for event_id, user in events.items() if event_id in views}
        sessions = {md5(event.encode()).hexdigest(): user for event, user in scenario.session_answers[policy].items()}
        assert found.credited("stitched_events", scenario, policy) == events, policy
        assert found.credited("page_views", scenario, policy) == page_views, policy
        assert found.credited("page_views_live", scenario, policy) == page_views, policy
        assert found.credited("stitched_sessions", scenario, policy) == sessions, policy
        assert found.credited("user_mapping", scenario, policy) == scenario.device_answers[policy], policy
        counts = {"user": "stitched_user_id"} | {f"{what}s": f"{what}_count" for what in ("session", "device", "event")}
        rows = found.of_project["users", scenario.project(policy)] if scenario.users else ()
        users = [{name: str(row[column]) for name, column in counts.items()} for row in rows]
        assert not differences(users, [dict(row) for row in scenario.users]), policy


def test_the_order_of_arrival_leaves_no_trace(in_batches: Told, all_at_once: Told) -> None:
    for table in TABLES:
        assert not differences(in_batches.contents[table], all_at_once.contents[table]), table


@pytest.mark.parametrize(
    "scenario", [scenario for scenario in SCENARIOS if scenario.usual], ids=lambda scenario: scenario.name
)
def test_the_usual_approach_goes_wrong(scenario: Scenario) -> None:
    usual = scenario.usual
    assert usual is not None
    batches = [[event for event in scenario.events if event["batch"] == batch] for batch in BATCHES]
    found = credited_users(batches)
    found_otherwise = credited_users([list(reversed(batch)) for batch in batches])
    assert found == {event: user for event, user in usual.gives.items() if user is not None}
    assert found_otherwise == {event: user for event, user in usual.gives_otherwise.items() if user is not None}
    right = scenario.event_answers[usual.should_give]
    assert found != right or found_otherwise != right
