"""A forgotten person whose events come from a table: in no extract, and nobody inherits what the person did."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path

import duckdb
import pytest
from conftest import NewWarehouse
from engines import of_duckdb
from test_forget import AFTER, ANN, SHARED, credited, forget, holding
from warehouses import TABLES, Row, Warehouse, differences, page_view

from stitch_pipeline.landing.extracts import look_at_tables, seal_extracts
from stitch_pipeline.orchestration.settle import settle
from stitch_pipeline.settings import Settings
from stitch_pipeline.settings.forgotten import Mode
from stitch_pipeline.stitching.forget import Request, add_to_list
from stitch_pipeline.stitching.prove import prove

TOML = """
[feeds.web]
source = "custom"
project_id = "shop"
{table}
[feeds.web.fields]
event_id = "event_id"
occurred_at = "occurred_at"
event_type = "event_type"
anonymous_id = "anonymous_id"
user_id = "user_id"
page_url = "page_url"
traits = "traits"
[projects.shop]
policy = "{policy}"
identifiers.email.paths = "traits.email"
"""
TABLE = 'table = "events"\nconnection = "events.duckdb"\nload_time = "occurred_at"\n'
OTHERS = [
    page_view("z0", "2026-03-01 12:00", anonymous_id="z"),
    page_view("z1", "2026-03-02 13:00", anonymous_id="z", user_id="zoe", page_url="https://shop/zoe"),
    page_view("m1", "2026-03-02 14:00", anonymous_id="m", user_id="max", traits={"email": "max@example.com"}),
    page_view("m2", "2026-03-02 15:00", anonymous_id="m", user_id="max"),
]
COLUMNS = ("event_id", "occurred_at", "event_type", "anonymous_id", "user_id", "page_url", "traits")


def write_table(database: Path, events: list[Row]) -> None:
    with duckdb.connect(str(database)) as connection:
        connection.execute(
            "create table if not exists events (event_id text, occurred_at timestamp, event_type text, "
            "anonymous_id text, user_id text, page_url text, traits json)"
        )
        connection.executemany(
            "insert into events values (?, ?, ?, ?, ?, ?, ?)",
            [
                [
                    str(event.get(name)).replace("'", '"') if name == "traits" and event.get(name) else event.get(name)
                    for name in COLUMNS
                ]
                for event in events
            ],
        )


def land_file(warehouse: Warehouse, database: Path) -> None:
    """The table's rows as the file of a team."""
    path = warehouse.settings.landing_dir / "web" / "events.parquet"
    path.parent.mkdir()
    with duckdb.connect(str(database), read_only=True) as connection:
        connection.execute(f"copy (select * replace (traits::varchar as traits) from events) to '{path}'")


def contents(warehouse: Warehouse) -> dict[str, list[Row]]:
    found = {}
    for table, rows in warehouse.contents((*TABLES, "forgotten_events")).items():
        found[table] = [{name: value for name, value in row.items() if name != "landing_file"} for row in rows]
    return found


def assert_equal(one: Warehouse, other: Warehouse) -> None:
    left, right = contents(one), contents(other)
    for table, rows in left.items():
        assert differences(rows, right[table]) == {}, table


def in_extracts(warehouse: Warehouse, text: str) -> int:
    """The rows of all extracts that hold the text in any column."""
    count = 0
    for path in (warehouse.settings.landing_dir / "web").glob("*.parquet"):
        rows = duckdb.read_parquet(str(path))
        texts = " or ".join(f"contains(\"{name}\"::varchar, '{text}')" for name in rows.columns)
        count += rows.filter(texts).shape[0]
    return count


@of_duckdb("the file is deleted")
@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("policy", ["latest", "graph"])
def test_a_table_forgets_as_a_file_does(policy: str, new_warehouse: NewWarehouse) -> None:
    table = new_warehouse(stitch_toml=TOML.format(table=TABLE, policy=policy))
    database = table.directory / "events.duckdb"
    write_table(database, SHARED + OTHERS)
    table.settle()
    assert in_extracts(table, ANN) == 2

    forget(table, ANN)
    forget(table, "max@example.com", "email")
    forget(table, "zoe", mode=Mode.pseudonymise)
    table.settle()
    assert {event: user for event, user in credited(table).items() if event[0] in "ab"} == AFTER[policy]
    # A device after its user, whose row is sealed.
    forget(table, "z", "device")
    # What the table still has does not come back with late rows.
    late = [page_view("a9", "2026-03-02 12:05", user_id=ANN), page_view("b9", "2026-03-04 13:00", user_id="bob")]
    write_table(database, late)
    look_at_tables(table.settings, verify=True)
    table.settle()
    for value, kind in ((ANN, "user"), ("max@example.com", "email"), ("zoe", "user")):
        assert in_extracts(table, value) == 0
        assert holding(table, value) == {}
        certificate = prove(table.settings, Request("shop", kind, value), [])
        assert certificate.is_clean, list(certificate.lines())
        assert certificate.landing_files == []
        assert any(str(file.path).startswith(str(table.settings.landing_dir)) for file in certificate.files)

    file = new_warehouse(stitch_toml=TOML.format(table="", policy=policy))
    land_file(file, database)
    for name in ("forgotten.csv", "forgotten.key"):  # the same key, so that pseudonyms agree
        (file.directory / name).write_bytes((table.directory / name).read_bytes())
    file.settle()
    assert len(file.rows("forgotten_events")) == 5
    assert_equal(table, file)

    # From nothing, without the table.
    table.settings.duckdb_path.unlink()
    database.unlink()
    settled = settle(table.settings, lambda: table.defs, table.instance, view_stitching=True)
    assert len(settled.gave_up) == 1
    assert_equal(table, file)


@pytest.mark.slow
def test_who_is_taken_off_the_list_is_back(new_warehouse: NewWarehouse) -> None:
    warehouse = new_warehouse(stitch_toml=TOML.format(table=TABLE, policy="latest"))
    write_table(warehouse.directory / "events.duckdb", SHARED + OTHERS)
    warehouse.settle()
    before = contents(warehouse)
    forget(warehouse, ANN)
    warehouse.settle()
    assert in_extracts(warehouse, ANN) == 0
    (warehouse.directory / "forgotten.csv").unlink()
    warehouse.settle(reconcile=True)
    warehouse.settle()
    assert in_extracts(warehouse, ANN) == 2
    after = contents(warehouse)
    for name, rows in before.items():
        assert differences(after[name], rows) == {}, name


def test_who_is_forgotten_while_rows_are_copied_is_in_none_of_the_extracts(tmp_path: Path) -> None:
    (tmp_path / "landing").mkdir()
    (tmp_path / "stitch.toml").write_text(TOML.format(table=TABLE, policy="latest"))
    settings = Settings.load(
        landing_dir=tmp_path / "landing",
        duckdb_path=tmp_path / "warehouse.duckdb",
        project_file=tmp_path / "stitch.toml",
        start_date="2025-01-01",
    )
    days = [datetime(2025, 3, 1) + timedelta(days=number) for number in range(60)]
    write_table(
        tmp_path / "events.duckdb",
        [page_view(f"e{number}", str(day), user_id=ANN if number % 2 else "bob") for number, day in enumerate(days)],
    )
    with ThreadPoolExecutor(1) as copying:
        underway = copying.submit(look_at_tables, settings)
        deadline = time.monotonic() + 60
        while len(list((tmp_path / "landing").glob("web/*.parquet"))) < 10 and time.monotonic() < deadline:
            time.sleep(0.01)
        add_to_list(settings, Request("shop", "user", ANN))
        assert seal_extracts(settings, lambda name: True) >= 5
        (looked,) = underway.result()
    assert (looked.problem, looked.rows) == (None, 60)
    paths = list((tmp_path / "landing").glob("web/*.parquet"))
    assert len(paths) == 60
    holding_ann = [path for path in paths if duckdb.read_parquet(str(path)).filter(f"user_id = '{ANN}'").shape[0]]
    assert holding_ann == []
    sealed = [path for path in paths if "stitch_sealed" in duckdb.read_parquet(str(path)).columns]
    assert len(sealed) == 30
