"""``stitch why``, on a terminal or as a page. Not in ``stitching.explain``, which needs no `rich`."""

from __future__ import annotations

import argparse
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from stitch_pipeline.cli.command import EXIT_OK, Commands, add_command, completes_paths, positive, print_json
from stitch_pipeline.settings import Settings

if TYPE_CHECKING:
    from stitch_pipeline.stitching.explain import Explanation
    from stitch_pipeline.stitching.person import WithoutDevice


def add(commands: Commands) -> None:
    why = add_command(commands, "why", run, "explain the users of a device's sessions and events; writes no table")
    why.add_argument("--project", required=True, metavar="P", help="the project_id")
    whose = why.add_mutually_exclusive_group(required=True)
    whose.add_argument("--anonymous-id", metavar="A", help="the device")
    whose.add_argument("--user", metavar="U", help="a user id: explain each device of this user")
    why.add_argument("--at", metavar="TIME", help="a UTC day or an instant: show only the rows then, or the nearest")
    why.add_argument("--limit", type=positive, default=40, metavar="N", help="rows to show (default 40)")
    completes_paths(
        why.add_argument("--html", type=Path, metavar="PATH", help="write a page with a timeline instead; it holds ids")
    )


def run(options: argparse.Namespace, console: Console) -> int:
    settings = Settings.load()
    if options.html:
        _write_page(settings, options, console)
    elif options.user is not None:
        _explain_user(settings, options, console)
    else:
        _explain_device(settings, options, console)
    return EXIT_OK


def _explain_device(settings: Settings, options: argparse.Namespace, console: Console) -> None:
    from stitch_pipeline.stitching.explain import explain

    explanation = explain(settings, options.project, options.anonymous_id, options.at)
    if options.json:
        print_json(explanation)
    else:
        print_explanation(explanation, options.limit, console)


def _explain_user(settings: Settings, options: argparse.Namespace, console: Console) -> None:
    from stitch_pipeline.stitching.person import person_history

    history = person_history(settings, options.project, user_id=options.user, at=options.at)
    if options.json:
        print_json(
            {
                "user_id": options.user,
                "devices": history.devices,
                "devices_left_out": history.devices_left_out,
                "without_device": history.without_device,
            }
        )
        return
    if history.without_device:
        _print_without_device(history.without_device, options, console)
        if history.devices:
            console.print()
    for number, device in enumerate(history.devices):
        if number:
            console.print()
        print_explanation(device, options.limit, console)
    if history.devices_left_out:
        console.print(f"… and {history.devices_left_out:,} more devices")


def _print_without_device(found: WithoutDevice, options: argparse.Namespace, console: Console) -> None:
    console.print(
        f"[bold]{escape(options.project)}[/], user [bold]{escape(options.user)}[/] in events without a device: "
        f"{found.event_count:,} events, {found.page_view_count:,} of them page views, "
        f"from {_time(found.first_seen_at)} to {_time(found.last_seen_at)} UTC\n"
        f"     [dim]Each names the user, so all are credited to[/] [bold]{escape(found.stitched_user_id)}[/]"
        "[dim], own, whatever the policy. They are in no session.[/]"
    )


def _write_page(settings: Settings, options: argparse.Namespace, console: Console) -> None:
    from stitch_pipeline.report import write_person
    from stitch_pipeline.stitching.person import person_history

    history = person_history(
        settings, options.project, user_id=options.user, anonymous_id=options.anonymous_id, at=options.at
    )
    write_person(history, options.html)
    if options.json:
        print_json({"page": options.html})
    else:
        console.print(f"wrote [bold]{escape(str(options.html))}[/]")


def print_explanation(explanation: Explanation, limit: int, console: Console) -> None:
    """Print the candidates as a table, and the rows with their reasons; at most ``limit`` rows.

    At most as many candidates are printed, unless more of them decide.
    """
    from stitch_pipeline.stitching.explain import sentences

    rows, candidates = explanation.rows, explanation.candidates
    console.print(
        f"[bold]{escape(explanation.project_id)}[/], device [bold]{escape(explanation.anonymous_id)}[/]: "
        + explanation.rules
    )
    if candidates:
        console.print("\nWhat names a user on this device (times are UTC):")
        table = Table(box=None, padding=(0, 1), header_style="dim")
        for column in ("#", "user", "began", "events", "first event", "landing file", "received", "loaded"):
            table.add_column(column, justify="right" if column in ("#", "events") else "left", overflow="fold")
        # Candidates that decide come first, because a device with many users has more candidates than anybody reads.
        deciding = {row.deciding.number for row in rows[:limit] if row.deciding}
        shown = sorted(candidates, key=lambda candidate: candidate.number not in deciding)[: max(limit, len(deciding))]
        for candidate in sorted(shown, key=lambda candidate: candidate.number):
            table.add_row(
                str(candidate.number),
                escape(candidate.user_id),
                _time(candidate.began_at),
                f"{candidate.event_count:,}",
                escape(f"{candidate.event_id} ({candidate.event_type or 'forgotten'})"),
                escape(candidate.landing_file or ""),
                _time(candidate.received_at, "minutes"),
                _time(candidate.loaded_at, "minutes"),
            )
        console.print(table)
        _print_how_many_are_left(len(candidates) - len(shown), console)
    console.print("\nWho each row is credited to, and why:")
    # A session and its events mostly share their reasons, so print those once, below the last of the rows.
    for (_, lines), several in groupby(
        rows[:limit], key=lambda row: ((row.stitched_user_id, row.stitched_by), sentences(row))
    ):
        for row in several:
            own = f", own user {row.user_id}" if row.user_id else ""
            stored = "" if row.stored_user_id in (None, row.stitched_user_id) else f" (stored: {row.stored_user_id})"
            console.print(
                escape(f" {_time(row.began_at)}  {row.grain} {_shortened(row.row_id)}{own}: ")
                + f"[bold]{escape(row.stitched_user_id)}[/]"
                + escape(f"{stored}, {row.stitched_by}")
            )
        for line in lines:
            console.print(f"     [dim]{escape(line)}[/]")
    _print_how_many_are_left(len(rows) - limit, console)
    if any(row.stored_user_id not in (None, row.stitched_user_id) for row in rows):
        console.print("What is stored differs where a re-stitch is due: run `stitch settle --view-stitching`.")


def _print_how_many_are_left(count: int, console: Console) -> None:
    if count > 0:
        console.print(f" … and {count:,} more: use --at, or raise --limit")


def _shortened(row_id: str) -> str:
    return row_id if len(row_id) <= 12 else row_id[:11] + "…"


def _time(value: datetime | None, precision: str = "seconds") -> str:
    return "" if value is None else value.isoformat(sep=" ", timespec=precision)
