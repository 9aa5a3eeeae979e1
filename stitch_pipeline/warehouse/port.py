"""The port: everything that Python needs of a warehouse. Each engine implements it in one file beside this one.

Every table is in the schema ``stitch``, and SQL written in Python names it so (``stitch.raw_events``). Parameters are
named, and written ``$name`` in the SQL. Times are UTC without a zone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from pandas import DataFrame

Row = tuple[Any, ...]
STORED = "stored"
"""What queries in a trial call the warehouse itself."""


class WarehouseError(Exception):
    """The warehouse cannot be used; the message says why and what to do."""


class WarehouseBusy(WarehouseError):
    """Somebody else is writing to the warehouse, or holds it open, and did not end in time."""


class EventBatch(Protocol):
    """Landed files of one shape, as canonical events (see ``landing.reading``)."""

    @property
    def events_sql(self) -> str:
        """A DuckDB query whose columns are named as those of ``raw_events``. Any engine can have it from a DuckDB in
        memory; one that is DuckDB itself runs it in place."""


class Dialect(Protocol):
    """What differs between engines in the little SQL that Python writes; dbt's models have macros for it."""

    @property
    def row_id(self) -> str:
        """The column that identifies a stored row."""

    def hash_of(self, *columns: str) -> str:
        """A number that is the same for the same values, and hardly ever for others."""


class Warehouse(Protocol):
    """An open warehouse. Whoever has it for writing is the only writer."""

    dialect: Dialect

    def execute(self, sql: str, **parameters: Any) -> None:
        """Run one statement."""

    def rows(self, sql: str, **parameters: Any) -> list[Row]:
        """All rows of a query."""

    def records(self, sql: str, **parameters: Any) -> list[dict[str, Any]]:
        """All rows of a query, each by the names of its columns."""

    def transaction(self) -> AbstractContextManager[None]:
        """What is done within takes effect as a whole, or not at all if it raises."""

    def insert_rows(self, table: str, rows: Iterable[Sequence[object]]) -> None:
        """Add rows, which are few, to a table; values in the order of its columns."""

    def insert_frame(self, table: str, frame: DataFrame) -> None:
        """Add rows, which may be many, to a table; the frame's columns by their names."""

    def load_events(self, batch: EventBatch) -> None:
        """Add the batch's events to ``raw_events``, duplicates included."""


class Engine(Protocol):
    """A warehouse that is not open. An engine is a value: it can be passed around, and opens nothing by itself."""

    @property
    def place(self) -> str:
        """Where it is, as the UI shows it; without secrets."""

    def exists(self) -> bool:
        """Whether anything was ever written to it."""

    def open(self, *, read_only: bool = False) -> AbstractContextManager[Warehouse]:
        """Wait for other writers, a bounded time, and open it.

        Raises WarehouseBusy if they take too long, and WarehouseError if it cannot be opened at all.
        """

    def trial(
        self, replaced: Mapping[str, str], views: Sequence[str]
    ) -> AbstractContextManager[tuple[Engine, Warehouse]]:
        """A scratch warehouse that has the stored tables, some of them replaced by the results of queries, and the
        given views over them, each of which reads tables only.

        Nothing that is done in it reaches the warehouse itself, which queries name ``stored.stitch.<table>``.
        """

    @property
    def dbt_environment(self) -> Mapping[str, str]:
        """The variables that ``profiles.yml`` reads to connect."""

    @property
    def catalog(self) -> str:
        """What dbt calls the database."""
