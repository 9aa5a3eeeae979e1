"""Opening the DuckDB file: one writer at a time, bounded waiting, and always letting go of the lock.

While one process holds a DuckDB file read-write no other can open it, not even to read, so every
opening here waits a bounded time and then says which process is in the way.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
from dagster_duckdb import DuckDBResource
from pydantic import Field

from stitch_pipeline.planning.sql_text import identifier, literal
from stitch_pipeline.warehouse.port import WarehouseBusy as WarehouseBusy
from stitch_pipeline.warehouse.port import WarehouseError as WarehouseError

_RETRY_SECONDS = 0.1


def connect(path: Path, *, wait_seconds: float, read_only: bool = False) -> duckdb.DuckDBPyConnection:
    """A connection to the warehouse, created with its directory if it is not there.

    Raises WarehouseBusy after ``wait_seconds`` if another process holds it, and WarehouseError at once
    if the file or its directory cannot be used at all.
    """
    if read_only:
        _must_exist(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WarehouseError(
            f"The warehouse's directory '{path.parent}' cannot be created ({error.strerror}): "
            "set STITCH_DUCKDB_PATH to a place you may write."
        ) from None
    connection = _wait_for(lambda: duckdb.connect(str(path), read_only=read_only), path, wait_seconds)
    _prepare(connection)
    return connection


def connect_beside(path: Path, *, wait_seconds: float, name: str) -> duckdb.DuckDBPyConnection:
    """A connection to an empty database in memory, with the warehouse attached read-only as ``name``.

    What is created or changed is gone with the connection. Raises as ``connect`` does.
    """
    _must_exist(path)
    connection = duckdb.connect()
    attach = f"attach {literal(str(path))} as {identifier(name)} (read_only)"
    try:
        _wait_for(lambda: connection.execute(attach), path, wait_seconds)
    except BaseException:
        connection.close()
        raise
    _prepare(connection)
    return connection


@contextmanager
def transaction(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """What is done within is done as a whole, or not at all if it raises."""
    connection.begin()
    try:
        yield
        connection.commit()
    except BaseException:
        connection.rollback()
        raise


def _must_exist(path: Path) -> None:
    if not path.exists():
        raise WarehouseError(f"There is no warehouse at '{path}' yet: materialize something, or run `settle`.")


def _prepare(connection: duckdb.DuckDBPyConnection) -> None:
    # Inputs carry offsets or mean UTC; the session's zone must not depend on the machine's.
    connection.execute("set TimeZone = 'UTC'")
    # Of the whole process. Where DuckDB 2.0 expects fewer rows than this it compares each with each to join by time,
    # and behind several conditions it expects next to none: 24 seconds instead of half a one for 57,000 links.
    connection.execute("set global asof_loop_join_threshold = 0")


def _wait_for(
    open_file: Callable[[], duckdb.DuckDBPyConnection], path: Path, wait_seconds: float
) -> duckdb.DuckDBPyConnection:
    deadline = time.monotonic() + wait_seconds
    while True:
        try:
            return open_file()
        except duckdb.IOException as error:
            if "lock" not in str(error):
                raise WarehouseError(
                    f"The warehouse '{path}' cannot be opened: {_first_line(error)} "
                    "Set STITCH_DUCKDB_PATH to a DuckDB file you may write, or to one that does not exist yet."
                ) from None
            if time.monotonic() >= deadline:
                raise WarehouseBusy(
                    f"The warehouse '{path}' is in use by {_holder(error)} and was not released within "
                    f"{wait_seconds:g} seconds: wait for that process or end it, or raise "
                    "STITCH_LOCK_WAIT_SECONDS."
                ) from None
            time.sleep(_RETRY_SECONDS)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0].rstrip(".") + "."


def _holder(error: Exception) -> str:
    found = re.search(r"held in (?P<program>\S+) \(PID (?P<pid>\d+)\)", str(error))
    return f"{found['program']} (process {found['pid']})" if found else "another process"


class WarehouseResource(DuckDBResource):
    """The DuckDB file that holds every table. Set it with STITCH_DUCKDB_PATH rather than here."""

    # Replaces DuckDBResource.get_connection, which keeps the file's lock when the body raises and
    # cannot open read-only.

    lock_wait_seconds: float = Field(
        default=60.0, description="How long to wait for another process that has the file open."
    )

    memory_limit: str | None = Field(
        default=None, description="How much memory DuckDB may use, for instance 4GB; by default most of the machine's."
    )

    @property
    def path(self) -> Path:
        return Path(self.database)

    @contextmanager
    def get_connection(self, *, read_only: bool = False) -> Iterator[duckdb.DuckDBPyConnection]:
        connection = connect(self.path, wait_seconds=self.lock_wait_seconds, read_only=read_only)
        try:
            if self.memory_limit is not None:
                # Of the whole process: dbt's own connection to the file is held to it too.
                connection.execute(f"set memory_limit = {literal(self.memory_limit)}")
            yield connection
        finally:
            connection.close()
