"""No room left, anywhere: one sentence, what was committed is safe, and with room again everything goes on."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pytest
from engines import of_duckdb
from test_broken_warehouse import mounted
from test_locks import open_and_close
from warehouses import REPOSITORY

from stitch_pipeline.landing.index import IndexUnusable, LandingIndex
from stitch_pipeline.warehouse.duckdb import DuckDBEngine
from stitch_pipeline.warehouse.port import Warehouse, WarehouseFull

pytestmark = of_duckdb("a disk that its file fills")

SENTENCE = r"There is no room left .* of the warehouse '.*w.duckdb' .*free some space there"


@contextmanager
def full_disk(directory: Path, size: str = "8m") -> Iterator[Path]:
    with mounted(directory, f"size={size}"):
        yield directory / "w.duckdb"


def fill(warehouse: Warehouse, rows: int) -> None:
    warehouse.execute(f"insert into stitch.t select range, md5(range::varchar) from range({rows})")


def count(path: Path) -> int:
    with DuckDBEngine(path, 0).open() as warehouse:
        return int(warehouse.rows("select count(*) from stitch.t")[0][0])


def create(path: Path) -> None:
    with DuckDBEngine(path, 0).open() as warehouse:
        warehouse.execute("create table stitch.t (a bigint, b varchar)")
        fill(warehouse, 1000)


def fill_up(path: Path, way: str) -> int:
    """Write until there is no room; returns the rows that were committed."""
    committed = 1000

    def write() -> None:
        nonlocal committed
        with DuckDBEngine(path, 0).open() as warehouse:
            if way == "one statement":
                fill(warehouse, 2_000_000)
            elif way == "many commits":
                while committed < 10_000_000:
                    fill(warehouse, 1000)
                    committed += 1000
            else:
                with warehouse.transaction():
                    for _ in range(100):
                        fill(warehouse, 100_000)

    with pytest.raises(WarehouseFull, match=SENTENCE):
        write()
    return committed


@pytest.mark.parametrize("way", ["one statement", "many commits", "one transaction"])
def test_the_disk_of_the_warehouse_is_full(way: str, tmp_path: Path) -> None:
    with full_disk(tmp_path / "disk") as path:
        create(path)
        committed = fill_up(path, way)
        # With a commit that is in the log and cannot be written into the file, DuckDB says both.
        assert count(path) in (committed, committed + 1000)
        subprocess.run(["mount", "-o", "remount,size=200m", path.parent], check=True)
        before = count(path)
        with DuckDBEngine(path, 0).open() as warehouse:
            fill(warehouse, 500_000)
        assert count(path) == before + 500_000


def test_the_disk_of_the_temporary_files_is_full(tmp_path: Path) -> None:
    with full_disk(tmp_path / "disk") as path:
        create(path)
        sort = (
            "select count(*) from (select distinct md5(range::varchar), md5((range + 1)::varchar) from range(2000000))"
        )
        with (
            pytest.raises(WarehouseFull, match="for the temporary files"),
            DuckDBEngine(path, 0, "60MB").open() as full,
        ):
            full.rows(sort)
        assert count(path) == 1000
        subprocess.run(["mount", "-o", "remount,size=2g", path.parent], check=True)
        with DuckDBEngine(path, 0, "60MB").open() as warehouse:
            assert warehouse.rows(sort) == [(2_000_000,)]


def test_no_warehouse_can_be_created_on_a_full_disk(tmp_path: Path) -> None:
    with full_disk(tmp_path / "disk", "100k") as path:
        with pytest.raises(WarehouseFull, match=SENTENCE):
            open_and_close(DuckDBEngine(path, 0))
        assert list(path.parent.iterdir()) == []
        subprocess.run(["mount", "-o", "remount,size=50m", path.parent], check=True)
        open_and_close(DuckDBEngine(path, 0))


def test_the_disk_of_the_index_is_full(tmp_path: Path) -> None:
    with full_disk(tmp_path / "disk", "200k") as path:
        index = LandingIndex(path.with_name("index.sqlite"))
        filler = path.with_name("filler")
        with pytest.raises(OSError, match="No space left"):
            filler.write_bytes(bytes(1_000_000))
        files = {f"{n}-{'x' * 100}": ("1", ()) for n in range(2000)}
        with pytest.raises(IndexUnusable, match=r"index.sqlite' cannot be used now \(database or disk is full\)"):
            index.set_loaded(files)
        subprocess.run(["mount", "-o", "remount,size=20m", path.parent], check=True)
        assert index.files() == {}
        index.set_loaded(files)
        assert len(index.files()) == 2000


def settle(directory: Path, home: str, kilobytes: int | None) -> subprocess.CompletedProcess[str]:
    """``stitch settle`` in a process that may write files up to a size; needs no right to mount."""
    (directory / home).mkdir(exist_ok=True)
    shutil.copy(REPOSITORY / "dagster_home" / "dagster.yaml", directory / home)
    limit = "" if kilobytes is None else f"ulimit -f {kilobytes}; "
    return subprocess.run(
        ["bash", "-c", f"{limit}exec {sys.executable} -m stitch_pipeline settle"],
        cwd=directory,
        env={
            **os.environ,
            "PYTHONPATH": str(REPOSITORY),
            "DAGSTER_HOME": str(directory / home),
            "STITCH_LANDING_DIR": str(directory / "landing"),
            "STITCH_DUCKDB_PATH": str(directory / "w.duckdb"),
            "STITCH_START_DATE": "2026-03-01",
        },
        capture_output=True,
        text=True,
        timeout=300,
    )


def land(directory: Path, events: int) -> None:
    numbers = random.Random(1)
    (directory / "landing" / "jitsu").mkdir(parents=True)
    (directory / "landing" / "jitsu" / "a.ndjson").write_text(
        "\n".join(
            json.dumps(
                {
                    "messageId": f"{numbers.getrandbits(256):x}",
                    "type": "page",
                    "timestamp": f"2026-03-02T{n % 24:02}:00:00Z",
                    "anonymousId": f"{numbers.getrandbits(256):x}",
                }
            )
            for n in range(events)
        )
    )


@pytest.mark.slow
@pytest.mark.long
def test_a_limit_on_the_size_of_files_fails_settle_in_one_sentence_and_heals(tmp_path: Path) -> None:
    land(tmp_path, 30_000)
    limited = settle(tmp_path, "home", 3000)
    assert limited.returncode == 1, limited.stderr
    assert "WarehouseFull: There is no room left to write" in limited.stdout
    again = settle(tmp_path, "another_home", None)
    assert again.returncode == 0, again.stdout
    with duckdb.connect(str(tmp_path / "w.duckdb"), read_only=True) as connection:
        assert connection.execute("select sum(event_count) from stitch.stitched_sessions").fetchall() == [(30_000,)]


@pytest.mark.slow
def test_dagsters_own_disk_is_full(tmp_path: Path) -> None:
    land(tmp_path, 10)
    limited = settle(tmp_path, "home", 20)
    assert limited.returncode == 1, limited.stderr
    assert f"Dagster's records in DAGSTER_HOME '{tmp_path / 'home'}' cannot be written" in limited.stderr
    assert "Traceback" not in limited.stderr
    again = settle(tmp_path, "home", None)
    assert again.returncode == 0, again.stdout + again.stderr
