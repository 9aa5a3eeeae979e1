"""A run whose process is gone is marked as failed, and does not block what is to be done."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date

import pytest
from dagster import DagsterRun, DagsterRunStatus
from dagster._core.events import EngineEventData
from dagster._core.storage.tags import GRPC_INFO_TAG
from dagster._core.utils import make_new_run_id
from warehouses import START, Warehouse, page_view

from stitch_pipeline.orchestration.abandoned_runs import fail_abandoned_runs
from stitch_pipeline.orchestration.jobs import BUILD_JOB
from stitch_pipeline.orchestration.run_records import run_request
from stitch_pipeline.planning.days import DayRange
from stitch_pipeline.planning.requests import Request

NewWarehouse = Callable[..., Warehouse]


@pytest.fixture
def warehouse(new_warehouse_on_disk: NewWarehouse) -> Warehouse:
    return new_warehouse_on_disk()


def add_launched_run(warehouse: Warehouse, pid: int, status: DagsterRunStatus) -> str:
    """What a run that the daemon launched leaves in the instance once its process has started."""
    tags = run_request(Request(DayRange(START, START), "landed")).tags
    tags = {**tags, GRPC_INFO_TAG: json.dumps({"host": "localhost"})}
    run = DagsterRun(BUILD_JOB, run_id=make_new_run_id(), tags=tags, status=status)
    warehouse.instance.add_run(run)
    warehouse.instance.report_engine_event("Started process for run.", run, EngineEventData.in_process(pid))
    return run.run_id


def status_of(warehouse: Warehouse, run_id: str) -> DagsterRunStatus:
    run = warehouse.instance.get_run_by_id(run_id)
    assert run is not None
    return run.status


def pid_of_an_ended_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.mark.parametrize(
    "status", [DagsterRunStatus.STARTING, DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING], ids=lambda s: s.value
)
def test_settle_goes_on_where_a_run_of_the_daemon_has_died(status: DagsterRunStatus, warehouse: Warehouse) -> None:
    warehouse.land_events("jitsu/a.ndjson", [page_view("e1", f"{START} 12:00")])
    dead = add_launched_run(warehouse, pid_of_an_ended_process(), status)
    warehouse.settle()
    assert status_of(warehouse, dead) == DagsterRunStatus.FAILURE
    assert len(warehouse.rows("sessions")) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "days",
    [DayRange(START, START), pytest.param(DayRange(date(2026, 3, 9), date(2026, 3, 9)), marks=pytest.mark.long)],
    ids=str,
)
def test_settle_does_not_wait_for_the_queue_of_a_daemon_that_is_gone(days: DayRange, warehouse: Warehouse) -> None:
    warehouse.land_events("jitsu/a.ndjson", [page_view("e1", f"{START} 12:00")])
    tags = run_request(Request(days, "landed")).tags
    queued = DagsterRun(BUILD_JOB, run_id=make_new_run_id(), tags=dict(tags), status=DagsterRunStatus.NOT_STARTED)
    warehouse.instance.add_run(queued)
    # A copy that is missing makes recovery look first, which must not wait either.
    warehouse.settle()
    warehouse.settings.index_path.unlink()
    warehouse.land_events("jitsu/b.ndjson", [page_view("e2", f"{START} 18:00")])
    warehouse.settle()
    assert len(warehouse.rows("sessions")) == 2


def test_a_tick_marks_only_runs_whose_process_has_ended(warehouse: Warehouse) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as alive:
        running = add_launched_run(warehouse, alive.pid, DagsterRunStatus.STARTED)
        dead = add_launched_run(warehouse, pid_of_an_ended_process(), DagsterRunStatus.STARTED)
        fail_abandoned_runs(warehouse.settings, warehouse.instance)
        assert status_of(warehouse, running) == DagsterRunStatus.STARTED
        assert status_of(warehouse, dead) == DagsterRunStatus.FAILURE
        alive.kill()


def test_a_zombie_has_ended(warehouse: Warehouse) -> None:
    zombie = subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE)
    assert zombie.stdout is not None
    assert zombie.stdout.read() == b""  # it has ended, and nobody has collected it
    time.sleep(0.5)
    dead = add_launched_run(warehouse, zombie.pid, DagsterRunStatus.STARTED)
    fail_abandoned_runs(warehouse.settings, warehouse.instance)
    assert status_of(warehouse, dead) == DagsterRunStatus.FAILURE
    zombie.wait()


def test_a_step_that_has_ended_is_not_the_run(warehouse: Warehouse) -> None:
    run_id = add_launched_run(warehouse, os.getpid(), DagsterRunStatus.STARTED)
    run = warehouse.instance.get_run_by_id(run_id)
    assert run is not None
    step = EngineEventData.in_process(pid_of_an_ended_process())
    warehouse.instance.report_engine_event("Executing a step in a child process.", run, step)
    fail_abandoned_runs(warehouse.settings, warehouse.instance)
    assert status_of(warehouse, run_id) == DagsterRunStatus.STARTED
