"""Policy ``graph`` where it is followed for real: what changes whom, and that nothing else is touched."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from dagster import DagsterExecutionStepExecutionError, Failure
from warehouses import START, Row, Warehouse, at, ephemeral_warehouse

from stitch_pipeline.orchestration.jobs import RESTITCH_JOB
from stitch_pipeline.orchestration.run_config import models_config
from stitch_pipeline.orchestration.run_records import run_request
from stitch_pipeline.planning.days import DayRange
from stitch_pipeline.planning.requests import Request
from stitch_pipeline.settings import Policy
from stitch_pipeline.stitching.explain import explain

GRAPH = 'policy = "graph"\n'
EMAIL = '[projects.{project}.identifiers.email]\npaths = ["properties.email"]\nnormalise = ["trim", "lower"]\n'
# What each project follows: at first, then, and at last.
RULES: Mapping[str, tuple[str, str, str]] = {
    "there-and-back": ("", GRAPH, ""),
    "unique": (GRAPH, GRAPH + 'unique_identifiers = "user"\n', GRAPH),
    "small": (GRAPH, GRAPH + "max_ids_per_person = 2\n", GRAPH),
    "crowded": (GRAPH, GRAPH + "max_users_per_device = 1\n", GRAPH),
    "addressed": (GRAPH, GRAPH + EMAIL, GRAPH),
    "off": (GRAPH, GRAPH + "stitching = false\n", GRAPH),
}
BY_DEFAULT = {"e1": "ann", "e2": "ann", "e3": "ann", "e4": "ann", "e5": "ann", "e6": "tv"}
THEN: Mapping[str, Mapping[str, str]] = {
    "there-and-back": BY_DEFAULT,
    "unique": {"e1": "ann", "e2": "bob", "e3": "laptop", "e4": "bob", "e5": "bob", "e6": "tv"},
    "small": {"e1": "ann", "e2": "bob", "e3": "laptop", "e4": "bob", "e5": "bob", "e6": "tv"},
    "crowded": {"e1": "ann", "e2": "bob", "e3": "laptop", "e4": "bob", "e5": "bob", "e6": "tv"},
    "addressed": {**BY_DEFAULT, "e6": "ann"},
    "off": {"e1": "laptop", "e2": "laptop", "e3": "laptop", "e4": "phone", "e5": "bob", "e6": "tv"},
}
LATEST = {"e1": "bob", "e2": "bob", "e3": "bob", "e4": "bob", "e5": "bob", "e6": "tv"}
CHAIN = 40


def page(project: str, event_id: str, time: str, device: str | None, user: str | None = None, **more: Any) -> Row:
    return {
        "project_id": project,
        "event_id": event_id,
        "occurred_at": at(time),
        "event_type": "page",
        "anonymous_id": device,
        "user_id": user,
        **more,
    }


def story(project: str) -> list[Row]:
    """Ann and Bob on one laptop, Bob's phone, Bob on no device, and a television that Bob's address ties to him."""
    address = {"properties": {"email": "bob@example.com"}}
    return [
        page(project, "e1", "2026-03-02 12:00", "laptop", "ann"),
        page(project, "e2", "2026-03-03 12:00", "laptop", "bob"),
        page(project, "e3", "2026-03-04 12:00", "laptop"),
        page(project, "e4", "2026-03-04 13:00", "phone", "bob", **address),
        page(project, "e5", "2026-03-05 12:00", None, "bob"),
        page(project, "e6", "2026-03-05 13:00", "tv", properties={"email": "Bob@Example.com "}),
    ]


def chain(first: int, last: int) -> list[Row]:
    """Each user on the next one's device as well: one person, as long as nobody is missing."""
    return [
        page("chain", f"c{n}-{device}", f"2026-03-02 {n // 60:02}:{n % 60:02}", f"d{device}", f"u{n:03}")
        for n in range(first, last + 1)
        for device in (n, n + 1)
    ]


def stitch_toml(position: int) -> str:
    tables = {project: rules[position].format(project=project) for project, rules in RULES.items()}
    return "".join(f"[projects.{project}]\n{rules}" for project, rules in {**tables, "chain": GRAPH}.items())


def credited(warehouse: Warehouse, table: str = "page_views") -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for row in warehouse.rows(table, ["project_id", "event_id", "stitched_user_id"]):
        found.setdefault(row["project_id"], {})[row["event_id"]] = row["stitched_user_id"]
    return {project: found[project] for project in RULES}


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warehouse]:
    with ephemeral_warehouse(tmp_path_factory.mktemp("graph"), stitch_toml=stitch_toml(0)) as warehouse:
        # The chain lacks its middle, so it is two persons.
        middle = CHAIN // 2
        warehouse.land_events(
            "jitsu/a.ndjson",
            [
                *(event for project in RULES for event in story(project)),
                *chain(0, middle - 1),
                *chain(middle + 1, CHAIN),
                page("chain", "other", "2026-03-02 12:00", "elsewhere", "somebody"),
            ],
        )
        warehouse.settle()
        yield warehouse


@pytest.mark.slow
def test_every_rule_of_graph_is_noticed_and_comes_undone(warehouse: Warehouse) -> None:
    at_first = {**dict.fromkeys(RULES, BY_DEFAULT), "there-and-back": LATEST}
    assert credited(warehouse) == credited(warehouse, "stitched_events") == at_first
    warehouse.write_stitch_toml(stitch_toml(1))
    warehouse.settle()
    assert credited(warehouse) == credited(warehouse, "stitched_events") == THEN
    assert warehouse.rows("persons") == warehouse.persons_from_nothing()
    warehouse.write_stitch_toml(stitch_toml(2))
    warehouse.settle()
    assert credited(warehouse) == credited(warehouse, "stitched_events") == at_first
    assert warehouse.rows("persons where project_id = 'there-and-back'") == []
    assert warehouse.settle().runs == []


def test_a_missing_link_makes_two_persons_one_and_touches_nobody_else(warehouse: Warehouse) -> None:
    def people() -> dict[str, int]:
        found = warehouse.query(
            "select person_id, count(*) as ids from stitch.persons where project_id = 'chain' group by person_id"
        )
        return {row["person_id"]: row["ids"] for row in found}

    warehouse.settle()
    middle = CHAIN // 2
    # Of n users in a row there are n users and n + 1 devices.
    assert people() == {"u000": 2 * middle + 1, f"u{middle + 1:03}": 2 * (CHAIN - middle) + 1, "somebody": 2}
    warehouse.land_events("jitsu/b.ndjson", chain(middle, middle))
    settled = warehouse.settle()
    assert people() == {"u000": 2 * (CHAIN + 1) + 1, "somebody": 2}
    (build, *_) = settled.runs
    # The missing user, and the second half with its devices, which become the first half's.
    assert build.rows_changed["persons"] == 1 + 2 * (CHAIN - middle) + 1
    users = warehouse.rows("users where project_id = 'chain'", ["stitched_user_id", "device_count", "session_count"])
    assert users == [
        {"stitched_user_id": "somebody", "device_count": 1, "session_count": 1},
        {"stitched_user_id": "u000", "device_count": CHAIN + 2, "session_count": CHAIN + 2},
    ]


def test_why_says_which_person_a_link_leads_to(warehouse: Warehouse) -> None:
    explanation = explain(warehouse.settings, "unique", "laptop", "2026-03-04")
    (row, *_) = explanation.rows
    assert (row.stitched_user_id, row.stitched_by, row.stored_user_id) == ("ann", "link before", "ann")
    assert row.deciding is not None
    assert row.deciding.user_id == "bob"
    assert row.deciding_reason == "decides: the last link on the device within the lookback, to the person ann"
    assert [reason for reason, _ in row.losing] == ["a later link on the device wins under graph"]


def test_graph_for_one_run_is_refused(warehouse: Warehouse) -> None:
    tags = run_request(Request(DayRange(START, START), base_key="by hand")).tags
    with pytest.raises((Failure, DagsterExecutionStepExecutionError), match="cannot be followed for one run"):
        warehouse.run(RESTITCH_JOB, tags, models_config(policy=Policy.graph.value))


def test_an_identifier_that_only_a_hub_was_seen_with_is_nobody(tmp_path: Path) -> None:
    toml = '[projects.shop]\npolicy = "graph"\n' + EMAIL.format(project="shop")
    with ephemeral_warehouse(tmp_path, stitch_toml=toml) as warehouse:
        warehouse.write_overrides(["shop,shared_device,till,,"])
        till = page("shop", "e1", "2026-03-02 12:00", "till", properties={"email": "till@example.com"})
        tablet = page("shop", "e2", "2026-03-02 13:00", "tablet", properties={"email": "ann@example.com"})
        warehouse.land_events("jitsu/shop.ndjson", [till, tablet])
        warehouse.settle()
        persons = {(row["id_kind"], row["id"]): row["person_id"] for row in warehouse.rows("persons")}
        assert persons == {
            ("device", "till"): None,
            ("email", "till@example.com"): None,
            ("device", "tablet"): "email:ann@example.com",
            ("email", "ann@example.com"): "email:ann@example.com",
        }
        assert warehouse.rows("persons") == warehouse.persons_from_nothing()


@pytest.mark.slow
def test_a_decision_that_frees_a_device_reaches_everybody_on_it_and_a_project_that_is_gone_leaves_nobody(
    tmp_path: Path,
) -> None:
    def resolved(warehouse: Warehouse) -> dict[str, str]:
        found = warehouse.rows("persons where id_kind = 'user'", ["project_id", "id", "person_id"])
        return {f"{row['project_id']} {row['id']}": row["person_id"] for row in found}

    with ephemeral_warehouse(tmp_path, policy="graph", max_users_per_device=2) as warehouse:
        users = ("ann", "anna", "bob")
        of_all = [page("shop", f"e{n}", f"2026-03-02 1{n}:00", "laptop", user) for n, user in enumerate(users)]
        warehouse.land_events("jitsu/shop.ndjson", of_all)
        warehouse.land_events("jitsu/gone.ndjson", [page("gone", "g", "2026-03-02 12:00", "tablet", "sam")])
        warehouse.settle()
        assert resolved(warehouse) == {"gone sam": "sam", "shop ann": "ann", "shop anna": "anna", "shop bob": "bob"}
        # Of three users two are one: the laptop is no hub any more, and ties Bob to them as well.
        warehouse.write_overrides(["shop,same_person,ann,anna,"])
        warehouse.settle()
        assert resolved(warehouse) == {"gone sam": "sam", "shop ann": "ann", "shop bob": "ann"}
        assert {row["stitched_user_id"] for row in warehouse.rows("page_views where project_id = 'shop'")} == {"ann"}
        warehouse.take_away("jitsu/gone.ndjson")
        warehouse.settle()
        assert resolved(warehouse) == {"shop ann": "ann", "shop bob": "ann"}
        warehouse.settle(reconcile=True)
        assert warehouse.rows("persons") == warehouse.persons_from_nothing()
