"""Load landed files into ``raw_events``, whole files at a time, in one transaction.

A file is loaded once. When it changes or vanishes, its rows are deleted and those of its new version inserted. Of
events with the same id within a project, the first received stays in ``raw_events`` and the others wait in
``duplicate_events``: if the first vanishes with its file, the next takes its place. So the result depends on the files
alone and not on the order in which they are loaded.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from typing import Any

from stitch_pipeline.landing.index import IndexedFile
from stitch_pipeline.landing.landed_file import LandedFile, UnreadableFile
from stitch_pipeline.landing.parser import Parser
from stitch_pipeline.landing.problems import UNREADABLE_FILE, UNREADABLE_FILE_REMEDY, WHOLE_FILE
from stitch_pipeline.landing.reading import EVENT_FIELDS, EventBatch, ReadingRules
from stitch_pipeline.landing.zone import is_below_unlisted
from stitch_pipeline.planning.days import DayRange
from stitch_pipeline.planning.sql_text import literal, literals
from stitch_pipeline.settings.hashing import Hashing
from stitch_pipeline.stitching.hash_keys import follow_keys
from stitch_pipeline.stitching.publish import note_changed
from stitch_pipeline.warehouse.port import Warehouse

# Files whose names stand in a statement, where an index finds them. More are joined.
_FEW_FILES = 100

# The first received wins. Ties are broken by the rows' contents and not by their place in storage, so that the winner
# does not depend on the order of loading, nor on the engine.
_FIRST_RECEIVED = "received_at nulls last, landing_file, occurred_at"
_TEXTS = [name for name in EVENT_FIELDS if name not in ("occurred_at", "received_at")]
_CONTENTS = f"md5(concat({', '.join(f'coalesce({name}, chr(1)), chr(2)' for name in _TEXTS)}))"
_EVENT_COLUMNS = ", ".join(
    (
        *("source", "event_date", "landing_file", "blocked_anonymous_id", "blocked_user_id", "blocked_previous_id"),
        *EVENT_FIELDS,
    )
)

_REPORT_SECONDS = 5.0


@dataclass(frozen=True)
class Loaded:
    """What a load did: files loaded or removed, rows read, and the days with changed events."""

    files: int
    rows: int
    changed_days: frozenset[date]


def loaded_files(warehouse: Warehouse) -> dict[str, tuple[str, list[date]]]:
    """The version and days of every loaded file, by the file's name."""
    rows = warehouse.rows("select landing_file, version, days from landing_files")
    return {name: (version, list(days)) for name, version, days in rows}


def load(
    warehouse: Warehouse,
    parser: Parser,
    files: Sequence[IndexedFile],
    landed: Mapping[str, LandedFile],
    rules: ReadingRules,
    *,
    report: Callable[[str], None],
) -> Loaded:
    """Make the warehouse hold exactly the indexed versions of the given files; all of them or none.

    ``landed`` are the files in the landing zone now, by name; the rows of a file that is not there are deleted.
    The days that change are marked in ``changed_days``. ``report`` receives lines for the log. A file whose reading
    fails is quarantined, and the others are loaded. If the files are not the cause of a failure, it is raised, and
    nothing is loaded. Raises SettingsError if ids would be hashed with another key than those that are stored.
    """
    files = [file for file in files if file.version is None or not is_below_unlisted(file.landing_file, landed)]
    failed: dict[str, str] = {}
    while files:
        try:
            return _load(warehouse, parser, files, landed, rules, failed, report=report)
        except _ReadingFailed as error:
            problems = {name: text for name, text in error.problems.items() if name not in failed}
            if not problems:
                raise error.__cause__ or error from None
            failed |= problems
    return Loaded(0, 0, frozenset())


def _load(
    warehouse: Warehouse,
    parser: Parser,
    files: Sequence[IndexedFile],
    landed: Mapping[str, LandedFile],
    rules: ReadingRules,
    failed: Mapping[str, str],
    *,
    report: Callable[[str], None],
) -> Loaded:
    names = [file.landing_file for file in files]
    is_of_files = _is_of_files(names)
    with warehouse.transaction():
        follow_keys(warehouse, Hashing() if rules.hashing is None else rules.hashing.hashing)
        _take_out(warehouse, names, is_of_files)
        report(f"{len(files):,} files to load")
        rows = _insert_files(warehouse, parser, files, landed, rules, failed, is_of_files, report)
        _touch_forgotten(warehouse, is_of_files)
        is_loaded = _is_loaded_now(warehouse, is_of_files)
        only_adds = _put_back_duplicates(warehouse, is_loaded)
        _set_duplicates_aside(warehouse, is_loaded, only_adds=only_adds)
        note_changed(warehouse, "raw_events", "select distinct event_date from touched")
        _note_quarantine(warehouse, is_of_files)
        changed = frozenset(day for (day,) in warehouse.rows("select distinct event_date from touched"))
        now = datetime.now(UTC).replace(tzinfo=None)
        warehouse.insert_rows("changed_days", ((day, now) for day in sorted(changed)))
    return Loaded(len(files), rows, changed)


def row_accounts(warehouse: Warehouse) -> Mapping[str, int]:
    """The rows of the loaded files, ``rows_landed``, and of these ``events``, ``duplicates``, … ``forgotten``.

    The first equals the sum of the others, or rows are lost.
    """
    (accounts,) = warehouse.records(
        """
        select
          (select coalesce(sum(row_count), 0)::bigint from landing_files) as rows_landed,
          (select count(*) from raw_events) as events,
          (select count(*) from duplicate_events) as duplicates,
          (select count(*) from quarantined_events where line is not null) as quarantined,
          (select count(*) from forgotten_events) as forgotten
        """
    )
    return accounts


def unbalanced_files(warehouse: Warehouse) -> list[dict[str, Any]]:
    """Up to 100 files, with their days, that have more or fewer rows than are stored of them."""
    return warehouse.records(
        """
        with stored as (
          select
            landing_file, sum(events)::bigint as events, sum(duplicates)::bigint as duplicates,
            sum(quarantined)::bigint as quarantined, sum(forgotten)::bigint as forgotten
          from (
            select landing_file, 1 as events, 0 as duplicates, 0 as quarantined, 0 as forgotten from raw_events
            union all
            select landing_file, 0, 1, 0, 0 from duplicate_events
            union all
            select landing_file, 0, 0, 1, 0 from quarantined_events where line is not null
            union all
            select landing_file, 0, 0, 0, 1 from forgotten_events
          ) as rows_of_files
          group by landing_file
        ),
        accounts as (
          select
            landing_file, files.days, coalesce(files.row_count, 0) as rows_landed, coalesce(events, 0) as events,
            coalesce(duplicates, 0) as duplicates, coalesce(quarantined, 0) as quarantined,
            coalesce(forgotten, 0) as forgotten
          from landing_files as files
          full join stored using (landing_file)
        )
        select * from accounts
        where rows_landed <> events + duplicates + quarantined + forgotten
        order by landing_file
        limit 100
        """
    )


def _is_of_files(names: Sequence[str]) -> str:
    """Which rows are of the files to load."""
    if len(names) <= _FEW_FILES:
        return f"landing_file in ({literals(names)})"
    return "landing_file in (select landing_file from to_load)"


def _note_quarantine(warehouse: Warehouse, is_of_files: str) -> None:
    note_changed(
        warehouse,
        "quarantined_events",
        f"select distinct quarantine_date from quarantined_events where {is_of_files}",
    )


def _take_out(warehouse: Warehouse, names: Sequence[str], is_of_files: str) -> None:
    """Delete all rows of these files, and note in ``touched`` which events that affects."""
    warehouse.create_temporary("to_load", "(landing_file varchar)")
    warehouse.insert_rows("to_load", ([name] for name in names))
    # Not created from a query: see the comment on DuckDB 2.0.0 in `macros/in_place/materialization.sql`.
    warehouse.create_temporary("touched", f"(id_hash {warehouse.dialect.hash_type}, event_date date)")
    if not warehouse.rows(f"select 1 from landing_files where {is_of_files} limit 1"):
        return  # new files have no rows, and looking for some would mean to read every event
    warehouse.execute(
        f"insert into touched select {_id_hash(warehouse)}, event_date from raw_events where {is_of_files}"
    )
    _touch_forgotten(warehouse, is_of_files)
    _note_quarantine(warehouse, is_of_files)
    for table in ("raw_events", "duplicate_events", "forgotten_events", "quarantined_events", "landing_files"):
        warehouse.execute(f"delete from {table} where {is_of_files}")


def _touch_forgotten(warehouse: Warehouse, is_of_files: str) -> None:
    """Note the days of the files' forgotten rows, because links may depend on them. They compete with no other row."""
    warehouse.execute(
        f"insert into touched select distinct cast(null as {warehouse.dialect.hash_type}), event_date "
        f"from forgotten_events where {is_of_files}"
    )


def _insert_files(
    warehouse: Warehouse,
    parser: Parser,
    files: Sequence[IndexedFile],
    landed: Mapping[str, LandedFile],
    rules: ReadingRules,
    failed: Mapping[str, str],
    is_of_files: str,
    report: Callable[[str], None],
) -> int:
    present = {
        file.landing_file: _unreadable(file, landed[file.landing_file], failed[file.landing_file], rules)
        if file.landing_file in failed
        else file
        for file in files
        if file.version is not None and file.landing_file in landed
    }
    for file in files:
        if file.landing_file not in present:
            report(f"{file.landing_file} is gone: its rows are deleted")
    to_read = [landed[name] for name, file in present.items() if file.row_count and file.problem is None]
    grown: set[str] = set()
    rows = 0
    reported = time.monotonic()
    batches, problems = parser.batches(to_read, rules)
    for name in problems:
        report(f"{name} vanished or was cut off since it was found: the next run looks at it again")
    for batch in batches:
        try:
            warehouse.load_events(batch)
        except Exception as error:
            # A failed statement ends the transaction, so all is done again without the files that make it fail.
            raise _ReadingFailed(_problems_of(parser, batches, present)) from error
        for alone in batch.alone():
            (landed_file,) = alone.files
            file = present[landed_file.landing_file]
            if file.bad_row_count and file.bad_row_day is not None:
                try:
                    for frame in parser.quarantined(alone, file.bad_row_day):
                        warehouse.insert_frame("quarantined_events", frame)
                except UnreadableFile as error:
                    raise _ReadingFailed(_problems_of(parser, batches, present)) from error
            if landed_file.version != file.version or landed_file.has_changed():
                grown.add(file.landing_file)
            rows += file.row_count
        if time.monotonic() - reported >= _REPORT_SECONDS:
            report(f"{rows:,} rows read, up to {batch.files[-1].landing_file}")
            reported = time.monotonic()
    read = _rows_read(warehouse, is_of_files)
    loaded = []
    for name, file in present.items():
        if name in problems:
            continue
        if name in grown:
            file = _as_read(warehouse, file, report)
        elif file.problem is None and read.get(name, 0) != file.row_count:
            report(f"{name} has {file.row_count:,} rows, of which {read.get(name, 0):,} were read: it is quarantined")
            for table in ("raw_events", "forgotten_events", "quarantined_events"):
                warehouse.execute(f"delete from {table} where landing_file = $file", file=name)
            file = _unreadable(file, landed[name], "its rows are not the same each time that they are read", rules)
        if file.problem is not None:
            _quarantine_file(warehouse, file)
        loaded.append(file)
    now = datetime.now(UTC).replace(tzinfo=None)
    warehouse.insert_rows(
        "landing_files",
        ((file.landing_file, file.version, sorted(file.days), file.row_count, file.problem, now) for file in loaded),
    )
    return rows


class _ReadingFailed(Exception):
    """A batch cannot be loaded. ``problems`` has the files that are the cause, by name; none if it is another."""

    def __init__(self, problems: Mapping[str, str]) -> None:
        super().__init__("the landed files cannot be loaded")
        self.problems = problems


def _problems_of(parser: Parser, batches: Sequence[EventBatch], indexed: Mapping[str, IndexedFile]) -> dict[str, str]:
    """The files that cannot be loaded though they could be indexed, by name, each with its problem.

    All files and not only the batch that failed, so that the load is done again once and not once per bad file.
    """
    found = {}
    for batch in batches:
        for alone in batch.alone():
            name = alone.files[0].landing_file
            found[name] = parser.problem_of(alone, has_bad_rows=indexed[name].bad_row_count > 0)
    return {name: problem for name, problem in found.items() if problem is not None}


def _unreadable(file: IndexedFile, landed: LandedFile, problem: str, rules: ReadingRules) -> IndexedFile:
    """The entry of a file that could be indexed, and then not be loaded."""
    day = min(file.days) if file.days else max(landed.modified_at.date(), rules.start_date)
    return replace(
        file, row_count=0, bad_row_count=0, bad_row_day=day, days=file.days | frozenset([day]), problem=problem
    )


def _rows_read(warehouse: Warehouse, is_of_files: str) -> dict[str, int]:
    """The rows of the files to load that are stored by now, by file: events, forgotten rows and lines in quarantine."""
    return dict(
        warehouse.rows(
            "select landing_file, count(*) from ("
            f"select landing_file from raw_events where {is_of_files} union all "
            f"select landing_file from forgotten_events where {is_of_files} union all "
            f"select landing_file from quarantined_events where {is_of_files} and line is not null"
            ") as stored group by landing_file"
        )
    )


def _as_read(warehouse: Warehouse, file: IndexedFile, report: Callable[[str], None]) -> IndexedFile:
    """The entry of a file that changed between indexing and reading: its days and rows as they were read.

    It keeps the indexed version, so that the next refresh of the index finds another version and loads it again.
    """
    report(f"{file.landing_file} changed while it was read: the next run loads it again")
    days: dict[date, int] = dict(
        warehouse.rows(
            "select event_date, count(*) from ("
            "select event_date, landing_file from raw_events "
            "union all select event_date, landing_file from forgotten_events"
            ") as read where landing_file = $file group by event_date",
            file=file.landing_file,
        )
    )
    ((bad_rows,),) = warehouse.rows(
        "select count(*) from quarantined_events where landing_file = $file", file=file.landing_file
    )
    return replace(file, row_count=sum(days.values()) + bad_rows, days=file.days | frozenset(days))


def _quarantine_file(warehouse: Warehouse, file: IndexedFile) -> None:
    warehouse.execute(
        "insert into quarantined_events (quarantine_date, landing_file, field, problem, reason, remedy) "
        "values ($day, $file, $field, $problem, $reason, $remedy)",
        day=file.bad_row_day,
        file=file.landing_file,
        field=WHOLE_FILE,
        problem=UNREADABLE_FILE,
        reason=f"the file cannot be read: {file.problem}",
        remedy=UNREADABLE_FILE_REMEDY,
    )


def _id_hash(warehouse: Warehouse) -> str:
    return warehouse.dialect.hash_of("project_id", "event_id")


def _has_id_in(warehouse: Warehouse, table: str, events: int) -> str:
    """Which of so many stored events have an id with a hash that is in ``touched`` or ``suspects``."""
    id_hash, hashes = _id_hash(warehouse), f"select id_hash from {table}"
    if warehouse.finds_events() and warehouse.rows(f"select count(*) from {table}")[0][0] < events / 10:
        return warehouse.dialect.is_one_of(id_hash, hashes)
    return f"{id_hash} in ({hashes})"


def _is_loaded_now(warehouse: Warehouse, is_of_files: str) -> str:
    """Which events are of the files that were just loaded. With their days, so that other days need not be read."""
    days = [day for (days,) in warehouse.rows(f"select days from landing_files where {is_of_files}") for day in days]
    if not days:
        return "false"
    first, last = (f"date {literal(str(day))}" for day in (min(days), max(days)))
    return f"event_date between {first} and {last} and {is_of_files}"


def _put_back_duplicates(warehouse: Warehouse, is_loaded: str) -> bool:
    """Let the duplicates of deleted events compete again, and note all competing events in ``touched``.

    Returns whether nothing was deleted, so that ``touched`` now holds the loaded events and no others.

    Ids are compared by their hashes, here and below, because the ids of a large load would fill the memory. Two ids
    with the same hash do no harm: each row competes only among those of its own id.
    """
    touch = f"insert into touched select {_id_hash(warehouse)}, event_date from raw_events where "
    # Mostly nothing was deleted, and then no stored id has to be read.
    only_adds = not warehouse.rows("select 1 from touched limit 1")
    if not only_adds:
        waits = f"{_id_hash(warehouse)} in (select id_hash from touched)"
        warehouse.execute(
            f"insert into raw_events ({_EVENT_COLUMNS}) select {_EVENT_COLUMNS} from duplicate_events where {waits}"
        )
        warehouse.execute(f"delete from duplicate_events where {waits}")
        # Not with the loaded ones in one statement: two conditions joined by `or` are often looked up by no index.
        ((events,),) = warehouse.rows("select count(*) from raw_events")
        warehouse.execute(touch + _has_id_in(warehouse, "touched", events))
    warehouse.execute(touch + is_loaded)
    return only_adds


def _set_duplicates_aside(warehouse: Warehouse, is_loaded: str, *, only_adds: bool) -> None:
    """Move the events that lose against another one with their id to ``duplicate_events``, and note them as touched.

    ``only_adds`` says that ``touched`` holds the loaded events and no others.
    """
    id_hash, row_id = _id_hash(warehouse), warehouse.dialect.row_id
    ((touched, events),) = warehouse.rows("select (select count(*) from touched), (select count(*) from raw_events)")
    hashes = f"select {id_hash} as id_hash from raw_events"
    # Events that are not touched have no duplicates, so the choice of ids to search affects only the time.
    if only_adds and touched == events:
        hashes = "select id_hash from touched"
    elif only_adds and touched < events / 10 and not warehouse.finds_events():
        # Few ids fit in memory, and DuckDB skips row groups that cannot hold one of them.
        hashes += f" where event_id in (select event_id from raw_events where {is_loaded})"
    elif touched < events / 2:
        # A filter that more rows pass costs more than it saves.
        hashes += f" where {_has_id_in(warehouse, 'touched', events)}"
    warehouse.create_temporary("suspects", f"as {_repeated_hashes(hashes)}")
    warehouse.create_temporary(
        "losers",
        f"""
        as select row_id, project_id, event_id, event_date
        from (
          select
            {row_id} as row_id, project_id, event_id, event_date,
            row_number() over (partition by project_id, event_id order by {_FIRST_RECEIVED}, {_CONTENTS}) as place
          from raw_events as events
          where {_has_id_in(warehouse, "suspects", events)}
        ) as competitors
        where place > 1
        """,
    )
    warehouse.execute(f"insert into touched select {id_hash}, event_date from losers")
    is_loser = warehouse.dialect.is_one_of(row_id, "select row_id from losers")
    warehouse.execute(
        f"insert into duplicate_events ({_EVENT_COLUMNS}) select {_EVENT_COLUMNS} from raw_events where {is_loser}"
    )
    warehouse.execute(f"delete from raw_events where {is_loser}")


def _repeated_hashes(hashes: str) -> str:
    """A query for the repeated values of ``id_hash``. It sorts, which takes a third of the time of grouping."""
    return (
        "select id_hash from ("
        f"select id_hash, lag(id_hash) over (order by id_hash) as previous_hash from ({hashes}) as hashes"
        ") as neighbours where id_hash = previous_hash"
    )


def repeated_events(warehouse: Warehouse, window: DayRange) -> list[list[str]]:
    """Up to ten (project, event id) pairs that occur more than once among the window's days, which is a defect."""
    # By hash first: grouping the ids themselves takes several times as long.
    is_in_window = "event_date between $first and $last"
    id_hash = _id_hash(warehouse)
    hashes = f"select {id_hash} as id_hash from raw_events where {is_in_window}"
    rows = warehouse.rows(
        f"""
        select project_id, event_id from raw_events
        where {is_in_window} and {id_hash} in ({_repeated_hashes(hashes)})
        group by project_id, event_id having count(*) > 1 order by project_id, event_id limit 10
        """,
        first=window.first,
        last=window.last,
    )
    return [list(row) for row in rows]


def unreadable_files(warehouse: Warehouse) -> dict[str, str]:
    """The loaded files that could not be read at all, by name, each with its problem."""
    return dict(
        warehouse.rows(
            "select landing_file, problem from landing_files where problem is not null order by landing_file"
        )
    )
