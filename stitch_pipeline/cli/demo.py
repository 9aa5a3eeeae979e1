"""``stitch demo``: a simulated shop, stitched."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from stitch_pipeline.cli.command import EXIT_FAILED, EXIT_OK, Commands, add_command, completes_paths, print_json


def add(commands: Commands) -> None:
    demo = add_command(
        commands,
        "demo",
        run,
        "simulate a shop, stitch it, let late logins arrive, stitch again",
        has_settings=False,
    )
    directory = demo.add_argument(
        "--directory",
        type=Path,
        default=Path("data/demo"),
        help="where to work; empty, or an earlier demo's (default data/demo)",
    )
    completes_paths(directory)
    demo.add_argument(
        "--warehouse",
        metavar="ADDRESS",
        help="a PostgreSQL database, or 'postgres' for a server of the demo's own; by default a DuckDB file",
    )
    demo.add_argument("--seed", type=int, default=7)
    demo.add_argument("--people", type=int, default=1200)


def run(options: argparse.Namespace, console: Console) -> int:
    from stitch_pipeline.demo.story import tell

    told = tell(options.directory, options.seed, options.people, console, options.warehouse)
    if options.json:
        print_json(told)
    return EXIT_OK if told.is_settled else EXIT_FAILED
