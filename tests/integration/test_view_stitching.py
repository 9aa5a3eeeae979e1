"""Page views are stitched at their own pace: on a cron, off, or for one run; only rows that change are written."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from warehouses import START, Warehouse, at, page_view

from stitch_pipeline.orchestration.jobs import RESTITCH_PAGE_VIEWS_JOB
from stitch_pipeline.orchestration.run_config import models_config
from stitch_pipeline.orchestration.run_records import run_request
from stitch_pipeline.planning.days import DayRange
from stitch_pipeline.planning.requests import Request

NewWarehouse = Callable[..., Warehouse]


HISTORY = [
    page_view("e1", "2026-03-02 12:00"),
    page_view("e2", "2026-03-04 12:00"),
    page_view("b1", "2026-03-04 12:00", anonymous_id="b"),
]
LOGIN = [page_view("e3", "2026-03-06 12:00", user_id="u")]


def credited(warehouse: Warehouse, table: str = "page_views") -> dict[str, tuple[str, str]]:
    return {row["event_id"]: (row["stitched_user_id"], row["stitched_by"]) for row in warehouse.rows(table)}


def restitch_views(warehouse: Warehouse, **config: bool) -> dict[str, int]:
    days = DayRange(START, at("2026-03-10").date())
    tags = run_request(Request(days, base_key="by hand")).tags
    return warehouse.run(
        RESTITCH_PAGE_VIEWS_JOB, tags, models_config(restitch_only=True, view_stitching=True, **config)
    )


def test_stored_views_wait_for_the_view_stitch_and_live_ones_do_not(new_warehouse: NewWarehouse) -> None:
    warehouse = new_warehouse()
    warehouse.land_events("jitsu/a.ndjson", HISTORY)
    warehouse.settle(view_stitching=False)
    warehouse.land_events("jitsu/b.ndjson", LOGIN)
    warehouse.settle(view_stitching=False)
    stale = {"e1": ("a", "none"), "e2": ("a", "none"), "b1": ("b", "none"), "e3": ("u", "own")}
    # A change on the 6th rebuilds the 5th to the 8th and leaves the 2nd and the 4th alone.
    fresh = {**stale, "e1": ("u", "link after"), "e2": ("u", "link after")}
    assert credited(warehouse) == stale
    assert credited(warehouse, "page_views_live") == fresh
    settled = warehouse.settle(view_stitching=True)
    assert [(run.job_name, str(run.days), dict(run.rows_changed)) for run in settled.runs] == [
        ("restitch_page_views_job", "2026-03-02", {"page_views": 1}),
        ("restitch_page_views_job", "2026-03-04", {"page_views": 1}),
    ]
    assert credited(warehouse) == fresh
    assert warehouse.settle(view_stitching=True).runs == []


@pytest.mark.slow
def test_off_leaves_every_view_with_its_device_and_a_run_by_hand_stitches_once(new_warehouse: NewWarehouse) -> None:
    warehouse = new_warehouse(view_stitching="off")
    warehouse.land_events("jitsu/a.ndjson", HISTORY + LOGIN)
    warehouse.settle()
    assert set(credited(warehouse).values()) == {("a", "off"), ("b", "off")}
    assert credited(warehouse, "page_views_live")["e1"] == ("u", "link after")
    # The device that never logs in changes its rule from `off` to `none`, so all four rows change.
    assert restitch_views(warehouse) == {"page_views": 4}
    stitched = {"e1": ("u", "link after"), "e2": ("u", "link after"), "b1": ("b", "none"), "e3": ("u", "own")}
    assert credited(warehouse) == stitched
    # What is stitched stays as of that stitch when its day is built again; a new row is its own device's.
    warehouse.land_events("jitsu/c.ndjson", [page_view("e4", "2026-03-04 13:00")])
    warehouse.settle()
    assert credited(warehouse) == {**stitched, "e4": ("a", "off")}
    assert restitch_views(warehouse) == {"page_views": 1}


@pytest.mark.parametrize("setting", ["off", "0 4 * * 0"])
def test_one_build_may_stitch_views_or_not(setting: str, new_warehouse: NewWarehouse) -> None:
    warehouse = new_warehouse(view_stitching=setting)
    warehouse.land_events("jitsu/a.ndjson", HISTORY + LOGIN)
    override = models_config(view_stitching=setting == "off")
    warehouse.build(START, at("2026-03-10").date(), run_config=override)
    assert credited(warehouse)["e1"] == (("u", "link after") if setting == "off" else ("a", "off"))


def test_views_that_a_run_left_unstitched_are_stitched_by_the_next_view_stitch(new_warehouse: NewWarehouse) -> None:
    warehouse = new_warehouse()
    warehouse.land_events("jitsu/a.ndjson", HISTORY + LOGIN)
    warehouse.build(START, at("2026-03-10").date(), run_config=models_config(view_stitching=False))
    assert credited(warehouse)["b1"] == ("b", "off")
    warehouse.settle(view_stitching=True)
    assert credited(warehouse) == credited(warehouse, "page_views_live")


@pytest.mark.slow
def test_restitching_changes_the_answers_and_nothing_else(new_warehouse: NewWarehouse) -> None:
    warehouse = new_warehouse()
    warehouse.land_events("jitsu/a.ndjson", HISTORY)
    warehouse.settle(view_stitching=False)
    before = warehouse.rows("page_views")
    warehouse.land_events("jitsu/b.ndjson", LOGIN)
    warehouse.settle()
    after = [row for row in warehouse.rows("page_views") if row["event_id"] != "e3"]
    answers = {"stitched_user_id", "stitched_by"}
    assert [{k: v for k, v in row.items() if k not in answers} for row in after] == [
        {k: v for k, v in row.items() if k not in answers} for row in before
    ]


def test_session_stitching_can_be_switched_off_per_project(new_warehouse: NewWarehouse) -> None:
    warehouse = new_warehouse(stitch_toml="[projects.shop]\nsession_stitching = false\n")
    other = [{**row, "project_id": "blog", "event_id": f"blog-{row['event_id']}"} for row in HISTORY + LOGIN]
    warehouse.land_events("jitsu/a.ndjson", HISTORY + LOGIN + other)
    warehouse.settle()
    sessions = {
        (row["project_id"], row["session_date"].day, row["anonymous_id"]): (row["stitched_user_id"], row["stitched_by"])
        for row in warehouse.rows("stitched_sessions")
    }
    assert {answer for key, answer in sessions.items() if key[0] == "shop"} == {("a", "off"), ("b", "off")}
    assert sessions["blog", 2, "a"] == ("u", "link after")
    # Views have a switch of their own.
    assert credited(warehouse)["e1"] == ("u", "link after")


def test_a_project_may_be_left_unstitched_altogether(new_warehouse: NewWarehouse) -> None:
    warehouse = new_warehouse(stitch_toml="[projects.shop]\nstitching = false\n")
    warehouse.land_events("jitsu/a.ndjson", HISTORY + LOGIN)
    warehouse.settle()
    assert set(credited(warehouse).values()) == {("a", "off"), ("b", "off")}
    assert {row["stitched_user_id"] for row in warehouse.rows("stitched_sessions")} == {"a", "b"}
    assert {row["user_id"] for row in warehouse.rows("user_mapping")} == {None}


def stitched_users_with(warehouse: Warehouse, **exceptions: int | str) -> dict[tuple[int, str], str]:
    """The stitched user of each session, by day and device, after a build with these rules."""
    warehouse.build(START, at("2026-03-10").date(), run_config=models_config(**exceptions))
    sessions = warehouse.rows("stitched_sessions")
    return {(row["session_date"].day, row["anonymous_id"]): row["stitched_user_id"] for row in sessions}


@pytest.mark.slow
def test_session_stitching_and_lookback_may_differ_for_one_run(new_warehouse: NewWarehouse) -> None:
    warehouse = new_warehouse()
    warehouse.land_events("jitsu/a.ndjson", HISTORY + LOGIN)
    days = (START, at("2026-03-10").date())
    by_day = stitched_users_with(warehouse, lookback_days=2)
    assert by_day == {(2, "a"): "a", (4, "a"): "u", (4, "b"): "b", (6, "a"): "u"}
    # Two whole days are 48 hours from noon to noon.
    assert stitched_users_with(warehouse, lookback_days="48h") == by_day
    assert stitched_users_with(warehouse, lookback_days="47h") == {**by_day, (4, "a"): "a"}
    warehouse.write_stitch_toml('lookback_days = "47h"\n')
    assert stitched_users_with(warehouse) == {**by_day, (4, "a"): "a"}
    assert stitched_users_with(warehouse, lookback_days=2) == by_day
    assert stitched_users_with(warehouse, lookback_days="unlimited") == {**by_day, (2, "a"): "u"}
    warehouse.write_stitch_toml("")
    warehouse.build(*days, run_config=models_config(session_stitching=False))
    assert {row["stitched_by"] for row in warehouse.rows("stitched_sessions")} == {"off"}
    # The views read the settings, and one run's exception must not stay behind in them.
    assert credited(warehouse, "page_views_live")["e1"] == ("u", "link after")


@pytest.mark.slow
def test_the_mapping_never_follows_the_rules_of_one_run(new_warehouse: NewWarehouse) -> None:
    warehouse, as_set = new_warehouse(), new_warehouse()
    for each in (warehouse, as_set):
        each.land_events("jitsu/a.ndjson", HISTORY + LOGIN)
    config = {"ops": {"stitch_models": {"config": {"lookback_days": 2}}}}
    warehouse.build(START, at("2026-03-10").date(), run_config=config)
    as_set.settle()
    known_now = "select anonymous_id, user_id, valid_from, valid_until from stitch.user_mapping_history "
    known_now += "where known_until is null order by anonymous_id, valid_from, user_id"
    assert warehouse.query(known_now) == as_set.query(known_now)
    credited_by_the_run, credited_as_set = credited(warehouse), credited(as_set)
    assert credited_by_the_run != credited_as_set
    warehouse.settle()
    assert warehouse.query(known_now) == as_set.query(known_now)
