"""What the UI shows of a run: numbers of a partition on the partition, numbers of the run once."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import Any

from dagster import AssetKey
from engines import IS_POSTGRES
from warehouses import Warehouse, page_view

from stitch_pipeline.orchestration.jobs import BUILD_JOB
from stitch_pipeline.orchestration.run_records import run_request
from stitch_pipeline.planning.days import DayRange
from stitch_pipeline.planning.requests import Request
from stitch_pipeline.warehouse.engine import engine_of

DAYS = DayRange(date(2026, 3, 5), date(2026, 3, 7))
TABLES_WITHOUT_DAYS = {"persons", "user_mapping_history", "users"}


def test_partitions_have_their_own_numbers_and_the_run_has_its_own_once(
    new_warehouse: Callable[..., Warehouse],
) -> None:
    warehouse = new_warehouse()
    events = [page_view("e1", "2026-03-05 12:00"), page_view("e2", "2026-03-06 12:00", user_id="ann")]
    warehouse.land_events("jitsu/a.ndjson", events)
    result = warehouse.defs.resolve_job_def(BUILD_JOB).execute_in_process(
        instance=warehouse.instance, tags=dict(run_request(Request(DAYS, "by hand")).tags)
    )
    shown: dict[str, dict[str | None, list[tuple[str, Any]]]] = {}
    for event in result.get_asset_materialization_events():
        materialization = event.step_materialization_data.materialization
        if materialization.partition is None:  # a view
            continue
        numbers = [(name, value.value) for name, value in materialization.metadata.items()]
        shown.setdefault(materialization.asset_key.path[-1], {})[materialization.partition] = numbers
    first, second, last = (str(day) for day in DAYS)
    assert shown["stitched_sessions"][first] == [
        ("stitch_rate", 1.0),
        ("visitors_before", 1),
        ("visitors_after", 1),
        ("rows_changed", 1),
        ("visits", 1),
        ("visitors_identified", 1),
        ("withheld_on_shared_devices", 0),
    ]
    assert shown["stitched_sessions"][last] == [("rows_changed", 0), ("visits", 0)]
    assert first_plots(shown["stitched_sessions"][first]) == [
        *("rows_changed", "stitch_rate"),
        *("visitors_after", "visitors_before"),
    ]
    assert first_plots(shown["page_views"][first])[:3] == ["rows", "rows_changed", "stitch_rate"]
    assert first_plots(shown["visitor_stats"][first]) == ["rows", "rows_changed", "visitors_after", "visitors_before"]
    assert shown["identity_map"][second] == [("rows_changed", 1), ("rows", 1), ("devices", 1)]
    for table in TABLES_WITHOUT_DAYS:
        assert [bool(numbers) for numbers in shown[table].values()] == [False, False, True], table

    observed: dict[str, dict[str, Any]] = {
        event.asset_observation_data.asset_observation.asset_key.path[-1]: {
            name: value.value for name, value in event.asset_observation_data.asset_observation.metadata.items()
        }
        for event in result.get_asset_observation_events()
    }
    assert set(observed) == {"raw_events", "identity_map"}
    assert (observed["raw_events"]["files_loaded"], observed["raw_events"]["rows_read"]) == (1, 2)
    record = observed["identity_map"]
    assert (record["stitched_sessions_rows_changed"], record["stitched_sessions_partitions_changed"]) == (2, 2)
    assert (record["stale_session_days"], record["stale_page_view_days"]) == ([], [])
    assert record["sessions_seconds"] > 0


def first_plots(numbers: list[tuple[str, Any]]) -> list[str]:
    """The names of the first four plots: Dagster plots each number, in the order of their names, two in a row."""
    return sorted(name for name, value in numbers if isinstance(value, int | float))[:4]


def test_storage_names_the_real_place(new_warehouse: Callable[..., Warehouse]) -> None:
    warehouse = new_warehouse()
    graph = warehouse.defs.get_repository_def().asset_graph
    for table in ("raw_events", "sessions", "page_views_live"):
        metadata = graph.get(AssetKey(table)).metadata
        engine = engine_of(warehouse.settings)
        assert metadata["dagster/table_name"] == f"{engine.catalog}.stitch.{table}"
        assert metadata["dagster/uri"] == engine.place
        if not IS_POSTGRES:
            assert (engine.catalog, engine.place) == ("warehouse", str(warehouse.settings.duckdb_path))
