"""Rows that somebody repeated by hand, which no run of the pipeline does: the checks say which."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from dagster import AssetCheckEvaluation, AssetCheckKey, AssetKey
from warehouses import START, Warehouse, at, page_view

from stitch_pipeline.orchestration.jobs import BUILD_JOB, RESTITCH_PAGE_VIEWS_JOB
from stitch_pipeline.orchestration.run_config import models_config
from stitch_pipeline.orchestration.run_records import run_request
from stitch_pipeline.planning.days import DayRange
from stitch_pipeline.planning.requests import Request

NewWarehouse = Callable[..., Warehouse]

DAYS = DayRange(START, at("2026-03-10").date())
EVENTS = [page_view("e1", "2026-03-02 12:00"), page_view("e2", "2026-03-04 12:00"), page_view("e3", "2026-03-04 13:00")]


def repeat(warehouse: Warehouse, table: str, **changes: str) -> None:
    """Insert the row of e2 a second time, but for what ``changes`` say."""
    columns = warehouse.select_list(table, **changes)
    warehouse.write(f"insert into stitch.{table} select {columns} from stitch.{table} where event_id = 'e2'")


def latest_check(warehouse: Warehouse, table: str, name: str) -> AssetCheckEvaluation:
    key = AssetCheckKey(AssetKey(table), name)
    records = warehouse.instance.event_log_storage.get_latest_asset_check_execution_by_key([key])
    event = records[key].event
    assert event is not None
    assert event.dagster_event is not None
    evaluation = event.dagster_event.event_specific_data
    assert isinstance(evaluation, AssetCheckEvaluation)
    return evaluation


@pytest.mark.parametrize("day", ["2026-03-04", "2026-03-06"])
def test_an_event_that_stands_twice_fails_the_run_before_anything_is_built_on_it(
    new_warehouse: NewWarehouse, day: str
) -> None:
    warehouse = new_warehouse()
    warehouse.land_events("jitsu/a.ndjson", EVENTS)
    warehouse.settle()
    assert latest_check(warehouse, "raw_events", "raw_events_has_one_row_per_event").passed
    repeat(warehouse, "raw_events", event_date=f"date '{day}'")
    with pytest.raises(Exception, match="raw_events_has_one_row_per_event"):
        warehouse.run(BUILD_JOB, run_request(Request(DAYS, base_key="by hand")).tags)
    check = latest_check(warehouse, "raw_events", "raw_events_has_one_row_per_event")
    assert not check.passed
    assert check.metadata["repeated"].value == 1
    assert "repeated_ids" not in check.metadata
    assert sum(row["event_count"] for row in warehouse.rows("sessions")) == 3


def test_a_page_view_that_stands_twice_fails_the_run(new_warehouse: NewWarehouse) -> None:
    warehouse = new_warehouse()
    warehouse.land_events("jitsu/a.ndjson", EVENTS)
    warehouse.settle()
    name = "page_views_has_one_row_per_view"
    assert latest_check(warehouse, "page_views", name).passed
    repeat(warehouse, "page_views")
    config = models_config(restitch_only=True, view_stitching=True)
    with pytest.raises(Exception, match=f"{name}: Got 1 result"):
        warehouse.run(RESTITCH_PAGE_VIEWS_JOB, run_request(Request(DAYS, base_key="by hand")).tags, config)
    assert not latest_check(warehouse, "page_views", name).passed
