"""``stitch preview`` on a terminal. Not in ``stitching.preview``, so that a code location starts without `rich`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from stitch_pipeline.cli.command import EXIT_OK, Commands, add_command, positive, print_json
from stitch_pipeline.settings import Policy, ProjectSettings, Settings
from stitch_pipeline.settings.rules import is_window, rules_with, window_of

if TYPE_CHECKING:
    from stitch_pipeline.stitching.preview import Proposal, RulesPreview

_SHOWN_DAYS = 31
_METAVARS = {
    "unique_identifiers": "KIND,KIND|none",
    "limits": "KIND.KIND=N,KIND.per_person=N|none",
    "contested_ids": "nobody|first",
}


def add(commands: Commands) -> None:
    preview = add_command(commands, "preview", run, "show what other rules would change; writes nothing")
    preview.add_argument("--project", metavar="P", help="the project_id; by default every project")
    for name in rules_with("preview"):
        rule = ProjectSettings.model_fields[name]
        values: dict[str, Any]
        if rule.annotation is Policy:
            values = {"choices": [policy.value for policy in Policy]}
        elif rule.annotation is bool:
            values = {"type": _switch, "metavar": "true|false"}
        elif is_window(name):
            values = {"type": _window, "metavar": "N"}
        elif rule.annotation is int:
            values = {"type": positive, "metavar": "N"}
        else:
            values = {"metavar": _METAVARS[name]}
        # Without a default, because None is unlimited: a rule that is absent stays as it is set.
        flag = "--" + name.replace("_", "-")
        preview.add_argument(flag, default=argparse.SUPPRESS, help=rule.description, **values)


def run(options: argparse.Namespace, console: Console) -> int:
    from stitch_pipeline.stitching.preview import Proposal, preview_rules

    given = vars(options)
    proposal = Proposal(options.project, {name: given[name] for name in rules_with("preview") if name in given})
    settings = Settings.load()
    preview = preview_rules(settings, proposal)
    if options.json:
        print_json(preview)
    else:
        print_preview(preview, settings, proposal, console)
    return EXIT_OK


def _switch(text: str) -> bool:
    if text not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"'{text}' is neither 'true' nor 'false'")
    return text == "true"


def _window(text: str) -> int | str | None:
    try:
        return window_of(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"'{text}' {error}") from None


def print_preview(preview: RulesPreview, settings: Settings, proposal: Proposal, console: Console) -> None:
    """Print the rules, the totals, the days and the sample."""
    from stitch_pipeline.stitching.preview import how_to_follow, sentences

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
    if advice := how_to_follow(settings, proposal):
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
