"""Every way of loading the code location gives the same definitions, under the names that DESIGN fixes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb
import pytest
from dagster import AssetKey, BackfillPolicy, DailyPartitionsDefinition, DefaultScheduleStatus, DefaultSensorStatus
from warehouses import REPOSITORY, TABLES, VIEWS, Warehouse

from stitch_pipeline.definitions import build_defs
from stitch_pipeline.settings import Settings
from stitch_pipeline.sources.source import CANONICAL_FIELDS
from stitch_pipeline.warehouse.dbt_project import manifest
from stitch_pipeline.warehouse.duckdb import DuckDBWarehouse
from stitch_pipeline.warehouse.port import WarehouseError
from stitch_pipeline.warehouse.tables import create_tables, described_tables

NewWarehouse = Callable[..., Warehouse]
ASSETS = {
    "raw_events",
    "quarantined_events",
    "identity_map",
    "identifier_links",
    "persons",
    "user_mapping_history",
    "sessions",
    "stitched_sessions",
    "users",
    "page_views",
    "visitor_stats",
}
INTERNAL = {
    *("project_settings", "decisions", "activity_without_device", "stale_partitions"),
    *("stale_sessions", "stale_page_views"),
    *("policy_preview_sessions", "policy_preview_events"),
}
SHOWN_VIEWS = set(VIEWS) - INTERNAL


def test_assets_jobs_sensors_and_schedules_have_their_names() -> None:
    repository = build_defs(Settings.load()).get_repository_def()
    assert {key.to_user_string() for key in repository.asset_graph.get_all_asset_keys()} == (
        ASSETS | SHOWN_VIEWS | {"stitching_report"}
    )
    jobs = {job.name for job in repository.get_all_jobs() if not job.name.startswith("__")}
    assert jobs == {
        "build_job",
        "restitch_job",
        "restitch_page_views_job",
        "reconcile_job",
        "preview_rules_job",
        "forget_job",
        "report_job",
    }
    sensors = {sensor.name: sensor.default_status for sensor in repository.sensor_defs}
    assert sensors == {
        "landing_sensor": DefaultSensorStatus.RUNNING,
        "identify_sensor": DefaultSensorStatus.RUNNING,
        "recovery_sensor": DefaultSensorStatus.RUNNING,
        "rules_sensor": DefaultSensorStatus.RUNNING,
        "alert_sensor": DefaultSensorStatus.STOPPED,
    }
    schedules = {schedule.name: schedule.default_status for schedule in repository.schedule_defs}
    assert set(schedules) == {"daily_schedule", "view_stitching_schedule", "reconcile_schedule", "report_schedule"}


def test_tables_are_daily_and_backfilled_in_one_run() -> None:
    graph = build_defs(Settings.load()).get_repository_def().asset_graph
    for name in ASSETS:
        node = graph.get(AssetKey(name))
        assert isinstance(node.partitions_def, DailyPartitionsDefinition), name
        assert node.backfill_policy == BackfillPolicy.single_run(), name
        assert node.pools == {"duckdb"}, name
        assert node.owners == ["team:analytics-engineering"], name
        assert node.description, name
        assert {check.asset_key for check in graph.asset_check_keys} >= {AssetKey(name)}, name
        columns = node.metadata["dagster/column_schema"].columns
        assert all(column.description for column in columns), name
    for name in SHOWN_VIEWS:
        assert graph.get(AssetKey(name)).partitions_def is None, name


def test_a_wrong_row_does_not_spread() -> None:
    graph = build_defs(Settings.load()).get_repository_def().asset_graph
    blocking = {key.name for key in graph.asset_check_keys if graph.get_check_spec(key).blocking}
    assert "raw_events_has_one_row_per_event" in blocking
    assert "no_row_lost" not in blocking, "what is wrong with one file does not hold up the days of the others"


def test_view_stitching_off_leaves_its_schedule_stopped() -> None:
    defs = build_defs(Settings.load(view_stitching="off")).get_repository_def()
    assert defs.get_schedule_def("view_stitching_schedule").default_status == DefaultScheduleStatus.STOPPED


def test_columns_are_those_of_the_design(new_warehouse: NewWarehouse) -> None:
    warehouse = _settled(new_warehouse)
    expected = {
        "raw_events": " ".join(CANONICAL_FIELDS),
        "identity_map": "project_id event_date anonymous_id first_seen_at user_id last_seen_at event_count"
        " first_event_id traits",
        "sessions": "project_id session_id session_date anonymous_id user_id started_at ended_at event_count"
        " page_view_count first_page_path last_page_path referrer utm_source utm_medium utm_campaign platform",
        "stitched_sessions": "project_id session_id stitched_user_id stitched_by linked_at link_event_id",
        "users": "project_id stitched_user_id is_identified first_seen_at last_seen_at identified_at session_count"
        " page_view_count event_count device_count first_touch_source first_touch_medium first_touch_campaign"
        " first_touch_referrer traits",
        "page_views": "project_id event_id event_date occurred_at anonymous_id user_id session_id page_url page_path"
        " page_title stitched_user_id stitched_by",
        "visitor_stats": "project_id stat_date page_views visits visitors visitors_unstitched bounces"
        " total_time_seconds",
    }
    for table in TABLES:
        found = {row["column_name"] for row in warehouse.query(f"describe stitch.{table}")}
        assert set(expected.get(table, "").split()) <= found, table


def test_warehouse_yaml_and_ui_have_the_same_columns(new_warehouse: NewWarehouse) -> None:
    warehouse = _settled(new_warehouse)
    assets = warehouse.defs.get_repository_def().asset_graph
    described = {
        node["name"]: [(column["name"], column["data_type"]) for column in node["columns"].values()]
        for kind in ("sources", "nodes")
        for node in manifest()[kind].values()
        if node["resource_type"] in ("source", "model")
    }
    assert set(described) == {*TABLES, *VIEWS, *ASSETS, *INTERNAL, "landing_files", "forgotten_events"}
    for table, columns in described.items():
        if table in ("project_settings", "decisions", "activity_without_device", "stale_partitions"):
            continue  # described in warehouse/tables.py
        stored = [
            (row["column_name"], row["column_type"].lower()) for row in warehouse.query(f"describe stitch.{table}")
        ]
        assert [(name, data_type.replace("double precision", "double")) for name, data_type in columns] == stored, table
        if table in ASSETS | SHOWN_VIEWS:
            shown = assets.get(AssetKey(table)).metadata["dagster/column_schema"].columns
            assert [(column.name, column.type) for column in shown] == columns, table
            assert all(column.description for column in shown), table


def test_canonical_fields_are_columns_of_raw_events_in_the_same_order() -> None:
    columns = [column.name for column in described_tables()["raw_events"].columns]
    assert [column for column in columns if column in CANONICAL_FIELDS] == list(CANONICAL_FIELDS)


def test_tables_that_are_written_from_the_settings_are_made_anew_for_a_new_rule(
    empty_warehouse: DuckDBWarehouse,
) -> None:
    create_tables(empty_warehouse)
    for table in ("configured_rules", "project_settings"):
        empty_warehouse.execute(f"alter table stitch.{table} drop column link_on")
    create_tables(empty_warehouse)
    for table in ("configured_rules", "project_settings"):
        assert "link_on" in _columns(empty_warehouse, table)


def test_a_column_that_may_be_null_is_added_to_a_stored_table(empty_warehouse: DuckDBWarehouse) -> None:
    create_tables(empty_warehouse)
    empty_warehouse.execute("alter table stitch.sessions drop column platform")
    create_tables(empty_warehouse)
    assert "platform" in _columns(empty_warehouse, "sessions")


@pytest.mark.parametrize(
    ("change", "column"),
    [
        ("alter table stitch.raw_events drop column event_type", "event_type"),
        ("alter table stitch.page_views add column host varchar", "host"),
    ],
)
def test_a_warehouse_of_another_version_is_refused(empty_warehouse: DuckDBWarehouse, change: str, column: str) -> None:
    create_tables(empty_warehouse)
    empty_warehouse.execute(change)
    with pytest.raises(WarehouseError, match=rf"differ: {column}\): run `stitch rebuild`"):
        create_tables(empty_warehouse)


@pytest.fixture
def empty_warehouse() -> Iterator[DuckDBWarehouse]:
    with duckdb.connect() as connection:
        yield DuckDBWarehouse(connection)


def _columns(warehouse: DuckDBWarehouse, table: str) -> list[str]:
    return [str(row[0]) for row in warehouse.rows(f"describe stitch.{table}")]


def _settled(new_warehouse: NewWarehouse) -> Warehouse:
    warehouse = new_warehouse()
    warehouse.land(
        "jitsu/a.ndjson", [{"messageId": "m", "type": "page", "timestamp": "2026-03-02T00:00:00Z", "anonymousId": "a"}]
    )
    warehouse.settle()
    return warehouse


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        ["dagster", "definitions", "validate", "-w", "workspace.yaml"],
        ["dagster", "definitions", "validate"],
        ["dg", "check", "defs"],
    ],
)
def test_each_command_loads_the_definitions(command: list[str], tmp_path: Path) -> None:
    program = Path(sys.executable).with_name(command[0])
    ended = subprocess.run(
        [str(program), *command[1:]],
        cwd=REPOSITORY,
        env={**os.environ, "DAGSTER_HOME": str(tmp_path), "PATH": f"{program.parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.slow
def test_dg_lists_the_same_assets_as_python(tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("dg")
    ended = subprocess.run(
        [str(program), "list", "defs", "--json"],
        cwd=REPOSITORY,
        env={**os.environ, "DAGSTER_HOME": str(tmp_path), "PATH": f"{program.parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    listed = json.loads(ended.stdout[ended.stdout.index("{") :])
    assert {asset["asset_key"] for asset in listed["assets"]} == ASSETS | SHOWN_VIEWS | {"stitching_report"}
