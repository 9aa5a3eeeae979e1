"""``stitch query``: a query over the published copy, as a table, JSON or CSV."""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterator, Sequence
from datetime import date, datetime
from itertools import islice
from typing import Any

from rich.console import Console

from stitch_pipeline.cli.command import EXIT_OK, Commands, add_command, as_json, positive
from stitch_pipeline.cli.table import print_table
from stitch_pipeline.settings import Settings
from stitch_pipeline.warehouse.port import Row


def add(commands: Commands) -> None:
    """Declare the command."""
    query = add_command(commands, "query", run, help="query the published tables and views; never waits for a run")
    query.add_argument("sql", metavar="SQL", help="for instance: select count(*) from stitched_sessions")
    query.add_argument("--csv", action="store_true", help="print CSV with a header")
    query.add_argument("--limit", type=positive, default=40, metavar="N", help="rows of a table to show (default 40)")


def run(options: argparse.Namespace, console: Console) -> int:
    """Print the rows of the query, each as an object in an array with ``--json``. Raises NotPublished."""
    from stitch_pipeline.stitching.published import opened_for_reading, query

    with opened_for_reading(Settings.load()) as reader:
        columns, rows = query(reader, options.sql)
        if options.json:
            _print_json(columns, rows)
        elif options.csv:
            _print_csv(columns, rows)
        else:
            _print_table(columns, rows, options.limit, console)
    return EXIT_OK


def _print_json(columns: Sequence[str], rows: Iterator[Row]) -> None:
    """One array, with an object per row and line."""
    separator = "["
    for row in rows:
        sys.stdout.write(f"{separator}{as_json(dict(zip(columns, row, strict=True)))}")
        separator = ",\n "
    sys.stdout.write("[]\n" if separator == "[" else "]\n")


def _print_csv(columns: Sequence[str], rows: Iterator[Row]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_as_text(value) for value in row] for row in rows)


def _print_table(columns: Sequence[str], rows: Iterator[Row], limit: int, console: Console) -> None:
    shown = list(islice(rows, limit))
    numbers = [
        column
        for place, column in enumerate(columns)
        if shown and all(isinstance(row[place], int | float | None) for row in shown)
    ]
    cells = [["" if value is None else str(_as_text(value)) for value in row] for row in shown]
    print_table(console, columns, cells, numbers=numbers)
    more = "; there are more: --limit, --json or --csv prints them" if next(rows, None) is not None else ""
    console.print(f"[dim]{len(shown):,} row{'s' * (len(shown) != 1)}{more}[/]")


def _as_text(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat(sep=" ")
    if isinstance(value, date):
        return value.isoformat()
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
