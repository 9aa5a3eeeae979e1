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
    what = check.add_mutually_exclusive_group(required=True)
    path = what.add_argument(
        "path", type=Path, nargs="?", metavar="DIR", help="a landing directory, one of its feeds, or one file"
    )
    completes_paths(path)
    what.add_argument("--feed", metavar="NAME", help="the newest rows of a feed that is a table")
    check.add_argument("--details", action="store_true", help="every file, with a sample of its events")


def run_check(options: argparse.Namespace, console: Console) -> int:
    from stitch_pipeline.cli.sources_check import check_sources, check_tables

    settings = Settings.load()
    if options.feed is not None:
        checked = check_tables(settings, options.feed, console, details=options.details)
    else:
        checked = check_sources(settings, options.path, console, details=options.details)
    if options.json:
        print_json(checked.document())
    return EXIT_OK if checked.is_good else EXIT_FAILED
