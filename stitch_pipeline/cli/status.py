"""The output of ``stitch status``."""

from __future__ import annotations

import json
from dataclasses import asdict

from rich.console import Console
from rich.markup import escape

from stitch_pipeline.orchestration.status import Status


def as_json(status: Status) -> str:
    """One JSON document: ``is_settled`` and the fields of ``Status``."""
    return json.dumps({"is_settled": status.is_settled, **asdict(status)})


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
