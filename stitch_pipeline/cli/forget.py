"""``stitch forget`` on a terminal. The ids that it was given are printed nowhere."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from stitch_pipeline.settings import Settings, SettingsError
from stitch_pipeline.settings.forgotten import Mode, key_path
from stitch_pipeline.stitching.forget import Concerned, OwnFile, Request
from stitch_pipeline.stitching.prove import prove

_LINES_SHOWN = 12
_IDS_SHOWN = 20


def request_of(options: argparse.Namespace) -> Request:
    """The id that the arguments name. Raises SettingsError if an identifier is not written as KIND=VALUE."""
    mode = Mode.pseudonymise if options.pseudonymise else Mode.delete
    if options.identifier is not None:
        kind, separator, value = options.identifier.partition("=")
        if not separator or not kind:
            raise SettingsError("--identifier is written as KIND=VALUE, for instance email=ann@example.com.")
    else:
        kind, value = ("user", options.user) if options.user is not None else ("device", options.device)
    return Request(options.project, kind, sys.stdin.readline().strip("\r\n") if value == "-" else value, mode)


def print_concerned(concerned: Concerned, console: Console) -> None:
    """Print what would go, table by table."""
    if concerned.tables:
        table = Table(box=None, padding=(0, 1), header_style="dim")
        for column in ("table", "rows", "what becomes of them"):
            table.add_column(column, justify="right" if column == "rows" else "left")
        for held in concerned.tables:
            table.add_row(held.table, f"{held.rows:,}", held.fate)
        console.print(table)
        console.print("Anonymous rows that were credited to the id return to their device.")
    else:
        console.print("No table holds this id.")
    if concerned.seen_with:
        console.print("\nSeen on the same rows, and not forgotten with it:")
        for kind, value in concerned.seen_with[:_IDS_SHOWN]:
            console.print(f"  {escape(kind)} {escape(value)}")
        if len(concerned.seen_with) > _IDS_SHOWN:
            console.print(f"  … and {len(concerned.seen_with) - _IDS_SHOWN:,} more")
    _print_own_files(concerned.landing_files, concerned.setting_files, console)
    console.print("\nNothing was changed. To forget it, give the same arguments and --forget.")


def print_done(settings: Settings, request: Request, console: Console) -> None:
    """Say where the list is and what it takes to keep the id out."""
    path = settings.forgotten_path
    key = "its key in STITCH_FORGET_KEY" if settings.forget_key else f"its key '{key_path(path)}'"
    console.print(
        escape(
            f"Listed in '{path}' ({request.kind}, {request.mode}). Keep this file and {key} with your settings: "
            "without them nothing is loaded, or a rebuild brings the id back."
        )
    )


def print_certificate(settings: Settings, request: Request, dagster_home: Path, console: Console) -> int:
    """Search, print the certificate, and return the exit code: 1 if the id was found."""
    certificate = prove(settings, request, [dagster_home])
    for line in certificate.lines():
        console.print(escape(line))
    _print_own_files(certificate.landing_files, certificate.setting_files, console)
    return 0 if certificate.is_clean else 1


def _print_own_files(landing: Sequence[OwnFile], settings: Sequence[OwnFile], console: Console) -> None:
    for heading, files in (
        ("Your landed files hold it, and stay as they are (no row is loaded with a listed id):", landing),
        ("Your settings name it; correct these lines:", settings),
    ):
        if files:
            console.print(f"\n{heading}")
        for file in files:
            console.print(f"  {escape(file.name)}: {_lines(file.lines)}")


def _lines(lines: Sequence[int]) -> str:
    if not lines:
        return "cannot be read, so look yourself"
    shown = ", ".join(f"{line:,}" for line in lines[:_LINES_SHOWN])
    more = f" and {len(lines) - _LINES_SHOWN:,} more" if len(lines) > _LINES_SHOWN else ""
    return f"line{'s' * (len(lines) != 1)} {shown}{more}"
