"""``stitch settle``: run what the triggers request until they request nothing; needs no daemon."""

from __future__ import annotations

import argparse

from rich.console import Console

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
from stitch_pipeline.startup import large_imports


def add(commands: Commands) -> None:
    settle = add_command(
        commands, "settle", run, "run what the triggers request until they request nothing; needs no daemon"
    )
    settle.add_argument("--reconcile", action="store_true", help="first look for stale rows over all days and devices")
    settle.add_argument(
        "--view-stitching",
        action=argparse.BooleanOptionalAction,
        help="re-stitch page views or leave them; default: when their schedule was due since the last settle",
    )


def run(options: argparse.Namespace, console: Console) -> int:
    with large_imports():
        from stitch_pipeline.cli.progress import Progress, settled_document
        from stitch_pipeline.orchestration.settle import settle

    settings = Settings.load()
    with dagster_instance() as instance, Progress(console) as progress:
        settled = settle(
            settings,
            lambda: definitions(settings),
            instance,
            reconcile=options.reconcile,
            view_stitching=options.view_stitching,
            report=progress.show,
        )
        progress.close(settled)
    if options.json:
        print_json(settled_document(settled))
    return EXIT_OK if settled.is_settled else EXIT_FAILED
