"""What a person sees of ``settle``: which days, how many rows, how long."""

from __future__ import annotations

import logging
import time
from types import TracebackType

from rich.console import Console

from stitch_pipeline.settle import RunSummary, Settled


class Progress:
    """Prints a line when a run starts and one when it ends. Dagster's own log lines are kept off the terminal."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.started = time.monotonic()

    def __enter__(self) -> Progress:
        # The event log keeps everything; a terminal with a line per event hides what matters.
        logging.disable(logging.CRITICAL)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        logging.disable(logging.NOTSET)

    def show(self, event: RunSummary | str) -> None:
        if isinstance(event, str):
            self.console.print(f"[cyan]▶[/] {event}")
            return
        mark = "[green]✓[/]" if event.succeeded else "[red]✗[/]"
        self.console.print(f"{mark} {event.job_name} in {event.seconds:.1f} s: {_changes(event)}")
        if event.error:
            self.console.print(f"  [red]{event.error}[/]\n  run {event.run_id}", markup=True)

    def close(self, settled: Settled) -> None:
        seconds = time.monotonic() - self.started
        if not settled.is_settled:
            self.console.print("[red]not settled[/]: " + "; ".join(settled.gave_up))
            return
        runs = f"{len(settled.runs)} run{'s' * (len(settled.runs) != 1)}" if settled.runs else "nothing to do"
        self.console.print(f"[green]settled[/]: {runs}, {seconds:.1f} s")


def _changes(run: RunSummary) -> str:
    parts = [
        f"{table} {rows:,} row{'s' * (rows != 1)}"
        + (f" on {days} day{'s' * (days != 1)}" if (days := run.partitions_changed.get(table, 0)) else "")
        for table, rows in run.rows_changed.items()
        if rows
    ]
    return "changed " + ", ".join(parts) if parts else "changed no row"
