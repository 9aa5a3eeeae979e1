"""Start-up: imports of large libraries."""

from __future__ import annotations

import atexit
import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def large_imports() -> Iterator[None]:
    """Import large libraries in the body, without garbage collection.

    Dagster and dbt create thousands of classes, and the collector looks through all of them again and again: a fifth of
    the CPU time of these imports. What is imported stays for the life of the process, so later collections skip it.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        # DuckDB complains at the end about objects that were never collected.
        atexit.register(gc.unfreeze)
        if was_enabled:
            gc.enable()
