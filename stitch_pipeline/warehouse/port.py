"""The port: everything that Python needs from a warehouse. Each engine implements it in one file beside this one.

Every table is in one schema, which is the first that an open warehouse searches, so SQL written in Python names
tables without it. SQL is what PostgreSQL 15 and DuckDB have in common; ``Dialect`` has the rest.
Parameters are named, and written ``$name`` in the SQL. Times are UTC without a zone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from stitch_pipeline.planning.functions import Functions

if TYPE_CHECKING:
    from pandas import DataFrame

Row = tuple[Any, ...]


class WarehouseError(Exception):
    """The warehouse cannot be used; the message says why and what to do."""


class WarehouseBusy(WarehouseError):
    """Another process has the warehouse open and did not release it in time."""


class WarehouseFull(WarehouseError):
    """There is no room left for the warehouse or its temporary files. What was committed is safe."""


class WarehouseDamaged(WarehouseError):
    """The warehouse's files are damaged, or not a warehouse's; ``stitch rebuild`` builds them from the landing zone."""


class EventBatch(Protocol):
    """Landed files of one shape, as canonical events (see ``landing.reading``)."""

    @property
    def events_sql(self) -> str:
        """A DuckDB query for the events, with the column names of ``raw_events``.

        An engine that is DuckDB runs it itself. Any other engine can run it in an in-memory DuckDB. If ``forgets``, the
        rows marked ``is_forgotten`` go to ``forgotten_events``, which has some of the columns.
        """

    @property
    def parameters(self) -> Mapping[str, bytes]:
        """The parameters of the query: keys, which must be in no text and no log."""

    @property
    def scratch_tables(self) -> Sequence[str]:
        """The temporary tables that the query leaves behind."""

    @property
    def forgets(self) -> bool:
        """Whether the query has the columns ``is_forgotten``, ``id_kind`` and ``id``."""


class Dialect(Functions, Protocol):
    """What differs between engines in the SQL that Python writes; dbt's models have macros for it."""

    @property
    def row_id(self) -> str:
        """The column that identifies a stored row of a table."""

    @property
    def hash_type(self) -> str:
        """The type of the numbers of ``hash_of``."""

    def hash_of(self, *columns: str) -> str:
        """SQL for a number: the same for the same values, and rarely the same for others."""

    def is_one_of(self, value: str, query: str) -> str:
        """SQL for: the value is one of the few of a query. By an index of the value, which there must be: see
        ``Warehouse.finds_events``; a row's own id (``row_id``) needs none.
        """

    def stored(self, table: str) -> str:
        """The name by which queries in a trial find a table of the warehouse itself."""

    def declared(self, definition: str) -> str:
        """A column's type and constraint, as ``tables`` writes them, in the engine's words."""

    def indexes(self, table: str, columns: Collection[str]) -> Sequence[str]:
        """The statements that create a new table's indexes, with which a run reads its days alone."""

    def json_values(self, document: str) -> str:
        """SQL, for a list of selected columns, that gives a row for every value in a JSON text, however deep."""


class Warehouse(Protocol):
    """An open warehouse. A warehouse that is open for writing has no other writer.

    A statement that fails raises the engine's own exception.
    """

    dialect: Dialect

    def execute(self, sql: str, **parameters: Any) -> None:
        """Run one statement."""

    def rows(self, sql: str, **parameters: Any) -> list[Row]:
        """All rows of a query."""

    def result(self, sql: str, **parameters: Any) -> tuple[list[str], list[Row]]:
        """The names of a query's columns, and all its rows."""

    def records(self, sql: str, **parameters: Any) -> list[dict[str, Any]]:
        """All rows of a query, each as a dict by column name."""

    def transaction(self) -> AbstractContextManager[None]:
        """Run the body as one transaction: commit at its end, roll back if it raises."""

    def create_schema(self) -> None:
        """Create the schema and the functions in it, if they are missing. ``tables.create_tables`` calls it first."""

    def index_rows(self, tables: Mapping[str, Collection[str]]) -> None:
        """Create what finds the rows of a device, of a file or of an event's id, where it is missing.

        The tables are given with their columns. Called at the end of a run: to index the rows of a first build one by
        one takes several times as long.
        """

    def finds_events(self) -> bool:
        """Whether events are found by ``hash_of`` their project and id without reading the others."""

    def create_temporary(self, name: str, definition: str) -> None:
        """Create a temporary table, in place of an earlier one; ``definition`` is ``as`` and a query, or columns."""

    def insert_rows(self, table: str, rows: Iterable[Sequence[object]]) -> None:
        """Add a few rows to a table; values in the order of the table's columns."""

    def insert_frame(self, table: str, frame: DataFrame) -> None:
        """Add many rows to a table; the frame's columns are matched by name."""

    def view_queries(self) -> Mapping[str, str]:
        """The statement that creates each view, by the view's name; names are with the schema, without the catalog."""

    def marker(self) -> str:
        """Write everything to disk, and name the state of the warehouse: see ``Engine.marker``."""

    def load_events(self, batch: EventBatch) -> None:
        """Add the batch's events to ``raw_events``, duplicates included, and forgotten ones to ``forgotten_events``."""


@runtime_checkable
class PublishingWarehouse(Warehouse, Protocol):
    """A warehouse whose tables can be published as Parquet. One that is a server's needs no copy for its readers."""

    def write_parquet(self, query: str, path: Path) -> None:
        """Write the rows of a query into a Parquet file. Raises OSError if the file cannot be written."""

    def parquet_rows(self, directory: Path) -> Mapping[str, int | None]:
        """The number of rows of each Parquet file in the directory, by name; None for one that cannot be read."""


class Engine(Protocol):
    """A warehouse that is not open. An engine is a value that can be passed around; creating one opens nothing."""

    @property
    def dialect(self) -> Dialect:
        """The dialect of the warehouse once it is open."""

    @property
    def place(self) -> str:
        """The warehouse's location, as the UI shows it; without secrets."""

    def exists(self) -> bool:
        """Whether the warehouse has been created yet."""

    def marker(self) -> str | None:
        """A text that changes whenever the warehouse may have changed; None if there is no warehouse.

        It is found without opening the warehouse, so a process that has it open is no obstacle.
        """

    def open(self, *, read_only: bool = False) -> AbstractContextManager[Warehouse]:
        """Open the warehouse, after waiting a bounded time for other processes that have it open.

        Raises WarehouseBusy if they take longer, WarehouseFull or WarehouseDamaged if a statement of the body finds
        that (see ``problem``), and WarehouseError if it cannot be opened at all.
        """

    def problem(self, message: str) -> WarehouseError | None:
        """What the message of a failed statement says about the warehouse itself; None if it is about the statement."""

    def set_aside(self, suffix: str) -> Engine:
        """Rename the warehouse's files and return the engine that reads them. The next ``open`` creates a warehouse.

        Raises WarehouseBusy if another process has the warehouse open, and WarehouseError if there is none.
        """

    def rewrite(self) -> None:
        """Write the warehouse anew, so that its files hold no row that was deleted. Raises as ``open`` does."""

    @property
    def files(self) -> Sequence[Path]:
        """The files that the engine writes, those that exist; none for a warehouse that is a server's."""

    def trial(
        self, replaced: Mapping[str, str], views: Sequence[str]
    ) -> AbstractContextManager[tuple[Engine, Warehouse]]:
        """A scratch warehouse with every stored table, and its engine; both are gone afterwards.

        ``replaced`` maps tables to queries; in the scratch warehouse each holds the query's result. ``views`` are
        created over these tables, and each may read tables only. Writes do not reach the warehouse itself, which
        queries find as ``dialect.stored`` says. Raises as ``open`` does, and WarehouseError if there is no warehouse.
        """

    @property
    def dbt_target(self) -> str:
        """The engine's name among the outputs in dbt's ``profiles.yml``, which is also the name of dbt's adapter."""

    @property
    def dbt_environment(self) -> Mapping[str, str]:
        """The environment variables that dbt's ``profiles.yml`` reads to connect."""

    @property
    def catalog(self) -> str:
        """The warehouse's database name in dbt. A server may have to be asked for it."""

    @property
    def database(self) -> str:
        """The same for people to read, as far as it is known without asking."""

    @property
    def schema(self) -> str:
        """The name of the schema that holds every table."""
