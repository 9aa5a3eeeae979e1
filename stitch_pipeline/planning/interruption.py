"""Signals that would get lost: inside a query of DuckDB, and inside a run of Dagster."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
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


@contextmanager
def noticed() -> Iterator[Callable[[], bool]]:
    """Gives a function that says whether SIGINT or SIGTERM came since the body began.

    Dagster notes a signal that comes while it writes events between steps, and may leave that block before it looks at
    the note. The run then goes on to its end, and nobody learns that it was to stop. Outside the main thread, where
    Python handles no signals, none is noticed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    came = bytearray()
    receiving, sending = socket.socketpair()
    with receiving, sending:
        receiving.setblocking(False)
        sending.setblocking(False)
        before = signal.set_wakeup_fd(sending.fileno(), warn_on_full_buffer=False)

        def has_come() -> bool:
            with suppress(BlockingIOError):
                came.extend(receiving.recv(4096))
            return signal.SIGINT in came or signal.SIGTERM in came

        try:
            yield has_come
        finally:
            signal.set_wakeup_fd(before)
