"""The published copy as DuckDB sees it: the file of views, and a DuckDB in memory that reads it.

Belongs here: what needs a connection of DuckDB. Does not: which tables are published, and when (``stitching.publish``).
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import duckdb

from stitch_pipeline.planning.interruption import closing
from stitch_pipeline.planning.sql_text import file_pattern, literal, literals
from stitch_pipeline.warehouse.duckdb import DuckDBWarehouse
from stitch_pipeline.warehouse.port import Row, Warehouse

if TYPE_CHECKING:
    from pandas import DataFrame

VIEWS_FILE = "views.duckdb"
# DuckDB 1.2 and later open it.
_STORAGE_VERSION = "v1.2.0"


class QueryFailed(Exception):
    """DuckDB's own message about a query."""


def glob_of(directory: Path) -> str:
    """The pattern of the Parquet files in a directory, whatever characters its path has."""
    return file_pattern(directory) + "/*.parquet"


def write_views_file(path: Path, sql: str) -> None:
    """Create a database file at ``path`` by statements that create views. Raises OSError if that fails."""
    with _in_memory() as connection:
        try:
            connection.execute(f"attach {literal(str(path))} as views (storage_version {literal(_STORAGE_VERSION)})")
            connection.execute("use views")
            connection.execute(sql)
            connection.execute("use memory")
            connection.execute("detach views")
        except duckdb.Error as error:
            raise OSError(str(error).splitlines()[0]) from None


class PublishedReader:
    """A DuckDB in memory that reads published files. It locks nothing and waits for nobody."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection

    @property
    def tables(self) -> list[str]:
        """The names of the published tables and views."""
        found = self._connection.execute(
            "select view_name from duckdb_views() where schema_name = 'stitch' order by view_name"
        ).fetchall()
        return [name for (name,) in found]

    def columns(self, relation: str) -> list[str]:
        """The columns of what can follow ``from``. Raises QueryFailed."""
        return [row[0] for row in self._run(f"describe select * from {relation}").fetchall()]

    def result(self, sql: str) -> tuple[list[str], Iterator[Row]]:
        """The names of the query's columns, and its rows. Raises QueryFailed."""
        found = self._run(sql)
        return [column[0] for column in found.description or ()], self._rows(found)

    def frame(self, sql: str) -> DataFrame:
        """The rows of the query. Raises QueryFailed."""
        try:
            return self._run(sql).df()
        except duckdb.Error as error:
            raise QueryFailed(str(error)) from None

    def _rows(self, found: duckdb.DuckDBPyConnection) -> Iterator[Row]:
        try:
            while rows := found.fetchmany(1000):
                yield from rows
        except duckdb.Error as error:
            raise QueryFailed(str(error)) from None

    def _run(self, sql: str) -> duckdb.DuckDBPyConnection:
        try:
            return self._connection.execute(sql)
        except duckdb.Error as error:
            raise QueryFailed(str(error)) from None


@contextmanager
def open_views(directory: Path) -> Iterator[PublishedReader]:
    """Every published table and view, by name with or without the schema ``stitch``.

    Raises FileNotFoundError if nothing is published.
    """
    with TemporaryDirectory(prefix="stitch-views-") as copies, _in_memory() as connection:
        # A copy, because another reader may have locked the file itself.
        copy = Path(copies) / VIEWS_FILE
        shutil.copy(directory / VIEWS_FILE, copy)
        connection.execute(f"attach {literal(str(copy))} as views (read_only)")
        connection.execute("set search_path = 'views.stitch,views.main'")
        yield PublishedReader(connection)


@contextmanager
def open_files() -> Iterator[PublishedReader]:
    """No view, only files by their paths (``files_sql``)."""
    with _in_memory() as connection:
        yield PublishedReader(connection)


def files_sql(paths: Sequence[Path]) -> str:
    """What can follow ``from`` to read these files as one table."""
    return f"read_parquet([{literals(map(file_pattern, paths))}], hive_partitioning = false)"


@contextmanager
def open_file_for_search(path: Path) -> Iterator[tuple[Warehouse, str, list[str]]]:
    """A Parquet file: where to query it, what to select from, and its columns. Raises QueryFailed if it is none."""
    with _in_memory() as connection:
        source = files_sql([path])
        yield DuckDBWarehouse(connection), source, PublishedReader(connection).columns(source)


@contextmanager
def _in_memory() -> Iterator[duckdb.DuckDBPyConnection]:
    with closing(duckdb.connect()) as connection:
        connection.execute("set TimeZone = 'UTC'")
        # As in the warehouse (`DuckDBEngine`): the views join by ASOF.
        connection.execute("set global asof_loop_join_threshold = 0")
        yield connection
