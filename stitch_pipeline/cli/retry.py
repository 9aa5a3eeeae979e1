"""``stitch retry``: end the pauses after failures."""

from __future__ import annotations

import argparse

from rich.console import Console

from stitch_pipeline.cli.command import EXIT_OK, Commands, add_command, print_json
from stitch_pipeline.landing.index import LandingIndex
from stitch_pipeline.settings import Settings


def add(commands: Commands) -> None:
    add_command(commands, "retry", run, "end the pauses after failures, so that sensors retry at their next tick")


def run(options: argparse.Namespace, console: Console) -> int:
    index = LandingIndex(Settings.load().index_path)
    index.forget_failures()
    console.print("Failures up to now no longer delay anything: the sensors retry at their next tick.")
    if options.json:
        print_json({"failures_forgotten_at": index.failures_forgotten_at()})
    return EXIT_OK
