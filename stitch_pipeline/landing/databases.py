"""The databases whose tables are feeds: PostgreSQL, and files of DuckDB.

Belongs here: the queries on a table, the writing of its rows into a Parquet file, and a sentence for each way in which
that fails. Does not: which rows are wanted, and what becomes of the file (``landing.extracts``).

Every statement reads. The account needs ``select`` on the table and nothing else.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

import duckdb

from stitch_pipeline.planning.error_text import without_values
from stitch_pipeline.planning.interruption import close, closing
from stitch_pipeline.planning.sql_text import file_pattern, identifier, literal, literals, split_name

Position = datetime | int
"""Where a row stands in a table: its load time (naive, UTC), or its number."""
_FIRST_TIME, _LAST_TIME = datetime(1, 1, 1), datetime(9999, 12, 31)
_FIRST_NUMBER, _LAST_NUMBER = -(2**63), 2**63 - 1
_LINE_BYTES = (10_000_000, 256_000_000)
_NULL = "\\N"


class TableUnreadable(Exception):
    """A table cannot be read now. The message is a sentence with a remedy, without a password or a value."""


@dataclass(frozen=True)
class Column:
    """A column of a table."""

    name: str
    sql: str
    """What to select: a type that files do not have is selected as text or JSON."""
    file_type: str
    """DuckDB's type of the column in a file."""
    orders_as: Literal["timestamptz", "timestamp", "date", "integer"] | None
    """How its values can say where a row stands; None if they cannot."""


@dataclass(frozen=True)
class Order:
    """The column that says where a row stands in its table."""

    name: str
    kind: Literal["timestamptz", "timestamp", "date", "integer"]

    @property
    def is_number(self) -> bool:
        return self.kind == "integer"

    @property
    def first(self) -> Position:
        """No row stands before it; see ``is_outside``."""
        return _FIRST_NUMBER if self.is_number else _FIRST_TIME

    def value(self, function: str = "") -> str:
        """SQL for the position as Python has it, or for an aggregate of it."""
        # Of the column itself: of an expression, PostgreSQL would not take the first one from the index.
        column = f"{function}({identifier(self.name)})"
        if self.kind == "timestamptz":
            return f"({column} at time zone 'UTC')"
        return column if self.is_number else f"({column}::timestamp)"

    def literal(self, position: Position) -> str:
        """SQL for a position, to be compared with the column."""
        if self.is_number:
            return f"({position})::bigint"
        assert isinstance(position, datetime)
        zone = "+00" if self.kind == "timestamptz" else ""
        kind = "timestamptz" if zone else "timestamp"
        # Not `strftime`, which writes the year 1 with one digit.
        return f"{kind} '{position.isoformat(sep=' ')}{zone}'"

    def within(self, start: Position, end: Position) -> str:
        """SQL for whether a row stands from ``start`` up to and without ``end``."""
        column = identifier(self.name)
        return f"{column} >= {self.literal(start)} and {column} < {self.literal(end)}"

    @property
    def is_outside(self) -> str:
        """SQL for whether a row has no position: none is written, or one that no calendar has."""
        column = identifier(self.name)
        if self.is_number:
            return f"{column} is null"
        return f"({column} is null or {column} < {self.literal(_FIRST_TIME)} or {column} >= {self.literal(_LAST_TIME)})"

    def after(self, position: Position) -> Position:
        """The next position there is."""
        return position + 1 if isinstance(position, int) else position + timedelta(microseconds=1)


class Database(ABC):
    """An open database. Every query runs within ``snapshot``, and all queries of one see the same rows."""

    @abstractmethod
    def settled_until(self) -> datetime:
        """Up to which load time no running transaction can still add rows (naive, UTC). Ask it before a snapshot."""

    @abstractmethod
    def snapshot(self) -> Any:
        """A context manager: one read-only transaction."""

    @abstractmethod
    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """The rows of a query."""

    @abstractmethod
    def columns(self, table: str) -> list[Column]:
        """The table's columns in its order. Raises TableUnreadable if there is no such table, or no right to it."""

    @abstractmethod
    def counts(self, table: str, order: Order, bounds: Sequence[Position]) -> dict[int, int]:
        """The rows between each two neighbouring bounds, by the number of the first; only where there are some."""

    @abstractmethod
    def copy(
        self,
        table: str,
        columns: Sequence[Column],
        condition: str,
        scratch: Path,
        target: Path,
        about: Mapping[str, str],
    ) -> None:
        """Write the rows that meet the condition to a Parquet file, with ``about`` as its metadata.

        ``scratch`` is an empty directory for what is needed in between. Memory is bounded, however many rows there are.
        """

    @abstractmethod
    def relation(self, table: str) -> str:
        """SQL for the table, in quotes."""

    _digest = ""
    """SQL for a number that follows from all rows, in any order."""

    def first(self, table: str, order: Order, start: Position, end: Position) -> Position | None:
        """Where the first row of a range stands; None if it has none."""
        ((found,),) = self.rows(
            f"select {order.value('min')} from {self.relation(table)} where {order.within(start, end)}"
        )
        return found  # type: ignore[no-any-return]

    def last(self, table: str, order: Order) -> Position | None:
        """Where the last row stands; None if there is none."""
        ((found,),) = self.rows(f"select {order.value('max')} from {self.relation(table)} where not {order.is_outside}")
        return found  # type: ignore[no-any-return]

    def nth(self, table: str, order: Order, start: Position, end: Position, skipped: int) -> Position | None:
        """Where the row stands that ``skipped`` others of the range precede; None if there are not so many."""
        column = identifier(order.name)
        found = self.rows(
            f"select {order.value()} from {self.relation(table)} where {order.within(start, end)} "
            f"order by {column} limit 1 offset {skipped}"
        )
        return found[0][0] if found else None

    def newest(self, table: str, order: Order, rows: int) -> Position | None:
        """Where the oldest of the newest rows stands; None if the table has no more than ``rows``."""
        found = self.rows(
            f"select {order.value()} from {self.relation(table)} where not {order.is_outside} "
            f"order by {identifier(order.name)} desc limit 1 offset {rows - 1}"
        )
        return found[0][0] if found else None

    def summary(self, table: str, condition: str) -> tuple[int, str]:
        """The number of rows that meet the condition, and a digest of their values."""
        ((count, digest),) = self.rows(
            f"select count(*), {self._digest} from {self.relation(table)} as stored where {condition}"
        )
        return count, str(digest or 0)

    def count(self, table: str, condition: str) -> int:
        ((count,),) = self.rows(f"select count(*) from {self.relation(table)} where {condition}")
        return int(count)


@contextmanager
def opened(address: str, memory_limit: str | None = None) -> Iterator[Database]:
    """The database at a URL, or in a DuckDB file at a path. Raises TableUnreadable, also in the body."""
    if address.startswith(("postgresql://", "postgres://")):
        with _opened_postgres(address, memory_limit) as database:
            yield database
    elif "://" in address:
        raise TableUnreadable(
            "The address of the tables is of no database that can be read: it is postgresql://user:password@host/"
            "database, or the path of a DuckDB file."
        )
    else:
        with _opened_duckdb(Path(address), memory_limit) as database:
            yield database


def _scratch(memory_limit: str | None) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    if memory_limit is not None:
        connection.execute(f"set memory_limit = {literal(memory_limit)}")
    connection.execute("set TimeZone = 'UTC'")
    # Where DuckDB 2.0 expects few rows, it runs an ASOF join as a nested loop: see `warehouse.duckdb`.
    connection.execute("set global asof_loop_join_threshold = 0")
    return connection


def _parquet_options(about: Mapping[str, str]) -> str:
    pairs = ", ".join(f"{identifier(name)}: {literal(value)}" for name, value in about.items())
    return f"(format parquet, compression zstd, kv_metadata {{{pairs}}})"


# --- PostgreSQL -------------------------------------------------------------------------------------------------------

_CONNECT_SECONDS = 10
# `local`, because a pool may give each transaction another connection.
_BEGIN = """
begin isolation level repeatable read read only;
set local timezone = 'UTC';
set local datestyle = 'ISO, YMD';
set local intervalstyle = 'iso_8601';
set local bytea_output = 'hex';
set local extra_float_digits = 1;
set local lock_timeout = '10s';
set local idle_in_transaction_session_timeout = '10min'
"""
_POSTGRES_TYPES = {
    16: "BOOLEAN",
    20: "BIGINT",
    21: "SMALLINT",
    23: "INTEGER",
    26: "BIGINT",
    700: "FLOAT",
    701: "DOUBLE",
    1082: "DATE",
    1114: "TIMESTAMP",
    1184: "TIMESTAMPTZ",
}
_ORDERS: dict[int, Literal["timestamptz", "timestamp", "date", "integer"]] = {
    **dict.fromkeys((20, 21, 23), "integer"),
    1082: "date",
    1114: "timestamp",
    1184: "timestamptz",
}
_NO_RIGHT = "42501"
_NUMERIC = 1700
_DIGITS_OF_A_DECIMAL = 38


@contextmanager
def _opened_postgres(address: str, memory_limit: str | None) -> Iterator[Database]:
    try:
        import psycopg2
    except ImportError:
        raise TableUnreadable(
            "A table of PostgreSQL is a feed, and the client for it is missing: install stitch-pipeline[postgres]."
        ) from None
    try:
        parts = urlsplit(address)
        place = f"{parts.hostname or 'localhost'}:{parts.port or 5432}{parts.path}"
        user = unquote(parts.username or "") or "the default user"
    except ValueError:  # its message quotes the address
        raise TableUnreadable(
            "The address of the tables is none: it is postgresql://user:password@host:5432/database, with signs such "
            "as @ or / in the password written as %40 or %2F."
        ) from None
    try:
        connection = psycopg2.connect(
            address,
            connect_timeout=_CONNECT_SECONDS,
            application_name="stitch_pipeline",
            client_encoding="UTF8",
            keepalives_idle=30,
            keepalives_interval=10,
            keepalives_count=3,
        )
    except psycopg2.Error as error:
        raise TableUnreadable(_not_connected(error, place, user)) from None
    connection.autocommit = True
    database = _Postgres(connection, memory_limit)
    try:
        yield database
    except psycopg2.Error as error:
        raise TableUnreadable(_failed(error, place, user)) from None
    finally:
        with suppress(psycopg2.Error):
            database.close()


def _not_connected(error: Exception, place: str, user: str) -> str:
    text = str(error)
    if "no password supplied" in text or "password authentication failed" in text:
        return f"The database {place} refuses the password of {user}: correct it where the address is kept."
    if "does not exist" in text:
        return f"The database {place} refuses {user}: there is no such database or user. Correct the address."
    if "no pg_hba.conf entry" in text:
        return f"The database {place} refuses {user} from this machine: let it in, in the server's pg_hba.conf."
    if "too many" in text or "remaining connection slots" in text:
        return f"The database {place} has no connection left for {user}: the next look tries again."
    if "starting up" in text or "shutting down" in text or "recovery" in text:
        return f"The database {place} is starting or stopping: the next look tries again."
    if "timeout expired" in text or "timed out" in text:
        return f"The database {place} does not answer within {_CONNECT_SECONDS} seconds: the next look tries again."
    if "could not translate host name" in text:
        return f"The database {place} cannot be found: is the host's name right?"
    if "refused" in text or "No such file" in text:
        return f"The database {place} does not listen: is it running, and are host and port right?"
    return f"The database {place} cannot be reached as {user}: is the address right, and does the server run?"


def _failed(error: Any, place: str, user: str) -> str:
    """A sentence on a statement that failed. ``columns`` has found the table before."""
    code = error.pgcode or ""
    if code == _NO_RIGHT:
        return f"{user} may not read the table at {place}: grant select on it, and usage on its schema."
    if code == "42P01":
        return f"The table is gone from {place}: the next look tries again."
    if code == "42703":
        return f"A column of the table at {place} is gone: the next look tries again."
    if code == "57014":
        return (
            f"A statement took longer than {user} may at {place} (statement_timeout): raise it for this user, index "
            "the column of the load time, or set rows_per_file lower."
        )
    if code == "55P03":
        return f"The table at {place} is locked by somebody who changes it: the next look tries again."
    if not code or code[:2] in ("08", "57", "53"):
        return f"The connection to {place} was lost, or the server has no room: the next look tries again."
    first_line = without_values(str(error).splitlines()[0] if str(error) else "")
    return f"The database {place} cannot answer ({code}: {first_line}): the next look tries again."


class _Postgres(Database):
    _digest = "coalesce(sum(hashtextextended(stored::text, 0)::numeric), 0)"

    def __init__(self, connection: Any, memory_limit: str | None) -> None:
        self._connection = connection
        self._memory_limit = memory_limit
        self._writer: duckdb.DuckDBPyConnection | None = None

    def close(self) -> None:
        if self._writer is not None:
            close(self._writer)
        self._connection.close()

    def settled_until(self) -> datetime:
        # A transaction that has not written yet is left out: an open session of somebody who reads would hold up the
        # feed. What it writes later is found by counting. Prepared transactions belong to no session.
        ((bound,),) = self.rows(
            """
            select least(clock_timestamp(), (
              select min(began) from (
                select xact_start as began from pg_stat_activity
                where datname = current_database() and backend_xid is not null and pid <> pg_backend_pid()
                  and backend_type <> 'autovacuum worker'
                union all
                select prepared from pg_prepared_xacts where database = current_database()
              ) as running
            )) at time zone 'UTC'
            """
        )
        return bound  # type: ignore[no-any-return]

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        self._execute(_BEGIN)
        try:
            yield
        finally:
            with suppress(Exception):  # of a lost connection
                self._execute("rollback")

    def _execute(self, sql: str) -> None:
        with self._connection.cursor() as cursor:
            cursor.execute(sql)

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        with self._connection.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchall()  # type: ignore[no-any-return]

    def relation(self, table: str) -> str:
        return ".".join(map(identifier, split_name(table)))

    def columns(self, table: str) -> list[Column]:
        relation = self.relation(table)
        ((exists,),) = self.rows(f"select to_regclass({literal(relation)}) is not null")
        if not exists:
            raise TableUnreadable(
                f"There is no table {table} in the database: correct its name (upper and lower case count), or grant "
                "usage on its schema and select on it."
            )
        with self._connection.cursor() as cursor:
            try:
                cursor.execute(f"select * from {relation} limit 0")
            except Exception as error:
                if getattr(error, "pgcode", None) != _NO_RIGHT:
                    raise
                raise TableUnreadable(
                    f"The table {table} may not be read: grant select on it, and usage on its schema."
                ) from None
            described = list(cursor.description or ())
        oids = ", ".join(str(one.type_code) for one in described) or "0"
        categories = dict(self.rows(f"select oid::bigint, typcategory::text from pg_type where oid in ({oids})"))
        return [self._column(one, categories.get(one.type_code, "")) for one in described]

    def _column(self, described: Any, category: str) -> Column:
        sql, kind = identifier(described.name), "VARCHAR"
        if category in ("A", "C"):
            sql = f"to_json({sql})"
        elif described.type_code == _NUMERIC:
            precision, scale = described.precision, described.scale
            if precision is not None and 0 < precision <= _DIGITS_OF_A_DECIMAL and 0 <= (scale or 0) <= precision:
                kind = f"DECIMAL({precision}, {scale or 0})"
        else:
            kind = _POSTGRES_TYPES.get(described.type_code, "VARCHAR")
        return Column(described.name, sql, kind, _ORDERS.get(described.type_code))

    def counts(self, table: str, order: Order, bounds: Sequence[Position]) -> dict[int, int]:
        column = identifier(order.name)
        compared = column + {"date": "::timestamp", "integer": "::bigint"}.get(order.kind, "")
        array = ", ".join(map(order.literal, bounds))
        return dict(
            self.rows(
                f"select width_bucket({compared}, array[{array}]) - 1, count(*) from {self.relation(table)} "
                f"where {order.within(bounds[0], bounds[-1])} group by 1"
            )
        )

    def copy(
        self,
        table: str,
        columns: Sequence[Column],
        condition: str,
        scratch: Path,
        target: Path,
        about: Mapping[str, str],
    ) -> None:
        selected = ", ".join(column.sql for column in columns)
        text = scratch / "rows.csv"
        with text.open("wb") as file, self._connection.cursor() as cursor:
            cursor.copy_expert(
                f"copy (select {selected} from {self.relation(table)} where {condition}) to stdout "
                f"(format csv, null '{_NULL}', encoding 'UTF8')",
                file,
            )
        if self._writer is None:
            self._writer = _scratch(self._memory_limit)
        _write_text_as_parquet(self._writer, text, columns, target, about)
        text.unlink()


def _write_text_as_parquet(
    connection: duckdb.DuckDBPyConnection,
    text: Path,
    columns: Sequence[Column],
    target: Path,
    about: Mapping[str, str],
) -> None:
    connection.execute(f"set temp_directory = {literal(str(text.parent))}")
    types = [column.file_type for column in columns]

    def relation(line_bytes: int) -> str:
        names = ", ".join(f"c{number}: 'VARCHAR'" for number in range(len(columns)))
        return (
            f"read_csv([{literal(str(text))}], columns = {{{names}}}, header = false, auto_detect = false, "
            f"delim = ',', quote = '\"', escape = '\"', nullstr = {literal(_NULL)}, allow_quoted_nulls = false, "
            f"max_line_size = {line_bytes}, hive_partitioning = false)"
        )

    def write(line_bytes: int, kinds: Sequence[str]) -> None:
        selected = ", ".join(
            f"cast({_written(f'c{number}', kind)} as {kind}) as {identifier(column.name)}"
            for number, (column, kind) in enumerate(zip(columns, kinds, strict=True))
        )
        connection.execute(
            f"copy (select {selected} from {relation(line_bytes)}) to {literal(str(target))} {_parquet_options(about)}"
        )

    for line_bytes in _LINE_BYTES:
        try:
            try:
                write(line_bytes, types)
            except duckdb.ConversionException:
                write(line_bytes, _types_that_fit(connection, relation(line_bytes), types))
            return
        except duckdb.InvalidInputException:
            if line_bytes == _LINE_BYTES[-1]:
                raise


def _written(column: str, kind: str) -> str:
    # As a date, DuckDB would read "0044-03-15 BC" without the last word.
    return f"{column}::timestamp" if kind == "DATE" else column


def _types_that_fit(connection: duckdb.DuckDBPyConnection, relation: str, types: Sequence[str]) -> list[str]:
    """The types, with text in place of each that some value does not have: times before the year 1, NaN, …."""
    tested = ", ".join(
        f"count(c{number}) - count(try({_written(f'c{number}', kind)}::{kind}))" for number, kind in enumerate(types)
    )
    found = connection.execute(f"select {tested} from {relation}").fetchone() or ()
    return ["VARCHAR" if lost else kind for kind, lost in zip(types, found, strict=True)]


# --- DuckDB -----------------------------------------------------------------------------------------------------------

_WITHOUT_FILE_TYPE = ("HUGEINT", "UHUGEINT", "BIGNUM", "VARINT", "BIT", "UNION", "VARIANT", "TIME WITH TIME ZONE")
_DUCKDB_ORDERS: dict[str, Literal["timestamptz", "timestamp", "date", "integer"]] = {
    "TIMESTAMP WITH TIME ZONE": "timestamptz",
    **dict.fromkeys(("TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS"), "timestamp"),
    "DATE": "date",
    **dict.fromkeys(("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER"), "integer"),
}
_DATABASE = "feed"


@contextmanager
def _opened_duckdb(path: Path, memory_limit: str | None) -> Iterator[Database]:
    if not path.is_file():
        raise TableUnreadable(f"There is no DuckDB file '{path}' with the feed's table: correct its path.")
    with closing(_scratch(memory_limit)) as connection:
        try:
            connection.execute(f"attach {literal(str(path))} as {_DATABASE} (read_only, type duckdb)")
        except duckdb.Error as error:
            if "lock" in str(error) or "attached" in str(error) or "already" in str(error):
                raise TableUnreadable(
                    f"The DuckDB file '{path}' is open in another program: the next look tries again."
                ) from None
            raise TableUnreadable(f"'{path}' cannot be opened as a file of DuckDB: correct the path.") from None
        try:
            yield _DuckDB(connection)
        except duckdb.Error as error:
            if "No space left" in str(error):
                raise
            first_line = without_values(str(error).splitlines()[0])
            raise TableUnreadable(f"The table in '{path}' cannot be read ({first_line}): correct it there.") from None


class _DuckDB(Database):
    _digest = "coalesce(sum(hash(stored)), 0)"

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection

    def settled_until(self) -> datetime:
        # Whoever writes to the file has it for itself.
        return datetime.now(UTC).replace(tzinfo=None)

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        yield

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        return self._connection.execute(sql).fetchall()

    def relation(self, table: str) -> str:
        parts = split_name(table)
        return ".".join(map(identifier, (_DATABASE, *(parts if len(parts) > 1 else ("main", *parts)))))

    def columns(self, table: str) -> list[Column]:
        try:
            described = self.rows(f"describe select * from {self.relation(table)}")
        except duckdb.CatalogException:
            raise TableUnreadable(f"There is no table {table} in the DuckDB file: correct its name.") from None
        return [self._column(name, kind) for name, kind, *_ in described]

    def _column(self, name: str, kind: str) -> Column:
        sql = identifier(name)
        if kind.startswith(_WITHOUT_FILE_TYPE):
            sql = f"{sql}::varchar"
        return Column(name, sql, kind, _DUCKDB_ORDERS.get(kind))

    def counts(self, table: str, order: Order, bounds: Sequence[Position]) -> dict[int, int]:
        column = identifier(order.name)
        rows = ", ".join(f"({number}, {order.literal(bound)})" for number, bound in enumerate(bounds))
        return dict(
            self.rows(
                f"select bounds.number, count(*) from {self.relation(table)} as stored "
                f"asof join (values {rows}) as bounds(number, starts_at) on stored.{column} >= bounds.starts_at "
                f"where {order.within(bounds[0], bounds[-1])} group by 1"
            )
        )

    def copy(
        self,
        table: str,
        columns: Sequence[Column],
        condition: str,
        scratch: Path,
        target: Path,
        about: Mapping[str, str],
    ) -> None:
        self._connection.execute(f"set temp_directory = {literal(str(scratch))}")
        selected = ", ".join(f"{column.sql} as {identifier(column.name)}" for column in columns)
        self._connection.execute(
            f"copy (select {selected} from {self.relation(table)} where {condition}) to {literal(str(target))} "
            f"{_parquet_options(about)}"
        )


def metadata_of(paths: Sequence[Path], key: str) -> dict[Path, dict[str, Any] | None]:
    """By Parquet file, the JSON under a key of its metadata; None for a file that has none or cannot be read."""
    found: dict[Path, dict[str, Any] | None] = dict.fromkeys(paths)
    with duckdb.connect() as connection:

        def read(some: Sequence[Path]) -> None:
            files = literals(file_pattern(path) for path in some)
            for name, text in connection.execute(
                f"select file_name, decode(value) from parquet_kv_metadata([{files}]) where decode(key) = $key",
                {"key": key},
            ).fetchall():
                found[Path(name)] = json.loads(text)

        try:
            if paths:
                read(paths)
        except (duckdb.Error, ValueError):  # of one of them
            for path in paths:
                with suppress(duckdb.Error, ValueError):
                    read([path])
    return found
