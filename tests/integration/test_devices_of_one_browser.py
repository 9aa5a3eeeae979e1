"""``device_pairs`` and the decision ``same_device``; ``identity_link``, from which Umami counts visitors."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from typing import Any

import pytest
from conftest import NewWarehouse
from warehouses import REPOSITORY, Row, Warehouse, ephemeral_warehouse, page_view

pytestmark = pytest.mark.slow

TOML = '[projects.site]\npolicy = "first"\nlookback_days = "unlimited"\n[projects.shop]\npolicy = "device_split"\n'
SHOP, BLOG = "https://www.shop.example/a", "https://blog.shop.example:8080?b=@c"


def view(device: str, time: str, user: str | None = None, url: str = SHOP, **fields: Any) -> Row:
    fields = {"anonymous_id": device, "user_id": user, "page_url": url, **fields}
    return page_view(f"{device} {time}", f"2026-03-0{time}", **fields)


PAIRS = [
    # The tracker gives a new id at logout, and Ann logs in again. Nothing of this happens in the other project.
    view('a"1', "1 12:00", "ann"),
    view('a"1', "1 12:05"),
    view("a2", "1 12:05:20"),
    view("a2", "1 12:10", "ann"),
    view("a2", "1 12:10", "ann", project_id="blog"),
    # Each subdomain has a cookie of its own, and Bob goes back and forth.
    view("b1", "2 13:00", "bob"),
    view("b2", "2 13:00:30", "bob", BLOG),
    view("b1", "2 15:00"),
    view("b2", "2 15:00:10", None, BLOG),
    view("b2", "3 15:00", "sue", BLOG),
    # None of these is one browser: two platforms, ten minutes in between, a first device that comes back.
    view("c1", "1 12:00", "cem"),
    view("c2", "1 12:00:05", "cem", event_type="screen"),
    view("d1", "1 12:00", "dan"),
    view("d2", "1 12:10", "dan"),
    view("e1", "1 12:00", "eve"),
    view("e2", "1 12:00:30", "eve"),
    view("e1", "3 12:00"),
]
SITE = [
    {**event, "project_id": "site"}
    for event in (
        # Two browsers of Ann, one of nobody, and one on which first Ann and then Bob logs in.
        view("v1", "1 12:00"),
        view("v1", "2 12:00", "ann"),
        view("v2", "1 13:00", "ann"),
        view("v3", "1 14:00"),
        view("v3", "3 14:00"),
        view("v4", "1 15:00"),
        view("v4", "2 15:00", "ann"),
        view("v4", "3 15:00", "bob"),
        view("v5", "3 16:00", "bob"),
    )
]


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warehouse]:
    with ephemeral_warehouse(tmp_path_factory.mktemp("pairs"), stitch_toml=TOML) as built:
        built.land_events("jitsu/a.ndjson", [*PAIRS, *SITE])
        built.settle()
        yield built


def pairs(warehouse: Warehouse) -> list[tuple[Any, ...]]:
    columns = (
        *("project_id", "stitched_user_id", "anonymous_id", "other_anonymous_id", "reason", "handover_count"),
        *("seconds_between", "event_count", "other_event_count", "host", "other_host", "sessions_of_others"),
    )
    return [tuple(row[name] for name in columns) for row in warehouse.rows("device_pairs")]


WWW, OTHER = "www.shop.example", "blog.shop.example"


def test_pairs_that_look_like_one_browser_are_named_with_numbers(warehouse: Warehouse) -> None:
    assert sorted(pairs(warehouse)) == [
        ("shop", "ann", 'a"1', "a2", "new id", 1, 20.0, 2, 2, WWW, WWW, 0),
        ("shop", "bob", "b1", "b2", "other subdomain", 2, 10.0, 2, 3, WWW, OTHER, 1),
    ]


def test_the_proposed_decision_counts_them_as_one_device(new_warehouse: NewWarehouse) -> None:
    warehouse = new_warehouse(stitch_toml=TOML)
    warehouse.land_events("jitsu/a.ndjson", PAIRS)
    warehouse.settle()

    def device_counts() -> dict[str, int]:
        return {
            row["stitched_user_id"]: row["device_count"]
            for row in warehouse.rows("users")
            if row["project_id"] == "shop"
        }

    before, credited = device_counts(), warehouse.rows("stitched_sessions")
    visitors = warehouse.rows("visitor_stats")
    assert before == {"ann": 2, "bob": 2, "sue": 1, "cem": 2, "dan": 2, "eve": 2}
    lines = sorted(row["proposed_decision"] for row in warehouse.rows("device_pairs"))
    assert next(csv.reader(lines)) == ["shop", "same_device", 'a"1', "a2", "new id"]

    warehouse.write_overrides(lines)
    warehouse.settle()
    assert device_counts() == {**before, "ann": 1, "bob": 1}
    assert (warehouse.rows("stitched_sessions"), warehouse.rows("visitor_stats")) == (credited, visitors)
    assert pairs(warehouse) == []

    warehouse.write_overrides(lines[:1])
    warehouse.write_stitch_toml(TOML + "same_browser_seconds = 3600\n")
    warehouse.settle()
    assert device_counts() == {**before, "ann": 1}
    assert sorted(pair[1:7] for pair in pairs(warehouse)) == [
        ("bob", "b1", "b2", "other subdomain", 2, 10.0),
        ("dan", "d1", "d2", "new id", 1, 600.0),
    ]


def test_links_are_many_to_many_per_project(warehouse: Warehouse) -> None:
    of_site = [row for row in warehouse.rows("identity_link") if row["project_id"] == "site"]
    assert sorted((row["anonymous_id"], row["user_id"], row["event_count"]) for row in of_site) == [
        ("v1", "ann", 1),
        ("v2", "ann", 1),
        ("v4", "ann", 1),
        ("v4", "bob", 1),
        ("v5", "bob", 1),
    ]


def test_visitors_as_umami_counts_them_are_those_of_the_first_claim(warehouse: Warehouse) -> None:
    """The recipe in the docs, and ``visitor_stats`` under the policy ``first`` without an end of the lookback."""
    recipes = (REPOSITORY / "docs" / "recipes.md").read_text("utf-8")
    section = recipes.split("## How many visitors does Umami count?")[1]
    found = re.search(r"```sql\n(.*?);\n```", section, re.DOTALL)
    assert found
    counted = warehouse.query(found[1].replace("'shop'", "'site'"))
    stats = warehouse.query(
        "select stat_date, visitors from stitch.visitor_stats where project_id = 'site' order by stat_date"
    )
    assert [tuple(row.values()) for row in counted] == [tuple(row.values()) for row in stats]
    assert [row["visitors"] for row in stats] == [2, 1, 3]
    # Without a choice, as in Umami's own query, a browser with two accounts is two visitors each time it comes.
    plain = warehouse.query(
        "select sessions.session_date, count(distinct coalesce(links.user_id, sessions.anonymous_id)) as visitors "
        "from stitch.sessions as sessions left join stitch.identity_link as links "
        "on sessions.project_id = links.project_id and sessions.anonymous_id = links.anonymous_id "
        "where sessions.project_id = 'site' group by sessions.session_date order by sessions.session_date"
    )
    assert [row["visitors"] for row in plain] == [3, 2, 3]
