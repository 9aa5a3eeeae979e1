"""Signals that arrive inside a query of DuckDB."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar


class _Connection(Protocol):
    def interrupt(self) -> None: ...
    def close(self) -> None: ...


_C = TypeVar("_C", bound=_Connection)


@contextmanager
def interruptible() -> Iterator[None]:
    """Raises KeyboardInterrupt if a signal ended a query of the body. Also usable as a decorator.

    DuckDB 2.0 drops what the signal's handler raised and raises a RuntimeError in its place, which looks like any
    failure: a file would be called unreadable, or a run would be tried again, because somebody pressed Ctrl-C.
    """
    try:
        yield
    except RuntimeError as error:
        if str(error) == "Query interrupted":
            raise KeyboardInterrupt from None
        raise


def close(connection: _Connection) -> None:
    """Close a connection to DuckDB, whose own ``close`` waits for the query that a signal ended."""
    connection.interrupt()
    connection.close()


@contextmanager
def closing(connection: _C) -> Iterator[_C]:
    """``contextlib.closing`` for a connection to DuckDB, with ``close``."""
    try:
        yield connection
    finally:
        close(connection)
