"""What `settle` and `stitch status` say: what waits, is quarantined, vanished or fails, and how to go on."""

from __future__ import annotations

import io
import re
import shutil
from datetime import UTC, date, datetime, timedelta

import pytest
from conftest import NewWarehouse
from dagster import AssetCheckKey, AssetKey, RunsFilter
from engines import held_by_another_process
from rich.console import Console
from warehouses import Warehouse, page_view

from stitch_pipeline.cli.progress import settled_document
from stitch_pipeline.cli.status import print_status
from stitch_pipeline.landing.index import LandingIndex
from stitch_pipeline.orchestration.settle import Settled, settle
from stitch_pipeline.orchestration.status import Landing, Status, status

DAYS = ("02", "03", "04")


@pytest.fixture
def warehouse(new_warehouse_on_disk: NewWarehouse) -> Warehouse:
    warehouse = new_warehouse_on_disk(lock_wait_seconds=0.2)
    for day in DAYS:
        warehouse.land_events(f"jitsu/{day}.ndjson", [page_view(f"e{day}", f"2026-03-{day} 12:00")])
    warehouse.settle()
    return warehouse


def settled(warehouse: Warehouse) -> Settled:
    return settle(warehouse.settings, lambda: warehouse.defs, warehouse.instance)


def printed_status(found: Status) -> str:
    console = Console(file=io.StringIO(), highlight=False, soft_wrap=True)
    print_status(found, console)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def check_passed(warehouse: Warehouse) -> bool | None:
    key = AssetCheckKey(AssetKey("raw_events"), "landing_zone_is_whole")
    found = warehouse.instance.event_log_storage.get_latest_asset_check_execution_by_key([key])[key]
    assert found.event is not None
    assert found.event.dagster_event is not None
    return found.event.dagster_event.asset_check_evaluation_data.passed


def event_days(warehouse: Warehouse) -> list[int]:
    return [row["event_date"].day for row in warehouse.rows("raw_events")]


@pytest.mark.slow
def test_files_that_vanish_at_once_are_held_back_until_somebody_accepts_it(warehouse: Warehouse) -> None:
    zone, elsewhere = warehouse.settings.landing_dir, warehouse.directory / "elsewhere"
    assert check_passed(warehouse)
    shutil.move(zone / "jitsu", elsewhere)
    held = settled(warehouse)
    assert not held.runs
    (gave_up,) = held.gave_up
    assert gave_up.startswith("landing zone: 3 of 3 files are gone, for instance jitsu/02.ndjson. Their rows are kept.")
    assert "run `stitch accept-vanished`" in gave_up
    assert event_days(warehouse) == [2, 3, 4]
    assert not check_passed(warehouse)
    # The disk is mounted again.
    shutil.move(elsewhere, zone / "jitsu")
    assert settled(warehouse).is_settled
    assert check_passed(warehouse)
    # It was meant.
    shutil.rmtree(zone / "jitsu")
    assert not settled(warehouse).is_settled
    assert LandingIndex(warehouse.settings.index_path).accept_vanished(warehouse.settings) == 3
    warehouse.settle()
    assert event_days(warehouse) == []
    assert check_passed(warehouse)


@pytest.mark.slow
def test_a_few_files_may_vanish_and_a_setting_lets_all_of_them(warehouse: Warehouse) -> None:
    warehouse.take_away("jitsu/02.ndjson")
    warehouse.settle()
    assert event_days(warehouse) == [3, 4]
    warehouse.load_settings(max_vanished_share=1)
    warehouse.take_away("jitsu/03.ndjson")
    warehouse.take_away("jitsu/04.ndjson")
    warehouse.settle()
    assert event_days(warehouse) == []


@pytest.mark.slow
def test_settle_brings_page_views_along_when_their_schedule_was_due(warehouse: Warehouse) -> None:
    index = LandingIndex(warehouse.settings.index_path)
    warehouse.land_events("jitsu/09.ndjson", [page_view("e09", "2026-03-09 12:00", user_id="u")])
    index.note_page_views_settled(datetime.now(UTC))
    found = settled(warehouse)
    assert found.waiting == ["page views of 3 days wait for view_stitching_schedule"]
    said = status(warehouse.settings, warehouse.instance)
    assert [trigger.name for trigger in said.triggers if trigger.requests] == ["view_stitching_schedule"]
    assert said.is_settled
    again = settled(warehouse)
    assert (again.runs, again.waiting) == ([], found.waiting)
    assert settled_document(again)["waiting"] == found.waiting
    # The schedule has a tick every week.
    index.note_page_views_settled(datetime.now(UTC) - timedelta(days=8))
    assert warehouse.settle(view_stitching=False).waiting == found.waiting
    due = settled(warehouse)
    assert ({run.job_name for run in due.runs}, due.waiting) == ({"restitch_page_views_job"}, [])
    assert {row["stitched_user_id"] for row in warehouse.rows("page_views")} == {"u"}
    noted = index.page_views_settled_at()
    assert noted is not None
    assert datetime.now(UTC) - noted < timedelta(minutes=5)


def test_runs_of_settle_belong_to_the_job_of_the_code_location(warehouse: Warehouse) -> None:
    # This is how the page of a job finds its runs.
    of_build_job = RunsFilter(job_name="build_job", tags={".dagster/repository": "__repository__@stitch_pipeline"})
    (run,) = warehouse.instance.get_runs(of_build_job)
    assert run.tags["dagster/code_location"] == "stitch_pipeline"
    assert run.remote_job_origin is not None
    assert (run.remote_job_origin.location_name, run.remote_job_origin.job_name) == ("stitch_pipeline", "build_job")
    assert run.job_code_origin is not None


@pytest.mark.slow
def test_settle_says_what_is_quarantined_and_which_checks_failed(warehouse: Warehouse) -> None:
    warehouse.land("jitzu/a.ndjson", [{"messageId": "m"}])
    warehouse.land("jitsu/b.ndjson", ["{", "{"])
    found = warehouse.settle()
    landing = status(warehouse.settings, warehouse.instance).landing
    assert (landing.loaded_files, landing.quarantined_rows, landing.unreadable_files) == (5, 2, 1)
    assert landing.last_day == date(2026, 3, 4)
    bad, unreadable = found.notices
    assert bad.startswith("2 rows of 1 file cannot be events: stitch.quarantined_events has each")
    assert unreadable.startswith("1 file cannot be read, for instance jitzu/a.ndjson: its directory is no feed")
    assert "every_file_is_readable" in {check for run in found.runs for check in run.failed_checks}


def test_status_says_what_fails_and_why_and_retry_forgets_it(warehouse: Warehouse) -> None:
    calm = status(warehouse.settings, warehouse.instance)
    assert calm.is_settled
    assert calm.landing == Landing(
        loaded_files=3,
        loaded_rows=3,
        quarantined_rows=0,
        unreadable_files=0,
        pending_files=0,
        pending_days=0,
        first_day=date(2026, 3, 2),
        last_day=date(2026, 3, 4),
    )
    assert calm.days_behind == (datetime.now(UTC).date() - date(2026, 3, 5)).days
    assert calm.last_success is not None
    assert calm.last_success.job_name == "build_job"
    assert datetime.now(UTC) - calm.last_success.ended_at < timedelta(minutes=5)
    printed = printed_status(calm)
    assert "loaded      3 files, 3 rows, events of 2026-03-02 to 2026-03-04" in printed
    assert re.search(r"^fresh       newest event of 2026-03-04: [\d,]+ closed days behind$", printed, re.M)
    assert re.search(r"^last run    build_job succeeded \d minutes? ago \(20", printed, re.M)
    assert printed.splitlines()[-1] == "settled"
    assert [trigger.requests for trigger in calm.triggers] == [[]] * 5
    warehouse.land_events("jitsu/09.ndjson", [page_view("e09", "2026-03-09 12:00")])
    late = status(warehouse.settings, warehouse.instance)
    assert not late.is_settled
    assert (late.landing.pending_files, late.landing.pending_days) == (1, 1)
    assert "pending     1 file, 1 day to build" in printed_status(late)
    with held_by_another_process(warehouse.settings) as holder:
        given_up = settled(warehouse)
        assert given_up.gave_up == ["build_job: 2026-03-08 to 2026-03-11"]
        assert all(holder in (run.error or "") for run in given_up.runs)
        landing = status(warehouse.settings, warehouse.instance).triggers[0]
        (sentence,) = landing.paused
        assert sentence.startswith("build_job of 2026-03-08 to 2026-03-11 found the warehouse busy: ")
        assert holder in sentence
        assert not landing.needs_a_person
        LandingIndex(warehouse.settings.index_path).forget_failures()
        assert status(warehouse.settings, warehouse.instance).triggers[0].requests == ["2026-03-08 to 2026-03-11"]
    # The reader has gone, and nobody has to do anything.
    warehouse.settle()
    assert event_days(warehouse) == [2, 3, 4, 9]
