"""Publish the public tables as Parquet, so that readers need neither the warehouse's file nor its lock.

The published copy is a directory: one file per table and UTC day (``stitched_sessions/2025-01-31.parquet``), one file
for a table without days (``users/all.parquet``), and ``views.duckdb`` with a view over each table's files and with the
warehouse's own views over these. ``publish`` runs at the end of every run while the warehouse is still open, so there
is one publisher at a time.

How the copy stays right whatever happens:

- Whatever changes rows of a table adds its days to ``unpublished`` in the same transaction. A run that is killed after
  its commit leaves them there, and the next run publishes them. A day leaves the queue once its file is on the disk.
- Before the first file is written, a new token is stored in the warehouse (``published``) and beside the files
  (``published.json``). If the tokens differ, the queue says nothing about these files: the directory is new or was
  deleted, the warehouse is new or an older copy, or a run died between the two writes. Then every day is queued.
- Removing the token in the warehouse queues every day too. Forgetting an id does so in its own transaction.
- The nightly reconcile queues the days of which the file is missing, unreadable, or has another number of rows. That
  mends what was done to the files by hand.
- A file is written aside and renamed, so a reader gets the day as before or as after. A day that became empty keeps a
  file without rows, because a reader may have listed it already.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from graphlib import TopologicalSorter
from pathlib import Path
from uuid import uuid4

from stitch_pipeline.planning.sql_text import identifier, literal, literals
from stitch_pipeline.settings import Settings
from stitch_pipeline.warehouse import dbt_project
from stitch_pipeline.warehouse.port import PublishingWarehouse, Row, Warehouse
from stitch_pipeline.warehouse.published import VIEWS_FILE, glob_of, write_views_file

DAY_COLUMNS = {
    "raw_events": "event_date",
    "quarantined_events": "quarantine_date",
    "identity_map": "event_date",
    "identifier_links": "event_date",
    "sessions": "session_date",
    "stitched_sessions": "session_date",
    "page_views": "event_date",
    "visitor_stats": "stat_date",
    # Plumbing, which the view `stitched_events` reads.
    "activity_without_device": "event_date",
}
"""The published tables by day, each with the column of the day."""
WHOLE_TABLES = ("users", "persons", "user_mapping_history")
"""The published tables without days, each one file."""
# The published views read these.
# Python writes these anew in every run, so their contents are compared.
_COMPARED = ("conversion_events", "id_limits", "unique_identifiers")
_TABLES_OF_RULES = ("project_settings", "decisions", *_COMPARED)
TABLES = (*DAY_COLUMNS, *WHOLE_TABLES, *_TABLES_OF_RULES)
VIEWS = (
    *("user_mapping", "user_devices", "identity_link", "stitched_events", "page_views_live"),
    *("user_first_touch", "user_conversions", "guard_report", "device_pairs"),
)
"""The published views. The others of the warehouse read its queues or the list of files."""

WHOLE_FILE = "all.parquet"
COLUMNS_FILE = "_columns.parquet"
"""In each table's directory: a file without rows, from which a table without any file has its columns."""
VIEWS_SQL = "views.sql"
_STATE = "published.json"
_ASIDE = ".writing"


class PublishingFailed(Exception):
    """The published copy cannot be written; the message says why and what to do. The next run tries again."""


@dataclass(frozen=True)
class _State:
    """What ``published.json`` says: the token, digests of columns and of the compared tables, and the owner."""

    token: str
    columns: str
    compared: str
    warehouse: str
    """The path of the warehouse that wrote it."""


def note_changed(warehouse: Warehouse, table: str, days_sql: str) -> None:
    """Queue days of a table, the rows of a query with one column. Call it in the transaction that changes them."""
    warehouse.execute(
        f"insert into unpublished select {literal(table)}, day from ({days_sql}) as changed (day) "
        "except select table_name, day from unpublished"
    )


def publish_everything_next(warehouse: Warehouse) -> None:
    """Let the next ``publish`` write every file anew."""
    # The directory stays known: the proof of forgetting searches it, also if nothing is published there any more.
    warehouse.execute("update published set token = ''")


def queue_what_differs(warehouse: Warehouse, settings: Settings) -> None:
    """Queue each file that cannot be read, or has another number of rows than the warehouse. No row is compared."""
    directory = settings.publishes_to
    if directory is None or not isinstance(warehouse, PublishingWarehouse):
        return
    for table in TABLES:
        found = warehouse.parquet_rows(directory / table)
        if found.get(COLUMNS_FILE, 0) != 0:
            publish_everything_next(warehouse)
            return
        differing: list[date | None] = []
        if (column := DAY_COLUMNS.get(table)) is None:
            ((rows,),) = warehouse.rows(f"select count(*) from {table}")
            differing += [None] if found.get(WHOLE_FILE) != rows else []
        else:
            stored: dict[date, int] = dict(warehouse.rows(f"select {column}, count(*) from {table} group by {column}"))
            published = {day: rows for name, rows in found.items() if (day := _day_of(name)) is not None}
            differing += [day for day in {*stored, *published} if published.get(day) != stored.get(day, 0)]
        _queue_days(warehouse, table, differing)


def published_directories(settings: Settings, warehouse: Warehouse | None = None) -> list[Path]:
    """Where a published copy is or may be; the warehouse also knows where it was before the setting changed."""
    stored: list[Row] = []
    if warehouse and warehouse.rows(
        "select 1 from information_schema.tables where table_schema = current_schema() and table_name = 'published'"
    ):
        stored = warehouse.rows("select directory from published")
    found = [*(Path(directory) for (directory,) in stored), settings.publishes_to, settings.default_published_dir]
    return [path for path in dict.fromkeys(found) if path is not None]


def publish(warehouse: Warehouse, settings: Settings) -> int:
    """Bring the published copy up to date with the warehouse; returns the number of files written.

    Does nothing where publishing is off, or before the tables exist. Raises PublishingFailed if the copy cannot be
    written; what was published before stays readable.
    """
    directory = settings.publishes_to
    if directory is None or not isinstance(warehouse, PublishingWarehouse):
        return 0
    columns = _columns_of(warehouse)
    if not {*TABLES, "published", "unpublished"} <= set(columns):
        return 0
    try:
        prepared = _Copy.prepared(directory, settings.duckdb_path)
        before = prepared.state()
        _refuse_a_copy_of_another(before, directory, settings.duckdb_path)
        with prepared as copy:
            return _publish(warehouse, settings.duckdb_path, copy, before, columns)
    except OSError as error:
        raise PublishingFailed(
            f"The published copy in '{directory}' cannot be written ({error}): make room there or make it writable, "
            "or set STITCH_PUBLISHED_DIR to another directory or to 'off'. The warehouse is up to date, readers find "
            "what was published before, and the next run tries again."
        ) from error


def _refuse_a_copy_of_another(before: _State | None, directory: Path, own: Path) -> None:
    """Two warehouses with one directory would replace each other's rows in every run."""
    if before is not None and Path(before.warehouse) != own and Path(before.warehouse).exists():
        raise PublishingFailed(
            f"'{directory}' is the published copy of another warehouse, '{before.warehouse}': give each a "
            "STITCH_PUBLISHED_DIR of its own. Nothing was published."
        )


def _publish(
    warehouse: PublishingWarehouse,
    file: Path,
    copy: _Copy,
    before: _State | None,
    columns: Mapping[str, Sequence[tuple[str, str]]],
) -> int:
    stored = warehouse.rows("select token, directory from published")
    state = _State(
        token=uuid4().hex,
        columns=_digest({table: columns[table] for table in TABLES}),
        compared=_compared(warehouse),
        warehouse=str(file),
    )
    is_known = (
        before is not None
        and stored == [(before.token, str(copy.directory))]
        and before.columns == state.columns
        and all(copy.has(table) for table in TABLES)
    )
    is_changed = before is not None and before.compared != state.compared
    queue = f"select table_name, day from unpublished where table_name in ({literals(TABLES)})"
    files = 0
    if not is_known or is_changed or warehouse.rows(f"{queue} limit 1"):
        with warehouse.transaction():
            if not is_known:
                _queue_everything(warehouse, copy)
            if is_changed:
                for table in _COMPARED:
                    _queue_days(warehouse, table, [None])
            warehouse.execute(f"delete from unpublished where table_name not in ({literals(TABLES)})")
            warehouse.execute("delete from published")
            warehouse.insert_rows("published", [(state.token, str(copy.directory))])
        copy.write_state(state)
        changed: dict[str, list[date | None]] = {}
        for table, day in warehouse.rows(f"{queue} order by table_name, day"):
            changed.setdefault(table, []).append(day)
        for table, days in changed.items():
            if not is_known:
                copy.write(warehouse, table, COLUMNS_FILE, f"select * from {table} limit 0")
            for day in days:
                if day is not None:
                    is_of_day = f"{DAY_COLUMNS[table]} = cast({literal(day.isoformat())} as date)"
                    copy.write(warehouse, table, f"{day}.parquet", f"select * from {table} where {is_of_day}")
                elif table not in DAY_COLUMNS:
                    copy.write(warehouse, table, WHOLE_FILE, f"select * from {table}")
                files += 1
            copy.flush(table)
            warehouse.execute("delete from unpublished where table_name = $table", table=table)
    # Not the text of the views, which DuckDB words otherwise once the warehouse was closed.
    version = _digest([_views_in(warehouse), warehouse.rows("select digest from views_version"), state.columns])
    if not copy.has_views(version):
        copy.write_views(version, _views_sql(warehouse, copy.directory))
    return files


def _views_in(warehouse: Warehouse) -> list[str]:
    return sorted(view for view in warehouse.view_queries() if view in VIEWS)


def _columns_of(warehouse: Warehouse) -> dict[str, list[tuple[str, str]]]:
    columns: dict[str, list[tuple[str, str]]] = {}
    for table, column, kind in warehouse.rows(
        "select table_name, column_name, data_type from information_schema.columns "
        "where table_catalog = current_database() and table_schema = current_schema() "
        "order by table_name, ordinal_position"
    ):
        columns.setdefault(table, []).append((column, kind))
    return columns


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def _compared(warehouse: Warehouse) -> str:
    return _digest([sorted(warehouse.rows(f"select * from {table}")) for table in _COMPARED])


def _queue_everything(warehouse: Warehouse, copy: _Copy) -> None:
    """Queue every day that has a row or a file, and the tables without days."""
    for table, column in DAY_COLUMNS.items():
        note_changed(warehouse, table, f"select distinct {column} from {table}")
        _queue_days(warehouse, table, copy.days(table))
    # Under no day also those by day, because a table without any day gets its file of columns too.
    for table in TABLES:
        _queue_days(warehouse, table, [None])


def _queue_days(warehouse: Warehouse, table: str, days: Collection[date | None]) -> None:
    """Queue these days of a table; None is a table without days as a whole."""
    if days:
        texts = ("null" if day is None else literal(day.isoformat()) for day in days)
        listed = ", ".join(f"(cast({text} as date))" for text in texts)
        note_changed(warehouse, table, f"select * from (values {listed}) as days (day)")


def _views_sql(warehouse: Warehouse, directory: Path) -> str:
    """The statements that create the views, in an order in which they can run."""
    statements = ["create schema stitch"]
    for table in TABLES:
        files = literal(glob_of(directory / table))
        statements.append(
            f"create view stitch.{identifier(table)} as select * from read_parquet({files}, hive_partitioning = false)"
        )
    queries = warehouse.view_queries()
    return "".join(f"{statement};\n" for statement in [*statements, *map(queries.__getitem__, _in_order(queries))])


def _in_order(known: Collection[str]) -> list[str]:
    """The published views that the warehouse has, each after those that it reads."""
    manifest = dbt_project.manifest()
    names = {key: node["name"] for key, node in manifest["nodes"].items()}
    parents = {
        names[key]: {names[parent] for parent in manifest["parent_map"][key] if names.get(parent) in VIEWS}
        for key in names
        if names[key] in VIEWS
    }
    return [view for view in TopologicalSorter(parents).static_order() if view in known]


@dataclass(frozen=True)
class _Copy:
    """The directory of the published copy, open for writing."""

    directory: Path
    file_mode: int

    @classmethod
    def prepared(cls, directory: Path, warehouse_file: Path) -> _Copy:
        """Create the directories that are missing; whoever may read the warehouse may read them."""
        mode = warehouse_file.stat().st_mode & 0o666 if warehouse_file.exists() else 0o644
        if not directory.exists():
            directory.mkdir(parents=True)
            directory.chmod(warehouse_file.parent.stat().st_mode & 0o7777)
        return cls(directory, mode)

    def __enter__(self) -> _Copy:
        # What a run left that died while it wrote.
        shutil.rmtree(self._aside, ignore_errors=True)
        for directory in (self._aside, *(self.directory / table for table in TABLES)):
            if not directory.exists():
                directory.mkdir()
                directory.chmod(self.directory.stat().st_mode & 0o7777)
        return self

    def __exit__(self, *raised: object) -> None:
        shutil.rmtree(self._aside, ignore_errors=True)

    @property
    def _aside(self) -> Path:
        return self.directory / _ASIDE

    def state(self) -> _State | None:
        """What was noted by the last ``write_state``; None if it cannot be read."""
        try:
            return _State(**json.loads((self.directory / _STATE).read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def write_state(self, state: _State) -> None:
        self._write_text(_STATE, json.dumps(vars(state)))
        _flush(self.directory)

    def has(self, table: str) -> bool:
        """Whether the table was published completely at least once."""
        return (self.directory / table / COLUMNS_FILE).exists()

    def days(self, table: str) -> list[date]:
        """The days that have a file."""
        names = (path.name for path in (self.directory / table).glob("*.parquet"))
        return [day for name in names if (day := _day_of(name)) is not None]

    def write(self, warehouse: PublishingWarehouse, table: str, name: str, query: str) -> None:
        """Replace one file by the rows of the query."""
        aside = self._aside / f"{table}-{name}"
        warehouse.write_parquet(query, aside)
        self._put(aside, self.directory / table / name, self.file_mode)

    def flush(self, table: str) -> None:
        """Make sure that the names of the table's new files survive a power failure."""
        _flush(self.directory / table)

    def has_views(self, version: str) -> bool:
        """Whether the file of views and its source are there, of this version and for this directory."""
        source, views = self.directory / VIEWS_SQL, self.directory / VIEWS_FILE
        if not views.exists() or not source.exists():
            return False
        with source.open(encoding="utf-8") as lines:
            return lines.readline() == self._first_line(version)

    def _first_line(self, version: str) -> str:
        return f"-- {_digest([version, str(self.directory)])}\n"

    def write_views(self, version: str, sql: str) -> None:
        """Replace the file of views and its source."""
        views, aside = self.directory / VIEWS_FILE, self._aside / VIEWS_FILE
        write_views_file(aside, sql)
        # Not writable, so that one reader cannot lock out the others.
        self._put(aside, views, self.file_mode & 0o444)
        self._write_text(VIEWS_SQL, self._first_line(version) + sql)
        _flush(self.directory)

    def _write_text(self, name: str, text: str) -> None:
        aside = self._aside / name
        aside.write_text(text, encoding="utf-8")
        self._put(aside, self.directory / name, self.file_mode)

    @staticmethod
    def _put(aside: Path, path: Path, mode: int) -> None:
        aside.chmod(mode)
        _flush(aside)
        aside.replace(path)


def _day_of(name: str) -> date | None:
    """The day that a file is named after; None for a file without a day, or of somebody else."""
    with suppress(ValueError):
        day = date.fromisoformat(name.removesuffix(".parquet"))
        return day if name == f"{day}.parquet" else None
    return None


def _flush(path: Path) -> None:
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
