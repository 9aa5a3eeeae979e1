"""Dagster's SQLite storage with cheaper events, named in ``dagster_home/dagster.yaml``.

Dagster's own class opens the database files anew for every event, twice or three times, and writes a transaction each
time; a run over thirty days records some hundred events. This one keeps a connection per file, and writes the events
of a batch in one transaction per file. The files are the same, so either class can open what the other has written.
``docs/decisions/0006-sqlite-event-storage.md`` has the figures.

It overrides private methods of Dagster's class, because there is no public way. ``CheapSqliteStorage`` is Dagster's
storage unchanged if these methods are not as they were.
"""

from __future__ import annotations

import inspect
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from dagster import DagsterInstance, EventLogEntry
from dagster._core.storage.event_log import SqliteEventLogStorage
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage
from sqlalchemy import create_engine
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.pool import StaticPool

BUSY_TIMEOUT_SECONDS = 60
EVENTS_PER_BATCH = 1_000
_FILES_KEPT_OPEN = 4


class CheapSqliteStorage(DagsterSqliteStorage):
    """Dagster's SQLite storage, with ``KeptConnections`` for the event log. ``base_dir`` is DAGSTER_HOME."""

    def __init__(self, base_dir: str, inst_data: Any = None) -> None:
        super().__init__(base_dir, inst_data=inst_data)
        if is_supported():
            # Dagster sends events in batches only if this is set, and then in every process of the instance.
            os.environ.setdefault("DAGSTER_EVENT_BATCH_SIZE", str(EVENTS_PER_BATCH))
            self._event_log_storage = KeptConnections(self._event_log_storage._base_dir)

    @classmethod
    def from_config_value(cls, inst_data: Any, config_value: Any) -> Self:
        return cls.from_local(inst_data=inst_data, **config_value)


@contextmanager
def instance_at(home: Path) -> Iterator[DagsterInstance]:
    """The instance of a directory other than DAGSTER_HOME, which is set to it meanwhile.

    ``DagsterInstance.from_config`` alone would read the configuration there, and keep the records in DAGSTER_HOME.
    """
    before = os.environ.get("DAGSTER_HOME")
    os.environ["DAGSTER_HOME"] = str(home)
    try:
        with DagsterInstance.from_config(str(home)) as instance:
            yield instance
    finally:
        if before is None:
            del os.environ["DAGSTER_HOME"]
        else:
            os.environ["DAGSTER_HOME"] = before


def is_supported() -> bool:
    """Whether Dagster's class still has the private methods that ``KeptConnections`` overrides and calls."""
    parameters = {
        name: list(inspect.signature(method).parameters)
        for name in ("_connect", "_initdb", "_has_asset_key_col_on_connection", "store_event_batch")
        if (method := getattr(SqliteEventLogStorage, name, None)) is not None
    }
    return parameters == {
        "_connect": ["self", "shard"],
        "_initdb": ["self", "engine", "for_index_shard"],
        "_has_asset_key_col_on_connection": ["self", "conn", "column_name"],
        "store_event_batch": ["self", "events"],
    }


@dataclass
class _KeptFile:
    """An open database file. ``identity`` tells whether the path still leads to that file."""

    engine: Engine
    identity: tuple[int, int]


@dataclass
class _Batch:
    """The transactions of a batch, one per file, in the order in which they began."""

    thread: int
    connections: dict[str, Connection] = field(default_factory=dict)


class KeptConnections(SqliteEventLogStorage):
    """Dagster's event log with one kept connection per database file, for the files that were used last."""

    def __init__(self, base_dir: str, inst_data: Any = None) -> None:
        self._kept: OrderedDict[str, _KeptFile] = OrderedDict()
        self._process = os.getpid()
        self._batch: _Batch | None = None
        self._columns: dict[str, bool] = {}
        super().__init__(base_dir, inst_data=inst_data)

    @contextmanager
    def _connect(self, shard: str) -> Iterator[Connection]:
        batch = self._batch
        if batch is not None and batch.thread == threading.get_ident():
            if shard not in batch.connections:
                batch.connections[shard] = self._engine(shard).connect()
                batch.connections[shard].begin()
            yield batch.connections[shard]
            return
        with self._db_lock, self._engine(shard).connect() as connection, connection.begin():
            yield connection

    def store_event_batch(self, events: Sequence[EventLogEntry]) -> None:
        with self._db_lock:
            batch = self._batch = _Batch(threading.get_ident())
            try:
                for event in events:
                    self.store_event(event)
                for connection in batch.connections.values():
                    connection.commit()
            finally:
                self._batch = None
                for connection in batch.connections.values():
                    connection.close()  # rolls back what is not committed

    def _engine(self, shard: str) -> Engine:
        if self._process != os.getpid():
            # A connection must not be used by a child of the process that opened it, nor closed by it.
            self._kept, self._process = OrderedDict(), os.getpid()
        path = self.path_for_shard(shard)
        kept = self._kept.pop(shard, None)
        if kept is not None and kept.identity != _identity(path):
            kept.engine.dispose()  # the file was deleted or replaced
            self._initialized_dbs.discard(shard)
            kept = None
        if kept is None:
            engine = create_engine(
                self.conn_string_for_shard(shard),
                poolclass=StaticPool,
                connect_args={"timeout": BUSY_TIMEOUT_SECONDS, "check_same_thread": False},
            )
            if shard not in self._initialized_dbs:
                self._initdb(engine)
                self._initialized_dbs.add(shard)
            kept = _KeptFile(engine, _identity(path))
        self._kept[shard] = kept
        while len(self._kept) > _FILES_KEPT_OPEN:
            oldest = next(iter(self._kept))
            if self._batch is not None and oldest in self._batch.connections:
                break
            self._kept.pop(oldest).engine.dispose()
        return kept.engine

    def _has_asset_key_col_on_connection(self, conn: Connection, column_name: str) -> bool:
        # Dagster inspects the table for every asset event. A column that is there stays.
        if not self._columns.get(column_name):
            self._columns[column_name] = super()._has_asset_key_col_on_connection(conn, column_name)
        return self._columns[column_name]

    def wipe(self) -> None:
        self._dispose_kept()
        super().wipe()

    def dispose(self) -> None:
        self._dispose_kept()
        super().dispose()

    def _dispose_kept(self) -> None:
        with self._db_lock:
            if self._process == os.getpid():
                for kept in self._kept.values():
                    kept.engine.dispose()
            self._kept.clear()


def _identity(path: str) -> tuple[int, int]:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return (0, 0)
    return (found.st_dev, found.st_ino)
