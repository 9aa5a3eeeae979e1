"""``stitch preview`` on a terminal. Not in ``stitching.preview``, so that a code location starts without `rich`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from stitch_pipeline.stitching.preview import Proposal, RulesPreview, how_to_follow, sentences

_SHOWN_DAYS = 31


def print_preview(preview: RulesPreview, proposal: Proposal, console: Console) -> None:
    """Print the rules, the totals, the days and the sample."""
    if not preview.changed_rules:
        console.print("These are the rules in force: the following changes are due anyway.")
    _print_table(["project", "rule", "in force", "proposed"], preview.changed_rules, console)
    for sentence in sentences(preview):
        console.print(sentence)
    if preview.days:
        console.print("\nPer day:")
        _print_table(["day", "sessions", "page views", "devices"], preview.days[-_SHOWN_DAYS:], console)
        if len(preview.days) > _SHOWN_DAYS:
            console.print(f" and {len(preview.days) - _SHOWN_DAYS:,} earlier days")
        console.print("\nFor instance:")
        _print_table(["table", "project", "day", "device", "row", "before", "after"], preview.sample, console)
    if advice := how_to_follow(proposal):
        console.print(f"\nNothing was changed. To follow these rules, {escape(advice)}")


def _print_table(columns: Sequence[str], rows: Sequence[Any], console: Console) -> None:
    if not rows:
        return
    table = Table(box=None, padding=(0, 1), header_style="dim")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        values = vars(row).values()
        table.add_row(*(f"{value:,}" if isinstance(value, int) else escape(str(value)) for value in values))
    console.print(table)
