"""The engine that tests run on: DuckDB, or PostgreSQL with ``ENGINE=postgres`` in the environment.

A PostgreSQL server is started when the first test needs it, one for each test process, and stopped at its end: the one
of the wheel, or with ``POSTGRES=debian`` the system's.
"""

from __future__ import annotations

import atexit
import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest

from stitch_pipeline.demo.postgres_server import PostgresServer, postgres_server
from stitch_pipeline.settings import Settings
from stitch_pipeline.warehouse.duckdb import DuckDBWarehouse
from stitch_pipeline.warehouse.engine import engine_of
from stitch_pipeline.warehouse.postgres import PostgresWarehouse

IS_POSTGRES = os.environ.get("ENGINE", "duckdb") == "postgres"
OPENED: Any = PostgresWarehouse if IS_POSTGRES else DuckDBWarehouse
"""The class of an open warehouse of this engine, for tests that interrupt one of its methods."""

_HOLD = """
import sys
from pathlib import Path
if sys.argv[1] == "duckdb":
    import duckdb
    opened = duckdb.connect(sys.argv[2])
    print("ready", flush=True)
    sys.stdin.readline()
else:
    from stitch_pipeline.warehouse.postgres import PostgresEngine
    with PostgresEngine(sys.argv[2], sys.argv[3], 0).open() as opened:
        print(opened.rows("select pg_backend_pid()")[0][0], flush=True)
        sys.stdin.readline()
"""


def of_duckdb(what: str) -> pytest.MarkDecorator:
    """A mark for what only DuckDB has: ``pytestmark = of_duckdb("the file")``."""
    return pytest.mark.skipif(IS_POSTGRES, reason=f"of DuckDB: {what}")


_numbers = itertools.count(1)


@cache
def server() -> PostgresServer:
    stack = ExitStack()
    atexit.register(stack.close)
    directory = Path(mkdtemp(prefix="stitch-postgres-"))
    return stack.enter_context(new_server(directory / "data"))


def new_server(directory: Path) -> AbstractContextManager[PostgresServer]:
    """A server of the same kind for one test, with its files in the directory, which must be new."""
    return postgres_server(directory, of_wheel=os.environ.get("POSTGRES", "wheel") == "wheel")


def new_database() -> str:
    """The address of a new, empty database."""
    return server().create_database(f"test{os.getpid()}_{next(_numbers)}")


def engine_settings() -> dict[str, Any]:
    """The settings of a new warehouse on this engine, besides those of every test."""
    return {"warehouse": new_database()} if IS_POSTGRES else {}


def engine_environment() -> dict[str, str]:
    """The variables of a new warehouse on this engine, for commands in a directory of their own."""
    return {"STITCH_WAREHOUSE": new_database()} if IS_POSTGRES else {}


def environment(settings: Settings) -> dict[str, str]:
    """The variables by which a command finds the warehouse of these settings."""
    if settings.warehouse is None:
        return {"STITCH_DUCKDB_PATH": str(settings.duckdb_path)}
    # The index of the landing zone is where the file would be.
    return {
        "STITCH_WAREHOUSE": settings.warehouse.get_secret_value(),
        "STITCH_WAREHOUSE_SCHEMA": settings.warehouse_schema,
        "STITCH_DUCKDB_PATH": str(settings.duckdb_path),
    }


def state(settings: Settings) -> object:
    """What is equal for as long as nothing is written to the warehouse."""
    if settings.warehouse is None:
        return settings.duckdb_path.read_bytes()
    engine = engine_of(settings)
    others = "select 1 from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
    # A connection's last numbers are known once the server has ended it, which is soon after the client did.
    deadline = time.monotonic() + 10
    while True:
        with engine.open(read_only=True) as warehouse:
            if not warehouse.rows(others):
                break
        assert time.monotonic() < deadline, "somebody is still connected"
        time.sleep(0.05)
    return engine.marker()


def backup(settings: Settings) -> Callable[[], None]:
    """Copy the warehouse. What is returned puts the copy in its place, once or more often."""
    if settings.warehouse is None:
        content = settings.duckdb_path.read_bytes()

        def write_again() -> None:
            settings.duckdb_path.write_bytes(content)

        return write_again
    database = settings.warehouse.get_secret_value().rpartition("/")[2]
    copy = f"{database}_{next(_numbers)}"
    server().rows(f"create database {copy} template {database}", "postgres")

    def restore() -> None:
        server().rows(f"drop database {database}", "postgres")
        server().rows(f"create database {database} template {copy}", "postgres")

    return restore


@contextmanager
def held_by_another_process(settings: Settings) -> Iterator[str]:
    """Another process has the warehouse open for writing. Gives the words with which an error names it."""
    if settings.warehouse is None:
        arguments = ["duckdb", str(settings.duckdb_path)]
    else:
        arguments = ["postgres", settings.warehouse.get_secret_value(), settings.warehouse_schema]
    with holder(*arguments) as (process, said):
        yield f"process {process.pid})" if settings.warehouse is None else f"backend {said})"


@contextmanager
def holder(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process that has a warehouse open for writing, and what it printed: see ``_HOLD``."""
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLD, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    said = process.stdout.readline().strip()
    assert said
    try:
        yield process, said
    finally:
        process.kill()
        process.wait()
