"""The index: a small SQLite file beside the warehouse, for what triggers must know while a run has it locked.

It holds two things. The first is the index of the landing zone: for every file the version that was read and its event
days. The second is a copy of what the warehouse knows: which files are loaded, which days are still to be rebuilt, and
which partitions are stale.

The warehouse is the truth, and the copy names the state of the warehouse that it describes (``marker``). Every run
renews the copy last. So after a run that was killed, or when a warehouse was restored or an index lost, the copy does
not describe the warehouse as it is. The trigger for recovery sees that and requests a run that looks and renews it.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import sqlite3
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

from stitch_pipeline.landing.landed_file import LandedFile
from stitch_pipeline.landing.parser import Parser, Profile
from stitch_pipeline.landing.zone import is_below_unlisted, landed_files, reading_rules
from stitch_pipeline.settings import Settings
from stitch_pipeline.settings.folder import prepare_folder

_SCHEMA = """
create table if not exists files (
  landing_file text primary key,
  version text,            -- as indexed; null once the file is gone
  days text not null,      -- JSON list of the days its rows belong to
  row_count integer not null,
  bad_row_count integer not null,
  bad_row_day text,        -- the day its bad rows are filed under
  problem text,            -- why it cannot be read at all
  loaded_version text,     -- null until loaded
  loaded_days text not null default '[]'
);
create table if not exists changed_days (day text primary key, marked_at real not null);
create table if not exists notes (name text primary key, value text not null);
"""

_FILES_AT_ONCE = 100
_EXAMPLES = 3
_HELD_BACK = "held_back"
_REPORTED = "reported: "
_DAMAGED = ("SQLITE_NOTADB", "SQLITE_CORRUPT")
_OF_ANOTHER_PROGRAM = ("no such column", "no such table", "has no column named", "is not a table")


class IndexUnusable(Exception):
    """The index cannot be read or written now; the message says why and what to do."""


class IndexReplaced(IndexUnusable):
    """The index was damaged and is empty now. Trying again succeeds."""


@dataclass(frozen=True)
class IndexedFile:
    """The entry of one file. ``version`` is None if the file is gone, ``loaded_version`` if it is not loaded."""

    landing_file: str
    version: str | None
    days: frozenset[date]
    row_count: int
    bad_row_count: int
    bad_row_day: date | None
    problem: str | None
    loaded_version: str | None
    loaded_days: frozenset[date]

    @property
    def is_pending(self) -> bool:
        return self.version != self.loaded_version

    @property
    def touched_days(self) -> frozenset[date]:
        """Days that loading this file may change."""
        return self.days | self.loaded_days


@dataclass(frozen=True)
class WarehouseState:
    """What the warehouse knows about itself, read while no other process could change it."""

    marker: str
    loaded: Mapping[str, tuple[str, Iterable[date]]]
    """Version and days of every loaded file, by the file's name."""
    changed_days: Mapping[date, datetime]
    """Days with changed events that are not fully rebuilt, and when each was marked (UTC)."""
    built_rules: str | None
    """The settings under which links and sessions were built; None before the first load."""
    stale: Mapping[str, Sequence[date]]
    """The days with stale rows, by grain (``sessions``, ``page_views``), as of the last look."""


@dataclass(frozen=True)
class Copy:
    """The index's copy of a ``WarehouseState``; see there."""

    marker: str
    history: str
    """Changes when the copy does not continue an earlier one: after a kill, a restore or a loss."""
    noted_at: str
    changed_days: Mapping[date, datetime]
    built_rules: str | None
    followed_rules: str | None
    """The stitching rules that the stored answers follow; None before the first look."""
    stale: Mapping[str, frozenset[date]]


class LandingIndex:
    """The index at ``path``, created if it does not exist. Each method is one transaction, or several."""

    def __init__(self, path: Path) -> None:
        prepare_folder(path)
        self.path = path
        try:
            self._create()
        except IndexReplaced:
            self._create()

    def _create(self) -> None:
        with self._transaction() as db:
            db.executescript(_SCHEMA)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Raises IndexUnusable. A damaged index is replaced by an empty one, and IndexReplaced is raised."""
        try:
            db = sqlite3.connect(self.path, timeout=30)
            try:
                with db:
                    yield db
            finally:
                db.close()
        except sqlite3.DatabaseError as error:
            if _is_damage(error):
                raise self._replaced(error) from error
            raise IndexUnusable(
                f"The index of the landing zone '{self.path}' cannot be used now ({error}): make room on its disk, or "
                "make it and its directory writable. Nothing is lost: the next run goes on."
            ) from error

    def _replaced(self, error: sqlite3.DatabaseError) -> IndexReplaced:
        """Set a damaged index aside. It only copies what the warehouse and the landing zone know."""
        aside = self.path.with_name(self.path.name + ".damaged")
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            # Unless another process was first.
            if not _is_sound(self.path):
                self.path.replace(aside)
                for log in ("-journal", "-wal", "-shm"):
                    self.path.with_name(self.path.name + log).unlink(missing_ok=True)
        finally:
            os.close(folder)
        message = (
            f"The index of the landing zone '{self.path}' was damaged ({error}). It is kept as '{aside.name}', and a "
            "new one is filled from the landing zone and the warehouse. Nothing is lost: the next run goes on."
        )
        logging.getLogger(__name__).warning(message)
        return IndexReplaced(message)

    def vacuum(self) -> None:
        """Write the file anew, so that it holds nothing that was deleted."""
        db = sqlite3.connect(self.path, timeout=30, isolation_level=None)
        try:
            db.execute("vacuum")
        finally:
            db.close()

    def files(self) -> dict[str, IndexedFile]:
        """Every entry by the file's name, in that order."""
        with self._transaction() as db:
            rows = db.execute(
                "select landing_file, version, days, row_count, bad_row_count, bad_row_day, problem,"
                " loaded_version, loaded_days from files order by landing_file"
            ).fetchall()
        return {
            row[0]: IndexedFile(
                landing_file=row[0],
                version=row[1],
                days=_days(row[2]),
                row_count=row[3],
                bad_row_count=row[4],
                bad_row_day=date.fromisoformat(row[5]) if row[5] else None,
                problem=row[6],
                loaded_version=row[7],
                loaded_days=_days(row[8]),
            )
            for row in rows
        }

    def pending(self) -> list[IndexedFile]:
        """Files that are new, changed or gone since they were loaded."""
        return [file for file in self.files().values() if file.is_pending]

    def refresh(self, settings: Settings, budget_seconds: float | None = None) -> int:
        """Index new, changed and vanished files for about ``budget_seconds``; returns the number of files left.

        Files are read whole, so one file may take longer than the budget. If more than ``max_vanished_share`` of the
        files are gone, they stay in the index (``held_back``) until ``accept_vanished``. Files that wait for a key stay
        as they are loaded. Raises SettingsError if the landing directory does not exist.
        """
        deadline = None if budget_seconds is None else time.monotonic() + budget_seconds
        found = landed_files(settings)
        waiting = [name for name, file in found.items() if file.waits_for is not None]
        self._keep_as_loaded(waiting)
        known = self.files()
        new = [
            file
            for name, file in found.items()
            if file.waits_for is None and (name not in known or known[name].version != file.version)
        ]
        with self._transaction() as db:
            present = [name for name, file in known.items() if file.version is not None]
            gone = [name for name in present if name not in found and not is_below_unlisted(name, found)]
            is_held_back = len(gone) > settings.max_vanished_share * len(present)
            _set_note(db, _HELD_BACK, json.dumps([gone[:_EXAMPLES], len(gone), len(present)]) if is_held_back else None)
            if not is_held_back:
                _mark_gone(db, gone)
            db.execute("delete from files where version is null and loaded_version is null")
        if not new:
            return 0
        with Parser() as parser:
            for start in range(0, len(new), _FILES_AT_ONCE):
                if deadline is not None and time.monotonic() >= deadline:
                    return len(new) - start
                self._index(parser, settings, new[start : start + _FILES_AT_ONCE])
        return 0

    def _keep_as_loaded(self, names: Sequence[str]) -> None:
        """Let files not be pending; what is not loaded is not in the index."""
        if names:
            with self._transaction() as db:
                db.executemany("update files set version = loaded_version where landing_file = ?", zip(names))
                db.execute("delete from files where version is null and loaded_version is null")

    def _index(self, parser: Parser, settings: Settings, files: list[LandedFile]) -> None:
        # An empty file is read only where its directory is not a feed, because that is a problem to report.
        to_read = [
            file for file in files if file.source is None or file.problem or (file.size and not file.has_no_events)
        ]
        batches, problems = parser.batches(to_read, reading_rules(settings))
        problems |= parser.problems_of_lookups(files)
        profiles = {name: Profile(problem=problem) for name, problem in problems.items()}
        for batch in batches:
            profiles.update(parser.profiles(batch))
        for file in files:
            self._set_indexed(settings, file, profiles.get(file.landing_file, Profile()))

    def _set_indexed(self, settings: Settings, file: LandedFile, profile: Profile) -> None:
        bad_rows = profile.counts.get(None, 0)
        days = {day for day in profile.counts if day is not None}
        bad_row_day: date | None = None
        if bad_rows or profile.problem:
            bad_row_day = min(days) if days else max(file.modified_at.date(), settings.start_date)
            days.add(bad_row_day)
        with self._transaction() as db:
            db.execute(
                "insert into files (landing_file, version, days, row_count, bad_row_count, bad_row_day, problem)"
                " values (?, ?, ?, ?, ?, ?, ?) on conflict (landing_file) do update set"
                " version = excluded.version, days = excluded.days, row_count = excluded.row_count,"
                " bad_row_count = excluded.bad_row_count, bad_row_day = excluded.bad_row_day,"
                " problem = excluded.problem",
                (
                    file.landing_file,
                    file.version,
                    _text(days),
                    sum(profile.counts.values()),
                    bad_rows,
                    bad_row_day.isoformat() if bad_row_day else None,
                    profile.problem,
                ),
            )

    def set_loaded(self, loaded: Mapping[str, tuple[str, Iterable[date]]]) -> None:
        """Copy from the warehouse which files are loaded: version and days by file name."""
        with self._transaction() as db:
            db.execute("update files set loaded_version = null, loaded_days = '[]'")
            db.executemany(
                "insert into files (landing_file, version, days, row_count, bad_row_count, loaded_version, loaded_days)"
                " values (?, null, '[]', 0, 0, ?, ?) on conflict (landing_file) do update set"
                " loaded_version = excluded.loaded_version, loaded_days = excluded.loaded_days",
                [(name, version, _text(days)) for name, (version, days) in loaded.items()],
            )
            db.execute("delete from files where version is null and loaded_version is null")

    def held_back(self) -> Vanished | None:
        """The files that vanished at once and whose rows are kept for now; None if there are none."""
        with self._transaction() as db:
            text = _note(db, _HELD_BACK)
        return Vanished(*json.loads(text)) if text else None

    def reported(self, about: str) -> set[str]:
        """The names of what a check or an alert has reported, as ``note_reported`` stored them."""
        with self._transaction() as db:
            return set(json.loads(_note(db, f"{_REPORTED}{about}") or "[]"))

    def note_reported(self, about: str, names: Collection[str]) -> None:
        """Store the names of what a check or an alert has reported, in place of those before."""
        with self._transaction() as db:
            _set_note(db, f"{_REPORTED}{about}", json.dumps(sorted(names)) if names else None)

    def accept_vanished(self, settings: Settings) -> int:
        """Let the rows of all vanished files be removed; returns the number of files. Raises as ``refresh``."""
        found = landed_files(settings)
        with self._transaction() as db:
            rows = db.execute("select landing_file from files where version is not null").fetchall()
            gone = [name for (name,) in rows if name not in found and not is_below_unlisted(name, found)]
            _mark_gone(db, gone)
            _set_note(db, _HELD_BACK, None)
        return len(gone)

    def page_views_settled_at(self) -> datetime | None:
        """When ``settle`` last brought page views up to date, or first waited for their schedule (UTC)."""
        with self._transaction() as db:
            text = _note(db, "page_views_settled_at")
        return datetime.fromisoformat(text) if text else None

    def note_page_views_settled(self, at: datetime) -> None:
        with self._transaction() as db:
            _set_note(db, "page_views_settled_at", at.isoformat())

    def copy(self) -> Copy | None:
        """The copy of what the warehouse knows; None before the first look."""
        with self._transaction() as db:
            notes = dict(db.execute("select name, value from notes").fetchall())
            days = db.execute("select day, marked_at from changed_days").fetchall()
        if "marker" not in notes:
            return None
        return Copy(
            marker=notes["marker"],
            history=notes["history"],
            noted_at=notes["noted_at"],
            changed_days={date.fromisoformat(day): datetime.fromtimestamp(at, UTC) for day, at in days},
            built_rules=notes.get("built_rules"),
            followed_rules=notes.get("followed_rules"),
            stale={grain: _days(days) for grain, days in json.loads(notes["stale"]).items()},
        )

    def describes(self, marker: str | None) -> bool:
        """Whether the copy is of the warehouse in this state. Both may be nothing."""
        copy = self.copy()
        return (copy.marker if copy else None) == marker

    def note(
        self,
        state: WarehouseState,
        *,
        continues: bool,
        looked_at: Collection[str] = (),
        followed_rules: str | None = None,
    ) -> None:
        """Renew the copy, as the last act of a run.

        ``continues`` says that the copy described the warehouse when the run opened it (``describes``), and
        ``looked_at`` are the grains whose stale rows the run has counted. If it did not continue and did not look at
        every grain, the copy does not describe the warehouse. ``followed_rules`` is None if the run followed no rules.
        """
        self.set_loaded(state.loaded)
        is_complete = set(looked_at) == set(state.stale)
        now = datetime.now(UTC)
        with self._transaction() as db:
            db.execute("delete from changed_days")
            db.executemany(
                "insert into changed_days values (?, ?)",
                [(day.isoformat(), at.timestamp()) for day, at in state.changed_days.items()],
            )
            _set_note(db, "noted_at", now.isoformat())
            _set_note(db, "built_rules", state.built_rules)
            if continues or is_complete:
                _set_note(db, "marker", state.marker)
            if _note(db, "history") is None or (is_complete and not continues):
                _set_note(db, "history", now.isoformat())
            stale = json.loads(_note(db, "stale") or "{}")
            renewed = {grain: _text(days) for grain, days in state.stale.items() if continues or grain in looked_at}
            _set_note(db, "stale", json.dumps({**stale, **renewed}))
            if followed_rules is not None:
                _set_note(db, "followed_rules", followed_rules)

    def forget_warehouse(self) -> None:
        """Forget what was loaded, because there is no warehouse (any more)."""
        if self.copy() is None and not any(file.loaded_version for file in self.files().values()):
            return
        self.set_loaded({})
        with self._transaction() as db:
            db.execute("delete from changed_days")
            db.execute(
                "delete from notes where name not in (?, ?) and name not like ? || '%'",
                ("failures_forgotten_at", _HELD_BACK, _REPORTED),
            )
            _set_note(db, "history", datetime.now(UTC).isoformat())

    def history(self) -> str:
        """See ``Copy.history``; also known while there is no warehouse."""
        with self._transaction() as db:
            return _note(db, "history") or "first"

    def forget_failures(self) -> None:
        """Let every trigger retry at once: failures up to now no longer delay it."""
        with self._transaction() as db:
            _set_note(db, "failures_forgotten_at", datetime.now(UTC).isoformat())

    def failures_forgotten_at(self) -> datetime:
        """When failures were last forgotten (UTC)."""
        with self._transaction() as db:
            text = _note(db, "failures_forgotten_at")
        return datetime.fromisoformat(text) if text else datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Vanished:
    """Files that are gone from the landing zone and whose rows are kept until a person accepts it."""

    examples: Sequence[str]
    count: int
    known: int
    """The number of files that the index knew."""


def _mark_gone(db: sqlite3.Connection, names: Iterable[str]) -> None:
    db.executemany("update files set version = null, days = '[]' where landing_file = ?", [(name,) for name in names])


def _note(db: sqlite3.Connection, name: str) -> str | None:
    row: tuple[str] | None = db.execute("select value from notes where name = ?", (name,)).fetchone()
    return row[0] if row else None


def _set_note(db: sqlite3.Connection, name: str, value: str | None) -> None:
    if value is None:
        db.execute("delete from notes where name = ?", (name,))
    else:
        db.execute("insert or replace into notes values (?, ?)", (name, value))


def _days(text: str) -> frozenset[date]:
    return frozenset(date.fromisoformat(day) for day in json.loads(text))


def _text(days: Iterable[date]) -> str:
    return json.dumps([day.isoformat() for day in sorted(days)])


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    # A full disk or a lock leaves the file sound.
    return error.sqlite_errorname.startswith(_DAMAGED) or any(part in str(error) for part in _OF_ANOTHER_PROGRAM)


def _is_sound(path: Path) -> bool:
    """Whether the file is a whole index with the tables of this version."""
    try:
        with closing(sqlite3.connect(path, timeout=30)) as db, closing(sqlite3.connect(":memory:")) as new:
            new.executescript(_SCHEMA)
            tables = [name for (name,) in new.execute("select name from sqlite_master where type = 'table'")]
            expected, found = (
                {table: base.execute(f"select name from pragma_table_info('{table}')").fetchall() for table in tables}
                for base in (new, db)
            )
            return found == expected and db.execute("pragma quick_check").fetchall() == [("ok",)]
    except sqlite3.DatabaseError:
        return False
