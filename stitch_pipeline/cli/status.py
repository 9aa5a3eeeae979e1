"""``stitch status``: what is left to do, what fails and why."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from stitch_pipeline.cli.command import EXIT_FAILED, EXIT_OK, Commands, add_command, dagster_instance, print_json
from stitch_pipeline.settings import Settings

if TYPE_CHECKING:
    from stitch_pipeline.orchestration.status import Status


def add(commands: Commands) -> None:
    add_command(commands, "status", run, "show what is left to do, what fails and why; starts nothing")


def run(options: argparse.Namespace, console: Console) -> int:
    from stitch_pipeline.orchestration.status import status

    settings = Settings.load()
    with dagster_instance() as instance:
        found = status(settings, instance)
    if options.json:
        print_json({"is_settled": found.is_settled, **asdict(found)})
    else:
        print_status(found, console)
    return EXIT_OK if found.is_settled else EXIT_FAILED


def print_status(status: Status, console: Console) -> None:
    """Print the warehouse, what each trigger would do, and what a person should know."""
    looked = f"last looked at {status.last_look[:19]} UTC" if status.last_look else "not looked at yet"
    console.print(f"warehouse {escape(status.warehouse)}: {looked if status.exists else 'does not exist yet'}")
    for trigger in status.triggers:
        name = f"{trigger.name} ({trigger.job_name})"
        for days in trigger.requests:
            console.print(f"[cyan]▶[/] {name} requests {escape(days)}")
        for sentence in trigger.paused:
            mark = "[red]✗[/]" if trigger.needs_a_person else "[yellow]…[/]"
            console.print(f"{mark} {name}: {escape(sentence)}")
        if not trigger.requests and not trigger.paused:
            console.print(f"[green]✓[/] {name}: {escape(trigger.otherwise)}")
    for notice in status.notices:
        console.print(f"[yellow]note:[/] {escape(notice)}")
    console.print("[green]settled[/]" if status.is_settled else "[yellow]not settled[/]")
