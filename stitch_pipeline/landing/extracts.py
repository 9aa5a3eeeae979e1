"""Tables as feeds: their rows are copied into files of the landing zone, the extracts, and loaded like any other file.

An extract holds the rows of one range of load times, of a day or less. Its metadata say which table, which range and
how many rows. So the files themselves are all that is known about how far a table was read, and nothing else can
disagree with them. A look at a table

- counts the rows of each recent range. A range with another number of rows than its file is copied again, and the file
  replaced in one step; once a day all ranges are compared by a digest, which also finds rows that changed;
- copies rows that no file has: first those of the past, later those that were added.

Rows that a running transaction may still add to come later. What is loaded, quarantined, changed or gone follows from
the files, as for the files of a team.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import quote

from stitch_pipeline.landing.databases import (
    Column,
    Database,
    Order,
    Position,
    TableUnreadable,
    metadata_of,
    opened,
)
from stitch_pipeline.landing.landed_file import UnreadableFile
from stitch_pipeline.landing.parser import Parser
from stitch_pipeline.landing.sealing import holds_seals, rewrite, seal
from stitch_pipeline.landing.zone import NOTES_OF_TABLES, extract_at, reading_rules
from stitch_pipeline.planning.sql_text import split_name
from stitch_pipeline.settings import FeedSettings, Settings, SettingsError
from stitch_pipeline.sources import SOURCES, Source
from stitch_pipeline.sources.paths import column_of

METADATA = "stitch_extract"
_LOCK = ".look.lock"
_PLACING_LOCK = ".placing.lock"
_SCRATCH = ".extracting"
_SEALING = ".sealing"
_SAMPLED_ROWS = 10_000
_OUTDATED = -1
"""In place of a number of rows: the extract is copied again at the next look."""
_OUTSIDE = "without-load-time"
_VERIFY_EVERY = timedelta(days=1)
# A last file with less than this share of `rows_per_file` grows; then the next file begins. So a look at a busy table
# copies few rows twice, and a quiet table has one file per day.
_GROWING_SHARE = 0.25


@dataclass(frozen=True)
class Extract:
    """A file with rows of a table. Without ``start`` and ``end`` they are all rows, or those without a position."""

    path: Path
    table: str
    order: str | None
    """The column of the load time or the sequence."""
    start: Position | None
    end: Position | None
    rows: int
    digest: str
    read_at: datetime
    """UTC, naive."""
    columns: str = ""
    """A digest of the table's columns. ``digest`` is of values alone, and a column that was renamed has the same."""


@dataclass
class Looked:
    """What a look at the tables of a feed did."""

    feed: str
    files: int = 0
    """Extracts that were written, replaced or removed."""
    rows: int = 0
    is_complete: bool = True
    """False if the next look has more to copy."""
    problem: str | None = None
    """Why a table could not be read, in a sentence with a remedy."""


@dataclass(frozen=True)
class _Notes:
    """When a feed was looked at. It paces the looks; what was read is known from the files alone."""

    looked_at: datetime | None = None
    problem: str | None = None
    verified: dict[str, str] = field(default_factory=dict)
    """By table, when all its ranges were last compared by their digests."""
    verified_up_to: dict[str, str | int] = field(default_factory=dict)
    """By table whose ranges are being compared, where the last one begins that was."""


def table_feeds(settings: Settings) -> list[str]:
    """The names of the feeds that are tables."""
    return [name for name, own in sorted(settings.feeds.items()) if own.table]


def is_extract(settings: Settings, landing_file: str) -> bool:
    """Whether the project itself writes the file: it is an extract of a table."""
    feed, _, name = landing_file.partition("/")
    tables = settings.feed(feed).table
    return name.endswith(".parquet") and any(name.startswith(f"{_written(table)}.") for table in tables)


def problems(settings: Settings) -> dict[str, str]:
    """By feed, why its tables could not be read at the last look."""
    found = {feed: _read_notes(settings, feed).problem for feed in table_feeds(settings)}
    return {feed: problem for feed, problem in found.items() if problem is not None}


def tables_never_read(settings: Settings) -> list[str]:
    """The feeds with tables of which no look has ended yet, well or badly."""
    found = {feed: _read_notes(settings, feed) for feed in table_feeds(settings)}
    return [feed for feed, notes in found.items() if notes.looked_at is None and notes.problem is None]


def look_at_tables(
    settings: Settings,
    *,
    budget_seconds: float | None = None,
    since: datetime | None = None,
    verify: bool = False,
    report: Callable[[str], None] = lambda line: None,
) -> list[Looked]:
    """Look at the feeds whose tables are due, for about ``budget_seconds`` each; one range may take longer.

    A feed is due if it was not looked at for as long as its settings say, or not after ``since``. ``verify`` compares
    all ranges by their digests now. A feed that cannot be read does not stop the others. The landing directory of a new
    deployment is created. Raises SettingsError if that of another is missing, or if the list of forgotten ids cannot be
    read.
    """
    feeds = table_feeds(settings)
    if feeds and not settings.index_path.exists():
        settings.landing_dir.mkdir(parents=True, exist_ok=True)
    if feeds and not settings.landing_dir.is_dir():
        raise SettingsError(
            f"STITCH_LANDING_DIR is '{settings.landing_dir}', which is not a directory: create it, or point the "
            "variable at the directory where your tracker's files arrive."
        )
    looked = []
    for feed in feeds:
        if verify or _is_due(settings, feed, since):
            deadline = None if budget_seconds is None else time.monotonic() + budget_seconds
            looked.append(_look_at(settings, feed, deadline, verify, report))
    return looked


def _is_due(settings: Settings, feed: str, since: datetime | None) -> bool:
    at = _read_notes(settings, feed).looked_at
    if at is None or (since is not None and at < since.astimezone(UTC).replace(tzinfo=None)):
        return True
    return _now() >= at + timedelta(seconds=settings.feed(feed).every_seconds)


def _look_at(
    settings: Settings, feed: str, deadline: float | None, verify: bool, report: Callable[[str], None]
) -> Looked:
    looked = Looked(feed)
    directory = settings.landing_dir / feed
    try:
        directory.mkdir(exist_ok=True)
        with _alone(directory) as is_alone:
            if not is_alone:  # another process looks at this very moment
                return looked
            notes = _read_notes(settings, feed)
            found: list[str] = []
            for table in settings.feed(feed).table:
                try:
                    with _database(settings, feed) as database, Parser(settings.memory_limit) as parser:
                        _Look(settings, feed, table, database, parser, looked, deadline, notes, verify, report).run()
                except (TableUnreadable, SettingsError) as error:
                    found.append(str(error))
            looked.problem = " ".join(dict.fromkeys(found)) or None
            shutil.rmtree(directory / _SCRATCH, ignore_errors=True)
            if looked.is_complete or looked.problem is not None:
                notes = replace(notes, looked_at=_now())
            _write_notes(settings, feed, replace(notes, problem=looked.problem))
    except OSError as error:
        looked.problem = (
            f"The extracts of feed {feed} cannot be written to '{directory}' ({error.strerror}): let this user write "
            "there, and see that there is room."
        )
    return looked


@dataclass(frozen=True)
class TableFacts:
    """What a table of a feed has to offer."""

    table: str
    columns: int
    ordered_by: str | None
    """The column of the load time or the sequence; None for a table that is copied as a whole."""
    first: Position | None
    last: Position | None
    outside: int
    """Rows without a load time, or with one that no calendar has."""
    ahead: int
    """Rows with a load time that has not come yet. They are copied when it has."""
    sampled: int
    """How many rows were looked at: the newest ones."""
    copied: int
    """Rows in the extracts that are there by now."""


def sample_tables(settings: Settings, feed: str, directory: Path) -> list[TableFacts]:
    """Copy the newest rows of the feed's tables to a directory named after it, in ``directory``.

    Raises TableUnreadable, and SettingsError if the feed is no table or its connection is wrong.
    """
    own = settings.feed(feed)
    if not own.table:
        known = ", ".join(table_feeds(settings))
        raise SettingsError(
            f"'{feed}' is no feed with a table{f'; these are: {known}' if known else ''}: name the table in "
            f"[feeds.{feed}] of stitch.toml, or give a directory of files to check."
        )
    source, place, facts = _source(own, feed), directory / feed, []
    place.mkdir()
    with _database(settings, feed) as database:
        for table in own.table:
            scratch = directory / _SCRATCH
            scratch.mkdir()
            with database.snapshot():
                columns = database.columns(table)
                is_whole = own.whole or source.has_no_events(f"{_written(table)}.parquet")
                order = None if is_whole else order_of(own, source, table, columns)
                condition, first, last, outside, ahead = "true", None, None, 0, 0
                if order is not None:
                    last, outside = database.last(table, order), database.count(table, order.is_outside)
                    first = None if last is None else database.first(table, order, order.first, order.after(last))
                    if not order.is_number and last is not None:
                        ahead = database.count(table, order.within(_now(), order.after(last)))
                    oldest = database.newest(table, order, _SAMPLED_ROWS)
                    if oldest is not None and last is not None:
                        condition = order.within(oldest, order.after(last))
                sampled, _ = database.summary(table, condition)
                database.copy(table, columns, condition, scratch, place / _name(table, None), {})
            shutil.rmtree(scratch)
            copied = sum(one.rows for one in extracts_in(settings.landing_dir / feed, table).values())
            name = order.name if order else None
            facts.append(TableFacts(table, len(columns), name, first, last, outside, ahead, sampled, copied))
    return facts


@contextmanager
def _database(settings: Settings, feed: str) -> Iterator[Database]:
    address = settings.connection_of(feed)
    if address is None:
        raise TableUnreadable(
            f"Nothing says where the tables of feed {feed} are: set STITCH_FEEDS_URL, or connection in its table of "
            "stitch.toml."
        )
    with opened(address, settings.memory_limit) as database:
        yield database


@contextmanager
def _alone(directory: Path) -> Iterator[bool]:
    with (directory / _LOCK).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


class _Look:
    """One look at one table."""

    def __init__(
        self,
        settings: Settings,
        feed: str,
        table: str,
        database: Database,
        parser: Parser,
        looked: Looked,
        deadline: float | None,
        notes: _Notes,
        verify: bool,
        report: Callable[[str], None],
    ) -> None:
        self._settings, self._feed, self._table, self._database = settings, feed, table, database
        self._own: FeedSettings = settings.feed(feed)
        self._looked, self._deadline, self._notes, self._report = looked, deadline, notes, report
        self._verify, self._has_begun = verify, False
        self._parser = parser
        self._directory = settings.landing_dir / feed

    def run(self) -> None:
        # Before the snapshot: a transaction that ends in between is then among what the snapshot sees.
        bound = self._database.settled_until()
        with self._database.snapshot():
            self._columns = self._database.columns(self._table)
        self._refuse_missing_columns()
        source = _source(self._own, self._feed)
        if source.lookup is not None and source.lookup.is_lookup_file(f"{_written(self._table)}.parquet"):
            self._copy_whole()
        elif source.has_no_events(f"{_written(self._table)}.parquet"):
            raise TableUnreadable(
                f"The table {self._table} holds no events of {source.name}, as its name says: leave it out of the feed."
            )
        elif self._own.whole:
            self._copy_whole()
        else:
            order = order_of(self._own, source, self._table, self._columns)
            self._copy_ranges(order, bound)

    def _refuse_missing_columns(self) -> None:
        """Raise TableUnreadable for a field of the feed with a column that the table lacks, as after a renaming.

        Otherwise its rows would be loaded again without the field, and their links be gone. Of several tables each may
        lack what another has.
        """
        if len(self._own.table) > 1:
            return
        names = {column.name.lower() for column in self._columns}
        for field_name, paths in self._own.fields.items():
            columns = [column_of(path) for path in paths]
            # A column may have dots in its name.
            known = (
                column is None or names & {column.lower(), path.lower()}
                for column, path in zip(columns, paths, strict=True)
            )
            if not any(known):
                missing = " or ".join(dict.fromkeys(map(str, columns)))
                raise TableUnreadable(
                    f"The table {self._table} has no column {missing}: correct {field_name} in "
                    f"[feeds.{self._feed}.fields], or bring the column back. What was copied of it stays."
                )

    def _is_late(self) -> bool:
        """Whether the rest is left to the next look. Never before the first step, so that each look gets on."""
        if self._deadline is not None and self._has_begun and time.monotonic() >= self._deadline:
            self._looked.is_complete = False
            return True
        self._has_begun = True
        return False

    def _copy_whole(self) -> None:
        known = self._extracts(None).get(_name(self._table, None))
        self._remove([one for one in self._all() if one.path.name != _name(self._table, None)])
        with self._database.snapshot():
            found = self._database.summary(self._table, "true")
        if known is None or (known.rows, known.digest) != found:
            self._write(
                Extract(self._directory / _name(self._table, None), self._table, None, None, None, 0, "", _now())
            )

    def _copy_ranges(self, order: Order, bound: datetime) -> None:
        overlap = timedelta(hours=self._own.overlap_hours)
        # A transaction that runs longer than the overlap does not hold up everybody; its rows are found by counting.
        bound = max(bound, _now() - overlap)
        known = self._extracts(order)
        outside = known.pop(_name(self._table, _OUTSIDE), None)
        extracts = sorted(known.values(), key=_start)
        outdated = [one for one in self._all() if one.path.name not in {*known, _name(self._table, _OUTSIDE)}]
        self._look_outside(order, outside)
        with self._database.snapshot():
            last = self._database.last(self._table, order) if order.is_number else bound
        end = order.after(last) if order.is_number and last is not None else bound
        recent = [one for one in extracts if one.rows == _OUTDATED or self._is_recent(one, end, overlap)]
        for one in self._with_other_counts(order, recent):
            if self._is_late():
                return
            self._write(one, order)
        for before, after in pairwise(extracts):
            if after in recent:
                self._fill(order, before.end, after.start)
        self._fill(order, extracts[-1].end if extracts else order.first, end, last=extracts[-1] if extracts else None)
        if self._looked.is_complete:
            self._remove(outdated)
            self._compare(order, extracts)

    def _look_outside(self, order: Order, known: Extract | None) -> None:
        """The rows without a load time, or with one that no calendar has, are a file of their own."""
        with self._database.snapshot():
            found = self._database.summary(self._table, order.is_outside)
        if found != ((known.rows, known.digest) if known else (0, "0")):
            path = self._directory / _name(self._table, _OUTSIDE)
            self._write(Extract(path, self._table, order.name, None, None, 0, "", _now()), order)

    def _with_other_counts(self, order: Order, extracts: Sequence[Extract]) -> list[Extract]:
        """The extracts whose range has another number of rows by now."""
        if not extracts:
            return []
        bounds: list[Any] = sorted({bound for one in extracts for bound in (one.start, one.end)})
        with self._database.snapshot():
            counts = self._database.counts(self._table, order, bounds)
        return [one for one in extracts if counts.get(bounds.index(one.start), 0) != one.rows]

    def _compare(self, order: Order, extracts: Sequence[Extract]) -> None:
        """Once a day, compare every range by its digest, and look for rows that lie in none. It goes on next time."""
        table, notes = self._table, self._notes
        compared_at = notes.verified.setdefault(table, _now().isoformat())
        since = datetime.fromisoformat(compared_at)
        if not self._verify and _now() < since + _VERIFY_EVERY:
            return
        up_to = None if self._verify else _position(notes.verified_up_to.get(table))
        start: Position | None = order.first
        for one in extracts:
            # What was copied since the last comparison was right then.
            is_due = self._verify or one.read_at <= since
            if is_due and (up_to is None or _start(one) > up_to):
                if self._is_late():
                    return
                self._fill(order, start, one.start)
                with self._database.snapshot():
                    found = self._database.summary(table, _condition(one, order))
                if found != (one.rows, one.digest):
                    self._write(one, order)
                notes.verified_up_to[table] = one.start.isoformat() if isinstance(one.start, datetime) else _start(one)
            start = one.end
        notes.verified[table] = _now().isoformat()
        notes.verified_up_to.pop(table, None)

    def _is_recent(self, one: Extract, end: Position, overlap: timedelta) -> bool:
        if isinstance(one.end, datetime) and isinstance(end, datetime):
            return one.end > end - overlap
        return one.read_at > _now() - overlap

    def _fill(self, order: Order, start: Any, stop: Any, last: Extract | None = None) -> None:
        """Copy the rows of a range that no extract covers, in ranges of a day or less.

        ``last`` is the extract before it, which may grow.
        """
        table, limit = self._table, self._own.rows_per_file
        while start < stop:
            if self._is_late():
                return
            with self._database.snapshot():
                first: Any = self._database.first(table, order, start, stop)
                if first is None:
                    return
                begin: Any = first
                end: Any = stop
                if isinstance(first, datetime) and isinstance(stop, datetime):
                    midnight = first.replace(hour=0, minute=0, second=0, microsecond=0)
                    begin = max(midnight, start)
                    end = min(stop, midnight + timedelta(days=1))
                beyond: Any = self._database.nth(table, order, begin, end, limit)
                if beyond is not None and beyond > first:
                    end = beyond
                elif beyond is not None:
                    # Rows of one position stay together, however many they are.
                    end = self._database.first(table, order, order.after(first), end) or end
                if last is not None and beyond is None and self._may_grow(last, first, end, order):
                    extract = replace(last, end=end)
                else:
                    path = self._directory / _name(table, begin)
                    extract = Extract(path, table, order.name, begin, end, 0, "", _now())
            self._write(extract, order)
            last, start = None, end

    def _may_grow(self, last: Extract, first: Position, end: Position, order: Order) -> bool:
        """Whether new rows join those of the last extract, because it is of the same day and small."""
        same_day = not isinstance(first, datetime) or (
            isinstance(last.start, datetime) and first.date() == last.start.date()
        )
        if not same_day or last.end is None or last.rows >= self._own.rows_per_file * _GROWING_SHARE:
            return False
        added = self._database.count(self._table, order.within(last.end, end))
        return last.rows + added <= self._own.rows_per_file

    def _write(self, one: Extract, order: Order | None = None) -> None:
        """Copy the extract's rows as they are now, and put the file in place of the one before."""
        condition = _condition(one, order)
        scratch = self._directory / _SCRATCH
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        with self._database.snapshot():
            rows, digest = self._database.summary(self._table, condition)
            if not rows:
                self._remove([one])
                return
            written = replace(one, rows=rows, digest=digest, read_at=_now(), columns=_digest_of(self._columns))
            target = scratch / "extract.parquet"
            self._database.copy(
                self._table, self._columns, condition, scratch, target, {METADATA: _as_metadata(written)}
            )
        with _placing(self._directory):
            _place(self._settings, self._feed, target, written, self._parser)
        self._looked.files += 1
        self._looked.rows += rows
        self._report(f"{self._feed}: {rows:,} rows of {self._table} in {written.path.name}")

    def _remove(self, extracts: Sequence[Extract]) -> None:
        for one in extracts:
            if one.path.exists():
                one.path.unlink()
                self._looked.files += 1

    def _all(self) -> list[Extract]:
        """Every extract of the table, also those of another column or of a table that had the name before."""
        return list(extracts_in(self._directory, self._table).values())

    def _extracts(self, order: Order | None) -> dict[str, Extract]:
        """The extracts that are of this very table and column, by file name. Those of other columns are outdated."""
        name, columns = None if order is None else order.name, _digest_of(self._columns)
        return {
            file: one if one.columns == columns else replace(one, rows=_OUTDATED)
            for file, one in extracts_in(self._directory, self._table).items()
            if (one.table, one.order) == (self._table, name)
        }


@contextmanager
def _placing(directory: Path) -> Iterator[None]:
    """Alone put files into their places. The list of forgotten ids is read within, so no file comes after it."""
    with (directory / _PLACING_LOCK).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _place(settings: Settings, feed: str, new: Path, extract: Extract, parser: Parser) -> None:
    """Put the file in the extract's place, without forgotten ids."""
    rules, about = reading_rules(settings), {METADATA: _as_metadata(extract)}
    if rules.forgetting is not None:
        sealed = new.with_name("sealed.parquet")
        try:
            if seal(parser, extract_at(settings, f"{feed}/{extract.path.name}", new), rules, sealed, about):
                new = sealed
        except UnreadableFile as error:
            raise TableUnreadable(
                f"The rows of {extract.table} cannot be read as events, and while ids are forgotten no row is copied "
                f"of which the ids cannot be read: {error}."
            ) from None
    new.replace(extract.path)


def seal_extracts(settings: Settings, may_hold: Callable[[str], bool]) -> int:
    """Take the forgotten ids out of the extracts that may hold some, by their names in the landing zone.

    Lookup tables are always looked at. Returns how many files were written anew. An extract that cannot be read is
    removed, because nobody knows whom it is about; the next look copies it again. Raises OSError if one cannot be
    written.
    """
    with Parser(settings.memory_limit) as parser:
        return _rewrite_extracts(
            settings,
            lambda name, is_lookup: is_lookup or may_hold(name),
            lambda feed, one: _sealed(settings, feed, one, parser),
        )


def _sealed(settings: Settings, feed: str, one: Extract, parser: Parser) -> bool:
    scratch = one.path.parent / _SEALING
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    new = scratch / "sealed.parquet"
    try:
        file = extract_at(settings, f"{feed}/{one.path.name}", one.path)
        is_sealed = seal(parser, file, reading_rules(settings), new, {METADATA: _as_metadata(one)})
        if is_sealed:
            new.replace(one.path)
        return is_sealed
    except UnreadableFile:
        one.path.unlink()
        return True
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def copy_sealed_again(settings: Settings) -> int:
    """Let the next look copy each extract again of which a row was sealed: somebody is not forgotten any more.

    Returns how many there are.
    """
    return _rewrite_extracts(settings, lambda name, is_lookup: True, _outdate_if_sealed)


def _outdate_if_sealed(feed: str, one: Extract) -> bool:
    scratch = one.path.with_name(f".{one.path.name}.outdated")
    with Parser() as parser:
        if one.order is None or holds_seals(parser, one.path):
            rewrite(parser, one.path, scratch, {METADATA: _as_metadata(replace(one, rows=_OUTDATED))})
            scratch.replace(one.path)
            return True
    return False


def _rewrite_extracts(
    settings: Settings, is_meant: Callable[[str, bool], bool], rewritten: Callable[[str, Extract], bool]
) -> int:
    count = 0
    for feed in table_feeds(settings):
        directory = settings.landing_dir / feed
        if not directory.is_dir():
            continue
        source = _source(settings.feed(feed), feed)
        with _placing(directory):
            for table in settings.feed(feed).table:
                for name, one in extracts_in(directory, table).items():
                    if is_meant(f"{feed}/{name}", source.has_no_events(name)):
                        count += rewritten(feed, one)
    return count


def own_files(settings: Settings) -> list[Path]:
    """The extracts, and what a look that was killed has left of others."""
    directories = [settings.landing_dir / feed for feed in table_feeds(settings)]
    extracts = [
        path
        for feed, directory in zip(table_feeds(settings), directories, strict=True)
        for path in sorted(directory.glob("*.parquet"))
        if is_extract(settings, f"{feed}/{path.name}")
    ]
    left = [path for directory in directories for path in sorted(directory.glob(".*/*")) if path.is_file()]
    return [*extracts, *left]


def extracts_in(directory: Path, table: str) -> dict[str, Extract]:
    """The extracts of a table by file name. A file of such a name that cannot be read is left out: it is replaced."""
    paths = sorted(path for path in directory.glob("*.parquet") if path.name.startswith(f"{_written(table)}."))
    return {path.name: _from_metadata(path, about) for path, about in metadata_of(paths, METADATA).items() if about}


def order_of(own: FeedSettings, source: Source, table: str, columns: Sequence[Column]) -> Order:
    """The column that says which rows of a table are new. Raises TableUnreadable if there is none."""
    by_name = {column.name.lower(): column for column in reversed(columns)}
    stated = own.load_time or own.sequence
    candidates = (stated,) if stated else source.load_times
    for name in candidates:
        column = by_name.get(name.lower())
        if column is None:
            continue
        is_number = column.orders_as == "integer"
        fits = column.orders_as is not None and (not stated or is_number == (own.sequence is not None))
        if fits and column.orders_as is not None:
            return Order(column.name, column.orders_as)
        if stated:
            expected = "a whole number" if own.sequence else "a timestamp or a date"
            raise TableUnreadable(f"The column {name} of {table} is {column.file_type} and not {expected}.")
    if stated:
        raise TableUnreadable(f"The table {table} has no column {stated}: correct load_time or sequence of its feed.")
    known = f" ({', '.join(source.load_times)})" if source.load_times else ""
    raise TableUnreadable(
        f"Nothing says which rows of {table} are new: name the column with the time at which a row was loaded{known} "
        "as load_time of its feed, one with a growing number as sequence, or say whole = true for a small table."
    )


def _digest_of(columns: Sequence[Column]) -> str:
    described = json.dumps([(column.name, column.file_type) for column in columns])
    return hashlib.sha256(described.encode()).hexdigest()[:16]


def _source(own: FeedSettings, feed: str) -> Source:
    return SOURCES[own.source or feed]


def _condition(one: Extract, order: Order | None) -> str:
    if order is None:
        return "true"
    if one.start is None or one.end is None:
        return order.is_outside
    return order.within(one.start, one.end)


def _written(table: str) -> str:
    """The table's own name as file names have it: layouts are recognised by it, and the schema's could mislead them."""
    name = quote(split_name(table)[-1], safe=" -_$").replace(".", "%2E")
    return f"%5F{name[1:]}" if name.startswith("_") else name


def _name(table: str, start: Position | str | None) -> str:
    if start is None:
        return f"{_written(table)}.parquet"
    if isinstance(start, datetime):
        is_midnight = start.time() == datetime.min.time()
        start = start.date().isoformat() if is_midnight else start.isoformat().replace(":", "").replace(".", "-")
    return f"{_written(table)}.{start}.parquet"


def _start(one: Extract) -> Any:
    return one.start


def _position(written: Any) -> Position | None:
    return datetime.fromisoformat(written) if isinstance(written, str) else written


def _as_metadata(one: Extract) -> str:
    values = {name: value for name, value in asdict(one).items() if name != "path"}
    return json.dumps(values, default=lambda value: value.isoformat())


def _from_metadata(path: Path, about: dict[str, Any]) -> Extract:
    return Extract(
        path,
        about["table"],
        about["order"],
        _position(about["start"]),
        _position(about["end"]),
        about["rows"],
        about["digest"],
        datetime.fromisoformat(about["read_at"]),
        about.get("columns", ""),
    )


def _read_notes(settings: Settings, feed: str) -> _Notes:
    try:
        found = json.loads((settings.landing_dir / feed / NOTES_OF_TABLES).read_text())
        at = found["looked_at"]
        at = datetime.fromisoformat(at) if at else None
        return _Notes(at, found["problem"], dict(found["verified"]), dict(found["verified_up_to"]))
    except (OSError, ValueError, KeyError, TypeError):
        return _Notes()


def _write_notes(settings: Settings, feed: str, notes: _Notes) -> None:
    path = settings.landing_dir / feed / NOTES_OF_TABLES
    aside = path.with_name(f"{NOTES_OF_TABLES}.{os.getpid()}")
    aside.write_text(json.dumps(asdict(notes), default=lambda value: value.isoformat()))
    aside.replace(path)


def _now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)
