"""DuckDB: one file, one writer at a time, bounded waiting, and a lock that is always released.

While one process has a DuckDB file open read-write, no other process can open it, not even read-only. So opening waits
a bounded time, and then fails with the name of the process that has it open.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeVar

import duckdb

from stitch_pipeline.planning.sql_text import identifier, literal
from stitch_pipeline.warehouse.port import STORED, Dialect, EventBatch, Row, Warehouse, WarehouseBusy, WarehouseError

if TYPE_CHECKING:
    from pandas import DataFrame

_RETRY_SECONDS = 0.1
_T = TypeVar("_T")


@dataclass(frozen=True)
class DuckDBDialect:
    row_id: str = "rowid"

    def hash_of(self, *columns: str) -> str:
        return f"hash({', '.join(columns)})"


class DuckDBWarehouse:
    """An open DuckDB database; see ``port.Warehouse``."""

    dialect: Dialect = DuckDBDialect()

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self.connection = connection

    def execute(self, sql: str, **parameters: Any) -> None:
        self.connection.execute(sql, parameters or None)

    def rows(self, sql: str, **parameters: Any) -> list[Row]:
        return self.connection.execute(sql, parameters or None).fetchall()

    def records(self, sql: str, **parameters: Any) -> list[dict[str, Any]]:
        found = self.connection.execute(sql, parameters or None)
        names = [column[0] for column in found.description]
        return [dict(zip(names, row, strict=True)) for row in found.fetchall()]

    @contextmanager
    def transaction(self) -> Iterator[None]:
        self.connection.begin()
        try:
            yield
            self.connection.commit()
        except BaseException:
            self.connection.rollback()
            raise

    def insert_rows(self, table: str, rows: Iterable[Sequence[object]]) -> None:
        rows = list(rows)
        # 1,000 rows per statement: one row takes a second for a hundred projects, and ten thousand are slower as well.
        for start in range(0, len(rows), 1_000):
            some = rows[start : start + 1_000]
            places = ", ".join(f"({', '.join('?' * len(row))})" for row in some)
            self.connection.execute(f"insert into {table} values {places}", [value for row in some for value in row])

    def insert_frame(self, table: str, frame: DataFrame) -> None:
        self.connection.register("frame_to_insert", frame)
        self.connection.execute(f"insert into {table} by name select * from frame_to_insert")
        self.connection.unregister("frame_to_insert")

    def marker(self) -> str:
        # Closing the file would write the rest, and so change the marker.
        self.connection.execute("checkpoint")
        ((path,),) = self.rows("select path from duckdb_databases() where database_name = current_database()")
        return _marker(Path(path))

    def load_events(self, batch: EventBatch) -> None:
        # Otherwise DuckDB copies the parsing of JSON into each filter above it, and parses every line two or three
        # times.
        self.connection.execute("set disabled_optimizers = 'filter_pushdown'")
        try:
            self.connection.execute(f"insert into stitch.raw_events by name {batch.events_sql}")
        finally:
            # After an error within a transaction this statement fails too, and must not hide that error.
            with suppress(duckdb.TransactionException):
                self.connection.execute("set disabled_optimizers = ''")


@dataclass(frozen=True)
class DuckDBEngine:
    """The DuckDB file that holds every table; see ``port.Engine``."""

    path: Path
    lock_wait_seconds: float
    memory_limit: str | None = None

    @property
    def place(self) -> str:
        return str(self.path)

    def exists(self) -> bool:
        return self.path.exists()

    def marker(self) -> str | None:
        return _marker(self.path) if self.exists() else None

    @property
    def dbt_environment(self) -> Mapping[str, str]:
        return {"STITCH_DUCKDB_PATH": str(self.path)}

    @property
    def catalog(self) -> str:
        return self.path.stem

    @contextmanager
    def open(self, *, read_only: bool = False) -> Iterator[Warehouse]:
        if read_only:
            self._must_exist()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise WarehouseError(
                f"The warehouse's directory '{self.path.parent}' cannot be created ({error.strerror}): "
                "set STITCH_DUCKDB_PATH to a place you may write."
            ) from None
        connection = self._wait_for(lambda: duckdb.connect(str(self.path), read_only=read_only))
        try:
            self._prepare(connection)
            yield DuckDBWarehouse(connection)
        finally:
            connection.close()

    @contextmanager
    def trial(self, replaced: Mapping[str, str], views: Sequence[str]) -> Iterator[tuple[DuckDBEngine, Warehouse]]:
        self._must_exist()
        # A file and not memory, because dbt opens it too and needs a path.
        with TemporaryDirectory(prefix="stitch-trial-") as directory:
            scratch = DuckDBEngine(Path(directory) / "trial.duckdb", self.lock_wait_seconds, self.memory_limit)
            with scratch.open() as warehouse:
                attach = f"attach {literal(str(self.path))} as {STORED} (read_only)"
                self._wait_for(lambda: warehouse.execute(attach))
                warehouse.execute("create schema stitch")
                tables = warehouse.rows(
                    "select table_name from duckdb_tables() where database_name = $stored and schema_name = 'stitch'",
                    stored=STORED,
                )
                for (table,) in tables:
                    query = replaced.get(table, f"select * from {STORED}.stitch.{identifier(table)}")
                    # Replacements are tables: a view would run its query again for each reference.
                    kind = "table" if table in replaced else "view"
                    warehouse.execute(f"create {kind} stitch.{identifier(table)} as {query}")
                for view in views:
                    # DuckDB stores a view's query without the catalog, so here it resolves to the trial's tables.
                    ((query,),) = warehouse.rows(
                        "select sql from duckdb_views() where database_name = $stored and schema_name = 'stitch' "
                        "and view_name = $view",
                        stored=STORED,
                        view=view,
                    )
                    warehouse.execute(query)
                yield scratch, warehouse

    def _must_exist(self) -> None:
        if not self.exists():
            raise WarehouseError(f"There is no warehouse at '{self.path}' yet: materialize something, or run `settle`.")

    def _prepare(self, connection: duckdb.DuckDBPyConnection) -> None:
        # Input times carry an offset or are UTC; the session's zone must not depend on the machine's.
        connection.execute("set TimeZone = 'UTC'")
        # Where DuckDB 2.0 expects fewer rows than this threshold, it runs an ASOF join as a nested loop, and behind
        # several conditions it expects almost none: 24 seconds instead of half a second for 57,000 links. Global, so it
        # applies to the whole process.
        connection.execute("set global asof_loop_join_threshold = 0")
        if self.memory_limit is not None:
            # Applies to the whole process, dbt's own connection included.
            connection.execute(f"set memory_limit = {literal(self.memory_limit)}")

    def _wait_for(self, open_file: Callable[[], _T]) -> _T:
        deadline = time.monotonic() + self.lock_wait_seconds
        while True:
            try:
                return open_file()
            except duckdb.IOException as error:
                if "lock" not in str(error):
                    raise WarehouseError(
                        f"The warehouse '{self.path}' cannot be opened: {_first_line(error)} "
                        "Set STITCH_DUCKDB_PATH to a DuckDB file you may write, or to one that does not exist yet."
                    ) from None
                if time.monotonic() >= deadline:
                    raise WarehouseBusy(
                        f"The warehouse '{self.path}' is in use by {_holder(error)} and was not released within "
                        f"{self.lock_wait_seconds:g} seconds: wait for that process or end it, or raise "
                        "STITCH_LOCK_WAIT_SECONDS."
                    ) from None
                time.sleep(_RETRY_SECONDS)


def _marker(path: Path) -> str:
    """Sizes and times of the file and of its write-ahead log: they change with every commit."""
    parts = []
    for file in (path, path.with_name(path.name + ".wal")):
        with suppress(FileNotFoundError):
            stat = file.stat()
            parts.append(f"{stat.st_size}-{stat.st_mtime_ns}")
    return " ".join(parts)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0].rstrip(".") + "."


def _holder(error: Exception) -> str:
    found = re.search(r"held in (?P<program>\S+) \(PID (?P<pid>\d+)\)", str(error))
    return f"{found['program']} (process {found['pid']})" if found else "another process"
