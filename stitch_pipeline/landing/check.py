"""Check files before they land: how each would be read, and what would be quarantined. Nothing is written."""

from __future__ import annotations

import csv
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from stitch_pipeline.landing import reading, staging
from stitch_pipeline.landing.draft import Draft, draft, feed_table
from stitch_pipeline.landing.landed_file import LandedFile, Shape, UnreadableFile
from stitch_pipeline.landing.parser import Parser
from stitch_pipeline.landing.problems import REFUSED_LINE, REFUSED_LINE_REMEDY, WHOLE_LINE
from stitch_pipeline.landing.reading import EventBatch
from stitch_pipeline.landing.zone import landed_files, reading_rules
from stitch_pipeline.planning.sql_text import literal
from stitch_pipeline.settings import Settings, SettingsError
from stitch_pipeline.sources import SOURCES
from stitch_pipeline.sources.paths import parse_path

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
    repeated: int
    """Rows with the event id of another row; such rows count once."""


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
class Findings:
    """What is wrong with a feed as a whole, in sentences."""

    feed: str
    problems: Sequence[str]
    """Something that the feed's table declares is not there, or no event can be stitched."""
    warnings: Sequence[str]


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


@dataclass(frozen=True)
class _Names:
    """The columns of a file, or the keys of its documents."""

    names: frozenset[str]
    of_documents: bool

    def may_have(self, path: str) -> bool:
        """Whether the path is among the names, or is not a plain name, so that they do not tell."""
        if len(parse_path(path)) != 1 or path in self.names:
            return True
        # Columns are found in any case, keys of JSON are not.
        return not self.of_documents and path.lower() in {name.lower() for name in self.names}


class Check:
    """The files below ``path``: ``look_at`` checks one, ``identifiers`` counts over one or all that were checked.

    ``findings`` judges the feeds of those that were checked.

    Raises SettingsError if the path does not exist or holds no file.
    """

    def __init__(self, parser: Parser, settings: Settings, path: Path) -> None:
        self._parser = parser
        self._settings = settings
        self._names: dict[str, dict[str, _Names]] = {}
        """By feed and file, if the feed declares some."""
        # The files as they are: ids are left out or hashed when they are loaded.
        self._rules = replace(reading_rules(settings), forgetting=None, hashing=None)
        self.files = list(_files(settings, path.resolve()))
        if not self.files:
            raise SettingsError(f"There is no file in '{path}': name a directory of event files, or one file.")
        parser.execute(
            "create table seen (landing_file varchar, project_id varchar, anonymous_id varchar, user_id varchar, "
            "event_date date, problem varchar, field varchar, reason varchar, remedy varchar, has_blocked_id boolean, "
            "row_count bigint)"
        )
        # Hashes, because the ids of all events would not fit into memory.
        parser.execute("create table seen_ids (file_hash ubigint, id_hash ubigint)")

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
        batch = EventBatch(read_as.shape, (read_as.landed,), self._rules)
        try:
            contents = self._contents(batch)
            self._remember_names(batch)
        except UnreadableFile as error:
            return CheckedFile(file, fits, read_as, problem=str(error))
        return CheckedFile(file, fits, read_as, contents=contents)

    def findings(self) -> list[Findings]:
        """What is wrong with the feeds of the files that were checked; a feed without findings is left out."""
        feeds = dict.fromkeys(_feed(file) for file in self.files)
        found = [Findings(feed, self._problems(feed), self._warnings(feed)) for feed in feeds]
        return [one for one in found if one.problems or one.warnings]

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
              (select coalesce(sum(anonymous_events), 0)::bigint from devices where is_linked),
              (
                select count(*) - count(distinct id_hash) from seen_ids
                where $landing_file::varchar is null or file_hash = hash($landing_file)
              )
            from events
            """,
            landing_file=landing_file,
        )
        return Identifiers(*row)

    def _remember_names(self, batch: EventBatch) -> None:
        """The file's columns, or the keys of its documents, if its feed declares some."""
        landing_file = batch.files[0].landing_file
        own = self._settings.feed(_feed(batch.files[0]))
        if not own.fields and not own.event_id_from:
            return
        if batch.shape.is_document:
            keys = f"select distinct unnest(try(json_keys(raw_row))) from ({reading.numbered_rows_sql(batch)})"
            names = _Names(frozenset(str(key) for (key,) in self._parser.rows(keys)), of_documents=True)
        else:
            names = _Names(frozenset(name for name, _ in batch.shape.columns), of_documents=False)
        self._names.setdefault(_feed(batch.files[0]), {})[landing_file] = names

    def _problems(self, feed: str) -> list[str]:
        own, by_file = self._settings.feed(feed), self._names.get(feed)
        problems = []
        if by_file:
            names = {name for of_file in by_file.values() for name in of_file.names}
            declared = [*own.fields.items(), *(("event_id_from", (path,)) for path in own.event_id_from)]
            for field, paths in declared:
                if not any(of_file.may_have(path) for of_file in by_file.values() for path in paths):
                    files = (
                        min(by_file) if len(by_file) == 1 else f"any of {len(by_file):,} files, such as {min(by_file)}"
                    )
                    written = " or ".join(f"'{path}'" for path in paths)
                    nearest = get_close_matches(paths[0], sorted(names), n=1)
                    remedy = f"did you mean {nearest[0]}?" if nearest else f"there are: {', '.join(sorted(names)[:20])}"
                    problems.append(f"{field}: no column {written} in {files}; {remedy}")
        ((events, with_id),) = self._parser.rows(
            "select count(*), count(coalesce(anonymous_id, user_id)) from seen "
            "where problem is null and split_part(landing_file, '/', 1) = $feed",
            feed=feed,
        )
        if events and not with_id:
            problems.append(
                "no event has a device or a user, so nothing can be stitched: name their columns with anonymous_id and "
                f"user_id in {feed_table(feed).removesuffix(']')}.fields]"
            )
        return problems

    def _warnings(self, feed: str) -> list[str]:
        own = self._settings.feed(feed)
        times = own.fields.get("occurred_at", ("occurred_at",))
        listed = {path.lower() for path in own.event_id_from}
        if (own.source or feed) != "custom" or not listed or any(path.lower() in listed for path in times):
            return []
        return [
            "event_id_from lacks the time: events that agree in all of its columns count as one event, for instance "
            f"all visits of a device to one page. Add '{times[0]}' to it, unless its columns are an id of each event"
        ]

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
        # Both tables are filled from one reading of the file.
        parser.execute(
            "create or replace temp table rows_of_file as select landing_file, project_id, event_id, anonymous_id, "
            "user_id, event_date, problem, field, reason, remedy, "
            "coalesce(blocked_anonymous_id, blocked_user_id, blocked_previous_id) is not null as has_blocked_id "
            f"from ({reading.numbered_rows_sql(batch)})"
        )
        parser.execute(
            "insert into seen_ids select hash(landing_file), hash(project_id, event_id) from rows_of_file "
            "where problem is null"
        )
        parser.execute(
            "insert into seen select landing_file, project_id, anonymous_id, user_id, event_date, problem, field, "
            "reason, remedy, has_blocked_id, count(*) from rows_of_file group by all"
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


def _feed(file: LandedFile) -> str:
    return file.landing_file.split("/")[0]


def _time_unit(written: str) -> str:
    try:
        number = abs(float(written))
    except ValueError:
        return "iso8601"
    return "seconds" if number < 1e11 else "milliseconds" if number < 1e14 else "microseconds"
