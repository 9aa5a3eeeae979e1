"""``stitch accept-vanished``: let the rows of files that are gone be removed."""

from __future__ import annotations

import argparse

from rich.console import Console

from stitch_pipeline.cli.command import EXIT_OK, Commands, add_command, print_json
from stitch_pipeline.landing.index import LandingIndex
from stitch_pipeline.settings import Settings


def add(commands: Commands) -> None:
    add_command(
        commands, "accept-vanished", run, "let the rows of files that are gone from the landing zone be removed"
    )


def run(options: argparse.Namespace, console: Console) -> int:
    settings = Settings.load()
    files = LandingIndex(settings.index_path).accept_vanished(settings)
    console.print(f"{files:,} files are gone: the next build of their days removes their rows.")
    if options.json:
        print_json({"files": files})
    return EXIT_OK
