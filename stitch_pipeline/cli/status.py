"""``stitch status``: what is loaded and how fresh it is, what is left to do, what fails and why."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from stitch_pipeline.cli.command import EXIT_FAILED, EXIT_OK, Commands, add_command, dagster_instance, print_json
from stitch_pipeline.settings import Settings

if TYPE_CHECKING:
    from stitch_pipeline.orchestration.status import Status


def add(commands: Commands) -> None:
    add_command(
        commands,
        "status",
        run,
        "show what is loaded and how fresh, what is left to do, what fails and why; starts nothing",
    )


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
    for name, text in _facts(status):
        console.print(f"{name:<12}{escape(text)}")
    for trigger in status.triggers:
        name = f"{trigger.name} ({trigger.job_name})"
        for days in trigger.requests:
            what = (
                f"waits for its schedule with {escape(days)}"
                if trigger.waits_for_schedule
                else f"requests {escape(days)}"
            )
            console.print(f"[cyan]▶[/] {name} {what}")
        for sentence in trigger.paused:
            mark = "[red]✗[/]" if trigger.needs_a_person else "[yellow]…[/]"
            console.print(f"{mark} {name}: {escape(sentence)}")
        if not trigger.requests and not trigger.paused:
            console.print(f"[green]✓[/] {name}: {escape(trigger.otherwise)}")
    for notice in status.notices:
        console.print(f"[yellow]note:[/] {escape(notice)}")
    console.print("[green]settled[/]" if status.is_settled else "[yellow]not settled[/]")


def _facts(status: Status) -> Iterator[tuple[str, str]]:
    landing = status.landing
    if landing.loaded_files:
        days = f", events of {landing.first_day} to {landing.last_day}" if landing.last_day else ""
        yield "loaded", f"{_count(landing.loaded_files, 'file')}, {_count(landing.loaded_rows, 'row')}{days}"
    if landing.pending_files or landing.pending_days:
        yield "pending", f"{_count(landing.pending_files, 'file')}, {_count(landing.pending_days, 'day')} to build"
    if landing.quarantined_rows or landing.unreadable_files:
        unreadable = f", {_count(landing.unreadable_files, 'file')} unreadable" if landing.unreadable_files else ""
        yield "quarantined", f"{_count(landing.quarantined_rows, 'row')}{unreadable}"
    given_up = [trigger.name for trigger in status.triggers if trigger.needs_a_person]
    if given_up:
        yield "failing", ", ".join(given_up)
    if status.days_behind is not None:
        behind = (
            f"{_count(status.days_behind, 'closed day')} behind" if status.days_behind else "no closed day is missing"
        )
        yield "fresh", f"newest event of {landing.last_day}: {behind}"
    if (run := status.last_success) is not None:
        ago = _ago(datetime.now(UTC) - run.ended_at)
        yield "last run", f"{run.job_name} succeeded {ago} ago ({run.ended_at:%Y-%m-%d %H:%M} UTC)"
    if status.underway:
        yield "underway", ", ".join(status.underway)


def _ago(passed: timedelta) -> str:
    minutes = int(passed.total_seconds() // 60)
    if minutes < 120:
        return _count(minutes, "minute")
    return _count(minutes // 60, "hour") if minutes < 48 * 60 else _count(minutes // (24 * 60), "day")


def _count(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'s' * (number != 1)}"
