"""The output of ``stitch rebuild``: what was kept, and what could be taken over."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape

from stitch_pipeline.stitching.rebuild import StartedAnew


def print_started_anew(started: StartedAnew, console: Console) -> None:
    """Print where the former warehouse is, and which histories go on or begin anew."""
    console.print(f"The former warehouse is kept as {escape(started.kept_as)}; delete it when you no longer need it.")
    taken_over = [f"{history} ({rows:,} rows)" for history, rows in started.rows_taken_over.items()]
    if taken_over:
        console.print("Taken over from it: " + ", ".join(taken_over) + ".")
    for history, reason in started.begins_anew.items():
        console.print(f"[yellow]{history} begins anew[/], because it could not be read: {escape(reason)}")
