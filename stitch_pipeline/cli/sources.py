"""``stitch sources``: formats of event files."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from stitch_pipeline.cli.command import EXIT_FAILED, EXIT_OK, Commands, add_command, completes_paths, print_json
from stitch_pipeline.settings import Settings


def add(commands: Commands) -> None:
    sources = commands.add_parser("sources", help="formats of event files")
    about_sources = sources.add_subparsers(required=True, metavar="COMMAND")
    check = add_command(
        about_sources, "check", run_check, "show how files would be read and what is wrong; writes nothing"
    )
    path = check.add_argument(
        "path", type=Path, metavar="DIR", help="a landing directory, one of its feeds, or one file"
    )
    completes_paths(path)
    check.add_argument("--details", action="store_true", help="every file, with a sample of its events")


def run_check(options: argparse.Namespace, console: Console) -> int:
    from stitch_pipeline.cli.sources_check import check_sources

    checked = check_sources(Settings.load(), options.path, console, details=options.details)
    if options.json:
        print_json(checked.document())
    return EXIT_OK if checked.is_good else EXIT_FAILED
