"""The `default__` macros of other engines give on DuckDB what DuckDB's own give."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import duckdb
import pytest
from engines import of_duckdb
from jinja2 import Environment

from stitch_pipeline.shipped_files import DBT_PROJECT

pytestmark = of_duckdb("the macros of other engines, run on it")

ENGINES = DBT_PROJECT / "macros" / "engines"
Macro = Callable[..., str]


def macros(engine: str) -> dict[str, Macro]:
    """The macros of one file, by their names without the prefix."""
    module = (
        Environment(extensions=["jinja2.ext.do"])
        .from_string((ENGINES / f"{engine}.sql").read_text(encoding="utf-8"))
        .module
    )
    prefix = f"{engine}__"
    return {name.removeprefix(prefix): macro for name, macro in vars(module).items() if name.startswith(prefix)}


DEFAULT, DUCKDB = macros("default"), macros("duckdb")
# What a CTE is marked with makes no difference to its rows.
OF_GRAPHS = {"least_reached", "rounds_of_contraction", "find_nearest_seeds"}
"""Steps of several statements. The tests of graphs compare them, on an engine that uses the default."""
WITH_BOTH = (DEFAULT.keys() & DUCKDB.keys()) - {"not_materialized"} - OF_GRAPHS
TIMES = ("2026-03-01 10:00:00", "2026-03-01 10:00:00.000001", "2026-03-02 00:00:00.5", "1970-01-01 00:00:00")


@pytest.fixture
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        connection.execute("create table links (device varchar, linked_at timestamp, user_id varchar)")
        connection.execute("create table visits (device varchar, visited_at timestamp)")
        rows = [
            *(("d1", TIMES[0], "u1"), ("d1", TIMES[1], None), ("d1", TIMES[2], "u3"), ("d1", None, "u4")),
            *(("d2", TIMES[1], "u5"), ("d3", None, "u6"), ("d4", TIMES[0], None)),
        ]
        connection.executemany("insert into links values (?, ?, ?)", rows)
        visits = list(product(("d1", "d2", "d3", "d4", "d5"), (*TIMES, "2026-03-09 00:00:00", None)))
        connection.executemany("insert into visits values (?, ?)", visits)
        yield connection


def rows(con: duckdb.DuckDBPyConnection, sql: str) -> list[tuple[Any, ...]]:
    return sorted(con.execute(sql).fetchall(), key=repr)


def check_equal(con: duckdb.DuckDBPyConnection, name: str, arguments: tuple[Any, ...], query: str) -> None:
    ours, others = (rows(con, query.format(engine[name](*arguments))) for engine in (DUCKDB, DEFAULT))
    assert ours == others
    assert ours


CASES: dict[str, tuple[tuple[Any, ...], str]] = {
    "join_latest": (
        ("visits", "links", ["device"], "visited_at", "linked_at"),
        "select visits.*, links.device, links.linked_at, links.user_id from {}",
    ),
    "first_known_by": (("user_id", "linked_at"), "select device, {} from links group by device"),
    "last_known_by": (("user_id", "linked_at"), "select device, {} from links group by device"),
    "place_in_time": (
        ("visited_at", "device"),
        "select device, visited_at, {} from visits where visited_at is not null",
    ),
    "microseconds_between": (
        ("a.visited_at", "b.visited_at"),
        "select a.visited_at, b.visited_at, {} from visits as a cross join visits as b",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_default_macro_gives_what_duckdbs_own_gives(con: duckdb.DuckDBPyConnection, name: str) -> None:
    check_equal(con, name, *CASES[name])


def test_every_macro_with_both_forms_is_compared() -> None:
    assert CASES.keys() == WITH_BOTH


@pytest.mark.parametrize("engine", [DEFAULT, DUCKDB], ids=["default", "duckdb"])
def test_places_in_time_order_by_time_and_then_by_id(con: duckdb.DuckDBPyConnection, engine: dict[str, Macro]) -> None:
    place = engine["place_in_time"]("visited_at", "device")
    by_place, by_time = (
        con.execute(f"select device, visited_at from visits where visited_at is not null order by {order}").fetchall()
        for order in (place, "visited_at, device")
    )
    assert by_place == by_time


def test_every_dispatched_macro_has_a_form_that_duckdb_runs() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in ENGINES.glob("*.sql"))
    dispatched = {part.split("'")[0] for part in text.split("adapter.dispatch('")[1:]}
    assert dispatched == DEFAULT.keys() | DUCKDB.keys()
