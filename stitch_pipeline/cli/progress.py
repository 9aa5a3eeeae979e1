"""The output of ``stitch settle``: days, rows and seconds of each run, and on a terminal the model that is running."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.markup import escape

from stitch_pipeline.orchestration.settle import RunSummary, Settled
from stitch_pipeline.warehouse.dbt_project import model_starts


def settled_document(settled: Settled) -> dict[str, Any]:
    """What ``--json`` prints: ``is_settled`` and the fields of ``Settled``; each run is a ``RunSummary``."""
    return {"is_settled": settled.is_settled, **asdict(settled)}


class Progress:
    """Prints a line when a run starts and one when it ends. Within the context, Dagster prints no log lines.

    On a terminal a spinner shows the run and its current model meanwhile; nothing of it goes into a file or a pipe.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self.started = time.monotonic()
        self._run = ""
        self._cleanup = ExitStack()
        # Asked of the file, because FORCE_COLOR makes a terminal of every console, also in the logs of CI.
        is_terminal = console.is_terminal and console.file.isatty() and not console.is_dumb_terminal
        self._spinner = console.status("") if is_terminal else None

    def __enter__(self) -> Progress:
        # The event log has every event; a line for each would hide what matters on the terminal.
        logging.disable(logging.CRITICAL)
        self._cleanup.callback(logging.disable, logging.NOTSET)
        if self._spinner is not None:
            self._cleanup.callback(self._spinner.stop)
            self._cleanup.enter_context(model_starts(self._show_model))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cleanup.close()

    def show(self, event: RunSummary | str) -> None:
        """Print the text at the start of a run, or the summary at its end, with its error."""
        if isinstance(event, str):
            self.console.print(f"[cyan]▶[/] {event}")
            self._run = event.partition(":")[0]
            if self._spinner is not None:
                self._spinner.update(f"[dim]{escape(self._run)}[/]")
                self._spinner.start()
            return
        if self._spinner is not None:
            self._spinner.stop()
        mark = "[green]✓[/]" if event.succeeded else "[red]✗[/]"
        self.console.print(f"{mark} {event.job_name} in {event.seconds:.1f} s: {_changes(event)}")
        if event.failed_checks:
            self.console.print(f"  [yellow]checks that did not pass:[/] {escape(', '.join(event.failed_checks))}")
        if event.error:
            self.console.print(f"  [red]{escape(event.error)}[/]\n  run {event.run_id}")

    def _show_model(self, model: str) -> None:
        if self._spinner is not None:
            self._spinner.update(f"[dim]{escape(self._run)}: {escape(model)}[/]")

    def close(self, settled: Settled) -> None:
        """Print what a person should know, and in the last line whether everything is settled."""
        seconds = time.monotonic() - self.started
        for notice in (*settled.notices, *settled.waiting):
            self.console.print(f"[yellow]note:[/] {escape(notice)}")
        if not settled.is_settled:
            left = "; ".join(sentence.removesuffix(".") for sentence in settled.gave_up)
            self.console.print(f"[red]not settled[/]: {escape(left)}")
            self.console.print("`stitch status` says why, and how to go on.")
            return
        runs = f"{len(settled.runs)} run{'s' * (len(settled.runs) != 1)}" if settled.runs else "nothing to do"
        self.console.print(f"[green]settled[/]: {runs}, {seconds:.1f} s")


def _changes(run: RunSummary) -> str:
    if run.rows_stale and not run.rows_changed:
        parts = _counts(run.rows_stale, run.partitions_stale)
        return "to be re-stitched: " + ", ".join(parts) if parts else "every answer is right"
    parts = _counts(run.rows_changed, run.partitions_changed)
    return "changed " + ", ".join(parts) if parts else "changed no row"


def _counts(rows_of: Mapping[str, int], days_of: Mapping[str, int]) -> list[str]:
    return [
        f"{table} {rows:,} row{'s' * (rows != 1)}"
        + (f" on {days} day{'s' * (days != 1)}" if (days := days_of.get(table, 0)) else "")
        for table, rows in rows_of.items()
        if rows
    ]
