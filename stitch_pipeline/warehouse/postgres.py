"""PostgreSQL: a schema of a shared database, one writer at a time, and readers that never wait.

The writer holds an advisory lock of the database for as long as its connection lives, so a client that dies leaves no
lock. dbt has connections of its own, which live within the writer's.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import duckdb
import psycopg2
from psycopg2.errors import CharacterNotInRepertoire, ProgramLimitExceeded
from psycopg2.extensions import PYDATETIME, connection, cursor, new_type, parse_dsn, register_type
from psycopg2.extras import execute_values

from stitch_pipeline.planning.interruption import interruptible
from stitch_pipeline.planning.sql_text import identifier, literal
from stitch_pipeline.warehouse.port import (
    Dialect,
    EventBatch,
    Row,
    Warehouse,
    WarehouseBusy,
    WarehouseError,
    WarehouseFull,
)

if TYPE_CHECKING:
    from pandas import DataFrame

OLDEST_VERSION = 15
_RETRY_SECONDS = 0.2
_CONNECT_SECONDS = 10
_DAYS = frozenset(["event_date", "session_date", "stat_date", "quarantine_date"])
_DEVICES = ("anonymous_id", "previous_id")
_INDEX_OF = "_by_"
# With the project, so that the list of projects is read from the index too.
_FILES = ("landing_file", "project_id")
_EVENTS_BY_FILE, _EVENTS_BY_HASH = f"raw_events{_INDEX_OF}landing_file", f"raw_events{_INDEX_OF}id_hash"
# An entry of an index has 2,704 bytes at most.
_LONGEST_INDEXED = 2600
# For the lifetime of a connection, dbt's included:
# - a table that was just filled looks small to the planner, which then compares all its rows with all of another, or
#   merges by some of the columns that must be equal and compares all rows of a device; a hash join uses all of them;
# - a query of a hundred CTEs takes longer to compile than to run;
# - what a role is limited to for interactive queries must not end a run;
# - the server notices within a second that a client died in the middle of a query.
_OPTIONS = {
    "enable_nestloop": "off",
    "enable_mergejoin": "off",
    "jit": "off",
    "work_mem": "64MB",
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "client_connection_check_interval": "1s",
    "TimeZone": "UTC",
    "client_min_messages": "warning",
}
_PARAMETER = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|%|\$(?P<name>[a-z_]+)""")
_GONE = re.compile(
    r"server closed the connection|connection already closed|terminating connection|could not connect"
    r"|Connection refused|cursor already closed"
    r"|connection to server .* failed|the database system is|could not receive data|SSL connection has been closed"
    r"|Connection timed out|could not translate host name|too many clients|remaining connection slots"
)
_FULL = re.compile(r"No space left on device|could not extend file|Disk quota exceeded|temp_file_limit")
_READ_ONLY = re.compile(r"in a read-only transaction|cannot be executed during recovery|recovery is in progress")
_NO_RIGHTS = re.compile(r"permission denied|must be owner of")
_REFUSED = re.compile(
    r"password authentication failed|no password supplied|no pg_hba.conf entry|role .* does not exist"
)
_NO_DATABASE = re.compile(r"database .* does not exist")
_NUL, _REPLACEMENT = b"\0", "\ufffd".encode()

# Collations that know the letters of every alphabet: DuckDB's own mapping first, from version 17 on.
_LOWER_COLLATIONS = ("pg_c_utf8", "und-x-icu", "C.utf8", "C.UTF-8", "en_US.utf8")
_FUNCTIONS = (
    # Ids are compared byte by byte (collation "C"), and that collation knows no letters but those of English.
    """
    create function lower_text(text varchar) returns varchar
    language sql immutable parallel safe
    return lower(text collate {collation})::varchar collate "C"
    """,
    # A JSON text as a document; null if it is none. Clients write two things that PostgreSQL refuses: the NUL
    # character, which becomes U+FFFD as in `load_events`, and numbers such as NaN, which become texts.
    r"""
    create function json_document(text varchar) returns jsonb
    language plpgsql immutable parallel safe as $body$
    begin
      return text::jsonb;
    exception when data_exception then
      begin
        return string_agg(
          case when part like '"%' then regexp_replace(part, '(?<!\\)((?:\\\\)*)\\u0000', '\1\\ufffd', 'g')
          else regexp_replace(part, '-?(nan|inf(inity)?)', '"\&"', 'gi') end, '' order by place
        )::jsonb
        from regexp_matches(text, '"(?:[^"\\]|\\.)*"|[^"]+', 'g') with ordinality as matches (parts, place),
          unnest(parts) as part;
      exception when data_exception then
        return null;
      end;
    end
    $body$
    """,
    # The value at a path of a JSON text, as text. A text that is no JSON has none, and neither has an object or a list.
    """
    create function json_text(document varchar, path varchar) returns varchar
    language plpgsql immutable parallel safe as $body$
    declare found jsonb;
    begin
      if document is null then return null; end if;
      found := jsonb_path_query_first({schema}.json_document(document), path::jsonpath);
      if jsonb_typeof(found) in ('object', 'array', 'null') then return null; end if;
      return found #>> '{}';
    end
    $body$
    """,
    # Every value that is a text or a number, however deep in a JSON text.
    """
    create function json_values(document varchar) returns setof varchar
    language plpgsql immutable parallel safe as $body$
    begin
      return query select (value #>> '{}')::varchar
      from jsonb_path_query({schema}.json_document(document), '$.**') as value
      where jsonb_typeof(value) in ('string', 'number', 'boolean');
    end
    $body$
    """,
)


def _number(value: str | None, _: object) -> int | float | None:
    """PostgreSQL's ``numeric``, in which sums of whole numbers come, as the number that DuckDB gives."""
    if value is None:
        return None
    return int(value) if value.lstrip("-").isdigit() else float(value)


def _time(value: str | None, cursor: object) -> datetime | str | None:
    """A time, or its text if Python has no such year, as DuckDB gives it."""
    try:
        found: datetime | None = PYDATETIME(value, cursor)
        return found
    except ValueError:
        return value


_NUMERIC = new_type((1700,), "NUMERIC_AS_NUMBER", _number)
_TIMESTAMP = new_type((1114,), "TIMESTAMP_OR_TEXT", _time)


@dataclass(frozen=True)
class PostgresDialect:
    schema: str
    row_id: str = "ctid"
    hash_type: str = "bigint"

    def hash_of(self, *columns: str) -> str:
        return f"hash_record_extended(row({', '.join(columns)}), 0)"

    def is_one_of(self, value: str, query: str) -> str:
        # A list is looked up, while the rows of a subquery are joined with all others.
        return f"{value} = any(array({query}))"

    def stored(self, table: str) -> str:
        return f"{identifier(self.schema)}.{identifier(table)}"

    def declared(self, definition: str) -> str:
        # Ids are equal if their bytes are, and sort by them, whatever the language of the database.
        return re.sub(r"^varchar\b", 'varchar collate "C"', definition)

    def indexes(self, table: str, columns: Collection[str]) -> Sequence[str]:
        # Rows of a day were mostly written together.
        days = [name for name in columns if name in _DAYS]
        return [f"create index on {identifier(table)} using brin ({day}) with (autosummarize = on)" for day in days[:1]]

    def byte_length(self, text: str) -> str:
        return f"octet_length({text})"

    def keyed_hash(self, inner: bytes, outer: bytes, message: str) -> str:
        hashed = f"sha256(decode('{inner.hex()}', 'hex') || convert_to({message}, 'UTF8'))"
        return f"encode(sha256(decode('{outer.hex()}', 'hex') || {hashed}), 'hex')"

    def json_text(self, document: str, path: str) -> str:
        return f"json_text({document}, {literal(path)})"

    def json_values(self, document: str) -> str:
        return f"json_values({document})"

    def lower(self, text: str) -> str:
        return f"lower_text({text})"


class PostgresWarehouse:
    """An open connection to the schema; see ``port.Warehouse``."""

    def __init__(self, opened: connection, schema: str, memory_limit: str | None = None) -> None:
        self.connection = opened
        self.dialect: Dialect = PostgresDialect(schema)
        self._schema = schema
        self._memory_limit = memory_limit

    def execute(self, sql: str, **parameters: Any) -> None:
        with self.connection.cursor() as run:
            _execute(run, sql, parameters)

    def rows(self, sql: str, **parameters: Any) -> list[Row]:
        with self.connection.cursor() as run:
            _execute(run, sql, parameters)
            found: list[Row] = run.fetchall()
            return found

    def result(self, sql: str, **parameters: Any) -> tuple[list[str], list[Row]]:
        with self.connection.cursor() as run:
            _execute(run, sql, parameters)
            names = [column.name for column in run.description or ()]
            return names, run.fetchall() if names else []

    def records(self, sql: str, **parameters: Any) -> list[dict[str, Any]]:
        names, rows = self.result(sql, **parameters)
        return [dict(zip(names, row, strict=True)) for row in rows]

    @contextmanager
    def transaction(self) -> Iterator[None]:
        self.execute("begin")
        try:
            yield
            self.execute("commit")
        except BaseException:
            # If the connection is lost, the server has rolled back, and that must not hide the error.
            with suppress(psycopg2.Error):
                self.execute("rollback")
            raise

    def create_temporary(self, name: str, definition: str) -> None:
        self.execute(f"drop table if exists pg_temp.{name}")
        self.execute(f"create temporary table {name} {definition}")
        self.execute(f"analyze {name}")

    def create_schema(self) -> None:
        schema = identifier(self._schema)
        if not self.rows("select 1 from pg_namespace where nspname = current_schema()"):
            self.execute(f"create schema {schema}")
        known = {
            name
            for (name,) in self.rows("select proname from pg_proc where pronamespace = current_schema()::regnamespace")
        }
        for function in _FUNCTIONS:
            name = re.findall(r"create function (\w+)", function)[0]
            if name not in known:
                self.execute(function.replace("{collation}", self._lower_collation()).replace("{schema}", schema))

    def _lower_collation(self) -> str:
        known = {name for (name,) in self.rows("select collname from pg_collation where collencoding in (-1, 6)")}
        return identifier(next((name for name in _LOWER_COLLATIONS if name in known), "default"))

    def index_rows(self, tables: Mapping[str, Collection[str]]) -> None:
        wanted, known = {}, self._indexes_of_texts()
        for table, columns in tables.items():
            if not _DAYS & set(columns):
                continue  # it is small
            for column in _DEVICES:
                if column in columns:
                    # Few events have a previous id.
                    where = f" where {column} is not null" if column == "previous_id" else ""
                    wanted[f"{table}{_INDEX_OF}{column}"] = f"{table} ({column}){where}"
        wanted[_EVENTS_BY_FILE] = f"raw_events ({', '.join(_FILES)})"
        wanted = {name: index for name, index in wanted.items() if name not in known}
        if wanted and self._has_long_ids():
            wanted.clear()
        if not self.finds_events():
            wanted[_EVENTS_BY_HASH] = f"raw_events (({self.dialect.hash_of('project_id', 'event_id')}))"
        for name, index in sorted(wanted.items()):
            self.execute(f"create index {name} on {index}")
        if _EVENTS_BY_HASH in wanted:
            # Else the planner takes each hash for one of 200, until autovacuum has come by.
            self.execute("analyze raw_events")

    def finds_events(self) -> bool:
        return bool(
            self.rows(
                "select 1 from pg_indexes where schemaname = current_schema() and indexname = $name",
                name=_EVENTS_BY_HASH,
            )
        )

    def _indexes_of_texts(self) -> set[str]:
        rows = self.rows("select indexname, tablename from pg_indexes where schemaname = current_schema()")
        return {
            name
            for name, table in rows
            if name == _EVENTS_BY_FILE or name in {f"{table}{_INDEX_OF}{column}" for column in _DEVICES}
        }

    def _has_long_ids(self) -> bool:
        """Whether an id, or a file's name, is longer than an index holds. Other tables have their ids from events."""
        texts = (*_DEVICES, f"concat({', '.join(_FILES)})")
        is_long = " or ".join(f"octet_length({text}) > {_LONGEST_INDEXED}" for text in texts)
        return bool(self.rows(f"select 1 from raw_events where {is_long} limit 1"))

    def insert_rows(self, table: str, rows: Iterable[Sequence[object]]) -> None:
        with self.connection.cursor() as run:
            execute_values(run, f"insert into {table} values %s", map(tuple, rows), page_size=5000)

    def insert_frame(self, table: str, frame: DataFrame) -> None:
        columns = ", ".join(identifier(name) for name in frame.columns)
        # pandas has several ways to say that a value is missing.
        whole = frame.astype(object).where(frame.notna(), None)
        rows = ([_without_nul(value) for value in row] for row in whole.itertuples(index=False))
        with self.connection.cursor() as run:
            execute_values(run, f"insert into {table} ({columns}) values %s", rows, page_size=1000)

    def view_queries(self) -> dict[str, str]:
        # Without the schema in the names, because it is the one that is searched first.
        return {
            name: f"create view {identifier(name)} as {query.rstrip().removesuffix(';')}"
            for name, query in self.rows(
                "select viewname, definition from pg_views where schemaname = current_schema() order by viewname"
            )
        }

    def marker(self) -> str:
        # Numbers of rows written are known to others once this connection has reported them.
        self.rows("select pg_stat_force_next_flush()")
        return _marker(self)

    def load_events(self, batch: EventBatch) -> None:
        with TemporaryDirectory(prefix="stitch-load-") as directory:
            events, forgotten = Path(directory) / "events.csv", Path(directory) / "forgotten.csv"
            try:
                if batch.forgets:
                    self._parser.execute(
                        f"create or replace temp table landed as {batch.events_sql}", batch.parameters or None
                    )
                    kept = "select * exclude (is_forgotten, id_kind, id) from landed where not is_forgotten"
                    self._write(kept, events)
                    columns = (
                        "project_id, event_id, event_date, occurred_at, event_type, anonymous_id, user_id, id_kind, "
                        "id, landing_file"
                    )
                    self._write(f"select {columns} from landed where is_forgotten", forgotten)
                else:
                    self._write(batch.events_sql, events, batch.parameters)
            finally:
                for table in (*batch.scratch_tables, "landed"):
                    self._parser.execute(f"drop table if exists {table}")
            self._copy("raw_events", events)
            if forgotten.exists():
                self._copy("forgotten_events", forgotten)

    @cached_property
    def _parser(self) -> duckdb.DuckDBPyConnection:
        """DuckDB in memory, which reads files for every engine."""
        parser = duckdb.connect()
        parser.execute("set TimeZone = 'UTC'")
        # See ``DuckDBWarehouse.load_events``.
        parser.execute("set disabled_optimizers = 'filter_pushdown'")
        if self._memory_limit is not None:
            parser.execute(f"set memory_limit = {literal(self._memory_limit)}")
        return parser

    @interruptible()
    def _write(self, query: str, path: Path, parameters: Mapping[str, Any] | None = None) -> None:
        # An empty text is in quotes, and a missing value is not.
        copy = f"copy ({query}) to {literal(str(path))} (format csv, header, delimiter ',')"
        self._parser.execute(copy, parameters or None)

    def _copy(self, table: str, path: Path) -> None:
        with path.open("rb") as lines:
            columns = lines.readline().decode().strip()
            if not lines.read(1):
                return
        copy = f"copy {table} ({columns}) from stdin (format csv, header)"
        self.execute("savepoint before_copy")
        # Looking beforehand for what fails here would cost more.
        while True:
            try:
                self._copy_lines(copy, path)
                return
            except CharacterNotInRepertoire:
                # A text in PostgreSQL holds no NUL character, so it is replaced.
                replaced = path.with_suffix(".text")
                self.execute("rollback to savepoint before_copy")
                with path.open("rb") as lines, replaced.open("wb") as texts:
                    texts.writelines(line.replace(_NUL, _REPLACEMENT) for line in lines)
                path = replaced
            except ProgramLimitExceeded:
                # An id is longer than an index holds. Other tables will get it as well.
                self.execute("rollback to savepoint before_copy")
                if not (known := self._indexes_of_texts()):
                    raise
                self.execute(f"drop index {', '.join(map(identifier, sorted(known)))}")

    def _copy_lines(self, copy: str, path: Path) -> None:
        with path.open("rb") as lines, self.connection.cursor() as run:
            run.copy_expert(copy, lines)


@dataclass(frozen=True)
class PostgresEngine:
    """A schema of a PostgreSQL database; see ``port.Engine``."""

    url: str = field(repr=False)
    """As libpq takes it; what it does not say comes from libpq's own variables (``PGHOST``, ``PGPASSWORD``, …)."""
    schema: str
    lock_wait_seconds: float
    memory_limit: str | None = None
    dbt_target: str = "postgres"

    @property
    def dialect(self) -> Dialect:
        return PostgresDialect(self.schema)

    @property
    def place(self) -> str:
        known = parse_dsn(self.url)
        user = f"{known['user']}@" if "user" in known else ""
        host = known.get("host", "") + (f":{known['port']}" if "port" in known else "")
        return f"postgresql://{user}{host}/{known.get('dbname', '')} schema {self.schema}"

    def exists(self) -> bool:
        with self._connected(read_only=True) as opened:
            return _has_tables(PostgresWarehouse(opened, self.schema))

    def marker(self) -> str | None:
        with self._connected(read_only=True) as opened:
            warehouse = PostgresWarehouse(opened, self.schema)
            return _marker(warehouse) if _has_tables(warehouse) else None

    @cached_property
    def _known(self) -> Mapping[str, str]:
        """Where the server is, and the password, as the client library found them.

        The password may be in the address, a variable, a passfile or a service file. dbt passes on what it is given,
        and for an empty one the library would look in the passfile alone.
        """
        with self._connected(read_only=True) as opened:
            return {**opened.get_dsn_parameters(), "password": opened.info.password or ""}

    @property
    def dbt_environment(self) -> Mapping[str, str]:
        known = self._known
        return {
            "DBT_STITCH_TARGET": self.dbt_target,
            "DBT_STITCH_HOST": known.get("host", ""),
            "DBT_STITCH_PORT": known.get("port", "5432"),
            "DBT_STITCH_USER": known["user"],
            "DBT_STITCH_DATABASE": known["dbname"],
            "DBT_STITCH_SCHEMA": self.schema,
            **({"DBT_ENV_SECRET_STITCH_PASSWORD": known["password"]} if known["password"] else {}),
            **({"PGSSLMODE": known["sslmode"]} if "sslmode" in known else {}),
            "PGOPTIONS": _options(self.schema),
        }

    @property
    def catalog(self) -> str:
        return self._known["dbname"]

    @property
    def database(self) -> str:
        return parse_dsn(self.url).get("dbname") or os.environ.get("PGDATABASE", "postgresql")

    @contextmanager
    def open(self, *, read_only: bool = False) -> Iterator[Warehouse]:
        with self._explained(), self._connected(read_only=read_only) as opened:
            warehouse = PostgresWarehouse(opened, self.schema, self.memory_limit)
            if read_only:
                if not _has_tables(warehouse):
                    raise self._missing()
            else:
                self._wait_for_lock(warehouse, self.schema)
                warehouse.create_schema()
            yield warehouse

    def problem(self, message: str) -> WarehouseError | None:
        where, said = f"The warehouse '{self.place}'", _first_line(message)
        if _FULL.search(message):
            return WarehouseFull(
                f"{where} has no room left on the server ({said}): free some space there. What was committed before is "
                "safe, and the next run goes on from it."
            )
        if _READ_ONLY.search(message):
            return WarehouseError(f"{where} is read-only ({said}): set STITCH_WAREHOUSE to the primary server.")
        if _REFUSED.search(message):
            return WarehouseError(f"{where} refuses the login ({said}): correct user and password in STITCH_WAREHOUSE.")
        if _NO_DATABASE.search(message):
            return WarehouseError(f"{where} does not exist ({said}): create the database, or correct STITCH_WAREHOUSE.")
        if _NO_RIGHTS.search(message):
            return WarehouseError(
                f"{where} does not allow it ({said}): the role must own the schema '{self.schema}' and, for `why` and "
                f"previews, '{self.schema}_trial', or may create them (docs/postgres.md has the grants)."
            )
        if _GONE.search(message):
            return WarehouseBusy(
                f"{where} cannot be reached or ended the connection ({said}): see that the server runs, and that host "
                "and port are right. What a run had not committed is undone, and the next one goes on from what was."
            )
        return None

    def set_aside(self, suffix: str) -> PostgresEngine:
        kept = replace(self, schema=f"{self.schema}{suffix}")
        with self._explained(), self._connected() as opened:
            warehouse = PostgresWarehouse(opened, self.schema)
            if not _has_tables(warehouse):
                raise self._missing()
            self._wait_for_lock(warehouse, self.schema, seconds=0)
            warehouse.execute(f"alter schema {identifier(self.schema)} rename to {identifier(kept.schema)}")
        return kept

    def rewrite(self) -> None:
        with self.open() as warehouse:
            for (table,) in warehouse.rows("select tablename from pg_tables where schemaname = current_schema()"):
                warehouse.execute(f"vacuum (full) {identifier(table)}")

    @property
    def files(self) -> Sequence[Path]:
        return ()

    @contextmanager
    def trial(self, replaced: Mapping[str, str], views: Sequence[str]) -> Iterator[tuple[PostgresEngine, Warehouse]]:
        scratch = replace(self, schema=f"{self.schema}_trial")
        own = identifier(scratch.schema)
        with self._explained(), self._connected() as opened:
            stored = PostgresWarehouse(opened, self.schema)
            if not _has_tables(stored):
                raise self._missing()
            # One at a time: the schema has one name, so that it can be granted, and that a killed trial leaves one.
            self._wait_for_lock(stored, scratch.schema)
            queries = stored.view_queries()
            is_lasting = bool(stored.rows("select 1 from pg_namespace where nspname = $name", name=scratch.schema))
            if is_lasting:
                _empty(stored, scratch.schema)
            else:
                stored.execute(f"create schema {own}")
            try:
                for (table,) in stored.rows(
                    "select tablename from pg_tables where schemaname = $schema", schema=self.schema
                ):
                    name = f"{own}.{identifier(table)}"
                    if table in replaced:
                        stored.execute(f"create unlogged table {name} as {replaced[table]}")
                        stored.execute(f"analyze {name}")
                    else:
                        stored.execute(f"create view {name} as select * from {self.dialect.stored(table)}")
                stored.execute(f"set search_path = {own}")
                for view in views:
                    stored.execute(queries[view])
                yield scratch, PostgresWarehouse(opened, self.schema, self.memory_limit)
            finally:
                with suppress(psycopg2.Error):
                    _empty(stored, scratch.schema)
                    if not is_lasting:
                        stored.execute(f"drop schema {own}")

    def _missing(self) -> WarehouseError:
        return WarehouseError(f"There is no warehouse at '{self.place}' yet: materialize something, or run `settle`.")

    @contextmanager
    def _connected(self, *, read_only: bool = False) -> Iterator[connection]:
        options = _options(self.schema) + (" -c default_transaction_read_only=on" if read_only else "")
        try:
            opened = psycopg2.connect(
                self.url, connect_timeout=_CONNECT_SECONDS, application_name="stitch_pipeline", options=options
            )
        except psycopg2.Error as error:
            raise self.problem(str(error)) or WarehouseError(
                f"The warehouse '{self.place}' cannot be opened: {_first_line(str(error))}"
            ) from None
        try:
            opened.autocommit = True
            register_type(_NUMERIC, opened)
            register_type(_TIMESTAMP, opened)
            if opened.server_version < OLDEST_VERSION * 10_000:
                raise WarehouseError(
                    f"The warehouse '{self.place}' is PostgreSQL {opened.server_version // 10_000}: version "
                    f"{OLDEST_VERSION} is the oldest that is supported."
                )
            if opened.encoding != "UTF8":
                opened.set_client_encoding("UTF8")
            yield opened
        finally:
            opened.close()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """What a failed statement says about the warehouse as a whole is raised as such."""
        try:
            yield
        except psycopg2.Error as error:
            problem = self.problem(str(error))
            if problem is None:
                raise
            raise problem from error

    def _wait_for_lock(self, warehouse: PostgresWarehouse, schema: str, seconds: float | None = None) -> None:
        """Take the writer's lock of a schema; it is released when the connection is closed."""
        wait = self.lock_wait_seconds if seconds is None else seconds
        deadline = time.monotonic() + wait
        key = "hashtextextended('stitch_pipeline ' || $schema, 0)"
        while not warehouse.rows(f"select pg_try_advisory_lock({key})", schema=schema)[0][0]:
            if time.monotonic() >= deadline:
                raise WarehouseBusy(
                    f"The warehouse '{self.place}' is in use by {_holder(warehouse, key, schema)} and was not released "
                    f"within {wait:g} seconds: wait for that process or end it, or raise STITCH_LOCK_WAIT_SECONDS."
                )
            time.sleep(_RETRY_SECONDS)


def _empty(warehouse: PostgresWarehouse, schema: str) -> None:
    """Drop what a trial created, also one that was killed. The schema itself may have been made for the role."""
    for name, kind in warehouse.rows(
        "select relname, case relkind when 'v' then 'view' else 'table' end from pg_class "
        "inner join pg_namespace on pg_namespace.oid = relnamespace where nspname = $schema and relkind in ('r', 'v')",
        schema=schema,
    ):
        warehouse.execute(f"drop {kind} if exists {identifier(schema)}.{identifier(name)} cascade")


def _options(schema: str) -> str:
    settings = {"search_path": identifier(schema), **_OPTIONS}
    # Spaces and backslashes are to be escaped, as libpq documents for its `options`.
    return " ".join(f"-c {name}=" + re.sub(r"([\\ ])", r"\\\1", value) for name, value in settings.items())


def _execute(run: cursor, sql: str, parameters: Mapping[str, Any]) -> None:
    if not parameters:
        run.execute(sql)
        return

    def translated(match: re.Match[str]) -> str:
        if match["name"]:
            return f"%({match['name']})s"
        return match[0].replace("%", "%%")

    run.execute(_PARAMETER.sub(translated, sql), dict(parameters))


def _has_tables(warehouse: PostgresWarehouse) -> bool:
    return bool(warehouse.rows("select 1 from pg_tables where schemaname = current_schema() limit 1"))


def _marker(warehouse: PostgresWarehouse) -> str:
    """A digest of which tables there are and how many rows were ever written to each."""
    ((marker,),) = warehouse.rows(
        """
        select md5(string_agg(concat_ws(' ', classes.relname, classes.oid, pg_relation_filenode(classes.oid),
          pg_stat_get_tuples_inserted(classes.oid), pg_stat_get_tuples_updated(classes.oid),
          pg_stat_get_tuples_deleted(classes.oid)), ',' order by classes.relname))
        from pg_class as classes
        where classes.relnamespace = current_schema()::regnamespace and classes.relkind = 'r'
        """
    )
    return str(marker)


def _holder(warehouse: PostgresWarehouse, key: str, schema: str) -> str:
    rows = warehouse.rows(
        f"""
        select coalesce(host(activity.client_addr), 'this server'), activity.pid, activity.application_name
        from pg_locks as locks
        inner join pg_stat_activity as activity on locks.pid = activity.pid
        where locks.locktype = 'advisory' and locks.granted
          and (locks.classid::bigint << 32) | locks.objid::bigint = {key}
        """,
        schema=schema,
    )
    return (
        " and ".join(f"{name or 'a client'} on {host} (backend {pid})" for host, pid, name in rows) or "another process"
    )


def _without_nul(value: object) -> object:
    return value.replace("\0", "\ufffd") if isinstance(value, str) else value


def _first_line(message: str) -> str:
    return message.strip().splitlines()[0].rstrip(".!") if message.strip() else "no message"
