"""The sensors on a real instance: nothing lost, nothing asked for twice, and what failed is asked for again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest
from dagster import (
    AssetCheckKey,
    AssetKey,
    AssetRecordsFilter,
    DagsterRun,
    DagsterRunStatus,
    RunRequest,
    build_schedule_context,
    build_sensor_context,
)
from dagster._core.storage.tags import ASSET_PARTITION_RANGE_END_TAG, ASSET_PARTITION_RANGE_START_TAG
from dagster._core.utils import make_new_run_id
from warehouses import START, Warehouse, at, page_view

from stitch_pipeline.landing.index import LandingIndex
from stitch_pipeline.orchestration.resource import BUSY_TAG
from stitch_pipeline.orchestration.run_config import models_config
from stitch_pipeline.orchestration.run_records import run_request
from stitch_pipeline.orchestration.settle import settle
from stitch_pipeline.orchestration.triggers import TRIGGERS, FailsAgainAndAgain, Now, Wanted
from stitch_pipeline.planning.requests import MAX_ATTEMPTS
from stitch_pipeline.stitching.state import read_state
from stitch_pipeline.warehouse.engine import engine_of
from stitch_pipeline.warehouse.tables import create_tables

NewWarehouse = Callable[..., Warehouse]


def tick(warehouse: Warehouse, sensor: str) -> list[RunRequest]:
    definition = warehouse.defs.get_repository_def().get_sensor_def(sensor)
    with build_sensor_context(instance=warehouse.instance) as context:
        result = definition.evaluate_tick(context)
    return list(result.run_requests or [])


def skip_message(warehouse: Warehouse, sensor: str) -> str:
    definition = warehouse.defs.get_repository_def().get_sensor_def(sensor)
    with build_sensor_context(instance=warehouse.instance) as context:
        return definition.evaluate_tick(context).skip_message or ""


def days_of(request: RunRequest) -> tuple[str, str]:
    return request.tags[ASSET_PARTITION_RANGE_START_TAG], request.tags[ASSET_PARTITION_RANGE_END_TAG]


def add_run(
    warehouse: Warehouse,
    request: RunRequest,
    job_name: str,
    status: DagsterRunStatus,
    own_tags: Mapping[str, str] | None = None,
) -> None:
    """What the daemon leaves in the instance after it has launched a request."""
    tags = {**request.tags, **(own_tags or {}), "dagster/run_key": request.run_key or ""}
    warehouse.instance.add_run(DagsterRun(job_name, run_id=make_new_run_id(), tags=tags, status=status))


def note_stale(warehouse: Warehouse, grain: str, days: list[date]) -> None:
    """What a run notes that has found these days stale."""
    with engine_of(warehouse.settings).open() as stored:
        create_tables(stored)
        state = read_state(stored)
    stale = {**dict.fromkeys(("sessions", "page_views"), ()), grain: days}
    LandingIndex(warehouse.settings.index_path).note(replace(state, stale=stale), continues=True)


def test_a_new_file_is_asked_for_until_a_run_has_loaded_it(new_warehouse_on_disk: NewWarehouse) -> None:
    warehouse = new_warehouse_on_disk()
    assert tick(warehouse, "landing_sensor") == []
    warehouse.land_events("jitsu/a.ndjson", [page_view("e1", "2026-03-05 12:00")])
    (request,) = tick(warehouse, "landing_sensor")
    assert days_of(request) == ("2026-03-04", "2026-03-07")
    assert tick(warehouse, "landing_sensor")[0].run_key == request.run_key

    add_run(warehouse, request, "build_job", DagsterRunStatus.NOT_STARTED)
    assert tick(warehouse, "landing_sensor") == []


def test_files_that_land_while_a_run_is_on_the_way_are_asked_for_besides(new_warehouse_on_disk: NewWarehouse) -> None:
    warehouse = new_warehouse_on_disk()
    warehouse.land_events("jitsu/a.ndjson", [page_view("e1", "2026-03-05 12:00")])
    (request,) = tick(warehouse, "landing_sensor")
    add_run(warehouse, request, "build_job", DagsterRunStatus.STARTED)
    assert tick(warehouse, "landing_sensor") == []
    warehouse.land_events("jitsu/b.ndjson", [page_view("e2", "2026-03-05 13:00")])
    (second,) = tick(warehouse, "landing_sensor")
    assert second.run_key != request.run_key
    assert days_of(second) == days_of(request)


def wanted(warehouse: Warehouse, sensor: str, seconds_from_now: float = 0) -> Wanted:
    (trigger,) = (trigger for trigger in TRIGGERS if trigger.name == sensor)
    now = Now(datetime.now(UTC) + timedelta(seconds=seconds_from_now))
    return trigger.wanted(warehouse.settings, warehouse.instance, now)


def test_a_failed_build_is_asked_for_again_with_growing_pauses_and_is_seen(new_warehouse_on_disk: NewWarehouse) -> None:
    warehouse = new_warehouse_on_disk()
    warehouse.land_events("jitsu/a.ndjson", [page_view("e1", "2026-03-05 12:00")])
    (request,) = tick(warehouse, "landing_sensor")
    keys = {request.run_key}
    add_run(warehouse, request, "build_job", DagsterRunStatus.FAILURE)
    for pause in (10, 20):
        assert tick(warehouse, "landing_sensor") == []
        assert "build_job of 2026-03-04 to 2026-03-07 failed" in skip_message(warehouse, "landing_sensor")
        assert wanted(warehouse, "landing_sensor", pause - 2).plan.requests == ()
        (again,) = wanted(warehouse, "landing_sensor", pause + 1).plan.requests
        keys.add(again.run_key)
        add_run(warehouse, run_request(again), "build_job", DagsterRunStatus.FAILURE)
    assert len(keys) == MAX_ATTEMPTS
    # From now on a tick fails, so that an alert can hang on it; the request is made all the same after its pause.
    with pytest.raises(
        FailsAgainAndAgain, match="build_job of 2026-03-04 to 2026-03-07 failed 3 times in a row"
    ) as seen:
        tick(warehouse, "landing_sensor")
    assert "`stitch retry` tries at once" in str(seen.value)
    assert len(wanted(warehouse, "landing_sensor", 41).plan.requests) == 1
    LandingIndex(warehouse.settings.index_path).forget_failures()
    assert len(tick(warehouse, "landing_sensor")) == 1


def test_a_build_that_found_the_warehouse_busy_has_not_failed(new_warehouse_on_disk: NewWarehouse) -> None:
    warehouse = new_warehouse_on_disk()
    warehouse.land_events("jitsu/a.ndjson", [page_view("e1", "2026-03-05 12:00")])
    (request,) = tick(warehouse, "landing_sensor")
    for _ in range(MAX_ATTEMPTS + 1):
        add_run(warehouse, request, "build_job", DagsterRunStatus.FAILURE, {BUSY_TAG: "true"})
    assert tick(warehouse, "landing_sensor") == []
    assert "found the warehouse busy" in skip_message(warehouse, "landing_sensor")
    assert len(wanted(warehouse, "landing_sensor", 11).plan.requests) == 1


def test_a_failed_restitch_is_asked_for_again_without_a_new_login(new_warehouse_on_disk: NewWarehouse) -> None:
    warehouse = new_warehouse_on_disk()
    note_stale(warehouse, "sessions", [START, START + timedelta(days=1)])
    (request,) = tick(warehouse, "identify_sensor")
    assert days_of(request) == ("2026-03-01", "2026-03-02")
    add_run(warehouse, request, "restitch_job", DagsterRunStatus.STARTED)
    assert tick(warehouse, "identify_sensor") == []

    failed = new_warehouse_on_disk()
    note_stale(failed, "sessions", [START, START + timedelta(days=1)])
    (request,) = tick(failed, "identify_sensor")
    add_run(failed, request, "restitch_job", DagsterRunStatus.FAILURE)
    (request_again,) = wanted(failed, "identify_sensor", 11).plan.requests
    again = run_request(request_again)
    assert days_of(again) == days_of(request)
    assert again.run_key != request.run_key


def test_a_thousand_stale_days_become_few_ranges(new_warehouse_on_disk: NewWarehouse) -> None:
    warehouse = new_warehouse_on_disk(start_date=date(2020, 1, 1))
    days = [date(2020, 1, 1) + timedelta(days=n) for n in range(1003) if n not in (200, 201, 600)]
    note_stale(warehouse, "sessions", days)
    requests = tick(warehouse, "identify_sensor")
    assert [days_of(request) for request in requests] == [
        ("2020-01-01", "2020-07-18"),
        ("2020-07-21", "2021-08-22"),
        ("2021-08-24", "2022-09-29"),
    ]


def test_only_the_newest_word_counts(new_warehouse_on_disk: NewWarehouse) -> None:
    warehouse = new_warehouse_on_disk()
    note_stale(warehouse, "sessions", [START])
    note_stale(warehouse, "sessions", [])
    assert tick(warehouse, "identify_sensor") == []
    assert "No partition is known to hold a wrong answer" in skip_message(warehouse, "identify_sensor")


def test_a_login_is_restitched_by_one_run_over_exactly_the_days_it_changes(new_warehouse_on_disk: NewWarehouse) -> None:
    warehouse = new_warehouse_on_disk(lookback_days=5, restitch_in_build_days=0)
    days = ("01", "04", "05", "06", "08")
    warehouse.land_events("jitsu/a.ndjson", [page_view(f"e{day}", f"2026-03-{day} 12:00") for day in days])
    warehouse.settle()
    before = {row["session_date"]: row for row in warehouse.rows("stitched_sessions")}
    warehouse.land_events("jitsu/b.ndjson", [page_view("e11", "2026-03-11 12:00", user_id="u")])
    settled = warehouse.settle(view_stitching=False)
    restitch = [run for run in settled.runs if run.job_name == "restitch_job"]
    # 1, 4 and 5 March are out of reach; 6 March is the edge of five days; 8 March is in reach.
    assert [str(run.days) for run in restitch] == ["2026-03-06", "2026-03-08"]
    assert [run.rows_changed["stitched_sessions"] for run in restitch] == [1, 1]
    after = {row["session_date"]: row for row in warehouse.rows("stitched_sessions")}
    changed = {day.day for day, row in before.items() if after[day] != row}
    assert changed == {6, 8}
    assert {day.day: row["stitched_user_id"] for day, row in after.items()} == {
        1: "a", 4: "a", 5: "a", 6: "u", 8: "u", 11: "u",
    }  # fmt: skip
    assert {day.day: row["stitched_by"] for day, row in after.items()}[6] == "link after"
    assert after[date(2026, 3, 6)]["link_event_id"] == "e11"
    assert [row["stitched_user_id"] for row in warehouse.rows("users")] == ["a", "u"]
    assert {row["stat_date"].day: row["visitors"] for row in warehouse.rows("visitor_stats")}[6] == 1


@pytest.mark.parametrize("limit", [1, pytest.param(2, marks=[pytest.mark.slow, pytest.mark.long])])
def test_a_build_restitches_the_few_days_that_it_makes_stale(limit: int, new_warehouse_on_disk: NewWarehouse) -> None:
    warehouse = new_warehouse_on_disk(lookback_days=5, restitch_in_build_days=limit)
    days = ("01", "05", "06", "08")
    warehouse.land_events("jitsu/a.ndjson", [page_view(f"e{day}", f"2026-03-{day} 12:00") for day in days])
    warehouse.settle()
    before = {day: materialized(warehouse, day) for day in days}
    warehouse.land_events("jitsu/b.ndjson", [page_view("e11", "2026-03-11 12:00", user_id="u")])
    settled = warehouse.settle(view_stitching=False)
    rows = {row["session_date"].day: row["stitched_user_id"] for row in warehouse.rows("stitched_sessions")}
    assert rows == {1: "a", 5: "a", 6: "u", 8: "u", 11: "u"}
    assert {row["stat_date"].day: row["visitors"] for row in warehouse.rows("visitor_stats")}[6] == 1
    assert [row["stitched_user_id"] for row in warehouse.rows("users")] == ["a", "u"]
    runs = [(run.job_name, str(run.days), run.rows_changed["stitched_sessions"]) for run in settled.runs]
    if limit == 1:
        assert runs == [
            ("build_job", "2026-03-10 to 2026-03-13", 1),
            ("restitch_job", "2026-03-06", 1),
            ("restitch_job", "2026-03-08", 1),
        ]
        return
    assert runs == [("build_job", "2026-03-10 to 2026-03-13", 3)]
    # Dagster knows of exactly the partitions that changed, as after a re-stitch.
    assert [day for day in days if materialized(warehouse, day) != before[day]] == ["06", "08"]
    record = warehouse.instance.fetch_materializations(
        AssetRecordsFilter(AssetKey("stitched_sessions"), asset_partitions=["2026-03-06"]), limit=1
    ).records[0]
    assert record.asset_materialization is not None
    metadata = record.asset_materialization.metadata
    assert {name: metadata[name].value for name in ("visits", "stitch_rate", "rows_changed")} == {
        "visits": 1, "stitch_rate": 1.0, "rows_changed": 1,
    }  # fmt: skip
    checks = warehouse.instance.event_log_storage.get_asset_check_execution_history(
        AssetCheckKey(AssetKey("stitched_sessions"), "stitched_sessions_has_one_row_per_session"), limit=10
    )
    assert [check.status.value for check in checks if check.partition is None] == ["SUCCEEDED"] * 2  # one per build


def materialized(warehouse: Warehouse, day: str) -> list[int]:
    """The events that say that a partition of `stitched_sessions` was materialized."""
    of_day = AssetRecordsFilter(AssetKey("stitched_sessions"), asset_partitions=[f"2026-03-{day}"])
    return [record.storage_id for record in warehouse.instance.fetch_materializations(of_day, limit=100).records]


def test_a_build_under_a_run_exception_leaves_other_days_to_the_sensor(new_warehouse_on_disk: NewWarehouse) -> None:
    warehouse = new_warehouse_on_disk()
    warehouse.land_events("jitsu/a.ndjson", [page_view("e1", "2026-03-01 12:00")])
    warehouse.settle()
    warehouse.land_events("jitsu/b.ndjson", [page_view("e5", "2026-03-05 12:00", user_id="u")])
    warehouse.build(date(2026, 3, 4), date(2026, 3, 7), models_config(lookback_days=2))
    assert [row["stitched_user_id"] for row in warehouse.rows("stitched_sessions")] == ["a", "u"]
    assert [days_of(request) for request in tick(warehouse, "identify_sensor")] == [("2026-03-01", "2026-03-01")]


def evaluate(warehouse: Warehouse, schedule: str, time: str) -> tuple[list[RunRequest], str]:
    """What the schedule requests at this time, and why nothing if it requests nothing."""
    definition = warehouse.defs.get_repository_def().get_schedule_def(schedule)
    context = build_schedule_context(instance=warehouse.instance, scheduled_execution_time=at(time))
    result = definition.evaluate_tick(context)
    return list(result.run_requests or []), result.skip_message or ""


def test_the_daily_schedule_takes_the_closed_day_and_the_late_days_before_it(
    new_warehouse_on_disk: NewWarehouse,
) -> None:
    warehouse = new_warehouse_on_disk(days_late=3)
    (request,), _ = evaluate(warehouse, "daily_schedule", "2026-03-11 01:15")
    assert days_of(request) == ("2026-03-07", "2026-03-10")
    (request,), _ = evaluate(warehouse, "daily_schedule", "2026-03-03 01:15")
    assert days_of(request) == ("2026-03-01", "2026-03-02")
    assert "has not closed yet" in evaluate(warehouse, "daily_schedule", "2026-03-01 01:15")[1]


def test_the_view_schedule_asks_for_stale_partitions_only(new_warehouse_on_disk: NewWarehouse) -> None:
    warehouse = new_warehouse_on_disk()
    requests, reason = evaluate(warehouse, "view_stitching_schedule", "2026-03-08 04:00")
    assert (requests, reason) == ([], "No page view is credited wrongly")
    note_stale(warehouse, "page_views", [START, START + timedelta(days=4)])
    requests, _ = evaluate(warehouse, "view_stitching_schedule", "2026-03-08 04:00")
    assert [days_of(request) for request in requests] == [("2026-03-01", "2026-03-01"), ("2026-03-05", "2026-03-05")]
    assert all(request.run_config["ops"]["stitch_models"]["config"]["only_pending"] for request in requests)


def test_the_view_schedule_skips_while_view_stitching_is_off(new_warehouse_on_disk: NewWarehouse) -> None:
    warehouse = new_warehouse_on_disk(view_stitching="off")
    note_stale(warehouse, "page_views", [START])
    assert "View stitching is off" in str(evaluate(warehouse, "view_stitching_schedule", "2026-03-08 04:00"))


@pytest.mark.slow
def test_reconcile_finds_what_no_sensor_was_told(new_warehouse_on_disk: NewWarehouse) -> None:
    warehouse = new_warehouse_on_disk()
    warehouse.land_events(
        "jitsu/a.ndjson", [page_view("e1", "2026-03-02 12:00"), page_view("e2", "2026-03-09 12:00", user_id="u")]
    )
    warehouse.settle()
    right = warehouse.contents()
    with engine_of(warehouse.settings).open() as wrong:
        wrong.execute("update stitch.stitched_sessions set stitched_user_id = 'x' where session_date = '2026-03-02'")
        wrong.execute("update stitch.page_views set stitched_user_id = 'x' where event_date = '2026-03-02'")
    # The file has changed, so recovery looks at what is pending, which is nothing.
    assert [(run.job_name, run.rows_stale) for run in warehouse.settle().runs if sum(run.rows_stale.values())] == []
    settled = warehouse.settle(reconcile=True)
    assert [(run.job_name, str(run.days)) for run in settled.runs] == [
        ("reconcile_job", "None"),
        ("restitch_job", "2026-03-02"),
        ("restitch_page_views_job", "2026-03-02"),
    ]
    assert warehouse.contents() == right


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rules", "looks_at_all_days"),
    [
        pytest.param("lookback_days = 5", False, marks=pytest.mark.long),
        ('lookback_days = "36h"', False),
        ('policy = "graph"', True),
    ],
)
def test_a_login_is_a_reason_to_look_at_rows_within_its_lookback(
    rules: str, looks_at_all_days: bool, new_warehouse_on_disk: NewWarehouse
) -> None:
    warehouse = new_warehouse_on_disk(stitch_toml=f"[projects.shop]\n{rules}\n")
    days = ("02", "10", "13")
    warehouse.land_events("jitsu/a.ndjson", [page_view(f"e{day}", f"2026-03-{day} 20:00") for day in days])
    warehouse.settle()
    # A wrong answer that no link explains shows which rows were looked at.
    warehouse.write(
        "update stitch.stitched_sessions set stitched_user_id = 'x'",
        "update stitch.page_views set stitched_user_id = 'x'",
    )
    warehouse.land_events("jitsu/b.ndjson", [page_view("login", "2026-03-15 08:00", user_id="u")])
    warehouse.settle()

    def credited() -> list[list[str]]:
        return [
            [row["stitched_user_id"] for row in warehouse.query(f"select * from stitch.{table} order by {day}")]
            for table, day in (("stitched_sessions", "session_date"), ("page_views", "occurred_at"))
        ]

    is_within_hours = "36h" in rules
    after_login = ["u" if looks_at_all_days else "x", "x" if is_within_hours else "u", "u", "u"]
    assert credited() == [after_login] * 2
    warehouse.settle(reconcile=True)
    in_the_end = ["u" if looks_at_all_days else "a", "a" if is_within_hours else "u", "u", "u"]
    assert credited() == [in_the_end] * 2


@pytest.mark.slow
def test_what_a_failed_run_made_stale_is_restitched_all_the_same(new_warehouse_on_disk: NewWarehouse) -> None:
    warehouse = new_warehouse_on_disk()
    warehouse.land_events("jitsu/a.ndjson", [page_view("e1", "2026-03-02 12:00")])
    warehouse.settle()
    columns = warehouse.select_list("page_views", event_id="cast(1 as integer)")
    warehouse.put_in_place("page_views", f"select {columns} from stitch.page_views")
    warehouse.land_events("jitsu/b.ndjson", [page_view("e2", "2026-03-09 12:00", user_id="u")])
    settled = settle(warehouse.settings, lambda: warehouse.defs, warehouse.instance)
    assert settled.gave_up == ["build_job: 2026-03-08 to 2026-03-11", "reconcile_job: all days"]
    # The second day for its statistics, which the failed run did not come to.
    restitched = [(run.job_name, str(run.days)) for run in settled.runs if run.succeeded]
    assert restitched == [("restitch_job", "2026-03-02"), ("restitch_job", "2026-03-09")]
    rows = warehouse.query("select stitched_user_id from stitch.stitched_sessions order by session_date")
    assert [row["stitched_user_id"] for row in rows] == ["u", "u"]


def test_days_before_a_start_date_that_was_moved_are_not_requested(new_warehouse_on_disk: NewWarehouse) -> None:
    warehouse = new_warehouse_on_disk()
    note_stale(warehouse, "sessions", [START - timedelta(days=1), START])
    (request,) = tick(warehouse, "identify_sensor")
    assert days_of(request) == ("2026-03-01", "2026-03-01")
