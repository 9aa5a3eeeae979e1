"""Damaged, foreign and misplaced warehouses and indexes: one sentence each, and a way on that loses nothing."""

from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import duckdb
import pytest
from conftest import NewWarehouse
from engines import of_duckdb
from test_locks import held_by_another_process, open_and_close
from warehouses import Warehouse, page_view

from stitch_pipeline.cli.main import main
from stitch_pipeline.landing.index import IndexReplaced, LandingIndex
from stitch_pipeline.settings.errors import SettingsError
from stitch_pipeline.stitching.rebuild import start_anew
from stitch_pipeline.warehouse.duckdb import DuckDBEngine
from stitch_pipeline.warehouse.port import WarehouseBusy, WarehouseDamaged, WarehouseError

pytestmark = of_duckdb("damage to its file")


def filled(path: Path, rows: int = 50_000) -> Path:
    """A database with some blocks, and a log with what was committed since the last checkpoint."""
    with DuckDBEngine(path, 0).open() as warehouse:
        warehouse.execute(f"create table stitch.t as select range as a, md5(range::varchar) as b from range({rows})")
        warehouse.execute("checkpoint")
        warehouse.execute("set wal_autocheckpoint = '1TB'")
        warehouse.execute(f"insert into stitch.t select range + {rows}, 'logged' from range(20000)")
        both = path.read_bytes(), path.with_name(path.name + ".wal").read_bytes()
    path.write_bytes(both[0])
    path.with_name(path.name + ".wal").write_bytes(both[1])
    return path


# Opens and reads the database of each directory; a process of its own, because a crash would end it.
READ_ALL = """
import json, sys
from pathlib import Path
from stitch_pipeline.warehouse.duckdb import DuckDBEngine
for name in sys.argv[1:]:
    try:
        with DuckDBEngine(Path(name) / "w.duckdb", 0).open() as warehouse:
            found = warehouse.rows("select count(*), bit_xor(hash(t)) from stitch.t as t")[0][0]
            warehouse.execute("create table stitch.more as select range from range(1000)")
    except Exception as error:
        found = f"{type(error).__name__}: {error}"
    print(json.dumps(found), flush=True)
"""


def test_no_damage_crashes_the_process_or_passes_as_something_else(tmp_path: Path) -> None:
    source = filled(tmp_path / "source" / "w.duckdb")
    file, log = source.read_bytes(), source.with_name("w.duckdb.wal").read_bytes()
    other = filled(tmp_path / "other" / "w.duckdb", rows=10).with_name("w.duckdb.wal").read_bytes()
    numbers = random.Random(1)

    def spoiled(content: bytes, length: int) -> bytes:
        at = numbers.randrange(len(content) - length)
        return content[:at] + numbers.randbytes(length) + content[at + length :]

    damaged: list[tuple[bytes, bytes | None]] = [
        (b"", None),
        (b"", log),
        (b"x", None),
        (b"a text file\n" * 5000, None),
        (bytes(100_000), None),
        (b"SQLite format 3\0" + bytes(8176), None),
        (bytes(4096) + file[4096:], log),
        (file[:4096] + bytes(8192) + file[12288:], log),
        (file, other),
        *((file[:length], log) for length in (1, 4095, 4096, 8192, 12288, 270_000)),
        *((file[: numbers.randrange(len(file))], None) for _ in range(5)),
    ]
    may_be_whole: list[tuple[bytes, bytes | None]] = [
        (file[:-1], log),
        *((spoiled(file, length), log) for length in (1, 512, 50_000) for _ in range(6)),
        *((file, spoiled(log, length)) for length in (1, 512) for _ in range(4)),
        *((file, log[: numbers.randrange(len(log))]) for _ in range(6)),
        (file, b"no log" * 100),
        (file, b""),
    ]
    places = []
    for index, (content, beside) in enumerate([*damaged, *may_be_whole]):
        place = tmp_path / str(index)
        place.mkdir()
        (place / "w.duckdb").write_bytes(content)
        if beside is not None:
            (place / "w.duckdb.wal").write_bytes(beside)
        places.append(str(place))
    read = subprocess.run([sys.executable, "-c", READ_ALL, *places], capture_output=True, text=True, timeout=300)
    assert read.returncode == 0, read.stderr
    found = [json.loads(line) for line in read.stdout.splitlines()]
    assert len(found) == len(places)
    for number, answer in enumerate(found):
        if isinstance(answer, int):
            # What a torn log holds was not committed as a whole: the state before it, or that with it.
            assert number >= len(damaged)
            assert answer in (50_000, 70_000)
        else:
            assert answer.startswith("WarehouseDamaged: ")
            assert "Run `stitch rebuild`: it keeps this file aside" in answer


def test_a_warehouse_of_another_duckdb_says_so(tmp_path: Path) -> None:
    path = filled(tmp_path / "w.duckdb")
    content = bytearray(path.read_bytes())
    content[12:20] = (5000).to_bytes(8, "little")
    path.write_bytes(content)
    with pytest.raises(WarehouseDamaged, match=r"(Another version of DuckDB wrote|damaged).*`stitch rebuild`"):
        open_and_close(DuckDBEngine(path, 0))


@pytest.mark.slow
def test_damage_that_only_a_run_meets_is_said_by_the_run(new_warehouse: NewWarehouse) -> None:
    warehouse = settled(new_warehouse())
    content = bytearray(warehouse.settings.duckdb_path.read_bytes())
    # The headers are whole, so that it opens.
    content[12288 + 8 :] = bytes(len(content) - 12288 - 8)
    warehouse.settings.duckdb_path.write_bytes(content)
    with pytest.raises(Exception, match=r"is damaged, or not a warehouse's: .*Run `stitch rebuild`"):
        warehouse.build(warehouse.settings.start_date)


def settled(warehouse: Warehouse) -> Warehouse:
    warehouse.write_overrides(["shop,same_person,u1,u2,once the same"])
    warehouse.land_events("jitsu/a.ndjson", [page_view("e1", "2026-03-02 10:00")])
    warehouse.settle()
    warehouse.land_events("jitsu/b.ndjson", [page_view("e2", "2026-03-03 10:00", user_id="u1")])
    warehouse.settle()
    warehouse.land_events("jitsu/c.ndjson", [page_view("e3", "2026-03-04 10:00", user_id="u3")])
    warehouse.settle()
    return warehouse


@pytest.mark.slow
@pytest.mark.parametrize(
    "damage", [*(pytest.param(one, marks=[pytest.mark.slow, pytest.mark.long]) for one in ("none", "log")), "file"]
)
def test_rebuild_keeps_the_file_and_the_histories_and_gives_the_same_rows(
    damage: str, new_warehouse: NewWarehouse
) -> None:
    warehouse = settled(new_warehouse())
    path = warehouse.settings.duckdb_path
    expected = warehouse.contents()
    history, decisions = warehouse.rows("user_mapping_history"), warehouse.rows("decision_history")
    assert any(row["known_until"] is not None for row in history)
    assert len(decisions) == 1
    if damage == "log":
        shutil.copy(filled(path.with_name("other") / "w.duckdb").with_name("w.duckdb.wal"), f"{path}.wal")
    elif damage == "file":
        path.write_bytes(path.read_bytes()[:1_000_000])
    stored = path.read_bytes()
    started = start_anew(warehouse.settings)
    assert Path(started.kept_as).read_bytes() == stored
    assert started.kept_as.startswith(f"{path}.set-aside-")
    warehouse.settle()
    assert warehouse.contents() == expected
    if damage == "file":
        assert set(started.begins_anew) == {
            "user_mapping_history",
            "decision_history",
            "rules_history",
            "person_name_history",
        }
        assert all("Could not read enough bytes" in reason for reason in started.begins_anew.values())
    else:
        assert started.begins_anew == {}
        assert started.rows_taken_over["user_mapping_history"] == len(history)
        assert warehouse.rows("user_mapping_history") == history
        assert warehouse.rows("decision_history") == decisions
    # Nothing is left to do afterwards.
    assert warehouse.settle().runs == []


def test_rebuild_does_not_touch_a_warehouse_that_is_in_use(new_warehouse: NewWarehouse) -> None:
    warehouse = new_warehouse(lock_wait_seconds=0.2)
    path = filled(warehouse.settings.duckdb_path)
    before = path.read_bytes()
    with held_by_another_process(path), pytest.raises(WarehouseBusy, match="is in use by another process"):
        start_anew(warehouse.settings)
    assert path.read_bytes() == before
    with pytest.raises(WarehouseError, match="There is no warehouse at"):
        start_anew(new_warehouse().settings)


def test_the_command_says_what_it_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "landing" / "jitsu").mkdir(parents=True)
    event = {"messageId": "m", "type": "page", "timestamp": "2026-03-02T00:00:00Z", "anonymousId": "a"}
    (tmp_path / "landing" / "jitsu" / "a.ndjson").write_text(json.dumps(event))
    path = tmp_path / "warehouse.duckdb"
    path.write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    monkeypatch.setenv("STITCH_LANDING_DIR", str(tmp_path / "landing"))
    monkeypatch.setenv("STITCH_DUCKDB_PATH", str(path))
    monkeypatch.setenv("STITCH_START_DATE", "2026-03-01")
    try:
        assert main(["rebuild"]) == 0
    finally:
        os.environ.pop("DAGSTER_HOME", None)
    printed = " ".join(capsys.readouterr().out.split())
    assert f"The former warehouse is kept as {path}.set-aside-" in printed
    assert "decision_history begins anew, because it could not be read" in printed
    assert "settled: " in printed
    with duckdb.connect(str(path), read_only=True) as connection:
        assert connection.execute("select anonymous_id from stitch.raw_events").fetchall() == [("a",)]


def test_a_log_without_its_warehouse_does_not_stop_a_new_one(tmp_path: Path) -> None:
    path = filled(tmp_path / "w.duckdb")
    path.unlink()
    with DuckDBEngine(path, 0).open() as warehouse:
        assert warehouse.rows("select table_name from duckdb_tables()") == []


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(b"garbage, not an index\n" * 500),
        lambda path: path.write_bytes(path.read_bytes()[:5000]),
        lambda path: path.write_bytes(path.read_bytes()[:4096] + bytes(8192) + path.read_bytes()[12288:]),
        lambda path: path.write_bytes(b""),
        lambda path: foreign(path),
    ],
    ids=["garbage", "truncated", "zeros", "empty", "foreign"],
)
def test_a_damaged_index_is_replaced(spoil: Callable[[Path], None], new_warehouse: NewWarehouse) -> None:
    warehouse = new_warehouse()
    warehouse.land_events("jitsu/a.ndjson", [page_view("e1", "2026-03-02 10:00")])
    path = warehouse.settings.index_path
    LandingIndex(path).refresh(warehouse.settings)
    spoil(path)
    with suppress(IndexReplaced):  # damage that shows only when a table is read: the next try succeeds
        LandingIndex(path).refresh(warehouse.settings)
    index = LandingIndex(path)
    index.refresh(warehouse.settings)
    assert [file.landing_file for file in index.pending()] == ["jitsu/a.ndjson"]


def foreign(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as db:
        db.execute("create table files (name text)")
        db.commit()


def test_a_directory_in_its_place_is_said_and_heals(tmp_path: Path) -> None:
    path = tmp_path / "w.duckdb"
    path.mkdir()
    sentence = f"'{path}' is a directory, and has to be a file: set STITCH_DUCKDB_PATH"
    for read_only in (False, True):
        with pytest.raises(WarehouseError, match=sentence):
            open_and_close(DuckDBEngine(path, 0), read_only=read_only)
    with pytest.raises(SettingsError, match="is a directory, and has to be a file"):
        LandingIndex(path)
    path.rmdir()
    open_and_close(DuckDBEngine(path, 0))


@contextmanager
def mounted(directory: Path, options: str) -> Iterator[None]:
    directory.mkdir(exist_ok=True)
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", directory]).returncode:
        pytest.skip("mounting a file system needs root")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", directory], check=True)


def test_a_read_only_folder_is_said_and_heals(tmp_path: Path) -> None:
    directory = tmp_path / "mounted"
    with mounted(directory, "size=10m"):
        path = directory / "w.duckdb"
        open_and_close(DuckDBEngine(path, 0))
        subprocess.run(["mount", "-o", "remount,ro", directory], check=True)
        with pytest.raises(WarehouseError, match=r"cannot be written .*make it writable, or set STITCH_DUCKDB_PATH"):
            open_and_close(DuckDBEngine(path, 0))
        with pytest.raises(SettingsError, match="cannot be written"):
            LandingIndex(directory / "index.sqlite")
        open_and_close(DuckDBEngine(path, 0), read_only=True)
        subprocess.run(["mount", "-o", "remount,rw", directory], check=True)
        open_and_close(DuckDBEngine(path, 0))
        LandingIndex(directory / "index.sqlite")
