"""Warehouses of earlier versions: opened, migrated, and after settling equal to a rebuild from nothing."""

from __future__ import annotations

import lzma
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest
from conftest import NewWarehouse
from engines import of_duckdb
from warehouses import REPOSITORY, TABLES, VIEWS, Row, Warehouse, differences, ephemeral_warehouse

from stitch_pipeline.stitching.explain import explain
from stitch_pipeline.warehouse.duckdb import DuckDBEngine
from stitch_pipeline.warehouse.migrations import MIGRATIONS, VERSION
from stitch_pipeline.warehouse.port import Warehouse as Port
from stitch_pipeline.warehouse.port import WarehouseError
from stitch_pipeline.warehouse.tables import create_tables

pytestmark = of_duckdb("warehouses of earlier versions are files")

RECORDED = REPOSITORY / "tests" / "fixtures" / "upgrades"
LANDED_AT = 1_773_000_000


def landed(warehouse: Warehouse) -> Warehouse:
    shutil.copytree(RECORDED / "landing", warehouse.settings.landing_dir, dirs_exist_ok=True)
    for path in warehouse.settings.landing_dir.rglob("*.ndjson"):
        os.utime(path, (LANDED_AT, LANDED_AT))  # as when it was recorded: a file that did not change is not read again
    return warehouse


def unpack(commit: str, path: Path) -> None:
    path.write_bytes(lzma.decompress((RECORDED / f"{commit}.duckdb.xz").read_bytes()))


def set_version(path: Path, version: int) -> None:
    with duckdb.connect(str(path)) as connection:
        connection.execute(f"update stitch.schema_version set version = {version}")


def contents(warehouse: Warehouse, table: str) -> list[Row]:
    """All rows, but without the time at which a file was loaded."""
    return [
        {name: value for name, value in row.items() if name != "candidate_loaded_at"} for row in warehouse.rows(table)
    ]


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warehouse]:
    with ephemeral_warehouse(tmp_path_factory.mktemp("fresh")) as warehouse:
        landed(warehouse).settle()
        yield warehouse


@pytest.mark.slow
@pytest.mark.parametrize(
    "commit", ["b008ef4", *(pytest.param(one, marks=pytest.mark.long) for one in ("75ad375", "4f3aabe"))]
)
def test_a_warehouse_of_an_earlier_version_settles_to_what_a_rebuild_gives(
    commit: str, fresh: Warehouse, new_warehouse: NewWarehouse
) -> None:
    old = landed(new_warehouse())
    unpack(commit, old.settings.duckdb_path)
    had_history = commit == "4f3aabe"
    before = old.rows("user_mapping_history") if had_history else []
    old.settle()
    with old.reading(), fresh.reading():
        for table in (*TABLES, *VIEWS):
            assert differences(contents(old, table), contents(fresh, table)) == {}, table
    assert old.query("select * from stitch.schema_version") == [{"version": VERSION}]
    assert len(fresh.rows("stitched_sessions")) > 50
    # What was known when is kept, and what is known now is the same.
    assert differences(before, old.rows("user_mapping_history")).get("unexpected", []) == []
    known = "project_id", "anonymous_id", "stitched_user_id", "valid_from", "valid_until"
    now = f"(select {', '.join(known)} from stitch.user_mapping_history where known_until is null)"
    assert old.query(f"from {now} order by all") == fresh.query(f"from {now} order by all")


def test_migrating_twice_changes_nothing(new_warehouse: NewWarehouse) -> None:
    warehouse = new_warehouse()
    unpack("75ad375", warehouse.settings.duckdb_path)
    engine = DuckDBEngine(warehouse.settings.duckdb_path, 0)
    shapes = []
    for _ in range(2):
        with engine.open() as stored:
            create_tables(stored)
            shapes.append(stored.rows("select table_name, sql from duckdb_tables() order by table_name"))
    assert shapes[0] == shapes[1]
    assert not any(table == "followed_rules" and "project_id" in sql for table, sql in shapes[0])


def test_a_migration_that_is_killed_is_as_if_it_had_not_begun(
    new_warehouse: NewWarehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    warehouse = new_warehouse()
    unpack("75ad375", warehouse.settings.duckdb_path)
    engine = DuckDBEngine(warehouse.settings.duckdb_path, 0)

    def is_killed(stored: Port) -> None:
        MIGRATIONS[0](stored)
        raise KeyboardInterrupt

    monkeypatch.setattr("stitch_pipeline.warehouse.migrations.MIGRATIONS", (is_killed,))
    with pytest.raises(KeyboardInterrupt), engine.open() as stored:
        create_tables(stored)
    assert warehouse.query("select * from stitch.schema_version") == [{"version": 0}]
    assert len(warehouse.query("select * from stitch.followed_rules")) == 2  # the table of that version


def test_a_warehouse_of_a_newer_version_is_refused(new_warehouse: NewWarehouse) -> None:
    warehouse = new_warehouse()
    warehouse.land("jitsu/a.ndjson", [{"messageId": "m", "type": "page", "timestamp": "2026-03-02T00:00:00Z"}])
    warehouse.settle()
    before = warehouse.contents()
    set_version(warehouse.settings.duckdb_path, VERSION + 1)
    sentence = (
        rf"A newer version of this project wrote the warehouse \(its tables have version {VERSION + 1}, and this "
        rf"version knows {VERSION}\): install the newer version again, or run `stitch rebuild`"
    )
    with (
        pytest.raises(WarehouseError, match=sentence),
        DuckDBEngine(warehouse.settings.duckdb_path, 0).open() as stored,
    ):
        create_tables(stored)
    with pytest.raises(WarehouseError, match=sentence):
        explain(warehouse.settings, "shop", "a", None)
    warehouse.land("jitsu/b.ndjson", [{"messageId": "n", "type": "page", "timestamp": "2026-03-02T00:00:00Z"}])
    with pytest.raises(Exception, match=sentence):
        warehouse.build(warehouse.settings.start_date)
    assert warehouse.contents() == before
    set_version(warehouse.settings.duckdb_path, VERSION)
    warehouse.settle()
    assert len(warehouse.rows("raw_events")) == 2


def test_duckdb_1_5_can_open_the_file(fresh: Warehouse) -> None:
    # DuckDB 1.5.5 reads storage versions 64 to 68: the number at byte 12 of the file. DuckDB 2.0 by itself writes 999.
    header = fresh.settings.duckdb_path.read_bytes()[8:20]
    assert header[:4] == b"DUCK"
    assert 64 <= int.from_bytes(header[4:12], "little") <= 68
    assert fresh.query(
        "select distinct tags['storage_version'] as version from duckdb_databases() where not internal"
    ) == [{"version": "v1.4.0+"}]
