"""``stitch sources check DIR`` on a terminal; ``landing.check`` does the checking."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from stitch_pipeline.landing.check import SAMPLE_COLUMNS, Check, CheckedFile, Contents, Identifiers
from stitch_pipeline.landing.parser import Parser
from stitch_pipeline.settings import Settings
from stitch_pipeline.sources import SOURCES


def check_sources(settings: Settings, path: Path, console: Console) -> bool:
    """Print the check of every file below ``path``; False if one of them cannot be read, or holds no event but should.

    Raises SettingsError if there is no file.
    """
    is_good = True
    with Parser() as parser:
        check = Check(parser, settings, path)
        for file in check.files:
            console.print(f"\n[bold]{escape(file.landing_file)}[/] ({file.size:,} bytes)")
            checked = check.look_at(file)
            _print_file(checked, console)
            is_good &= checked.is_good
        if len(check.files) > 1:
            _print_identifiers(check.identifiers(), "All files together", console)
    return is_good


def _print_file(checked: CheckedFile, console: Console) -> None:
    file, fits, read_as = checked.file, checked.fits, checked.read_as
    feed = file.landing_file.split("/")[0]
    suggestion = ""
    if fits and feed not in SOURCES:
        table = f'[feeds.{feed}] source = "{fits[0].source}"'
        suggestion = f"  to read it like that, write in stitch.toml: {escape(table)}"
    if not file.size:
        console.print("  empty: nothing to load")
    elif file.has_no_events:
        how = "completes the files beside it" if checked.completes_others else "is left alone"
        console.print(f"  holds no events: {how}")
    elif read_as is None and file.source is not None:
        console.print(f"  [red]cannot be read as {file.source.name}[/]: {escape(str(checked.problem))}")
        if suggestion:
            console.print(suggestion)
    elif checked.named_like_table_of:
        console.print(f"  named like a table of {' or '.join(checked.named_like_table_of)} that holds no events")
    elif read_as is None:
        console.print(
            f"  [red]looks like none of {', '.join(name for name in SOURCES if name != 'custom')}[/]: give "
            + escape(f'[feeds.{feed}] source = "custom"')
            + " and map its fields (docs/sources.md)"
        )
    elif file.source is not None:
        console.print(f"  read as {read_as.source}: {read_as.layout}")
    else:
        others = f" (or {', '.join(fit.source for fit in fits[1:])})" if len(fits) > 1 else ""
        console.print(f"  looks like {read_as.source}: {read_as.layout}{others}")
        if suggestion:
            console.print(suggestion)
    if checked.contents is not None:
        _print_contents(checked.contents, console)
    elif read_as is not None:
        console.print(f"  [red]cannot be read[/]: {escape(str(checked.problem))}")


def _print_contents(contents: Contents, console: Console) -> None:
    table = Table(box=None, padding=(0, 1), header_style="dim")
    for column in SAMPLE_COLUMNS:
        table.add_column(column, overflow="ellipsis", max_width=26, no_wrap=True)
    for row in contents.sample:
        table.add_row(*("" if value is None else escape(str(value)) for value in row))
    console.print(table)
    if contents.times is not None:
        console.print(f"  times are {contents.times} ({'stated' if contents.times_are_stated else 'detected'})")
    for bad in contents.bad_rows:
        console.print(
            f"  [yellow]{bad.count:,} row{'s' * (bad.count != 1)} would be quarantined[/]: {escape(bad.reason)} "
            f"({escape(bad.field)}); {escape(bad.remedy)}"
        )
    _print_identifiers(contents.identifiers, "In this file", console)


def _print_identifiers(found: Identifiers, title: str, console: Console) -> None:
    if not found.events:
        console.print(f"  [red]{title.lower()} there is no event[/]")
        return
    console.print(
        f"  {title}: {found.events:,} events of {found.first_day} to {found.last_day}: "
        f"{found.device_only:,} with a device only, {found.both:,} with device and user, "
        f"{found.user_only:,} with a user only, {found.neither:,} with neither; "
        f"{found.blocked:,} with an id that is blocked"
    )
    console.print(
        f"  {found.linked_devices:,} of {found.devices:,} devices would stitch, which credits up to "
        f"{found.credited_events:,} anonymous events to users"
    )
