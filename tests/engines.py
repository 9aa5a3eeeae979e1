"""The engine that tests run on: DuckDB, or PostgreSQL with ``ENGINE=postgres`` in the environment.

A PostgreSQL server is started when the first test needs it, one for each test process, and stopped at its end.
"""

from __future__ import annotations

import atexit
import itertools
import os
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from stitch_pipeline.demo.postgres_server import PostgresServer, postgres_server

IS_POSTGRES = os.environ.get("ENGINE", "duckdb") == "postgres"

_numbers = itertools.count(1)


@cache
def server() -> PostgresServer:
    stack = ExitStack()
    atexit.register(stack.close)
    directory = Path(mkdtemp(prefix="stitch-postgres-"))
    return stack.enter_context(postgres_server(directory / "data"))


def new_database() -> str:
    """The address of a new, empty database."""
    return server().create_database(f"test{os.getpid()}_{next(_numbers)}")


def engine_settings() -> dict[str, Any]:
    """The settings of a new warehouse on this engine, besides those of every test."""
    return {"warehouse": new_database()} if IS_POSTGRES else {}
