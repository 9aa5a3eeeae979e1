"""A signal ends what is going on, wherever it arrives, and is no fault of a file or of a run."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pytest
from conftest import NewWarehouse
from dagster._utils.interrupts import capture_interrupts, check_captured_interrupt
from engines import OPENED, of_duckdb
from warehouses import as_jitsu, page_view

from stitch_pipeline.cli.main import main
from stitch_pipeline.landing.parser import Parser
from stitch_pipeline.orchestration.settle import settle
from stitch_pipeline.planning.interruption import closing
from stitch_pipeline.warehouse.duckdb import DuckDBEngine

# Some seconds: DuckDB may wait for the end of what its threads have begun.
LONG = "select count(*) from range(60000000) where sin(range) > 2"


class Signalled(BaseException):
    """What a handler raises, as Dagster's does."""


@contextmanager
def signal_soon() -> Iterator[None]:
    def handler(*_: object) -> None:
        raise Signalled

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_duckdb_drops_what_a_handler_raises() -> None:
    """If this fails, ``interruptible`` is not needed any more."""
    with (
        closing(duckdb.connect()) as connection,
        signal_soon(),
        pytest.raises(RuntimeError, match="Query interrupted"),
    ):
        connection.execute(LONG).fetchall()


def test_it_ends_a_query_of_the_warehouse_and_of_the_parser(tmp_path: Path) -> None:
    with DuckDBEngine(tmp_path / "w.duckdb", 0).open() as warehouse, Parser() as parser:
        for query in (warehouse.rows, warehouse.execute, parser.rows, parser.execute):
            with signal_soon(), pytest.raises(KeyboardInterrupt):
                query(LONG)
        assert warehouse.rows("select 1") == parser.rows("select 1") == [(1,)]


@pytest.mark.slow
def test_a_load_that_is_interrupted_blames_no_file(
    new_warehouse: NewWarehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    warehouse = new_warehouse()
    warehouse.land_events("jitsu/a.ndjson", [page_view("e", "2026-03-01 12:00")])
    load = OPENED.load_events

    def interrupted(self: Any, batch: Any) -> None:
        load(self, batch)
        with signal_soon(), Parser() as parser:
            parser.rows(LONG)

    with monkeypatch.context() as patched:
        patched.setattr(OPENED, "load_events", interrupted)
        settled = settle(warehouse.settings, lambda: warehouse.defs, warehouse.instance)
    assert settled.gave_up == ["interrupted"]
    assert len(settled.runs) == 1
    assert not warehouse.query("select * from stitch.landing_files where problem is not null")
    warehouse.settle()
    assert [row["event_id"] for row in warehouse.rows("page_views")] == ["e"]
    assert warehouse.rows("quarantined_events") == []


def test_a_signal_that_dagster_forgets_ends_settle_after_the_run(new_warehouse: NewWarehouse) -> None:
    """If Dagster still knows of it after its own block, ``noticed`` is not needed any more."""
    warehouse = new_warehouse()
    warehouse.land_events("jitsu/a.ndjson", [page_view("e", "2026-03-01 12:00")])

    def signalled(begins: object) -> None:
        if isinstance(begins, str):
            with capture_interrupts():
                with capture_interrupts():
                    os.kill(os.getpid(), signal.SIGTERM)
                    assert check_captured_interrupt()
                assert not check_captured_interrupt()

    settled = settle(warehouse.settings, lambda: warehouse.defs, warehouse.instance, report=signalled)
    assert settled.gave_up == ["interrupted"]
    assert [run.succeeded for run in settled.runs] == [True]
    assert [row["event_id"] for row in warehouse.rows("page_views")] == ["e"]
    warehouse.settle()


@of_duckdb("published files")
def test_a_command_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    path = tmp_path / "data/landing/jitsu/a.ndjson"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(as_jitsu(page_view("e", "2026-03-01 12:00"))))
    assert main(["settle"]) == 0
    with signal_soon():
        assert main(["query", LONG]) == 130
    assert "Interrupted." in capsys.readouterr().err
