"""One writer at a time; whoever meets the lock waits a bounded time, then says who holds it and what to do."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pytest
from dbt.adapters.duckdb import environments
from dbt.adapters.duckdb.connections import DuckDBConnectionManager
from dbt.adapters.duckdb.credentials import DuckDBCredentials
from engines import of_duckdb
from warehouses import Warehouse

from stitch_pipeline.orchestration.resource import DuckDBWarehouseResource
from stitch_pipeline.orchestration.settle import settle
from stitch_pipeline.warehouse import dbt_project
from stitch_pipeline.warehouse.duckdb import DuckDBEngine
from stitch_pipeline.warehouse.port import WarehouseBusy, WarehouseError

pytestmark = of_duckdb("the lock of its file")

HOLD = "import duckdb, sys; con = duckdb.connect(sys.argv[1]); print('held', flush=True); sys.stdin.readline()"


def test_dbt_s_connection_is_closed_when_its_last_call_has_ended(tmp_path: Path) -> None:
    path = tmp_path / "warehouse.duckdb"
    environment = environments.create(DuckDBCredentials(database="warehouse", schema="main", path=str(path)))
    environment.handle()
    DuckDBConnectionManager._ENV = environment
    slow = "select sum(a.i * b.i % 7) from range(30000) as a (i), range(20000) as b (i)"
    call = threading.Thread(target=lambda: environment.conn.execute(slow).fetchall())
    call.start()
    time.sleep(0.3)  # the call has begun
    dbt_project._release_connections()
    assert environment.conn is None
    call.join()
    with held_by_another_process(path):
        pass  # nobody has the file any more


@contextmanager
def held_by_another_process(path: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def open_and_close(engine: DuckDBEngine, *, read_only: bool = False) -> None:
    with engine.open(read_only=read_only):
        pass


def test_a_held_warehouse_is_reported_with_its_holder_and_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "warehouse.duckdb"
    with held_by_another_process(path) as holder, pytest.raises(WarehouseBusy) as caught:
        open_and_close(DuckDBEngine(path, 0.5))
    assert f"process {holder.pid}" in str(caught.value)
    assert "within 0.5 seconds: wait for that process or end it, or raise STITCH_LOCK_WAIT_SECONDS" in str(caught.value)


@pytest.mark.parametrize("read_only", [False, True])
def test_a_lock_that_is_released_in_time_is_waited_for(read_only: bool, tmp_path: Path) -> None:
    path = tmp_path / "warehouse.duckdb"
    with held_by_another_process(path) as holder:
        assert holder.stdin is not None
        release = threading.Timer(0.7, holder.stdin.close)
        release.start()
        started = time.monotonic()
        with DuckDBEngine(path, 20).open(read_only=read_only):
            assert time.monotonic() - started > 0.5


def test_an_error_releases_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "warehouse.duckdb"
    warehouse = DuckDBWarehouseResource(database=str(path), lock_wait_seconds=0)
    with pytest.raises(ZeroDivisionError), warehouse.get_connection():
        raise ZeroDivisionError
    with held_by_another_process(path):
        pass  # another process could open it


def test_the_memory_limit_holds_for_every_connection_of_the_process(tmp_path: Path) -> None:
    path = tmp_path / "warehouse.duckdb"
    warehouse = DuckDBWarehouseResource(database=str(path), memory_limit="512MiB")
    with warehouse.get_connection(), DuckDBEngine(path, 0).open() as other:
        assert other.rows("select current_setting('memory_limit')") == [("512.0 MiB",)]


@pytest.mark.slow
def test_a_failed_model_is_reported_and_releases_the_lock(new_warehouse: Callable[..., Warehouse]) -> None:
    warehouse = new_warehouse()
    event = {"messageId": "m", "type": "page", "timestamp": "2026-03-02T00:00:00Z", "anonymousId": "a"}
    warehouse.land("jitsu/a.ndjson", [event])
    warehouse.settle()
    with DuckDBEngine(warehouse.settings.duckdb_path, 0).open() as broken:
        broken.execute("alter table stitch.sessions alter session_id set data type integer using 1")
    warehouse.land("jitsu/b.ndjson", [{**event, "messageId": "n"}])
    settled = settle(warehouse.settings, lambda: warehouse.defs, warehouse.instance)
    assert [(run.job_name, run.succeeded) for run in settled.runs] == [("build_job", False)] * 3
    assert "sessions" in (settled.runs[0].error or "")
    assert settled.gave_up == ["build_job: 2026-03-01 to 2026-03-04"]
    with held_by_another_process(warehouse.settings.duckdb_path):
        pass  # another process could open it
    # What comes before the broken model is done, what comes after it is as it was.
    assert len(warehouse.rows("raw_events")) == 2
    assert [row["event_count"] for row in warehouse.rows("stitched_sessions")] == [1]


def test_reading_does_not_create_a_warehouse(tmp_path: Path) -> None:
    with pytest.raises(
        WarehouseError, match=r"There is no warehouse at .* yet: materialize something, or run `settle`"
    ):
        open_and_close(DuckDBEngine(tmp_path / "warehouse.duckdb", 0), read_only=True)
    assert not (tmp_path / "warehouse.duckdb").exists()


def test_a_file_that_is_no_warehouse_is_reported_at_once(tmp_path: Path) -> None:
    path = tmp_path / "warehouse.duckdb"
    path.write_text("this is a text file, and a long enough one to have a header to look at" * 10)
    with pytest.raises(WarehouseError, match=r"not a warehouse's: .*set STITCH_DUCKDB_PATH to the file that is meant"):
        open_and_close(DuckDBEngine(path, 30))


def test_a_directory_that_cannot_be_written_is_reported_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WarehouseError, match="set STITCH_DUCKDB_PATH to a place you may write"):
        open_and_close(DuckDBEngine(tmp_path / "file" / "warehouse.duckdb", 30))


def test_times_do_not_depend_on_the_machines_zone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    with DuckDBEngine(tmp_path / "warehouse.duckdb", 0).open() as warehouse:
        assert warehouse.rows("select timestamptz '2025-01-01 00:00:00+00' at time zone 'UTC'") == [
            (duckdb.execute("select timestamp '2025-01-01 00:00:00'").fetchall()[0][0],)
        ]
        assert warehouse.rows("select current_setting('TimeZone')") == [("UTC",)]
