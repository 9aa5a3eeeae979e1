"""Prove that a forgotten id is nowhere in what the project writes: search it all, and certify what was searched.

Deleted rows stay in a database's file until their place is used again, so the files are written anew before the search.
Tables and views are searched with SQL, files byte by byte. The bytes alone would prove nothing about the warehouse,
because DuckDB compresses text.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from stitch_pipeline.landing.extracts import own_files
from stitch_pipeline.landing.index import LandingIndex
from stitch_pipeline.planning.sql_text import identifier, literal
from stitch_pipeline.settings import Settings
from stitch_pipeline.settings.forgotten import ForgottenId
from stitch_pipeline.stitching.forget import (
    READ_AGAIN,
    OwnFile,
    Request,
    checked_value,
    landing_lines,
    listed_and_followed,
    setting_lines,
)
from stitch_pipeline.stitching.publish import published_directories
from stitch_pipeline.warehouse import dbt_project
from stitch_pipeline.warehouse.engine import engine_of
from stitch_pipeline.warehouse.port import Warehouse
from stitch_pipeline.warehouse.published import QueryFailed, open_file_for_search

SHORT = 6
"""An id with fewer characters than this occurs by chance, so it is searched as a whole value only."""
_CHUNK = 16 * 1024 * 1024
_SQLITE_MAGIC = b"SQLite format 3\0"


@dataclass(frozen=True)
class SearchedFile:
    path: Path
    size: int
    sha256: str
    hits: int


@dataclass(frozen=True)
class Certificate:
    """What was searched for an id, and where it was found. It holds the id's keyed hash and never the id."""

    searched_at: str
    project_id: str
    kind: str
    line: ForgottenId | None
    """None if the id is not on the list."""
    is_pending: bool
    """Whether the list is not followed yet, or files with the id are still to be read again."""
    as_whole_value: bool
    tables: Sequence[tuple[str, int, int]]
    """Tables and views, each with its number of rows and of rows with the id."""
    files: Sequence[SearchedFile]
    landing_files: Sequence[OwnFile]
    setting_files: Sequence[OwnFile]

    @property
    def is_clean(self) -> bool:
        """Whether the id is listed, nothing is pending, and it was found in nothing that the project writes."""
        found = any(hits for _, _, hits in self.tables) or any(file.hits for file in self.files)
        return self.line is not None and not self.is_pending and not found

    def lines(self) -> Iterator[str]:
        """The certificate as text."""
        yield f"Certificate of forgetting, {self.searched_at}"
        yield f"project {self.project_id}, kind {self.kind}"
        if self.line is None:
            yield "NOT FORGOTTEN: the id is not on the list of forgotten ids."
        else:
            yield f"keyed hash {self.line.hash}, {self.line.mode}, forgotten at {self.line.forgotten_at}"
        if self.is_pending:
            yield "NOT FINISHED: files are still to be read again. Run `stitch settle`, and prove again."
        how = "as a whole value, because it is short" if self.as_whole_value else "anywhere in a value"
        rows, hits = sum(rows for _, rows, _ in self.tables), sum(hits for _, _, hits in self.tables)
        searched = f"{len(self.tables)} tables, views and published files, {rows:,} rows"
        yield f"searched {searched}, with SQL, {how}: {hits:,} rows hold it"
        yield from (f"  FOUND in {table}: {hits:,} rows" for table, _, hits in self.tables if hits)
        size, hits = sum(file.size for file in self.files), sum(file.hits for file in self.files)
        yield f"searched {len(self.files)} files, {size:,} bytes, byte by byte: {hits:,} times"
        for file in self.files:
            found = f"  FOUND {file.hits:,} times" if file.hits else ""
            yield f"  sha256 {file.sha256}  {file.path}{found}"
        yield "Result: nothing that the project writes holds the id." if self.is_clean else "Result: NOT PROVEN."


def prove(settings: Settings, request: Request, directories: Iterable[Path]) -> Certificate:
    """Write the project's own files anew, and search them and every table for the id.

    ``directories`` are further ones to search, such as Dagster's home; its databases are written anew where the id is
    in them. Raises SettingsError for an id that cannot be forgotten, and WarehouseError as ``Engine.open`` does.
    """
    value = checked_value(settings, request)
    engine = engine_of(settings)
    values = {value, settings.hashing.stored(request.project_id, value)}
    needles = _encodings({*values, request.value})
    as_whole_value = len(value) < SHORT
    tables: list[tuple[str, int, int]] = []
    published = published_directories(settings)
    is_pending = False
    if engine.exists():
        engine.rewrite()
        with engine.open(read_only=True) as warehouse:
            tables = [_search(warehouse, table, columns, values) for table, columns in _columns(warehouse)]
            is_pending = _is_pending(warehouse, settings)
            published = published_directories(settings, warehouse)
            # Here, because no run can publish meanwhile.
            tables += [_search_parquet(path, values) for path in _parquet_files(published)]
    else:
        tables = [_search_parquet(path, values) for path in _parquet_files(published)]
    extracts = own_files(settings)
    tables += [_search_parquet(path, values) for path in extracts if path.suffix == ".parquet"]
    if settings.index_path.exists():
        LandingIndex(settings.index_path).vacuum()
    own = [*engine.files, settings.index_path, settings.settle_lock_path, settings.forgotten_path]
    directories = (*directories, dbt_project.target_dir(), settings.reports_to, *published)
    others = [path for directory in directories for path in sorted(directory.rglob("*"))]
    searched = []
    for path in dict.fromkeys((*own, *extracts, *others)):
        if path.is_file():
            file = _search_bytes(path, needles)
            if file.hits and _vacuumed(path):
                file = _search_bytes(path, needles)
            searched.append(file)
    return Certificate(
        datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        request.project_id,
        request.kind,
        settings.forgotten.find(request.project_id, request.kind, value),
        is_pending,
        as_whole_value,
        tables,
        searched,
        landing_lines(settings, request),
        setting_lines(settings, request),
    )


def _columns(warehouse: Warehouse) -> list[tuple[str, list[str]]]:
    return [
        (f"{identifier(schema)}.{identifier(table)}", columns)
        for schema, table, columns in warehouse.rows(
            "select table_schema, table_name, array_agg(cast(column_name as varchar) order by ordinal_position) "
            "from information_schema.columns "
            "where table_catalog = current_database() and table_schema = current_schema() "
            "group by table_schema, table_name order by table_schema, table_name"
        )
    ]


def _search(warehouse: Warehouse, table: str, columns: Sequence[str], values: set[str]) -> tuple[str, int, int]:
    """The name of a table, its rows, and the rows with the id in any column, as it is or as JSON text has it."""
    texts = [f"cast({identifier(column)} as varchar)" for column in columns]
    conditions = []
    for value in sorted(values):
        in_json = json.dumps(value)
        spellings = {value, in_json[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]}
        if len(value) < SHORT:
            conditions += [f"{text} = {literal(value)} or strpos({text}, {literal(in_json)}) > 0" for text in texts]
        else:
            conditions += [f"strpos({text}, {literal(one)}) > 0" for text in texts for one in sorted(spellings)]
    ((rows, hits),) = warehouse.rows(f"select count(*), count(*) filter (where {' or '.join(conditions)}) from {table}")
    return table.replace('"', ""), rows, hits


def _parquet_files(directories: Iterable[Path]) -> list[Path]:
    """The published files, with those that a run left that died while it wrote."""
    return [path for directory in directories for path in sorted(directory.rglob("*.parquet")) if path.is_file()]


def _search_parquet(path: Path, values: set[str]) -> tuple[str, int, int]:
    """As ``_search``, for one file; its bytes alone would prove nothing. A file that is cut off counts as one hit."""
    try:
        with open_file_for_search(path) as (warehouse, source, columns):
            return str(path), *_search(warehouse, source, columns, values)[1:]
    except QueryFailed:
        return f"{path} (cannot be read; the next run removes or replaces it)", 0, 1


def _is_pending(warehouse: Warehouse, settings: Settings) -> bool:
    if not warehouse.rows(
        "select 1 from information_schema.tables where table_schema = current_schema() and table_name = 'forgotten_ids'"
    ):
        return bool(settings.forgotten.ids)
    listed, followed = listed_and_followed(warehouse, settings)
    waiting = warehouse.rows("select 1 from landing_files where version = $version limit 1", version=READ_AGAIN)
    return listed != followed or bool(waiting)


def _encodings(values: Iterable[str]) -> list[bytes]:
    """The bytes of an id as files may hold it. A short id is searched in quotes, as JSON holds it."""
    needles = set()
    for value in values:
        if len(value) < SHORT:
            needles |= {json.dumps(value).encode(), json.dumps(json.dumps(value))[1:-1].encode()}
            continue
        escaped = json.dumps(value)[1:-1]
        for text in (value, escaped, json.dumps(escaped)[1:-1], quote(value, safe=""), quote(value)):
            needles.add(text.encode())
        needles |= {value.encode("utf-16-le"), value.encode("utf-16-be")}
    return sorted(needles)


def _search_bytes(path: Path, needles: Sequence[bytes]) -> SearchedFile:
    digest, size, hits = hashlib.sha256(), 0, 0
    overlap = max(map(len, needles)) - 1
    kept = b""
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
            window = kept + chunk
            kept = window[-overlap:] if overlap else b""
            # What lies in the overlap as a whole is counted with the next chunk.
            hits += sum(window.count(needle) - kept.count(needle) for needle in needles)
    hits += sum(kept.count(needle) for needle in needles)
    return SearchedFile(path, size, digest.hexdigest(), hits)


def _vacuumed(path: Path) -> bool:
    """Write a SQLite database, or the one of a log, anew; False if the file is neither."""
    path = path.with_name(path.name.removesuffix("-wal"))
    with path.open("rb") as file:
        if file.read(len(_SQLITE_MAGIC)) != _SQLITE_MAGIC:
            return False
    with closing(sqlite3.connect(path, timeout=30, isolation_level=None)) as db:
        db.execute("vacuum")
        db.execute("pragma wal_checkpoint(truncate)")
    return True
