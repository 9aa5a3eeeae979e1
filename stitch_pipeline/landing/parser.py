"""An in-memory DuckDB, the parser of landed files. Every query of this package runs in it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import date
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Self

import duckdb

from stitch_pipeline.landing import reading, staging
from stitch_pipeline.landing.landed_file import (
    FILE_TYPES,
    LandedFile,
    Shape,
    UnreadableFile,
    shape_of_columns,
    shape_of_text,
)
from stitch_pipeline.landing.problems import REFUSED_LINE, REFUSED_LINE_REMEDY, WHOLE_LINE
from stitch_pipeline.landing.reading import REJECTS_TABLE, EventBatch, ReadingRules
from stitch_pipeline.planning.error_text import without_values
from stitch_pipeline.planning.interruption import closing, interruptible
from stitch_pipeline.planning.sql_text import literal
from stitch_pipeline.sources.source import Lookup

if TYPE_CHECKING:
    from pandas import DataFrame

_FILES_PER_BATCH = 100
_LONGEST_PROBLEM = 500
_VECTORS_PER_FRAME = 20  # of 2,048 rows each

# A client may send any time, `-infinity` included. Engines and Python agree on those of these years.
_REPRESENTABLE_TIME = (
    "case when occurred_at between timestamp '0001-01-01' and timestamp '9999-12-31' then occurred_at end"
)

# The reader does not count the lines that it refuses, so this adds them to each row's line number.
_QUARANTINED_SQL = f"""
select
  $day::date as quarantine_date, $file as landing_file, bad.line + coalesce(refused.lines_before, 0) as line,
  field, problem, occurred_at, reason, remedy, raw_row
from bad_rows as bad
asof left join (
  select
    line - row_number() over (order by line) + 1 as counted_line,
    row_number() over (order by line) as lines_before
  from refused_lines
) as refused on bad.line >= refused.counted_line
union all
select
  $day::date, $file, line, {literal(WHOLE_LINE)}, {literal(REFUSED_LINE)}, null, reason,
  {literal(REFUSED_LINE_REMEDY)}, raw_row
from refused_lines
"""


@dataclass
class Profile:
    """The contents of a file: rows per event day, with the rows that are not events under None."""

    counts: dict[date | None, int] = field(default_factory=dict)
    problem: str | None = None
    """Why the file cannot be read at all."""


class Parser:
    """A context manager. A query that fails raises UnreadableFile, because only the files can be at fault.

    A disk without room is not the files' fault: then it raises what DuckDB raises.

    ``memory_limit`` is a size such as ``4GB``; by default DuckDB's own limit applies.
    """

    def __init__(self, memory_limit: str | None = None) -> None:
        self._memory_limit = memory_limit
        self._opened = ExitStack()
        self._staged = itertools.count(1)
        self._lookups: dict[Path, tuple[Path | None, str]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    @cached_property
    def _scratch(self) -> Path:
        return Path(self._opened.enter_context(TemporaryDirectory(prefix="stitch-parser-")))

    @cached_property
    def _connection(self) -> duckdb.DuckDBPyConnection:
        """Opened at the first query, because most runs only need the shapes of text files, which take none."""
        # By default the parsers of several processes share the directory `.tmp` below the current directory.
        opened = duckdb.connect(config={"temp_directory": str(self._scratch)})
        connection = self._opened.enter_context(closing(opened))
        if self._memory_limit is not None:
            connection.execute(f"set memory_limit = {literal(self._memory_limit)}")
        # Times without an offset are UTC; the machine's zone must not matter.
        connection.execute("set TimeZone = 'UTC'")
        # `landing.reading` says why.
        connection.execute("set disabled_optimizers = 'filter_pushdown'")
        # Where DuckDB 2.0 expects few rows, it runs an ASOF join as a nested loop: see `warehouse.duckdb`.
        connection.execute("set global asof_loop_join_threshold = 0")
        return connection

    def execute(self, sql: str, **parameters: Any) -> None:
        """Run one statement; parameters are written ``$name``."""
        with self._unreadable():
            self._connection.execute(sql, parameters or None)

    def rows(self, sql: str, **parameters: Any) -> list[tuple[Any, ...]]:
        """All rows of a query; parameters are written ``$name``."""
        with self._unreadable():
            return self._connection.execute(sql, parameters or None).fetchall()

    def staged(self, file: LandedFile) -> LandedFile:
        """The file as DuckDB can read it, as long as this parser is open. Raises UnreadableFile if nothing helps."""
        if file.file_type not in FILE_TYPES:
            return file  # `shape_of` says what is wrong
        return staging.stage(self._with_readable_lookups(file), self._scratch / str(next(self._staged)))

    def shape_of(self, file: LandedFile) -> Shape:
        """How a staged file is read. Raises UnreadableFile if that cannot be determined."""
        if file.problem is not None:
            raise UnreadableFile(file.problem)
        if file.source is None or file.file_type != ".parquet":
            return shape_of_text(file)
        with self._unreadable():
            path = literal(str(file.read_path))
            relation = self._connection.sql(f"select * from read_parquet({path}, hive_partitioning = false)")
            columns = tuple(zip(relation.columns, relation.types, strict=True))
            # A type with a field whose name is not UTF-8 raises only where it is written as text.
            _ = [str(column_type) for column_type in relation.types]
        return shape_of_columns(file, columns)

    def batches(self, files: Iterable[LandedFile], rules: ReadingRules) -> tuple[list[EventBatch], dict[str, str]]:
        """The files in batches of one shape; and, by file name, why a file without a shape cannot be read."""
        by_shape: dict[Shape, list[LandedFile]] = {}
        problems: dict[str, str] = {}
        for file in files:
            try:
                staged = file if file.source is None else self.staged(file)
                by_shape.setdefault(self.shape_of(staged), []).append(staged)
            except UnreadableFile as error:
                problems[file.landing_file] = str(error)
        batches = [
            EventBatch(shape, tuple(same[start : start + _FILES_PER_BATCH]), rules)
            for shape, same in by_shape.items()
            for start in range(0, len(same), _FILES_PER_BATCH)
        ]
        return batches, problems

    def problems_of_lookups(self, files: Iterable[LandedFile]) -> dict[str, str]:
        """By file name, why a lookup table among the files cannot be read. Events are read as if it were not there."""
        problems = {}
        for file in files:
            if file.source is not None and file.source.lookup is not None and file.size:
                if not file.source.lookup.is_lookup_file(file.landing_file):
                    continue
                readable, problem = self._lookup(file.path, file.source.lookup)
                if readable is None:
                    problems[file.landing_file] = problem
        return problems

    def _with_readable_lookups(self, file: LandedFile) -> LandedFile:
        if file.source is None or file.source.lookup is None or not file.lookup_files:
            return file
        found = [self._lookup(path, file.source.lookup)[0] for path in file.lookup_files]
        return replace(file, lookup_files=tuple(path for path in found if path is not None))

    def _lookup(self, path: Path, lookup: Lookup) -> tuple[Path | None, str]:
        """The lookup table as DuckDB can read it, or None and the problem."""
        if path not in self._lookups:
            link = self._scratch / f"{next(self._staged)}{''.join(path.suffixes[-2:])}"
            try:
                link.symlink_to(path)
                self.rows(f"select bit_xor(hash(lookups)) from ({reading.lookup_sql((link,), lookup)}) as lookups")
                self._lookups[path] = link, ""
            except (UnreadableFile, OSError) as error:
                self._lookups[path] = None, str(error).replace(str(link), path.name)
        return self._lookups[path]

    def problem_of(self, batch: EventBatch, *, has_bad_rows: bool) -> str | None:
        """Why the batch's one file cannot be loaded, though it could be indexed; None if it can."""
        self.forget_refused_lines()
        sql = reading.numbered_rows_sql(batch) if has_bad_rows else batch.events_sql
        try:
            self.rows(f"select bit_xor(hash(events)) from ({sql}) as events", **batch.parameters)
        except UnreadableFile as error:
            return _about(batch.files[0], error)
        return None

    def profiles(self, batch: EventBatch) -> dict[str, Profile]:
        """The profile of every file by name: from one query, or from one per file if some file cannot be read."""
        profiles = {file.landing_file: Profile() for file in batch.files}
        names = {str(file.read_path): file.landing_file for file in batch.files}
        self.forget_refused_lines()
        try:
            for file in batch.files:
                staging.verify(file)
            for name, day, count in self.rows(reading.profile_sql(batch)):
                profiles[name].counts[day] = count
        except UnreadableFile as error:
            if len(batch.files) == 1:
                return {batch.files[0].landing_file: Profile(problem=_about(batch.files[0], error))}
            for alone in batch.alone():
                profiles.update(self.profiles(alone))
            return profiles
        for path, count in self.rows(
            f"select file_path, count(*) from ({self.refused_lines_sql()}) group by file_path"
        ):
            counts = profiles[names[path]].counts
            counts[None] = counts.get(None, 0) + count
        return profiles

    def quarantined(self, batch: EventBatch, day: date) -> Iterator[DataFrame]:
        """The rows of the batch's one file that cannot be events, as frames with the columns of ``quarantined_events``.

        ``day`` is their quarantine date. Frames and not tuples, because there may be a million rows.
        """
        self.forget_refused_lines()
        self.execute(
            "create or replace temp table bad_rows as "
            f"select line, field, problem, {_REPRESENTABLE_TIME} as occurred_at, reason, remedy, raw_row "
            f"from ({reading.numbered_rows_sql(batch)}) where problem is not null",
            **batch.parameters,
        )
        self.execute(f"create or replace temp table refused_lines as {self.refused_lines_sql()}")
        if batch.forgets or batch.hashed_projects:
            # Nobody can tell whether a line that cannot be parsed carries a forgotten id, or of which project it is.
            self.execute("update refused_lines set raw_row = null")
        with self._unreadable():
            found = self._connection.execute(_QUARANTINED_SQL, {"day": day, "file": batch.files[0].landing_file})
        while len(frame := self._next_frame(found)):
            yield frame

    def _next_frame(self, found: duckdb.DuckDBPyConnection) -> DataFrame:
        with self._unreadable():
            return found.fetch_df_chunk(_VECTORS_PER_FRAME)

    def forget_refused_lines(self) -> None:
        """Drop what the reader noted about refused lines. Call it before a query that fills REJECTS_TABLE."""
        self.execute(f"drop table if exists {REJECTS_TABLE}")
        self.execute(f"drop table if exists {REJECTS_TABLE}_scan")

    def refused_lines_sql(self) -> str:
        """A query for the lines that the reader has refused since ``forget_refused_lines``."""
        if self.rows(f"select 1 from duckdb_tables() where table_name = '{REJECTS_TABLE}'"):
            return reading.REFUSED_LINES_SQL
        # DuckDB reads Parquet files and JSON lists without that table.
        nothing = "null::varchar as file_path, null::bigint as line, null::varchar as raw_row, null::varchar as reason"
        return f"select {nothing} limit 0"

    @contextmanager
    def _unreadable(self) -> Iterator[None]:
        try:
            with interruptible():
                yield
        except (duckdb.FatalException, duckdb.InternalException) as error:
            self.__dict__.pop("_connection", None)  # unusable from now on: the next query opens another
            raise UnreadableFile(_sentence(error)) from error
        # Damaged files make DuckDB raise other exceptions than its own, for instance `RuntimeError: std::bad_cast`.
        except Exception as error:
            if "No space left" in str(error):
                raise
            raise UnreadableFile(_sentence(error)) from error


def _about(file: LandedFile, error: UnreadableFile) -> str:
    """The message, with the file's name in place of that of its link or copy."""
    return str(error).replace(str(file.read_path), file.landing_file)


def _sentence(error: Exception) -> str:
    if isinstance(error, UnicodeError):  # DuckDB's message about text that is not UTF-8 is itself none
        return "it holds text that is not UTF-8"
    # Without what is quoted from the file: the sentence goes into logs and the metadata of checks.
    return without_values(str(error))[:_LONGEST_PROBLEM] or type(error).__name__


def write_parquet(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str], path: Path) -> None:
    """Write the rows, in their order, to a Parquet file. ``columns`` maps names to DuckDB types."""
    with TemporaryDirectory() as scratch, duckdb.connect(config={"threads": 1}) as connection:
        documents = Path(scratch, "rows.ndjson")
        with documents.open("w", encoding="utf-8") as lines:
            lines.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        relation = connection.read_json(str(documents), format="newline_delimited", columns=dict(columns))
        relation.write_parquet(str(path))
