"""The landing zone: the first received wins, whatever the order; a file that changes takes its rows with it."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from itertools import permutations
from typing import Any

import pytest
from dagster import AssetCheckKey, AssetKey, AssetRecordsFilter
from warehouses import Warehouse, page_view

from stitch_pipeline.settings import SettingsError

NewWarehouse = Callable[..., Warehouse]


COPIES = {
    "jitsu/first.ndjson": page_view("e", "2026-03-04 23:59", "2026-03-05 00:01", page_path="/first"),
    "jitsu/second.ndjson": page_view("e", "2026-03-05 00:01", "2026-03-05 00:02", page_path="/second"),
    "jitsu/third.ndjson": page_view("e", "2026-03-05 00:00", "2026-03-05 00:03", page_path="/third"),
}

ORDERS = list(permutations(COPIES))[1::2]


@pytest.mark.parametrize(
    "order",
    [*(pytest.param(order, marks=[pytest.mark.slow, pytest.mark.long]) for order in ORDERS[:-1]), ORDERS[-1]],
)
def test_of_copies_the_first_received_stays_in_any_order_of_arrival(
    order: tuple[str, ...], new_warehouse: NewWarehouse
) -> None:
    warehouse = new_warehouse()
    for name in order:
        warehouse.land_events(name, [COPIES[name]])
        warehouse.settle()
    assert [row["page_path"] for row in warehouse.rows("raw_events")] == ["/first"]
    assert [row["page_path"] for row in warehouse.rows("page_views")] == ["/first"]
    assert [row["session_date"].day for row in warehouse.rows("sessions")] == [4]
    assert sorted(row["page_path"] for row in warehouse.rows("duplicate_events")) == ["/second", "/third"]


@pytest.mark.slow
def test_when_the_first_copy_goes_away_the_next_takes_its_place(new_warehouse: NewWarehouse) -> None:
    warehouse = new_warehouse()
    for name, copy in COPIES.items():
        warehouse.land_events(name, [copy])
    warehouse.settle()
    warehouse.take_away("jitsu/first.ndjson")
    warehouse.settle()
    assert [row["page_path"] for row in warehouse.rows("raw_events")] == ["/second"]
    assert [row["session_date"].day for row in warehouse.rows("sessions")] == [5]
    assert [row["stat_date"].day for row in warehouse.rows("visitor_stats")] == [5]


def test_the_same_id_in_two_projects_is_two_events(new_warehouse: NewWarehouse) -> None:
    warehouse = new_warehouse()
    copy = COPIES["jitsu/first.ndjson"]
    warehouse.land_events("jitsu/a.ndjson", [copy, {**copy, "project_id": "blog"}])
    warehouse.settle()
    assert [row["project_id"] for row in warehouse.rows("raw_events")] == ["blog", "shop"]


def test_what_cannot_be_read_is_reported_and_does_not_stop_the_rest(new_warehouse: NewWarehouse) -> None:
    warehouse = new_warehouse()
    warehouse.land_events("jitsu/good.ndjson", [page_view("e1", "2026-03-02 12:00")])
    warehouse.land("jitsu/bad.ndjson", ["{", '{"messageId": "x"}'])
    warehouse.land("elsewhere/a.ndjson", ["{}"])
    warehouse.land("jitsu/broken.parquet", ["no parquet"])
    (warehouse.settings.landing_dir / "jitsu/cut.ndjson.gz").write_bytes(gzip.compress(b"{}" * 1000)[:20])
    warehouse.settle()
    assert [row["event_id"] for row in warehouse.rows("raw_events")] == ["e1"]
    found = {(row["landing_file"], row["line"]): row["reason"] for row in warehouse.rows("quarantined_events")}
    assert found["jitsu/bad.ndjson", 1] == "not valid JSON"
    assert found["jitsu/bad.ndjson", 2] == "there is no event time"
    assert "its directory is no feed" in found["elsewhere/a.ndjson", None]
    assert "cannot be read" in found["jitsu/broken.parquet", None]
    assert "cannot be read" in found["jitsu/cut.ndjson.gz", None]
    summary: Any = warehouse.instance.event_log_storage.get_latest_asset_check_execution_by_key(
        [
            AssetCheckKey(AssetKey("quarantined_events"), "every_file_is_readable"),
            AssetCheckKey(AssetKey("raw_events"), "no_row_lost"),
        ]
    )
    passed = {key.name: record.event.dagster_event.event_specific_data.passed for key, record in summary.items()}
    assert passed == {"every_file_is_readable": False, "no_row_lost": True}


def test_a_file_whose_rows_do_not_add_up_is_named_and_holds_up_nothing(new_warehouse: NewWarehouse) -> None:
    warehouse = new_warehouse()
    warehouse.land_events("jitsu/a.ndjson", [page_view("e1", "2026-03-02 12:00"), page_view("e2", "2026-03-03 12:00")])
    warehouse.land_events("jitsu/b.ndjson", [page_view("e3", "2026-03-05 12:00")])
    warehouse.settle()
    columns = warehouse.select_list("raw_events", event_id="'e4'", landing_file="'gone'")
    warehouse.write(
        "delete from stitch.raw_events where event_id = 'e1'",
        f"insert into stitch.raw_events select {columns} from stitch.raw_events where event_id = 'e3'",
    )
    warehouse.land_events("jitsu/c.ndjson", [page_view("e5", "2026-03-09 12:00")])
    warehouse.settle()
    assert [row["session_date"].day for row in warehouse.rows("sessions")][-1] == 9
    key = AssetCheckKey(AssetKey("raw_events"), "no_row_lost")
    records: Any = warehouse.instance.event_log_storage.get_latest_asset_check_execution_by_key([key])
    check = records[key].event.dagster_event.event_specific_data
    assert not check.passed
    numbers = {"rows_landed": 2, "events": 1, "duplicates": 0, "quarantined": 0, "forgotten": 0}
    assert check.metadata["files"].value == [
        {
            "landing_file": "gone",
            "days": [],
            "rows_landed": 0,
            "events": 1,
            "duplicates": 0,
            "quarantined": 0,
            "forgotten": 0,
        },
        {"landing_file": "jitsu/a.ndjson", "days": ["2026-03-02", "2026-03-03"], **numbers},
    ]
    assert check.metadata["days"].value == ["2026-03-02", "2026-03-03"]


def test_a_file_that_grows_is_loaded_again_and_counted_once(new_warehouse: NewWarehouse) -> None:
    warehouse = new_warehouse()
    warehouse.land_events("jitsu/a.ndjson", [page_view("e1", "2026-03-02 12:00")])
    warehouse.settle()
    warehouse.land_events("jitsu/a.ndjson", [page_view("e1", "2026-03-02 12:00"), page_view("e2", "2026-03-03 12:00")])
    settled = warehouse.settle()
    assert [run.job_name for run in settled.runs] == ["build_job"]
    assert [row["event_id"] for row in warehouse.rows("raw_events")] == ["e1", "e2"]
    assert sum(row["event_count"] for row in warehouse.rows("sessions")) == 2


def test_only_the_days_that_a_file_touches_are_built(new_warehouse: NewWarehouse) -> None:
    warehouse = new_warehouse()
    warehouse.land_events("jitsu/a.ndjson", [page_view("e1", "2026-03-10 12:00"), page_view("e2", "2026-03-20 12:00")])
    settled = warehouse.settle()
    assert [str(run.days) for run in settled.runs] == ["2026-03-09 to 2026-03-12", "2026-03-19 to 2026-03-22"]
    records = warehouse.instance.fetch_materializations(AssetRecordsFilter(AssetKey("sessions")), limit=100).records
    assert len({record.partition_key for record in records}) == 8


@pytest.mark.slow
def test_blocked_ids_of_a_project_take_effect_on_what_is_loaded_already(new_warehouse: NewWarehouse) -> None:
    warehouse = new_warehouse()
    warehouse.land_events("jitsu/a.ndjson", [page_view("e1", "2026-03-02 12:00", user_id="tester")])
    warehouse.settle()
    assert [row["user_id"] for row in warehouse.rows("identity_map")] == ["tester"]
    warehouse.write_stitch_toml('[projects.shop]\nblocked_ids = ["tester"]\n')
    warehouse.settle()
    assert warehouse.rows("identity_map") == []
    assert [(row["user_id"], row["blocked_user_id"]) for row in warehouse.rows("raw_events")] == [(None, "tester")]


@pytest.mark.slow
def test_changed_rules_build_what_depends_on_them_again(new_warehouse: NewWarehouse) -> None:
    warehouse = new_warehouse(session_timeout_minutes=30)
    warehouse.land_events(
        "jitsu/a.ndjson",
        [
            page_view("e1", "2026-03-02 12:00"),
            page_view("e2", "2026-03-02 12:40", user_id="u"),
            page_view("e3", "2026-03-09 12:00"),
        ],
    )
    warehouse.settle()
    assert [row["event_count"] for row in warehouse.rows("sessions")] == [1, 1, 1]
    assert len(warehouse.rows("identity_map")) == 1
    warehouse.load_settings(session_timeout_minutes=60)
    warehouse.settle()
    assert sorted(row["event_count"] for row in warehouse.rows("sessions")) == [1, 2]
    warehouse.write_stitch_toml('[projects.shop]\nlink_on = "identify"\n')
    warehouse.settle()
    assert warehouse.rows("identity_map") == []
    # No link is left: the session that names a user is that user's, and the other the device's.
    stitched = warehouse.rows("stitched_sessions")
    assert {(row["user_id"], row["stitched_user_id"]) for row in stitched} == {("u", "u"), (None, "a")}
    assert warehouse.settle().runs == []


def test_a_missing_landing_directory_is_one_clear_sentence(new_warehouse: NewWarehouse) -> None:
    warehouse = new_warehouse()
    warehouse.settings.landing_dir.rmdir()
    with pytest.raises(SettingsError, match="is not a directory: create it, or point the variable"):
        warehouse.settle()
