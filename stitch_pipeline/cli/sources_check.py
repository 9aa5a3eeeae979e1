"""``python -m stitch_pipeline sources check DIR``: what would become of the files, without writing anything."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from stitch_pipeline.landing import reading
from stitch_pipeline.landing.landed_file import LandedFile, Shape, UnreadableFile, shape_of
from stitch_pipeline.landing.reading import FileGroup, ReadingRules
from stitch_pipeline.landing.zone import FoundFile, found_files, reading_rules
from stitch_pipeline.settings import Settings, SettingsError
from stitch_pipeline.sources import SOURCES

_SAMPLE_COLUMNS = (
    *("occurred_at", "event_type", "event_name", "anonymous_id", "user_id", "source_session_id", "page_path"),
    "project_id",
)
_SAMPLE_ROWS = 5


@dataclass(frozen=True)
class Fit:
    """A way in which a file can be read."""

    landed: LandedFile
    shape: Shape


def check_sources(settings: Settings, path: Path, console: Console) -> bool:
    """Print what the files below ``path`` look like; False if one of them cannot be read or holds no event."""
    files = list(_files(settings, path.resolve()))
    if not files:
        raise SettingsError(f"There is no file in '{path}': name a directory of event files, or one file.")
    is_good = True
    with duckdb.connect() as con:
        con.execute("set TimeZone = 'UTC'")
        con.execute(
            "create table seen (landing_file varchar, project_id varchar, anonymous_id varchar, user_id varchar, "
            "event_date date, field varchar, reason varchar, remedy varchar, has_blocked_id boolean, row_count bigint)"
        )
        with reading.without_pushdown(con):
            for file in files:
                is_good &= _check(con, settings, file, files, console)
        if len(files) > 1:
            _print_identifiers(con, "true", "All files together", console)
    return is_good


def _files(settings: Settings, path: Path) -> Iterator[FoundFile]:
    """The files below a directory: of its feeds if it is a landing directory, else of the directory as one feed."""
    if path.is_file():
        yield from (file for file in found_files(settings, path.parent.parent) if file.path == path)
    elif path.is_dir():
        is_feed = path != settings.landing_dir and any(child.is_file() for child in path.iterdir())
        found = found_files(settings, path.parent if is_feed else path)
        yield from (file for file in found if path in file.path.parents)
    else:
        raise SettingsError(f"'{path}' does not exist: name a directory of event files, or one file.")


def _check(
    con: duckdb.DuckDBPyConnection, settings: Settings, file: FoundFile, files: Sequence[FoundFile], console: Console
) -> bool:
    feed = file.landing_file.split("/")[0]
    console.print(f"\n[bold]{escape(file.landing_file)}[/] ({file.size:,} bytes)")
    if not file.size:
        console.print("  empty: nothing to load")
        return True
    if file.has_no_events and file.landed is not None:
        lookup = file.landed.source.lookup
        is_looked_up = lookup is not None and lookup.is_lookup_file(file.landing_file)
        console.print("  holds no events: " + ("completes the files beside it" if is_looked_up else "is left alone"))
        return True
    fits = _fits(con, file, files)
    if file.landed is not None:
        try:
            shape = shape_of(con, file.landed)
        except UnreadableFile as error:
            console.print(f"  [red]cannot be read as {file.landed.source.name}[/]: {escape(str(error))}")
            _suggest(fits, feed, console)
            return False
        landed = file.landed
        console.print(f"  read as {landed.source.name}: {shape.layout.name}")
    elif fits:
        landed, shape = fits[0].landed, fits[0].shape
        others = f" (or {', '.join(fit.landed.source.name for fit in fits[1:])})" if len(fits) > 1 else ""
        console.print(f"  looks like {fits[0].landed.source.name}: {shape.layout.name}{others}")
        _suggest(fits, feed, console)
    elif tables := [source.name for source in SOURCES.values() if source.has_no_events(file.landing_file)]:
        console.print(f"  named like a table of {' or '.join(tables)} that holds no events")
        return True
    else:
        console.print(
            f"  [red]looks like none of {', '.join(name for name in SOURCES if name != 'custom')}[/]: give "
            + escape(f'[feeds.{feed}] source = "custom"')
            + " and say which field is what (docs/sources.md)"
        )
        return False
    return _print_contents(con, FileGroup(shape, (landed,)), reading_rules(settings), console)


def _fits(con: duckdb.DuckDBPyConnection, file: FoundFile, files: Sequence[FoundFile]) -> list[Fit]:
    """How the file may be read, by its columns or keys; the layouts that demand most of it first."""
    fits = []
    for source in SOURCES.values():
        landed = LandedFile(
            file.path,
            file.landing_file,
            source,
            file.size,
            file.modified_ns,
            lookup_files=tuple(
                other.path
                for other in files
                if source.lookup and source.lookup.is_lookup_file(other.landing_file)
                if other.path.parent == file.path.parent
            ),
        )
        try:
            shape = shape_of(con, landed)
        except UnreadableFile:
            continue
        if shape.is_recognised and (shape.layout.recognised_by or shape.layout.columns):
            fits.append(Fit(landed, shape))
    return sorted(fits, key=lambda fit: -len(fit.shape.layout.recognised_by))


def _suggest(fits: Sequence[Fit], feed: str, console: Console) -> None:
    if fits and feed not in SOURCES:
        table = f'[feeds.{feed}] source = "{fits[0].landed.source.name}"'
        console.print(f"  to read it so, write in stitch.toml: {escape(table)}")


def _print_contents(con: duckdb.DuckDBPyConnection, group: FileGroup, rules: ReadingRules, console: Console) -> bool:
    name = group.files[0].landing_file
    reading.forget_rejects(con)
    try:
        sample = con.execute(
            f"select {', '.join(_SAMPLE_COLUMNS)} from ({reading.events_sql(group, rules)}) "
            f"where reason is null limit {_SAMPLE_ROWS}"
        ).fetchall()
        con.execute(
            "insert into seen select landing_file, project_id, anonymous_id, user_id, event_date, field, reason, "
            "remedy, blocked_anonymous_id is not null or blocked_user_id is not null, count(*) "
            f"from ({reading.numbered_rows_sql(group, rules)}) group by all"
        )
        times = con.execute(f"{reading.written_times_sql(group)} where occurred_at_text is not null limit 1").fetchall()
    except duckdb.Error as error:
        console.print(f"  [red]cannot be read[/]: {escape(str(error).splitlines()[0])}")
        return False
    for _, line, _, reason in reading.rejected_lines(con):
        con.execute(
            "insert into seen (landing_file, field, reason, remedy, row_count) "
            "values (?, 'the whole line', ?, 'correct the line and put the file back', 1)",
            [name, f"refused by the reader, for instance line {line}: {reason}"],
        )
    table = Table(box=None, padding=(0, 1), header_style="dim")
    for column in _SAMPLE_COLUMNS:
        table.add_column(column, overflow="ellipsis", max_width=26, no_wrap=True)
    for row in sample:
        table.add_row(*("" if value is None else escape(str(value)) for value in row))
    console.print(table)
    stated = group.shape.layout.times
    if times:
        console.print(f"  times are {stated or _time_unit(times[0][0])} ({'stated' if stated else 'detected'})")
    _print_bad_rows(con, name, console)
    return _print_identifiers(con, "landing_file = ?", "In this file", console, name)


def _time_unit(written: str) -> str:
    try:
        number = abs(float(written))
    except ValueError:
        return "iso8601"
    return "seconds" if number < 1e11 else "milliseconds" if number < 1e14 else "microseconds"


def _print_bad_rows(con: duckdb.DuckDBPyConnection, name: str, console: Console) -> None:
    bad = con.execute(
        # Reasons name the value that is wrong; the same fault with other values is one line here.
        "select sum(row_count)::bigint, field, any_value(reason), any_value(remedy) from seen "
        "where landing_file = ? and reason is not null "
        "group by field, regexp_replace(reason, '\"[^\"]*\"', '', 'g') order by 1 desc",
        [name],
    ).fetchall()
    for count, field, reason, remedy in bad:
        console.print(
            f"  [yellow]{count:,} row{'s' * (count != 1)} would be quarantined[/]: {escape(reason)} "
            f"({escape(field)}); {escape(remedy)}"
        )


def _print_identifiers(
    con: duckdb.DuckDBPyConnection, condition: str, title: str, console: Console, *parameters: str
) -> bool:
    """How many events carry which ids; False if there is no event at all."""
    row = con.execute(
        f"""
        with events as (select * from seen where reason is null and {condition}),
        devices as (
          select project_id, anonymous_id, count(user_id) > 0 as is_linked,
            sum(row_count) filter (where user_id is null) as anonymous_events
          from events
          where anonymous_id is not null
          group by project_id, anonymous_id
        )
        select
          coalesce(sum(row_count), 0)::bigint,
          coalesce(sum(row_count) filter (where anonymous_id is not null and user_id is null), 0)::bigint,
          coalesce(sum(row_count) filter (where anonymous_id is not null and user_id is not null), 0)::bigint,
          coalesce(sum(row_count) filter (where anonymous_id is null and user_id is not null), 0)::bigint,
          coalesce(sum(row_count) filter (where anonymous_id is null and user_id is null), 0)::bigint,
          coalesce(sum(row_count) filter (where has_blocked_id), 0)::bigint,
          min(event_date), max(event_date),
          (select count(*) from devices),
          (select count(*) from devices where is_linked),
          (select coalesce(sum(anonymous_events), 0)::bigint from devices where is_linked)
        from events
        """,
        list(parameters),
    ).fetchall()[0]
    events, device_only, both, user_only, neither, blocked, first, last, devices, linked, credited = row
    if not events:
        console.print(f"  [red]{title.lower()} there is no event[/]")
        return False
    console.print(
        f"  {title}: {events:,} events of {first} to {last}: {device_only:,} with a device only, {both:,} with device "
        f"and user, {user_only:,} with a user only, {neither:,} with neither; {blocked:,} with an id that is blocked"
    )
    console.print(
        f"  {linked:,} of {devices:,} devices would stitch, which credits up to {credited:,} anonymous events to users"
    )
    return True
