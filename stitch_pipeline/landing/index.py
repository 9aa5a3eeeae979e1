"""The index of the landing zone: a small SQLite file beside the warehouse.

Sensors must know what is new while a run has the warehouse locked, so the index holds what they need: for every file
the version that was read, its event days, and the version that is loaded; and the days with changed events that are not
rebuilt yet.

The warehouse remains the truth about what is loaded. Days are marked as changed *before* the warehouse changes and
cleared *after* everything is built. So a process that dies in between may leave finished work marked, but never
unfinished work unmarked.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from stitch_pipeline.landing.landed_file import LandedFile
from stitch_pipeline.landing.parser import Parser, Profile
from stitch_pipeline.landing.zone import landed_files, reading_rules
from stitch_pipeline.settings import Settings

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
create table if not exists rules (fingerprint text not null);
create table if not exists followed_rules (rules text not null, followed_at real not null);
create table if not exists changed_days (day text primary key, marked_at real not null);
"""


_FILES_AT_ONCE = 100


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


class LandingIndex:
    """The index at ``path``, created if it does not exist. Each method is one transaction, or several."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        with self._transaction() as db:
            db.executescript(_SCHEMA)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        db = sqlite3.connect(self.path, timeout=30)
        try:
            with db:
                yield db
        finally:
            db.close()

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

        Files are read whole, so one file may take longer than the budget. Raises SettingsError if the landing
        directory does not exist.
        """
        deadline = None if budget_seconds is None else time.monotonic() + budget_seconds
        known = self.files()
        found = landed_files(settings)
        new = [file for name, file in found.items() if name not in known or known[name].version != file.version]
        with self._transaction() as db:
            gone = [name for name in known if name not in found and known[name].version is not None]
            db.executemany("update files set version = null, days = '[]' where landing_file = ?", [(n,) for n in gone])
            db.execute("delete from files where version is null and loaded_version is null")
        if not new:
            return 0
        with Parser() as parser:
            for start in range(0, len(new), _FILES_AT_ONCE):
                if deadline is not None and time.monotonic() >= deadline:
                    return len(new) - start
                self._index(parser, settings, new[start : start + _FILES_AT_ONCE])
        return 0

    def _index(self, parser: Parser, settings: Settings, files: list[LandedFile]) -> None:
        # An empty file is read only where its directory is not a feed, because that is a problem to report.
        to_read = [file for file in files if file.source is None or (file.size and not file.has_no_events)]
        batches, problems = parser.batches(to_read, reading_rules(settings))
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

    def mark_all_days_if_rules_changed(self, fingerprint: str) -> None:
        """Mark every loaded day as changed if ``fingerprint`` is not that of the rules that built them."""
        with self._transaction() as db:
            known = db.execute("select fingerprint from rules").fetchone()
            if known and known[0] == fingerprint:
                return
            db.execute("delete from rules")
            db.execute("insert into rules values (?)", (fingerprint,))
        if known:
            self.mark_changed({day for file in self.files().values() for day in file.loaded_days})

    def followed_rules(self) -> tuple[str, float] | None:
        """The stitching rules that are followed, and since when (seconds since the epoch); None before the first."""
        with self._transaction() as db:
            row: tuple[str, float] | None = db.execute("select rules, followed_at from followed_rules").fetchone()
        return row

    def set_followed_rules(self, rules: str) -> None:
        """Note the rules as followed. Call it only after the event log has the days that they change.

        If the process dies in between, the rules are looked at again and no day is lost.
        """
        known = self.followed_rules()
        if known and known[0] == rules:
            return
        with self._transaction() as db:
            db.execute("delete from followed_rules")
            db.execute("insert into followed_rules values (?, ?)", (rules, time.time()))

    def changed_days(self) -> dict[date, float]:
        """Days with changed events that are not fully rebuilt, and when each was marked (seconds since the epoch)."""
        with self._transaction() as db:
            rows = db.execute("select day, marked_at from changed_days").fetchall()
        return {date.fromisoformat(day): marked_at for day, marked_at in rows}

    def mark_changed(self, days: Iterable[date]) -> None:
        """Mark days as changed. Call it before the warehouse changes."""
        now = time.time()
        with self._transaction() as db:
            db.executemany(
                "insert or replace into changed_days values (?, ?)", [(day.isoformat(), now) for day in days]
            )

    def clear_changed(self, days: Iterable[date]) -> None:
        """Clear the marks of days. Call it after everything that they reach is built."""
        with self._transaction() as db:
            db.executemany("delete from changed_days where day = ?", [(day.isoformat(),) for day in days])


def _days(text: str) -> frozenset[date]:
    return frozenset(date.fromisoformat(day) for day in json.loads(text))


def _text(days: Iterable[date]) -> str:
    return json.dumps([day.isoformat() for day in sorted(days)])
