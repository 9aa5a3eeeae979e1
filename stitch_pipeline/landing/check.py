"""Check files before they land: how each would be read, and what would be quarantined. Nothing is written."""

from __future__ import annotations

import csv
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

from stitch_pipeline.landing import reading, staging
from stitch_pipeline.landing.draft import Draft, draft
from stitch_pipeline.landing.landed_file import LandedFile, Shape, UnreadableFile
from stitch_pipeline.landing.parser import Parser
from stitch_pipeline.landing.problems import REFUSED_LINE, REFUSED_LINE_REMEDY, WHOLE_LINE
from stitch_pipeline.landing.reading import EventBatch
from stitch_pipeline.landing.zone import landed_files, reading_rules
from stitch_pipeline.planning.sql_text import literal
from stitch_pipeline.settings import Settings, SettingsError
from stitch_pipeline.sources import SOURCES

SAMPLE_COLUMNS = (
    *("occurred_at", "event_type", "event_name", "anonymous_id", "user_id", "source_session_id", "page_path"),
    "project_id",
)
_SAMPLE_ROWS = 5


@dataclass(frozen=True)
class Fit:
    """A way in which a file can be read."""

    landed: LandedFile
    shape: Shape

    @property
    def source(self) -> str:
        return self.shape.source.name

    @property
    def layout(self) -> str:
        return self.shape.layout.name


@dataclass(frozen=True)
class BadRows:
    """Rows with the same problem in the same field. ``reason`` is an example: the reason of one of them."""

    count: int
    field: str
    reason: str
    remedy: str


@dataclass(frozen=True)
class Identifiers:
    """Counts of events by the ids they carry, and of the devices that would be linked to a user."""

    events: int
    device_only: int
    both: int
    user_only: int
    neither: int
    blocked: int
    first_day: date | None
    last_day: date | None
    devices: int
    linked_devices: int
    credited_events: int


@dataclass(frozen=True)
class Contents:
    """What the rows of a readable file hold."""

    sample: Sequence[tuple[Any, ...]]
    """The first events, with the columns of SAMPLE_COLUMNS."""
    times: str | None
    """A ``sources.source.TimeFormat``; None if no row has a time."""
    times_are_stated: bool
    """Whether the layout states the format; otherwise it is detected from one row."""
    bad_rows: Sequence[BadRows]
    identifiers: Identifiers


@dataclass(frozen=True)
class CheckedFile:
    """The result of the check of one file."""

    file: LandedFile
    fits: Sequence[Fit] = ()
    """How the file could be read, the most specific layout first."""
    read_as: Fit | None = None
    """How the file is read: as its feed says, otherwise by the first of ``fits``."""
    completes_others: bool = False
    """The file holds no events, but the lookup table of the files beside it."""
    named_like_table_of: Sequence[str] = ()
    """Sources that have a table without events with this name; only if the feed names no source and nothing fits."""
    problem: str | None = None
    """Why it cannot be read."""
    contents: Contents | None = None
    draft: Draft | None = None
    """How it could be read as ``custom``, if nothing fits."""

    @property
    def is_good(self) -> bool:
        """Whether the file holds an event, or is known to hold none."""
        if self.contents is not None:
            return self.contents.identifiers.events > 0
        return not self.file.size or self.file.has_no_events or bool(self.named_like_table_of)


class Check:
    """The files below ``path``: ``look_at`` checks one, ``identifiers`` counts over one or all that were checked.

    Raises SettingsError if the path does not exist or holds no file.
    """

    def __init__(self, parser: Parser, settings: Settings, path: Path) -> None:
        self._parser = parser
        # The files as they are: what is forgotten is left out when they are loaded.
        self._rules = replace(reading_rules(settings), forgetting=None)
        self.files = list(_files(settings, path.resolve()))
        if not self.files:
            raise SettingsError(f"There is no file in '{path}': name a directory of event files, or one file.")
        parser.execute(
            "create table seen (landing_file varchar, project_id varchar, anonymous_id varchar, user_id varchar, "
            "event_date date, problem varchar, field varchar, reason varchar, remedy varchar, has_blocked_id boolean, "
            "row_count bigint)"
        )

    def look_at(self, file: LandedFile) -> CheckedFile:
        """Check one file and add its rows to those that ``identifiers`` counts."""
        if not file.size and file.problem is None:
            return CheckedFile(file)
        if file.has_no_events and file.source is not None:
            lookup = file.source.lookup
            is_looked_up = lookup is not None and lookup.is_lookup_file(file.landing_file)
            return CheckedFile(file, completes_others=is_looked_up)
        try:
            if file.problem is not None:
                raise UnreadableFile(file.problem)
            file = self._parser.staged(file)
            staging.verify(file)
        except UnreadableFile as error:
            return CheckedFile(file, problem=str(error))
        fits = self._fits(file)
        if file.source is not None:
            try:
                read_as = Fit(file, self._parser.shape_of(file))
            except UnreadableFile as error:
                return CheckedFile(file, fits, problem=str(error))
        elif fits:
            read_as = fits[0]
        else:
            tables = [source.name for source in SOURCES.values() if source.has_no_events(file.landing_file)]
            return CheckedFile(file, named_like_table_of=tables, draft=None if tables else self._draft(file))
        try:
            contents = self._contents(EventBatch(read_as.shape, (read_as.landed,), self._rules))
        except UnreadableFile as error:
            return CheckedFile(file, fits, read_as, problem=str(error))
        return CheckedFile(file, fits, read_as, contents=contents)

    def identifiers(self, landing_file: str | None = None) -> Identifiers:
        """The counts for one file, or for all files that were checked."""
        (row,) = self._parser.rows(
            """
            with events as (
              select * from seen
              where problem is null and ($landing_file::varchar is null or landing_file = $landing_file)
            ),
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
            landing_file=landing_file,
        )
        return Identifiers(*row)

    def _draft(self, file: LandedFile) -> Draft | None:
        try:
            return draft(self._parser, file)
        except (OSError, ValueError, EOFError, zlib.error, csv.Error, UnreadableFile):
            return None

    def _fits(self, file: LandedFile) -> list[Fit]:
        fits = []
        for source in SOURCES.values():
            landed = LandedFile(
                file.path,
                file.landing_file,
                source,
                file.size,
                file.modified_ns,
                encoding=file.encoding,
                staged=file.staged,
                lookup_files=tuple(
                    other.path
                    for other in self.files
                    if source.lookup and source.lookup.is_lookup_file(other.landing_file)
                    if other.path.parent == file.path.parent
                ),
            )
            try:
                shape = self._parser.shape_of(landed)
            except UnreadableFile:
                continue
            if shape.is_recognised and (shape.layout.recognised_by or shape.layout.columns):
                fits.append(Fit(landed, shape))
        return sorted(fits, key=lambda fit: -len(fit.shape.layout.recognised_by))

    def _contents(self, batch: EventBatch) -> Contents:
        parser, landing_file = self._parser, batch.files[0].landing_file
        sample = parser.rows(f"select {', '.join(SAMPLE_COLUMNS)} from ({batch.events_sql}) limit {_SAMPLE_ROWS}")
        parser.forget_refused_lines()
        parser.execute(
            "insert into seen select landing_file, project_id, anonymous_id, user_id, event_date, problem, field, "
            "reason, remedy, blocked_anonymous_id is not null or blocked_user_id is not null, count(*) "
            f"from ({reading.numbered_rows_sql(batch)}) group by all"
        )
        parser.execute(
            "insert into seen by name select $landing_file as landing_file, "
            f"{literal(REFUSED_LINE)} as problem, {literal(WHOLE_LINE)} as field, "
            "'refused by the reader, for instance line ' || min(line) || ': ' || arg_min(reason, line) as reason, "
            f"{literal(REFUSED_LINE_REMEDY)} as remedy, count(*) as row_count "
            f"from ({parser.refused_lines_sql()}) having count(*) > 0",
            landing_file=landing_file,
        )
        stated = batch.shape.layout.times
        times = parser.rows(f"{reading.written_times_sql(batch)} where occurred_at_text is not null limit 1")
        bad_rows = parser.rows(
            "select sum(row_count)::bigint, field, any_value(reason), any_value(remedy) from seen "
            "where landing_file = $landing_file and problem is not null group by problem, field order by 1 desc",
            landing_file=landing_file,
        )
        return Contents(
            sample=sample,
            times=(stated or _time_unit(times[0][0])) if times else None,
            times_are_stated=stated is not None,
            bad_rows=[BadRows(*row) for row in bad_rows],
            identifiers=self.identifiers(landing_file),
        )


def _files(settings: Settings, path: Path) -> Iterator[LandedFile]:
    """The files below ``path``: those of its feeds if it is a landing directory, otherwise those of it as one feed."""
    if path.is_file():
        yield from (file for file in landed_files(settings, path.parent.parent).values() if file.path == path)
    elif path.is_dir():
        is_feed = path != settings.landing_dir and any(child.is_file() for child in path.iterdir())
        found = landed_files(settings, path.parent if is_feed else path)
        yield from (file for file in found.values() if path in file.path.parents)
    else:
        raise SettingsError(f"'{path}' does not exist: name a directory of event files, or one file.")


def _time_unit(written: str) -> str:
    try:
        number = abs(float(written))
    except ValueError:
        return "iso8601"
    return "seconds" if number < 1e11 else "milliseconds" if number < 1e14 else "microseconds"
