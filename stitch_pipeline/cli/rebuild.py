"""``stitch rebuild``: keep the warehouse aside, build every table, and say which histories could be taken over."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from stitch_pipeline.cli.command import (
    EXIT_FAILED,
    EXIT_OK,
    Commands,
    add_command,
    dagster_instance,
    definitions,
    print_json,
)
from stitch_pipeline.settings import Settings

if TYPE_CHECKING:
    from stitch_pipeline.stitching.rebuild import StartedAnew


def add(commands: Commands) -> None:
    add_command(
        commands,
        "rebuild",
        run,
        "keep the warehouse aside and build every table from the landing zone; deletes nothing",
    )


def run(options: argparse.Namespace, console: Console) -> int:
    from stitch_pipeline.cli.progress import Progress, settled_document
    from stitch_pipeline.orchestration.abandoned_runs import sole_settler
    from stitch_pipeline.orchestration.settle import settle
    from stitch_pipeline.stitching.rebuild import start_anew

    settings = Settings.load()
    with dagster_instance() as instance:
        with sole_settler(settings, instance):
            started = start_anew(settings)
            print_started_anew(started, console)
        with Progress(console) as progress:
            settled = settle(settings, lambda: definitions(settings), instance, report=progress.show)
            progress.close(settled)
    if options.json:
        print_json({"started_anew": started, **settled_document(settled)})
    return EXIT_OK if settled.is_settled else EXIT_FAILED


def print_started_anew(started: StartedAnew, console: Console) -> None:
    """Print where the former warehouse is, and which histories go on or begin anew."""
    console.print(f"The former warehouse is kept as {escape(started.kept_as)}; delete it when you no longer need it.")
    taken_over = [f"{history} ({rows:,} rows)" for history, rows in started.rows_taken_over.items()]
    if taken_over:
        console.print("Taken over from it: " + ", ".join(taken_over) + ".")
    for history, reason in started.begins_anew.items():
        console.print(f"[yellow]{history} begins anew[/], because it could not be read: {escape(reason)}")
