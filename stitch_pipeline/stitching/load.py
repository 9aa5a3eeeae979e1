"""Loading landed files into ``raw_events``, whole files at a time, in one transaction.

A file is loaded once; when it changes or goes away its rows are taken out and the new version's put
in. Of events with the same id within a project the first received stays in ``raw_events`` and the
others wait in ``duplicate_events``: should the first go away with its file, the next takes its place.
So the outcome depends on the files alone and not on the order in which they were loaded.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import date

import duckdb

from stitch_pipeline.landing import reading
from stitch_pipeline.landing.landed_file import LandedFile
from stitch_pipeline.landing.reading import FileGroup, ReadingRules
from stitch_pipeline.planning.days import DayRange
from stitch_pipeline.warehouse.duckdb_old import transaction

# The first received wins. Ties are broken by what the rows say and not by where they happen to be
# stored, so that the winner is the same in any order of loading.
_FIRST_RECEIVED = "received_at nulls last, landing_file, occurred_at, md5(to_json(events)::varchar)"
_IS_LOADED = "landing_file in (from temp.to_load)"
_IS_TOUCHED = "hash(project_id, event_id) in (select id_hash from temp.touched)"

_REPORT_SECONDS = 5.0


@dataclass(frozen=True)
class FileToLoad:
    """One file whose rows are to replace whatever is loaded of it; ``landed`` is None if it is gone."""

    landing_file: str
    landed: LandedFile | None
    version: str | None
    days: frozenset[date]
    row_count: int
    bad_row_count: int
    bad_row_day: date | None
    problem: str | None


@dataclass(frozen=True)
class Loaded:
    """What loading did. ``changed_days`` are the days whose events are not what they were."""

    files: int
    rows: int
    changed_days: frozenset[date]


def loaded_files(con: duckdb.DuckDBPyConnection) -> dict[str, tuple[str, list[date]]]:
    """Version and days of every loaded file, by its name."""
    rows = con.execute("select landing_file, version, days from stitch.landing_files").fetchall()
    return {name: (version, list(days)) for name, version, days in rows}


def load(
    con: duckdb.DuckDBPyConnection,
    files: Iterable[FileToLoad],
    rules: ReadingRules,
    *,
    before_commit: Callable[[frozenset[date]], None],
    report: Callable[[str], None],
) -> Loaded:
    """Make the warehouse hold exactly the given versions of the given files; all of them or none.

    ``before_commit`` is told which days change, while nothing has changed yet.
    """
    files = list(files)
    if not files:
        return Loaded(0, 0, frozenset())
    with transaction(con):
        _start(con, [file.landing_file for file in files])
        report(f"{len(files):,} files to load")
        rows = _insert_files(con, files, rules, report)
        _put_back_duplicates(con)
        _set_duplicates_aside(con)
        changed = frozenset(row[0] for row in con.execute("select distinct event_date from temp.touched").fetchall())
        before_commit(changed)
    return Loaded(len(files), rows, changed)


def row_accounts(con: duckdb.DuckDBPyConnection) -> Mapping[str, int]:
    """Rows of the loaded files, and where they are; the first equals the sum of the others."""
    row = con.execute(
        """
        select
          (select coalesce(sum(row_count), 0)::bigint from stitch.landing_files),
          (select count(*) from stitch.raw_events),
          (select count(*) from stitch.duplicate_events),
          (select count(*) from stitch.quarantined_events where line is not null)
        """
    ).fetchall()[0]
    return dict(zip(("rows_landed", "events", "duplicates", "quarantined"), row, strict=True))


def _start(con: duckdb.DuckDBPyConnection, names: list[str]) -> None:
    con.execute("create or replace temp table to_load (landing_file varchar)")
    con.executemany("insert into temp.to_load values (?)", [[name] for name in names])
    # Not made from a query: see the remark on DuckDB 2.0.0 in `materialization_in_place.sql`.
    con.execute("create or replace temp table touched (id_hash ubigint, event_date date)")
    con.execute(
        "insert into temp.touched "
        f"select hash(project_id, event_id), event_date from stitch.raw_events where {_IS_LOADED}"
    )
    for table in ("raw_events", "duplicate_events", "quarantined_events", "landing_files"):
        con.execute(f"delete from stitch.{table} where {_IS_LOADED}")


def _insert_files(
    con: duckdb.DuckDBPyConnection, files: list[FileToLoad], rules: ReadingRules, report: Callable[[str], None]
) -> int:
    by_name = {file.landing_file: file for file in files if file.version is not None}
    for file in files:
        if file.version is None:
            report(f"{file.landing_file} is gone: its rows are taken out")
        elif file.problem is not None:
            _insert_unreadable(con, file, file.problem)
    groups, problems = reading.grouped(
        con, (file.landed for file in by_name.values() if file.landed and file.row_count and file.problem is None)
    )
    for name in problems:
        report(f"{name} went away or was cut off since it was found: the next run looks at it again")
    grown: set[str] = set()
    rows = 0
    reported = time.monotonic()
    with reading.without_pushdown(con):
        for group in groups:
            con.execute(
                "insert into stitch.raw_events by name select * exclude (field, reason, remedy, line, raw_row) "
                f"from ({reading.events_sql(group, rules)}) where reason is null"
            )
            for alone in group.alone():
                landed = alone.files[0]
                file = by_name[landed.landing_file]
                if file.bad_row_count:
                    _insert_bad_rows(con, file, alone, rules)
                if landed.has_changed():
                    grown.add(landed.landing_file)
                rows += file.row_count
            if time.monotonic() - reported >= _REPORT_SECONDS:
                report(f"{rows:,} rows read, up to {group.files[-1].landing_file}")
                reported = time.monotonic()
    loaded = [
        _as_read(con, file, report) if name in grown else file for name, file in by_name.items() if name not in problems
    ]
    if loaded:
        con.executemany(
            "insert into stitch.landing_files values (?, ?, ?, ?, ?, current_timestamp at time zone 'UTC')",
            [[file.landing_file, file.version, sorted(file.days), file.row_count, file.problem] for file in loaded],
        )
    return rows


def _as_read(con: duckdb.DuckDBPyConnection, file: FileToLoad, report: Callable[[str], None]) -> FileToLoad:
    """The file as it was when it was read, which is not as it was found.

    Its version remains the one that was found, so that the next look sees another and has it loaded again.
    """
    report(f"{file.landing_file} changed while it was read: the next run loads it again")
    events, days = con.execute(
        "select count(*), list(distinct event_date) from stitch.raw_events where landing_file = ?", [file.landing_file]
    ).fetchall()[0]
    bad_rows = con.execute(
        "select count(*) from stitch.quarantined_events where landing_file = ?", [file.landing_file]
    ).fetchall()[0][0]
    return replace(file, row_count=events + bad_rows, days=file.days | frozenset(days or ()))


def _insert_unreadable(con: duckdb.DuckDBPyConnection, file: FileToLoad, problem: str) -> None:
    con.execute(
        "insert into stitch.quarantined_events values (?, ?, null, 'the whole file', ?, ?, null)",
        [
            file.bad_row_day,
            file.landing_file,
            f"the file cannot be read: {problem}",
            "correct the file and put it back, or take it away; the other files are loaded",
        ],
    )


def _insert_bad_rows(con: duckdb.DuckDBPyConnection, file: FileToLoad, alone: FileGroup, rules: ReadingRules) -> None:
    reading.forget_rejects(con)
    con.execute(
        "create or replace temp table bad_rows as select line, field, reason, remedy, raw_row "
        f"from ({reading.numbered_rows_sql(alone, rules)}) where reason is not null"
    )
    con.execute("create or replace temp table refused_lines (line bigint, raw_row varchar, reason varchar)")
    rejected = [line for _, *line in reading.rejected_lines(con)]
    if rejected:
        con.executemany("insert into temp.refused_lines values (?, ?, ?)", rejected)
    # The reader does not count the lines that it refuses, so put each row back to where it stood.
    con.execute(
        """
        insert into stitch.quarantined_events
        select $day, $file, bad.line + coalesce(refused.lines_before, 0), field, reason, remedy, raw_row
        from temp.bad_rows as bad
        asof left join (
          select
            line - row_number() over (order by line) + 1 as counted_line,
            row_number() over (order by line) as lines_before
          from temp.refused_lines
        ) as refused on bad.line >= refused.counted_line
        union all
        select
          $day, $file, line, 'the whole line', reason,
          'correct the line and put the file back', raw_row
        from temp.refused_lines
        """,
        {"day": file.bad_row_day, "file": file.landing_file},
    )


def _put_back_duplicates(con: duckdb.DuckDBPyConnection) -> None:
    """Let the duplicates of events that were taken out compete again.

    Ids are compared by their hashes, here and below, because every id of a load together would fill the
    memory. Two ids of one hash do no harm: their rows compete, each among those of its own id, and win.
    """
    competes = _IS_LOADED
    # Mostly nothing was taken out, and then no stored id need be read.
    if con.execute("select 1 from temp.touched limit 1").fetchall():
        con.execute(f"insert into stitch.raw_events by name select * from stitch.duplicate_events where {_IS_TOUCHED}")
        con.execute(f"delete from stitch.duplicate_events where {_IS_TOUCHED}")
        competes += f" or {_IS_TOUCHED}"
    con.execute(
        "insert into temp.touched "
        f"select hash(project_id, event_id), event_date from stitch.raw_events where {competes}"
    )


def _set_duplicates_aside(con: duckdb.DuckDBPyConnection) -> None:
    touched, loaded, events = con.execute(
        f"""
        select
          (select count(*) from temp.touched),
          (select count(*) from stitch.raw_events where {_IS_LOADED}),
          (select count(*) from stitch.raw_events)
        """
    ).fetchall()[0]
    hashes = "select hash(project_id, event_id) as id_hash from stitch.raw_events"
    # Events that are not touched have no duplicates, so where ids are looked for changes nothing but the time.
    if touched == loaded == events:
        hashes = "select id_hash from temp.touched"
    elif touched == loaded < events / 10:
        # Nothing was taken out. Few ids fit in memory, and DuckDB skips what cannot hold one of them.
        hashes += f" where event_id in (select event_id from stitch.raw_events where {_IS_LOADED})"
    elif touched < events / 2:
        # A filter that more rows pass costs more than it spares.
        hashes += f" where {_IS_TOUCHED}"
    con.execute(f"create or replace temp table suspects as {_repeated_hashes(hashes)}")
    con.execute(
        f"""
        create or replace temp table losers as
        select row_id, project_id, event_id, event_date
        from (
          select
            rowid as row_id, project_id, event_id, event_date,
            row_number() over (partition by project_id, event_id order by {_FIRST_RECEIVED}) as place
          from stitch.raw_events as events
          where hash(project_id, event_id) in (from temp.suspects)
        )
        where place > 1
        """
    )
    con.execute("insert into temp.touched select hash(project_id, event_id), event_date from temp.losers")
    con.execute(
        "insert into stitch.duplicate_events by name select * from stitch.raw_events "
        "where rowid in (select row_id from temp.losers)"
    )
    con.execute("delete from stitch.raw_events where rowid in (select row_id from temp.losers)")


def _repeated_hashes(hashes: str) -> str:
    """A query for those of ``id_hash`` that stand more than once: sorting takes a third as long as grouping."""
    return (
        "select id_hash from ("
        f"select id_hash, lag(id_hash) over (order by id_hash) as previous_hash from ({hashes})"
        ") where id_hash = previous_hash"
    )


def repeated_events(con: duckdb.DuckDBPyConnection, window: DayRange) -> list[list[str]]:
    """Up to ten (project, event id) pairs that stand more than once among the window's days: a defect."""
    # By hash first: to group ids by themselves takes several times as long.
    is_in_window = "event_date between $first and $last"
    hashes = f"select hash(project_id, event_id) as id_hash from stitch.raw_events where {is_in_window}"
    rows = con.execute(
        f"""
        select project_id, event_id from stitch.raw_events
        where {is_in_window} and hash(project_id, event_id) in ({_repeated_hashes(hashes)})
        group by all having count(*) > 1 order by all limit 10
        """,
        {"first": window.first, "last": window.last},
    ).fetchall()
    return [list(row) for row in rows]


def unreadable_files(con: duckdb.DuckDBPyConnection) -> dict[str, str]:
    """Why each file that could not be read at all could not be."""
    return dict(
        con.execute(
            "select landing_file, problem from stitch.landing_files where problem is not null order by all"
        ).fetchall()
    )
