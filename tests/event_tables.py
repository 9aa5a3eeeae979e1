"""Tables of events for tests of feeds: the recorded files as tables of DuckDB and of PostgreSQL."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import UUID

import duckdb
import psycopg2

from stitch_pipeline.demo.postgres_server import PostgresServer

_TYPES = {
    "BOOLEAN": "boolean",
    "BIGINT": "bigint",
    "INTEGER": "integer",
    "DOUBLE": "double precision",
    "DATE": "date",
    "TIMESTAMP": "timestamp",
    "TIMESTAMP WITH TIME ZONE": "timestamptz",
    "UUID": "uuid",
    "VARCHAR": "text",
}


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def relation_of(path: Path) -> str:
    """SQL that reads a recorded file with types, as a loader would have made columns of it."""
    if path.suffix == ".parquet":
        return f"select * from read_parquet('{path}')"
    if path.suffix == ".csv":
        return f"select * from read_csv('{path}', header = true, sample_size = -1)"
    return f"select * from read_json('{path}', format = 'newline_delimited', sample_size = -1)"


def make_duckdb_table(database: Path, table: str, path: Path) -> None:
    """A table with the rows of a recorded file. ``table`` may have a schema."""
    with duckdb.connect(str(database)) as connection:
        connection.execute("set TimeZone = 'UTC'")
        if "." in table:
            connection.execute(f"create schema if not exists {table.split('.')[0]}")
        connection.execute(f"create table {table} as {relation_of(path)}")


def make_postgres_table(server: PostgresServer, database: str, table: str, path: Path) -> None:
    """The same in PostgreSQL; what is nested is JSON there."""
    with duckdb.connect() as connection:
        connection.execute("set TimeZone = 'UTC'")
        described = connection.execute(f"describe {relation_of(path)}").fetchall()
        nested = {name for name, kind, *_ in described if kind not in _TYPES}
        selected = ", ".join(f"to_json({quoted(n)})" if n in nested else quoted(n) for n, *_ in described)
        rows = connection.execute(f"select {selected} from ({relation_of(path)})").fetchall()
    schema = f"create schema if not exists {table.split('.')[0]};" if "." in table else ""
    columns = ", ".join(f"{quoted(name)} {_TYPES.get(kind, 'json')}" for name, kind, *_ in described)
    server.rows(f"{schema} create table {table} ({columns})", database)
    insert_rows(server, database, table, rows)


def insert_rows(server: PostgresServer, database: str, table: str, rows: list[tuple[Any, ...]]) -> None:
    client = psycopg2.connect(host="127.0.0.1", port=server.port, user=server.user, dbname=database)
    with closing(client) as connection, connection, connection.cursor() as cursor:
        cursor.execute("set timezone = 'UTC'")
        for row in rows:
            cursor.execute(f"insert into {table} values ({', '.join(['%s'] * len(row))})", [_plain(v) for v in row])


def _plain(value: Any) -> Any:
    if isinstance(value, dict | list):
        return json.dumps(value)
    return str(value) if isinstance(value, UUID) else value


def address(server: PostgresServer, database: str, user: str | None = None) -> str:
    return f"postgresql://{user or server.user}:se-cret@127.0.0.1:{server.port}/{database}"
