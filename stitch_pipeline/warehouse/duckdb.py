"""DuckDB: one file, one writer at a time, bounded waiting, and a lock that is always released.

While one process has a DuckDB file open read-write, no other process can open it, not even read-only. So opening waits
a bounded time, and then fails with the name of the process that has it open.
"""

from __future__ import annotations

import fcntl
import os
import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import duckdb

from stitch_pipeline.planning.functions import DuckDBFunctions
from stitch_pipeline.planning.interruption import closing, interruptible
from stitch_pipeline.planning.sql_text import file_pattern, identifier, literal, literals
from stitch_pipeline.settings.errors import SettingsError
from stitch_pipeline.settings.folder import prepare_folder
from stitch_pipeline.warehouse.port import (
    Dialect,
    EventBatch,
    Row,
    Warehouse,
    WarehouseBusy,
    WarehouseDamaged,
    WarehouseError,
    WarehouseFull,
)

if TYPE_CHECKING:
    from pandas import DataFrame

_RETRY_SECONDS = 0.1
_SCHEMA = "stitch"
# The catalog of the warehouse itself in a trial.
_STORED = "stored"
# By itself, DuckDB 2.0 writes files that DuckDB 1.5 cannot open. The version is a property of the file, so no later
# connection has to state it. Before 1.4, DuckDB would replay the write-ahead log of another database without a word.
_STORAGE_VERSION = "v1.4.0"
_LOCKED = "Could not set lock on file"
# "File too large" is the limit of a process (ulimit -f).
_FULL = re.compile(r"No space left on device|Disk quota exceeded|File too large|failed to offload data block")
_DAMAGED = re.compile(
    r"Corrupt (database|WAL) file|Failure while replaying WAL|not a valid DuckDB database|Could not read enough bytes"
    # What DuckDB says of an SQLite file, without and with its extension for these.
    r"|sqlite_scanner|SQLite databases do not support"
)
_OTHER_VERSION = re.compile(r"Trying to read a database file with version number")
_REBUILD = (
    "Run `stitch rebuild`: it keeps this file aside and builds every table from the landing zone, which is not touched"
)
_T = TypeVar("_T")


@dataclass(frozen=True)
class DuckDBDialect(DuckDBFunctions):
    row_id: str = "rowid"
    hash_type: str = "ubigint"

    def hash_of(self, *columns: str) -> str:
        return f"hash({', '.join(columns)})"

    def is_one_of(self, value: str, query: str) -> str:
        return f"{value} in ({query})"

    def stored(self, table: str) -> str:
        return f"{_STORED}.{_SCHEMA}.{identifier(table)}"

    def declared(self, definition: str) -> str:
        return definition

    def indexes(self, table: str, columns: Collection[str]) -> Sequence[str]:
        return ()

    def json_values(self, document: str) -> str:
        return f"unnest(try(json_extract_string({document}, '$..*')))"


class DuckDBWarehouse:
    """An open DuckDB database; see ``port.Warehouse``."""

    dialect: Dialect = DuckDBDialect()

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self.connection = connection

    @interruptible()
    def execute(self, sql: str, **parameters: Any) -> None:
        self.connection.execute(sql, parameters or None)

    @interruptible()
    def rows(self, sql: str, **parameters: Any) -> list[Row]:
        return self.connection.execute(sql, parameters or None).fetchall()

    @interruptible()
    def result(self, sql: str, **parameters: Any) -> tuple[list[str], list[Row]]:
        found = self.connection.execute(sql, parameters or None)
        return [column[0] for column in found.description], found.fetchall()

    def records(self, sql: str, **parameters: Any) -> list[dict[str, Any]]:
        names, rows = self.result(sql, **parameters)
        return [dict(zip(names, row, strict=True)) for row in rows]

    @contextmanager
    def transaction(self) -> Iterator[None]:
        self.connection.begin()
        try:
            yield
            self.connection.commit()
        except BaseException:
            # After a fatal error, such as a full disk, there is no transaction, and that must not hide the error.
            with suppress(duckdb.Error):
                self.connection.rollback()
            raise

    def create_schema(self) -> None:
        self.connection.execute(f"create schema if not exists {_SCHEMA}")
        self.connection.execute(f"set schema = '{_SCHEMA}'")

    def index_rows(self, tables: Mapping[str, Collection[str]]) -> None:
        """Nothing: DuckDB reads the columns that it needs, and skips row groups that cannot hold the value."""

    def finds_events(self) -> bool:
        return False

    @interruptible()
    def create_temporary(self, name: str, definition: str) -> None:
        self.connection.execute(f"create or replace temp table {name} {definition}")

    @interruptible()
    def insert_rows(self, table: str, rows: Iterable[Sequence[object]]) -> None:
        rows = list(rows)
        # A list per column: with a parameter per value, 30,000 rows took thirteen times as long.
        for start in range(0, len(rows), 10_000):
            columns = [list(values) for values in zip(*rows[start : start + 10_000], strict=True)]
            self.connection.execute(f"insert into {table} select {', '.join(['unnest(?)'] * len(columns))}", columns)

    @interruptible()
    def insert_frame(self, table: str, frame: DataFrame) -> None:
        self.connection.register("frame_to_insert", frame)
        self.connection.execute(f"insert into {table} by name select * from frame_to_insert")
        self.connection.unregister("frame_to_insert")

    @interruptible()
    def marker(self) -> str:
        # Closing the file would write the rest, and so change the marker.
        self.connection.execute("checkpoint")
        ((path,),) = self.rows("select path from duckdb_databases() where database_name = current_database()")
        return _marker(Path(path))

    def view_queries(self) -> dict[str, str]:
        # DuckDB stores a view's query without the catalog.
        return {
            name: query.rstrip().removesuffix(";")
            for name, query in self.rows(
                "select view_name, sql from duckdb_views() "
                "where database_name = current_database() and schema_name = 'stitch'"
            )
        }

    @interruptible()
    def write_parquet(self, query: str, path: Path) -> None:
        try:
            # Bloom filters would cost a sixth more.
            self.connection.execute(
                f"copy ({query}) to {literal(str(path))} (format parquet, compression snappy, write_bloom_filter false)"
            )
        except duckdb.Error as error:
            # Any other message may quote a value.
            is_about_files = isinstance(error, duckdb.IOException)
            raise OSError(_first_line(str(error)) if is_about_files else type(error).__name__) from None

    def parquet_rows(self, directory: Path) -> Mapping[str, int | None]:
        def counted(paths: Iterable[Path]) -> dict[str, int | None]:
            files = literals(file_pattern(path) for path in paths)
            found = self.rows(f"select file_name, num_rows from parquet_file_metadata([{files}])")
            return {Path(name).name: rows for name, rows in found}

        paths = sorted(directory.glob("*.parquet"))
        try:
            return counted(paths) if paths else {}
        except duckdb.Error:  # of one of them
            rows: dict[str, int | None] = {}
            for path in paths:
                try:
                    rows |= counted([path])
                except duckdb.Error:
                    rows[path.name] = None
            return rows

    @interruptible()
    def load_events(self, batch: EventBatch) -> None:
        # Otherwise DuckDB copies the parsing of JSON into each filter above it, and parses every line two or three
        # times.
        self.connection.execute("set disabled_optimizers = 'filter_pushdown'")
        try:
            if batch.forgets:
                self._load_what_is_not_forgotten(batch)
            else:
                self.connection.execute(f"insert into raw_events by name {batch.events_sql}", batch.parameters or None)
        finally:
            # After an error within a transaction this statement fails too, and must not hide that error.
            with suppress(duckdb.TransactionException):
                self.connection.execute("set disabled_optimizers = ''")
                for table in batch.scratch_tables:
                    self.connection.execute(f"drop table if exists {table}")

    def _load_what_is_not_forgotten(self, batch: EventBatch) -> None:
        # Kept in between, because parsing the files twice would take twice as long. No forgotten id is in these rows.
        self.connection.execute(f"create or replace temp table landed as {batch.events_sql}", batch.parameters or None)
        self.connection.execute(
            "insert into raw_events by name "
            "select * exclude (is_forgotten, id_kind, id) from temp.landed where not is_forgotten"
        )
        self.connection.execute(
            "insert into forgotten_events by name "
            "select project_id, event_id, event_date, occurred_at, event_type, anonymous_id, user_id, id_kind, id, "
            "landing_file from temp.landed where is_forgotten"
        )
        self.connection.execute("drop table temp.landed")


@dataclass(frozen=True)
class DuckDBEngine:
    """The DuckDB file that holds every table; see ``port.Engine``."""

    path: Path
    lock_wait_seconds: float
    memory_limit: str | None = None
    dialect: ClassVar[Dialect] = DuckDBDialect()
    dbt_target: ClassVar[str] = "duckdb"
    schema: ClassVar[str] = _SCHEMA

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

    @property
    def database(self) -> str:
        return self.catalog

    @contextmanager
    def open(self, *, read_only: bool = False) -> Iterator[Warehouse]:
        if read_only:
            self._must_exist()
        self._refuse_wrong_file()
        if not read_only:
            self._create_if_missing()
        with closing(self._wait_for(lambda: duckdb.connect(str(self.path), read_only=read_only))) as connection:
            try:
                self._prepare(connection)
                # A file without the schema is no warehouse yet: reading it says which table is missing.
                with suppress(duckdb.CatalogException):
                    connection.execute(f"set schema = '{_SCHEMA}'")
                yield DuckDBWarehouse(connection)
            except duckdb.Error as error:
                problem = self.problem(str(error))
                if problem is None:
                    raise
                raise problem from error

    def problem(self, message: str) -> WarehouseError | None:
        if _FULL.search(message):
            place = _file_of(message) or self.path
            where = "for the temporary files" if "offload" in message else f"to write '{place}'"
            return WarehouseFull(
                f"There is no room left {where} of the warehouse '{self.path}' (on the disk, or below a limit of the "
                "process): free some space there. What was committed before is safe, and the next run goes on from it."
            )
        if _DAMAGED.search(message):
            what = "write-ahead log" if "WAL" in message else "file"
            return WarehouseDamaged(
                f"The {what} of the warehouse '{self.path}' is damaged, or not a warehouse's: {_first_line(message)} "
                f"{_REBUILD}. Or restore a copy of your own ('{self.path.name}', with its '{self._log.name}' if it "
                "has one), or set STITCH_DUCKDB_PATH to the file that is meant."
            )
        if _OTHER_VERSION.search(message):
            return WarehouseDamaged(
                f"Another version of DuckDB wrote the warehouse '{self.path}', and DuckDB {duckdb.__version__} cannot "
                f"read it: {_first_line(message)} Install that version, or start anew. {_REBUILD}."
            )
        return None

    def set_aside(self, suffix: str) -> DuckDBEngine:
        self._must_exist()
        kept = replace(self, path=self.path.with_name(self.path.name + suffix))
        # Whoever has the file open holds this lock, also where DuckDB could not open it.
        with self._creating(), self.path.open("r+b") as file:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise WarehouseBusy(
                    f"The warehouse '{self.path}' is in use by another process: wait for it or end it."
                ) from None
            if self._log.exists():
                self._log.rename(kept._log)
            self.path.rename(kept.path)
        if kept._log.exists():
            try:
                with kept.open(read_only=True):
                    pass
            except WarehouseDamaged:
                # Without a log that does not fit, the file can be read as of its last checkpoint.
                kept._log.rename(kept._log.with_name(kept._log.name + ".damaged"))
        return kept

    def rewrite(self) -> None:
        self._must_exist()
        with self.open() as warehouse:
            warehouse.execute("force checkpoint")
        aside = self.path.with_name(f"{self.path.name}.rewritten")
        aside.unlink(missing_ok=True)
        # Read-only, so that closing the old file touches no log of the new one. Others that write wait meanwhile.
        with self._scratch() as connection:
            self._wait_for(lambda: connection.execute(f"attach {literal(str(self.path))} as old_file (read_only)"))
            if self._log.exists():
                raise WarehouseBusy(f"The warehouse '{self.path}' was written to in between: try again.")
            connection.execute(
                f"attach {literal(str(aside))} as new_file (storage_version {literal(_STORAGE_VERSION)})"
            )
            connection.execute("copy from database old_file to new_file")
            connection.execute("detach new_file")
            aside.chmod(self.path.stat().st_mode)
            aside.replace(self.path)

    @contextmanager
    def _scratch(self) -> Iterator[duckdb.DuckDBPyConnection]:
        with (
            TemporaryDirectory(prefix="stitch-rewrite-") as directory,
            closing(duckdb.connect(config={"temp_directory": directory})) as connection,
        ):
            self._prepare(connection)
            yield connection

    @property
    def _log(self) -> Path:
        return self.path.with_name(self.path.name + ".wal")

    def _create_if_missing(self) -> None:
        """Create the warehouse under another name and rename it, so that an interruption leaves no half file."""
        _prepare_folder(self.path)
        if self.exists():
            return
        with self._creating():
            if self.exists():
                return
            if self._log.exists():
                # Of a warehouse that was deleted: no other can be opened beside it.
                self._log.unlink()
            with TemporaryDirectory(prefix=".new-warehouse-", dir=self.path.parent) as directory:
                new = Path(directory) / self.path.name
                try:
                    with duckdb.connect() as connection:
                        connection.execute(
                            f"attach {literal(str(new))} as new_warehouse (storage_version {literal(_STORAGE_VERSION)})"
                        )
                        connection.execute(f"create schema new_warehouse.{_SCHEMA}")
                        connection.execute("detach new_warehouse")
                except duckdb.Error as error:
                    raise self.problem(str(error)) or WarehouseError(
                        f"The warehouse '{self.path}' cannot be created: {_first_line(str(error))}"
                    ) from error
                new.rename(self.path)

    @contextmanager
    def _creating(self) -> Iterator[None]:
        """Keep other processes from creating the warehouse or setting it aside meanwhile."""
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            os.close(folder)

    def _refuse_wrong_file(self) -> None:
        if self.path.is_dir():
            _prepare_folder(self.path)
        # DuckDB would take it for a new database.
        if self.path.is_file() and self.path.stat().st_size == 0:
            raise WarehouseDamaged(f"The file of the warehouse '{self.path}' is empty (0 bytes). {_REBUILD}.")

    @property
    def files(self) -> list[Path]:
        spilled = self.path.with_name(self.path.name + ".tmp")
        candidates = [self.path, self._log, *sorted(spilled.rglob("*"))]
        return [path for path in candidates if path.is_file()]

    @contextmanager
    def trial(self, replaced: Mapping[str, str], views: Sequence[str]) -> Iterator[tuple[DuckDBEngine, Warehouse]]:
        self._must_exist()
        # A file and not memory, because dbt opens it too and needs a path.
        with TemporaryDirectory(prefix="stitch-trial-") as directory:
            scratch = DuckDBEngine(Path(directory) / "trial.duckdb", self.lock_wait_seconds, self.memory_limit)
            with scratch.open() as warehouse:
                attach = f"attach {literal(str(self.path))} as {_STORED} (read_only)"
                self._wait_for(lambda: warehouse.execute(attach))
                tables = warehouse.rows(
                    "select table_name from duckdb_tables() where database_name = $stored and schema_name = 'stitch'",
                    stored=_STORED,
                )
                for (table,) in tables:
                    query = replaced.get(table, f"select * from {self.dialect.stored(table)}")
                    # Replacements are tables: a view would run its query again for each reference.
                    kind = "table" if table in replaced else "view"
                    warehouse.execute(f"create {kind} {_SCHEMA}.{identifier(table)} as {query}")
                for view in views:
                    # DuckDB stores a view's query without the catalog, so here it resolves to the trial's tables.
                    ((query,),) = warehouse.rows(
                        "select sql from duckdb_views() where database_name = $stored and schema_name = 'stitch' "
                        "and view_name = $view",
                        stored=_STORED,
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
            except duckdb.Error as error:
                message = str(error)
                if _LOCKED not in message:
                    raise self.problem(message) or WarehouseError(
                        f"The warehouse '{self.path}' cannot be opened: {_first_line(message)} "
                        "Set STITCH_DUCKDB_PATH to a DuckDB file you may write, or to one that does not exist yet."
                    ) from None
                if time.monotonic() >= deadline:
                    raise WarehouseBusy(
                        f"The warehouse '{self.path}' is in use by {_holder(message)} and was not released within "
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


def _prepare_folder(path: Path) -> None:
    try:
        prepare_folder(path)
    except SettingsError as error:
        raise WarehouseError(str(error)) from None


def _first_line(message: str) -> str:
    return message.splitlines()[0].rstrip(".!") + "."


def _holder(message: str) -> str:
    found = re.search(r"held in (?P<program>\S+) \(PID (?P<pid>\d+)\)", message)
    return f"{found['program']} (process {found['pid']})" if found else "another process"


def _file_of(message: str) -> str | None:
    found = re.search(r'file "(?P<file>[^"]+)"', message)
    return found["file"] if found else None
