"""``stitch sources check DIR`` on a terminal; ``landing.check`` does the checking."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.text import Text

from stitch_pipeline.cli.table import print_table
from stitch_pipeline.landing.check import SAMPLE_COLUMNS, Check, CheckedFile, Contents, Findings, Fit, Identifiers
from stitch_pipeline.landing.databases import TableUnreadable
from stitch_pipeline.landing.draft import Draft, feed_table
from stitch_pipeline.landing.extracts import TableFacts, sample_tables
from stitch_pipeline.landing.parser import Parser
from stitch_pipeline.settings import Settings, SettingsError
from stitch_pipeline.sources import SOURCES

_FILES_NAMED = 3


def check_sources(settings: Settings, path: Path, console: Console, *, details: bool) -> Checked:
    """Check every file below ``path`` and print a summary per feed and format, or with ``details`` every file.

    A single file is always printed in detail. Raises SettingsError if there is no file.
    """
    with Parser() as parser:
        check = Check(parser, settings, path)
        is_alone = len(check.files) == 1
        found = []
        for file in check.files:
            checked = check.look_at(file)
            found.append(checked)
            if details or is_alone:
                console.print(f"\n[bold]{escape(file.landing_file)}[/] ({file.size:,} bytes)")
                _print_file(checked, console)
        together = check.identifiers()
        findings = check.findings()
    if not details and not is_alone:
        _print_summary(found, console)
    if not is_alone:
        _print_identifiers(together, "All files together", console)
    for found_in_feed in findings:
        _print_findings(found_in_feed, console)
    drafts = {checked.draft.feed: checked.draft for checked in reversed(found) if checked.draft}
    for feed in sorted(drafts):
        _print_draft(drafts[feed], console)
    return Checked(found, together, findings, list(drafts.values()))


def check_tables(settings: Settings, feed: str, console: Console, *, details: bool) -> Checked:
    """Check the newest rows of a feed's tables as ``check_sources`` checks files; nothing is written.

    Raises SettingsError if the feed is no table, or if a table cannot be read.
    """
    with TemporaryDirectory(prefix="stitch-check-") as directory:
        try:
            tables = sample_tables(settings, feed, Path(directory))
        except TableUnreadable as error:
            raise SettingsError(f"{feed}: {error}") from None
        for facts in tables:
            _print_table_facts(facts, console)
        return replace(check_sources(settings, Path(directory, feed), console, details=details), tables=tables)


def _print_table_facts(facts: TableFacts, console: Console) -> None:
    console.print(f"[bold]{escape(facts.table)}[/]: {facts.columns} columns; its newest {facts.sampled:,} rows follow")
    if facts.ordered_by is None:
        console.print("  it is copied as a whole whenever it differs")
    elif facts.last is not None:
        console.print(f"  {escape(facts.ordered_by)} says which rows are new: from {facts.first} to {facts.last}")
    if facts.outside:
        console.print(f"  [yellow]{facts.outside:,} rows have no value there[/]; they are copied all the same")
    if facts.ahead:
        console.print(f"  [yellow]{facts.ahead:,} rows have a time there that has not come yet[/]; they wait for it")
    console.print(f"  {facts.copied:,} rows are copied by now")


@dataclass(frozen=True)
class Checked:
    """The result of the check of all files."""

    files: Sequence[CheckedFile]
    together: Identifiers
    findings: Sequence[Findings]
    """One per feed with some."""
    drafts: Sequence[Draft]
    """One per feed with a file of unknown format."""
    tables: Sequence[TableFacts] = ()
    """The tables that the files are samples of."""

    @property
    def is_good(self) -> bool:
        """False if a file cannot be read, or holds no event but should, or a feed has a problem."""
        return all(checked.is_good for checked in self.files) and not any(one.problems for one in self.findings)

    def document(self) -> dict[str, Any]:
        """What ``--json`` prints."""
        return {
            "is_good": self.is_good,
            "files": [
                {
                    "landing_file": checked.file.landing_file,
                    "bytes": checked.file.size,
                    "is_good": checked.is_good,
                    "read_as": _fit(checked.read_as),
                    "fits": [_fit(fit) for fit in checked.fits],
                    "problem": checked.problem,
                    "contents": checked.contents,
                }
                for checked in self.files
            ],
            "together": self.together,
            "feeds": self.findings,
            "drafts": self.drafts,
            "tables": self.tables,
        }


def _fit(fit: Fit | None) -> dict[str, str] | None:
    return None if fit is None else {"source": fit.source, "layout": fit.layout}


def _print_summary(files: Sequence[CheckedFile], console: Console) -> None:
    groups: dict[tuple[str, str], list[CheckedFile]] = {}
    for checked in files:
        groups.setdefault((checked.file.landing_file.split("/")[0], _kind(checked)), []).append(checked)
    rows = []
    for (feed, kind), group in sorted(groups.items()):
        contents = [checked.contents for checked in group if checked.contents]
        days = [
            day
            for found in contents
            for day in (found.identifiers.first_day, found.identifiers.last_day)
            if day is not None
        ]
        bad = sum(row.count for found in contents for row in found.bad_rows)
        rows.append(
            (
                feed,
                f"{len(group):,}",
                Text(kind, style="" if all(checked.is_good for checked in group) else "red"),
                f"{sum(found.identifiers.events for found in contents):,}" if contents else "",
                f"{min(days)} to {max(days)}" if days else "",
                f"{bad:,}" if bad else "",
            )
        )
    columns = ("feed", "files", "format", "events", "days", "bad rows")
    print_table(console, columns, rows, numbers=("files", "events", "bad rows"), wrapped="format")
    for feed, kind in sorted(groups):
        _print_problems(feed, groups[feed, kind], console)
    console.print("[dim]--details shows every file, with a sample of its events[/]")


def _kind(checked: CheckedFile) -> str:
    if not checked.file.size:
        return "empty"
    if checked.file.has_no_events or checked.named_like_table_of:
        return "holds no events"
    if checked.read_as is None:
        return "of no known format" if checked.file.source is None else "cannot be read"
    verb = "looks like" if checked.file.source is None else "read as"
    return f"{verb} {checked.read_as.source}: {checked.read_as.layout}"


def _print_problems(feed: str, group: Sequence[CheckedFile], console: Console) -> None:
    """What is wrong with the files of a line of the summary, each kind of problem once."""
    counts = Counter[tuple[str, str]]()
    examples: dict[tuple[str, str], tuple[str, str]] = {}
    for checked in group:
        for bad in checked.contents.bad_rows if checked.contents else ():
            counts[bad.field, bad.remedy] += bad.count
            examples.setdefault((bad.field, bad.remedy), (bad.reason, checked.file.landing_file))
    for (field, remedy), count in counts.most_common():
        reason, file = examples[field, remedy]
        console.print(
            f"[yellow]{count:,} row{'s' * (count != 1)} would be quarantined[/], for instance of {escape(file)}: "
            f"{escape(reason)} ({escape(field)}); {escape(remedy)}"
        )
    problems = [checked for checked in group if checked.problem]
    for checked in problems[:_FILES_NAMED]:
        console.print(f"[red]{escape(checked.file.landing_file)} cannot be read[/]: {escape(str(checked.problem))}")
    if len(problems) > _FILES_NAMED:
        console.print(f"  … and {len(problems) - _FILES_NAMED:,} more of {escape(feed)}")
    if (suggestion := _suggestion(group[0])) is not None:
        console.print(suggestion)


def _suggestion(checked: CheckedFile) -> str | None:
    feed = checked.file.landing_file.split("/")[0]
    if not checked.fits or feed in SOURCES or (checked.file.source is not None and checked.read_as is not None):
        return None
    # Two lines, because TOML allows nothing after the heading of a table.
    table = escape(f'{feed_table(feed)}\nsource = "{checked.fits[0].source}"')
    return f"  to read it like that, write in stitch.toml:\n\n{table}\n"


def _print_findings(findings: Findings, console: Console) -> None:
    for colour, sentences in (("red", findings.problems), ("yellow", findings.warnings)):
        for sentence in sentences:
            console.print(f"  [{colour}]{escape(findings.feed)}[/]: {escape(sentence)}")


def _print_draft(draft: Draft, console: Console) -> None:
    console.print(
        f"\nA draft for the feed [bold]{escape(draft.feed)}[/], guessed from names and values. Correct it, write it "
        "into stitch.toml and check again (docs/sources.md):\n"
    )
    # Without the console's markup, because it is to be copied.
    console.print(draft.toml, markup=False, end="")
    for sentence in draft.missing:
        console.print(f"[yellow]{escape(sentence)}[/]")


def _print_file(checked: CheckedFile, console: Console) -> None:
    file, fits, read_as = checked.file, checked.fits, checked.read_as
    suggestion = _suggestion(checked)
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
        console.print(f"  [red]looks like none of {', '.join(name for name in SOURCES if name != 'custom')}[/]")
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
    cells = [["" if value is None else str(value) for value in row] for row in contents.sample]
    print_table(console, SAMPLE_COLUMNS, cells, longest=26)
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
    if found.repeated:
        is_one = found.repeated == 1
        console.print(
            f"  [yellow]{found.repeated:,} row{'s' * (not is_one)} repeat{'s' * is_one} the event id of another row[/] "
            f"and would not count: rows with one event id are one event"
        )
    console.print(
        f"  {title}: {found.events:,} event{'s' * (found.events != 1)} of {found.first_day} to {found.last_day}: "
        f"{found.device_only:,} with a device only, {found.both:,} with device and user, "
        f"{found.user_only:,} with a user only, {found.neither:,} with neither; "
        f"{found.blocked:,} with an id that is blocked"
    )
    console.print(
        f"  {found.linked_devices:,} of {found.devices:,} devices would stitch, which credits up to "
        f"{found.credited_events:,} anonymous events to users"
    )
