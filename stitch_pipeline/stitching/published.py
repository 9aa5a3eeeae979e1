"""Read the tables while a run writes, without waiting and without a lock.

With DuckDB that is the published copy (``stitching.publish``). A PostgreSQL database is read itself.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import date
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from stitch_pipeline.planning.sql_text import identifier, literal
from stitch_pipeline.settings import Settings
from stitch_pipeline.stitching.publish import COLUMNS_FILE, DAY_COLUMNS, TABLES, VIEWS, WHOLE_FILE
from stitch_pipeline.warehouse.engine import engine_of
from stitch_pipeline.warehouse.port import Row, Warehouse, WarehouseError
from stitch_pipeline.warehouse.published import QueryFailed, files_sql, open_files, open_views

if TYPE_CHECKING:
    from pandas import DataFrame

_DAY_COLUMNS_OF_VIEWS = {"stitched_events": "event_date", "page_views_live": "event_date"}


class NotPublished(WarehouseError):
    """The published copy does not have what was asked for; the message says why and what to do."""


def read_copy(
    copy: Path,
    table: str,
    *,
    since: date | str | None,
    until: date | str | None,
    columns: Collection[str] | None,
) -> DataFrame:
    """``stitch_pipeline.read`` of the copy in this directory. Raises NotPublished."""
    first, last = _day(since, "since"), _day(until, "until")
    bounds = _bounds(table, first, last)
    if not (copy / "views.duckdb").exists():
        raise NotPublished(_nothing_in(copy))
    if table in TABLES:
        with open_files() as reader:
            return _frame(reader, files_sql(_files(copy / table, first, last)), columns, [])
    with open_views(copy) as reader:
        return _frame(reader, identifier(table), columns, bounds)


def read_database(
    settings: Settings,
    table: str,
    *,
    since: date | str | None,
    until: date | str | None,
    columns: Collection[str] | None,
) -> DataFrame:
    """``stitch_pipeline.read`` of a warehouse that is a server's. Raises NotPublished, and as ``Engine.open`` does."""
    bounds = _bounds(table, _day(since, "since"), _day(until, "until"))
    with opened_database(settings) as reader:
        return _frame(reader, identifier(table), columns, bounds)


def _bounds(table: str, first: date | None, last: date | None) -> list[str]:
    """Conditions on the day of a published table or view. Raises NotPublished if it is none, or has no day."""
    day_column = {**DAY_COLUMNS, **_DAY_COLUMNS_OF_VIEWS}.get(table)
    if table not in (*TABLES, *VIEWS):
        raise NotPublished(f"'{table}' is not published{_nearest(table, (*TABLES, *VIEWS))}")
    if day_column is None and (first or last):
        raise NotPublished(f"'{table}' is not by day: leave out since and until, and filter what is returned.")
    return [
        f"{day_column} {sign} cast({literal(day.isoformat())} as date)"
        for sign, day in ((">=", first), ("<=", last))
        if day is not None
    ]


class Reader(Protocol):
    """What answers queries."""

    @property
    def tables(self) -> list[str]:
        """The tables and views, by name."""

    def columns(self, relation: str) -> list[str]:
        """The columns of what can follow ``from``. Raises QueryFailed."""

    def result(self, sql: str) -> tuple[list[str], Iterator[Row]]:
        """The names of the query's columns, and its rows. Raises QueryFailed."""

    def frame(self, sql: str) -> DataFrame:
        """The rows of the query. Raises QueryFailed."""


class _DatabaseReader:
    """The tables of a warehouse that is a server's."""

    def __init__(self, warehouse: Warehouse) -> None:
        self._warehouse = warehouse

    @property
    def tables(self) -> list[str]:
        return sorted((*TABLES, *VIEWS))

    def columns(self, relation: str) -> list[str]:
        return self.result(f"select * from {relation} limit 0")[0]

    def result(self, sql: str) -> tuple[list[str], Iterator[Row]]:
        try:
            names, rows = self._warehouse.result(sql)
        except WarehouseError:
            raise
        except Exception as error:  # the engine's own
            raise QueryFailed(str(error)) from None
        return names, iter(rows)

    def frame(self, sql: str) -> DataFrame:
        from pandas import DataFrame

        names, rows = self.result(sql)
        return DataFrame(list(rows), columns=names)


@contextmanager
def opened_database(settings: Settings) -> Iterator[Reader]:
    """The tables of a warehouse that is a server's, for reading only. Raises as ``Engine.open`` does."""
    with engine_of(settings).open(read_only=True) as warehouse:
        yield _DatabaseReader(warehouse)


@contextmanager
def opened_for_reading(settings: Settings) -> Iterator[Reader]:
    """Where a deployment's tables can be queried. Raises NotPublished, and as ``Engine.open`` does."""
    with opened_database(settings) if settings.warehouse else opened(published_directory(settings)) as reader:
        yield reader


@contextmanager
def opened(directory: Path) -> Iterator[Reader]:
    """A DuckDB in memory with the published tables and views. Raises NotPublished if there are none."""
    try:
        with open_views(directory) as reader:
            yield reader
    except FileNotFoundError:
        raise NotPublished(_nothing_in(directory)) from None


def query(reader: Reader, sql: str) -> tuple[list[str], Iterator[Row]]:
    """The names of the query's columns, and its rows. Raises NotPublished if the query is wrong."""
    try:
        return reader.result(sql)
    except QueryFailed as error:
        message = str(error)
        if message.startswith("Catalog Error: Table"):
            message += f"\nPublished are: {', '.join(reader.tables)}."
        raise NotPublished(f"The query cannot be run. {message}") from None


def published_directory(settings: Settings) -> Path:
    """Where the published copy is. Raises NotPublished if publishing is off."""
    if settings.publishes_to is None:
        raise NotPublished(
            "Nothing is published, because STITCH_PUBLISHED_DIR is 'off': unset it or set it to a directory, and the "
            "next run publishes every table."
        )
    return settings.publishes_to


def _frame(reader: Reader, source: str, columns: Collection[str] | None, conditions: Collection[str]) -> DataFrame:
    try:
        known = reader.columns(source)
        for column in columns or ():
            if column not in known:
                raise NotPublished(f"There is no column '{column}'{_nearest(column, known)}")
        listed = ", ".join(map(identifier, columns or known))
        where = f" where {' and '.join(conditions)}" if conditions else ""
        return reader.frame(f"select {listed} from {source}{where}")
    except QueryFailed as error:
        raise NotPublished(f"The published copy cannot be read. {error}") from None


def _files(directory: Path, first: date | None, last: date | None) -> list[Path]:
    """The files of a table, the one without rows included, so that there is always one."""
    files = [directory / COLUMNS_FILE]
    if (whole := directory / WHOLE_FILE).exists():
        return [*files, whole]
    # The names sort as their days do.
    lowest, highest = (day.isoformat() if day else None for day in (first, last))
    return files + [
        path
        for path in sorted(directory.glob("????-??-??.parquet"))
        if (lowest is None or path.stem >= lowest) and (highest is None or path.stem <= highest)
    ]


def _day(value: date | str | None, name: str) -> date | None:
    if not isinstance(value, str):
        return value
    try:
        return date.fromisoformat(value)
    except ValueError:
        raise NotPublished(f"{name}={value!r} is not a day: write it as '2025-01-31', or give a date.") from None


def _nearest(name: str, known: Collection[str]) -> str:
    found = get_close_matches(name, known, n=1)
    return (f"; did you mean '{found[0]}'?" if found else ".") + f" There are: {', '.join(known)}."


def _nothing_in(directory: Path) -> str:
    return (
        f"Nothing is published in '{directory}' yet: run `stitch settle` or materialize something, or set "
        "STITCH_PUBLISHED_DIR (or STITCH_DUCKDB_PATH, beside which it is by default) to that of the deployment."
    )
