"""``stitch forget`` on a terminal. The ids that it was given are printed nowhere."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from stitch_pipeline.cli import settle
from stitch_pipeline.cli.command import EXIT_FAILED, EXIT_OK, Commands, add_command, dagster_home, print_json
from stitch_pipeline.settings import Settings, SettingsError
from stitch_pipeline.settings.forgotten import Mode, key_path

if TYPE_CHECKING:
    from stitch_pipeline.stitching.forget import Concerned, OwnFile, Request
    from stitch_pipeline.stitching.prove import Certificate

_LINES_SHOWN = 12
_IDS_SHOWN = 20


def add(commands: Commands) -> None:
    forget = add_command(
        commands,
        "forget",
        run,
        "forget a user, device or identifier for good; without --forget it shows what would go",
    )
    forget.add_argument("--project", required=True, metavar="P", help="the project_id")
    which = forget.add_mutually_exclusive_group(required=True)
    # Read from standard input, the id is neither in the shell's history nor in the list of processes.
    which.add_argument("--user", metavar="ID", help="a user id; - reads it from standard input")
    which.add_argument("--device", metavar="ID", help="an anonymous id; - reads it from standard input")
    which.add_argument("--identifier", metavar="KIND=VALUE", help="as email=ann@example.com; KIND=- reads the value")
    forget.add_argument(
        "--pseudonymise", action="store_true", help="keep the rows under a pseudonym, for totals; default is to delete"
    )
    forget.add_argument("--not-loaded", action="store_true", help="with --forget: the project has no event yet")
    what = forget.add_mutually_exclusive_group()
    what.add_argument("--forget", action="store_true", help="do it, and settle")
    what.add_argument("--prove", action="store_true", help="search everything that was written, print a certificate")


def run(options: argparse.Namespace, console: Console) -> int:
    from stitch_pipeline.stitching.forget import add_to_list, forget, look, refuse_unknown_project
    from stitch_pipeline.stitching.prove import prove
    from stitch_pipeline.warehouse.engine import engine_of

    settings = Settings.load()
    request, engine = request_of(options), engine_of(settings)
    if options.prove:
        certificate = prove(settings, request, [dagster_home()])
        if options.json:
            print_json({"is_clean": certificate.is_clean, "certificate": certificate})
        else:
            print_certificate(certificate, console)
        return EXIT_OK if certificate.is_clean else EXIT_FAILED
    if not options.forget:
        with engine.open(read_only=True) as warehouse:
            concerned = look(warehouse, settings, request)
        if options.json:
            print_json(concerned)
        else:
            print_concerned(concerned, console)
        return EXIT_OK
    if not options.not_loaded and engine.exists():
        with engine.open(read_only=True) as warehouse:
            refuse_unknown_project(warehouse, settings, request)
    add_to_list(settings, request)  # from here on no run loads it, also if the warehouse is busy now
    print_done(settings, request, console)
    with engine.open() as warehouse:
        forget(warehouse, settings, [request])
    return settle.run(
        argparse.Namespace(reconcile=False, view_stitching=settings.view_stitching_is_on, json=options.json), console
    )


def request_of(options: argparse.Namespace) -> Request:
    """The id that the arguments name. Raises SettingsError if an identifier is not written as KIND=VALUE."""
    from stitch_pipeline.stitching.forget import Request

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


def print_certificate(certificate: Certificate, console: Console) -> None:
    """Print what was searched, what was found, and which lines of your own files hold the id."""
    for line in certificate.lines():
        console.print(escape(line))
    _print_own_files(certificate.landing_files, certificate.setting_files, console)


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
