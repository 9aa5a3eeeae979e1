"""Every guard counts what it holds back, per partition and in a report that a person can read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dagster import AssetKey, AssetRecordsFilter
from warehouses import Row, Warehouse, as_jitsu, at

NewWarehouse = Callable[..., Warehouse]
STITCH_TOML = """
[projects.shop]
max_users_per_device = 2
blocked_ids = ["tester"]

[projects.app]
link_on = "identify"
"""


def event(event_id: str, time: str, device: str, user: str | None = None, **fields: Any) -> Row:
    return {
        "event_id": event_id,
        "project_id": "shop",
        "occurred_at": at(time),
        "event_type": "page",
        "anonymous_id": device,
        "user_id": user,
        **fields,
    }


EVENTS = [
    event("b1", "2026-03-02 12:00", "undefined", "Tester"),
    event("b2", "2026-03-03 12:00", "phone", " Null "),
    event("b3", "2026-03-03 13:00", "phone", " Null "),
    *(event(f"s{day}", f"2026-03-0{day} 12:00", "library", user) for day, user in enumerate("abc", start=2)),
    event("s5", "2026-03-05 12:00", "library"),
    event("s6", "2026-03-05 13:00", "library"),
    # Ann is identified on her phone, so that her page views carry her id there holds nothing back; Bob never is.
    event("l1", "2026-03-02 12:00", "ann-phone", "ann", project_id="app", event_type="identify"),
    event("l2", "2026-03-02 12:10", "ann-phone", "ann", project_id="app"),
    event("l3", "2026-03-02 12:20", "bob-phone", "bob", project_id="app"),
]
BAD_TIMES = [
    event("t1", "2026-01-31 10:00", "phone"),
    event("t2", "2026-02-28 10:00", "phone"),
    event("t3", "2026-03-09 12:00", "phone", received_at=at("2026-03-02 12:00")),
]


def test_the_report_and_the_partitions_say_what_each_guard_held_back(new_warehouse: NewWarehouse) -> None:
    warehouse = new_warehouse(stitch_toml=STITCH_TOML)
    warehouse.land("jitsu/a.ndjson", [as_jitsu(row) for row in EVENTS + BAD_TIMES])
    warehouse.settle()
    report = warehouse.query("select * from stitch.guard_report order by guard, field, found, project_id")
    assert [tuple(row.values()) for row in report] == [
        (
            None,
            "before start date",
            "landing_file",
            "jitsu/a.ndjson",
            2,
            at("2026-01-31 10:00"),
            at("2026-02-28 10:00"),
        ),
        ("shop", "blocked id", "anonymous_id", "undefined", 1, at("2026-03-02 12:00"), at("2026-03-02 12:00")),
        ("shop", "blocked id", "user_id", " Null ", 2, at("2026-03-03 12:00"), at("2026-03-03 13:00")),
        ("shop", "blocked id", "user_id", "Tester", 1, at("2026-03-02 12:00"), at("2026-03-02 12:00")),
        ("app", "does not link", "user_id", "bob", 1, at("2026-03-02 12:20"), at("2026-03-02 12:20")),
        (None, "in the future", "landing_file", "jitsu/a.ndjson", 1, at("2026-03-09 12:00"), at("2026-03-09 12:00")),
        ("shop", "shared device", "anonymous_id", "library", 2, at("2026-03-05 12:00"), at("2026-03-05 13:00")),
    ]
    counted = {
        "raw_events": ("2026-03-02", {"blocked_ids": 2, "devices": 3}),
        "identity_map": ("2026-03-02", {"events_that_do_not_link": 2, "devices": 2}),
        "stitched_sessions": ("2026-03-05", {"withheld_on_shared_devices": 2, "visitors_identified": 0}),
        "page_views": ("2026-03-05", {"withheld_on_shared_devices": 2}),
        "quarantined_events": ("2026-03-02", {"before_start_date": 2, "in_the_future": 1}),
    }
    for asset, (partition, expected) in counted.items():
        records = warehouse.instance.fetch_materializations(
            AssetRecordsFilter(AssetKey(asset), asset_partitions=[partition]), limit=1
        ).records
        metadata = records[0].asset_materialization.metadata if records[0].asset_materialization else {}
        assert {name: metadata[name].value for name in expected} == expected, asset
