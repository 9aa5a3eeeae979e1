"""After any arrivals in any order every table holds what a rebuild from nothing gives, and what DESIGN says.

The oracle (``tests/oracle.py``) is a second, independent statement of the rules.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import oracle
import pytest
from conftest import NewWarehouse
from engines import IS_POSTGRES
from histories import History, history, land, write_rules
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from warehouses import START, TABLES, Row, Warehouse, differences, ephemeral_warehouse, page_view

from stitch_pipeline.planning.days import DayRange
from stitch_pipeline.stitching.build import Options, build
from stitch_pipeline.warehouse.engine import engine_of

ORACLE_VIEWS = (
    "user_mapping",
    "stitched_events",
    "page_views_live",
    "user_devices",
    "identity_link",
    "user_first_touch",
)


def check(history: History) -> None:
    with tempfile.TemporaryDirectory() as directory:
        with ephemeral_warehouse(Path(directory) / "lived", published_dir=None) as lived:
            history.play(lived)
            lived.settle()
            if not IS_POSTGRES:  # from which nothing is published
                lived.assert_is_published()
            contents = lived.contents()
            mapping = known_now(lived)
            assert_is_as_the_oracle_says(lived, history)
            assert_nothing_is_lost(contents, history)
            assert_tenants_are_apart(contents, history)
            assert_nothing_is_left_to_do(lived, contents)
        with ephemeral_warehouse(Path(directory) / "fresh") as fresh:
            write_rules(fresh, history.rules)
            for file in history.files.values():
                land(fresh, file)
            fresh.settle()
            rebuilt = fresh.contents()
            rebuilt_mapping = known_now(fresh)
    for table in TABLES:
        assert not differences(contents[table], rebuilt[table]), f"{table}: incremental is not full"
    assert not differences(mapping, rebuilt_mapping), (
        "user_mapping_history: what is known now is not what a rebuild says"
    )


def known_now(warehouse: Warehouse) -> list[Row]:
    """The mapping without the times at which it became known, which are by nature not those of a rebuild."""
    columns = warehouse.select_list("user_mapping_history", but=("known_since", "known_until"))
    return warehouse.query(f"select {columns} from stitch.user_mapping_history where known_until is null")


def assert_is_as_the_oracle_says(warehouse: Warehouse, history: History) -> None:
    expected = oracle.tables(history.landed, history.rules)
    with warehouse.reading():
        for table in (*TABLES, *ORACLE_VIEWS):
            if table == "quarantined_events":
                continue
            columns = expected[table][0].keys() if expected[table] else None
            assert not differences(warehouse.rows(table, columns), expected[table]), f"{table} is not what DESIGN says"

        assert not differences(known_now(warehouse), expected["user_mapping_history"]), (
            "the mapping is not what DESIGN says"
        )


def assert_nothing_is_lost(contents: dict[str, list[Row]], history: History) -> None:
    landed = sum(len(file.events) + len(file.bad_lines) for file in history.files.values())
    kept = {name: len(contents[name]) for name in ("raw_events", "duplicate_events", "quarantined_events")}
    assert landed == sum(kept.values()), kept
    with_device = sum(event["anonymous_id"] is not None for event in contents["raw_events"])
    assert with_device == sum(session["event_count"] for session in contents["sessions"])
    of_somebody = sum(
        event["anonymous_id"] is not None or event["user_id"] is not None for event in contents["raw_events"]
    )
    assert of_somebody == sum(user["event_count"] for user in contents["users"])
    bad = sorted(line for file in history.files.values() for line in file.bad_lines)
    assert sorted(row["raw_row"] for row in contents["quarantined_events"]) == bad


def assert_tenants_are_apart(contents: dict[str, list[Row]], history: History) -> None:
    def values(project: str) -> set[tuple[str, Any]]:
        return (
            {
                (name, event[name])
                for event in contents["raw_events"]
                if event["project_id"] == project
                for name in ("event_id", "anonymous_id", "user_id", "previous_id")
            }
            | {
                ("machine", f"machine:{value}")
                for event in contents["raw_events"]
                if event["project_id"] == project and event["identifiers"]
                for value in json.loads(event["identifiers"]).values()
            }
            | {
                ("email", f"email:{address.strip().lower()}")
                for event in contents["raw_events"]
                if event["project_id"] == project and event["properties"]
                for address in map(str, json.loads(event["properties"]).values())
            }
        )

    for project in {event["project_id"] for event in contents["raw_events"]}:
        own = {value for _, value in values(project)}
        own |= {user for decision, *users in history.rules[project].decisions for user in users}
        for table in ("identity_map", "stitched_sessions", "page_views", "users"):
            for row in contents[table]:
                if row["project_id"] == project:
                    assert row.get("stitched_user_id", row.get("user_id")) in own, (table, row)


def assert_nothing_is_left_to_do(warehouse: Warehouse, contents: dict[str, list[Row]]) -> None:
    assert warehouse.settle().runs == []
    history = warehouse.rows("user_mapping_history")
    days = [row["event_date"] for row in contents["raw_events"]]
    changed = warehouse.build(START, max(days, default=START))
    assert not any(changed.values()), changed
    assert warehouse.contents() == contents
    assert warehouse.rows("user_mapping_history") == history
    assert warehouse.settle().runs == []


@settings(max_examples=1, deadline=None, derandomize=True, database=None, phases=[Phase.generate])
@given(seed=st.integers(1, 1_000_000))
def test_any_history_leaves_what_a_rebuild_gives(seed: int) -> None:
    check(history(seed, rounds=2))


# 753 once had two rows for a page view.
@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("seed", [*range(1, 12), 753])
def test_any_long_history_leaves_what_a_rebuild_gives(seed: int) -> None:
    check(history(seed, rounds=4))


@pytest.mark.slow
def test_statistics_follow_when_a_run_ended_after_the_sessions(new_warehouse: NewWarehouse) -> None:
    """The run that re-stitched the sessions was killed before it came to `visitor_stats`."""
    warehouse = new_warehouse()
    warehouse.land_events(
        "jitsu/a.ndjson",
        [page_view(device, "2026-03-01 12:00", anonymous_id=device, user_id=f"of-{device}") for device in ("a", "b")],
    )
    warehouse.settle()
    warehouse.write_overrides(["shop,same_person,of-a,of-b,"])
    warehouse.follow_rules_and_die()
    engine = engine_of(warehouse.settings)
    with engine.open() as opened:
        built = build(
            engine,
            opened,
            warehouse.settings,
            DayRange(START, START),
            {"stitched_sessions"},
            Options(only_pending=True),
            lambda event: None,
        )
        assert not built.failures
        assert built.stale is not None
        assert built.stale.days("sessions") == [START]
    assert [row["visitors"] for row in warehouse.rows("visitor_stats")] == [2]
    warehouse.settle()
    assert [row["visitors"] for row in warehouse.rows("visitor_stats")] == [1]
    assert warehouse.query("select * from stitch.pending_days") == []
