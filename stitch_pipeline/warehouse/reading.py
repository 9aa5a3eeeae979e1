"""SQL that reads one landed file as canonical events, for DuckDB.

Every row of the file comes out, either as an event or with the ``field``, ``reason`` and ``remedy``
that say why it cannot be one. A JSON file is read as lines of text and each line is parsed once, so
that a line that breaks or changes the type of a field spoils that row and no other.

The queries assume ``filter_pushdown`` is off (``without_pushdown``): DuckDB would otherwise copy the
parsing of the JSON into each filter above it, and parse every line two or three times.
"""

from __future__ import annotations

import csv
import gzip
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

import duckdb

from stitch_pipeline.sources import Source
from stitch_pipeline.sources.source import CANONICAL_FIELDS
from stitch_pipeline.warehouse.quoting import identifier, literal, literals

# Values that clients send by mistake: no identity, whoever sends them. Compared after white space,
# quotes and letter case are taken off.
BLOCKED_IDS = (
    "",
    "null",
    "none",
    "nil",
    "undefined",
    "nan",
    "[object object]",
    "anonymous",
    "guest",
    "unknown",
    "n/a",
    "true",
    "false",
    "0",
    "-1",
    "id",
    "distinct_id",
    "not_authenticated",
    "00000000-0000-0000-0000-000000000000",
    "00000000000000000000000000000000",
)
FILE_TYPES = (".ndjson", ".jsonl", ".json", ".csv", ".tsv", ".parquet")
_MAX_LINE_BYTES = 10_000_000
REJECTS_TABLE = "rejected_lines"


@contextmanager
def without_pushdown(con: duckdb.DuckDBPyConnection) -> Iterator[None]:
    con.execute("set disabled_optimizers = 'filter_pushdown'")
    try:
        yield
    finally:
        con.execute("set disabled_optimizers = ''")


class UnreadableFile(Exception):
    """A landed file cannot be read at all; the message says why and what would help."""


@dataclass(frozen=True)
class LandedFile:
    """One file of the landing zone and how it is to be read."""

    path: Path
    landing_file: str
    """Path relative to the landing directory, with forward slashes; the file's name everywhere else."""
    source: Source
    modified_at: datetime
    project_id: str | None = None
    """The project of every event in the file, if its feed says so."""

    @property
    def file_type(self) -> str:
        suffixes = [suffix.lower() for suffix in self.path.suffixes]
        return (suffixes[-2] if suffixes[-1] == ".gz" and len(suffixes) > 1 else suffixes[-1]) if suffixes else ""


@dataclass(frozen=True)
class ReadingRules:
    """What decides whether a row is an event and which ids are identities."""

    start_date: date
    blocked_ids: tuple[tuple[str, str], ...] = ()
    """(project, value) pairs beside the built-in list."""


def events_sql(con: duckdb.DuckDBPyConnection, file: LandedFile, rules: ReadingRules) -> str:
    """A query over ``file`` with the columns of ``raw_events``, then ``field``, ``reason`` and ``remedy``.

    ``reason`` is null exactly for events. Raises UnreadableFile if the file has no readable structure.
    """
    return _canonical(file, rules, _picked(con, file, "null::bigint", "null::varchar", keep_rejects=False))


def numbered_rows_sql(con: duckdb.DuckDBPyConnection, file: LandedFile, rules: ReadingRules) -> str:
    """The same rows with ``line`` (from 1, a header counted) and ``raw_row``; slower, as it reads in order.

    Running it to its end fills REJECTS_TABLE with the lines that the reader itself refused (text that is
    not UTF-8, a CSV record with too few columns); those are not among the rows and not counted by ``line``.
    """
    first_line = 2 if file.file_type in (".csv", ".tsv") else 1
    raw_row = "line" if _is_json(file) else "to_json(records)::varchar"
    number = f"row_number() over () + {first_line - 1}"
    return _canonical(file, rules, _picked(con, file, number, raw_row, keep_rejects=True))


def profile_sql(con: duckdb.DuckDBPyConnection, file: LandedFile, rules: ReadingRules) -> str:
    """Rows of the file per event day, those that are no events under a null day; fills REJECTS_TABLE too."""
    picked = _picked(con, file, "null::bigint", "null::varchar", keep_rejects=True)
    return f"select event_date, count(*) from ({_canonical(file, rules, picked)}) group by all"


def _is_json(file: LandedFile) -> bool:
    return file.file_type in (".ndjson", ".jsonl", ".json")


def _picked(con: duckdb.DuckDBPyConnection, file: LandedFile, line: str, raw_row: str, *, keep_rejects: bool) -> str:
    """One text column per canonical field, so that nothing of the file's own naming goes further."""
    if _is_json(file):
        paths = _all_paths(file.source)
        wanted = literals(_json_path(_segments(path)) for path in paths)
        values = {path: f"nullif(found[{n}], '')" for n, path in enumerate(paths, start=1)}
        records = (
            f"select *, try(json_extract_string(line, [{wanted}])) as found, {line} as line_number, "
            f"{raw_row} as raw_row from {_lines(file, keep_rejects)} as records"
        )
        kept, broken = " where found is not null or trim(line) <> ''", "found is null"
    elif file.file_type in (".csv", ".tsv"):
        relation, names = _csv_records(file, keep_rejects)
        values = _column_values(file.source, dict.fromkeys(names, "VARCHAR"))
        records = f"select *, {line} as line_number, {raw_row} as raw_row from {relation} as records"
        kept, broken = "", "false"
    elif file.file_type == ".parquet":
        relation = f"read_parquet({literal(str(file.path))})"
        described = con.execute(f"describe select * from {relation}").fetchall()
        values = _column_values(file.source, {row[0]: row[1] for row in described})
        records = f"select *, {line} as line_number, {raw_row} as raw_row from {relation} as records"
        kept, broken = "", "false"
    else:
        raise UnreadableFile(f"its type is not one of {', '.join(FILE_TYPES)} (or .gz of the text ones)")

    def first(column: str) -> str:
        found = [values[path] for path in file.source.paths(column) if path in values]
        return f"coalesce({', '.join(found)})" if found else "null::varchar"

    columns = ",\n    ".join(f"{first(column)} as {column}_text" for column in CANONICAL_FIELDS)
    return f"select\n    {columns},\n    line_number, raw_row, {broken} as is_broken\n  from ({records}){kept}"


def _all_paths(source: Source) -> list[str]:
    return sorted({path for column in CANONICAL_FIELDS for path in source.paths(column)})


def _json_path(segments: list[str]) -> str:
    path = "$"
    for segment in segments:
        path += segment if segment.startswith("[") else '."' + segment.replace('"', '\\"') + '"'
    return path


def _segments(path: str) -> list[str]:
    return re.findall(r"\[\d+\]|[^.\[\]]+", path)


def _lines(file: LandedFile, keep_rejects: bool) -> str:
    # A separator that JSON text cannot contain unescaped makes one column of the whole line.
    return (
        f"read_csv({literal(str(file.path))}, columns = {{'line': 'VARCHAR'}}, delim = E'\\x01', quote = '', "
        f"escape = '', header = false, auto_detect = false, strict_mode = false, {_limits(keep_rejects)})"
    )


def _csv_records(file: LandedFile, keep_rejects: bool) -> tuple[str, list[str]]:
    """The records of a CSV file as text columns, and their names from its first line."""
    opener = gzip.open if file.path.suffix.lower() == ".gz" else open
    try:
        with opener(file.path, "rt", encoding="utf-8-sig", newline="") as text:
            head = text.readline()
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise UnreadableFile(f"its first line cannot be read ({error})") from None
    delimiter = "\t" if file.file_type == ".tsv" or ("\t" in head and "," not in head) else ","
    names = next(csv.reader([head], delimiter=delimiter), [])
    if not names or len({name.lower() for name in names}) < len(names):
        raise UnreadableFile("its first line is not a header with distinct column names")
    columns = ", ".join(f"{literal(name)}: 'VARCHAR'" for name in names)
    return (
        f"read_csv({literal(str(file.path))}, columns = {{{columns}}}, header = true, auto_detect = false, "
        f"delim = {literal(delimiter)}, quote = '\"', escape = '\"', {_limits(keep_rejects)})"
    ), names


def _limits(keep_rejects: bool) -> str:
    rejects = (
        f"store_rejects = true, rejects_table = '{REJECTS_TABLE}', rejects_scan = '{REJECTS_TABLE}_scan'"
        if keep_rejects
        else "ignore_errors = true"
    )
    return f"max_line_size = {_MAX_LINE_BYTES}, {rejects}"


def forget_rejects(con: duckdb.DuckDBPyConnection) -> None:
    con.execute(f"drop table if exists {REJECTS_TABLE}")
    con.execute(f"drop table if exists {REJECTS_TABLE}_scan")


def rejected_lines(con: duckdb.DuckDBPyConnection) -> list[tuple[int, str, str]]:
    """(line, text, what is wrong) of each line that the reader refused since ``forget_rejects``."""
    exists = con.execute(f"select count(*) from duckdb_tables() where table_name = '{REJECTS_TABLE}'").fetchall()
    if not exists[0][0]:
        return []
    return con.execute(
        f"select line, any_value(csv_line), any_value(error_message) from {REJECTS_TABLE} group by line order by line"
    ).fetchall()


def _column_values(source: Source, types: dict[str, str]) -> dict[str, str]:
    by_name = {name.lower(): name for name in types}
    expressions: dict[str, str] = {}
    for path in _all_paths(source):
        segments = _segments(path)
        if path.lower() in by_name:
            name = by_name[path.lower()]
            expressions[path] = _as_text(identifier(name), types[name])
        elif len(segments) > 1 and segments[0].lower() in by_name:
            name = by_name[segments[0].lower()]
            text = _as_text(identifier(name), types[name])
            inner = literal(_json_path(segments[1:]))
            expressions[path] = f"nullif(try(json_extract_string({text}, {inner})), '')"
    return expressions


def _as_text(column: str, column_type: str) -> str:
    if column_type.startswith(("STRUCT", "MAP")) or column_type.endswith("[]"):
        return f"nullif(to_json({column})::varchar, 'null')"
    return f"nullif({column}::varchar, '')"


def _canonical(file: LandedFile, rules: ReadingRules, picked: str) -> str:
    source = file.source

    def field_of(column: str) -> str:
        return literal(" or ".join(source.paths(column)))

    project = literal(file.project_id) if file.project_id else "coalesce(project_id_text, 'default')"
    modified = literal(file.modified_at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")) + "::timestamp"
    start = rules.start_date.isoformat()
    return f"""
with picked as (
  {picked}
),
mapped as (
  select
    *,
    {project} as project_id,
    try_cast(occurred_at_text as timestamptz) at time zone 'UTC' as occurred_at,
    try_cast(received_at_text as timestamptz) at time zone 'UTC' as received_at,
    {_event_type(source)} as event_type,
    {_platform(source)} as platform,
    coalesce(
      page_path_text, nullif(regexp_extract(page_url_text, '^[a-z]+://[^/?#]+([^?#]*)', 1), '')
    ) as page_path
  from picked
),
judged as (
  select
    *,
    {_is_blocked("anonymous_id_text", rules)} as anonymous_id_is_blocked,
    {_is_blocked("user_id_text", rules)} as user_id_is_blocked,
    case
      when is_broken then 1
      when event_id_text is null then 2
      when occurred_at_text is null then 3
      when occurred_at is null then 4
      when occurred_at < '{start}'::timestamp then 5
      when occurred_at > least(coalesce(received_at, {modified}), {modified}) + interval 1 day then 6
      when event_type is null then 7
    end as problem
  from mapped
)
select
  {literal(source.name)} as source,
  event_id_text as event_id,
  project_id,
  occurred_at,
  received_at,
  case when problem is null then occurred_at::date end as event_date,
  event_type,
  event_name_text as event_name,
  platform,
  case when not anonymous_id_is_blocked then anonymous_id_text end as anonymous_id,
  case when not user_id_is_blocked then user_id_text end as user_id,
  source_session_id_text as source_session_id,
  page_url_text as page_url,
  page_path,
  page_title_text as page_title,
  referrer_text as referrer,
  utm_source_text as utm_source,
  utm_medium_text as utm_medium,
  utm_campaign_text as utm_campaign,
  nullif(traits_text, '{{}}') as traits,
  nullif(properties_text, '{{}}') as properties,
  {literal(file.landing_file)} as landing_file,
  case when anonymous_id_is_blocked then anonymous_id_text end as blocked_anonymous_id,
  case when user_id_is_blocked then user_id_text end as blocked_user_id,
  case
    when problem = 1 then 'the whole line'
    when problem = 2 then {field_of("event_id")}
    when problem = 7 then {field_of("event_type")}
    when problem is not null then {field_of("occurred_at")}
  end as field,
  case problem
    when 1 then 'not valid JSON'
    when 2 then 'there is no event id'
    when 3 then 'there is no event time'
    when 4 then concat('the event time "', occurred_at_text, '" cannot be read')
    when 5 then concat('the event time "', occurred_at_text, '" is before the start date {start}')
    when 6 then concat('the event time "', occurred_at_text, '" is more than one day after the event arrived')
    when 7 then 'there is no event type'
  end as reason,
  case
    when problem = 1 then 'send one complete JSON object per line'
    when problem = 4 then 'send ISO 8601, for instance 2025-01-31T12:00:00Z'
    when problem = 5 then 'set STITCH_START_DATE earlier to load it'
    when problem = 6 then 'correct the time and send the event again'
    when problem is not null then 'send this field with every event'
  end as remedy,
  line_number as line,
  raw_row
from judged"""


def _event_type(source: Source) -> str:
    by_name = {key: value for key, value in source.event_types.items() if "/" in key}
    by_type = {key: value for key, value in source.event_types.items() if "/" not in key}
    candidates = []
    if by_name:
        candidates.append(f"case lower(event_type_text || '/' || event_name_text) {_whens(by_name)} end")
    if by_type:
        candidates.append(f"case lower(event_type_text) {_whens(by_type)} end")
    return f"coalesce({', '.join([*candidates, 'lower(event_type_text)'])})"


def _platform(source: Source) -> str:
    sent = "lower(platform_text)"
    named = f"case {sent} {_whens(source.platforms)} else {sent} end" if source.platforms else sent
    if source.default_platform is None:
        return named
    return (
        f"coalesce({named}, case when lower(event_type_text) = 'screen' then 'mobile' end, "
        f"{literal(source.default_platform)})"
    )


def _whens(mapping: Mapping[str, str]) -> str:
    return " ".join(f"when {literal(key)} then {literal(value)}" for key, value in mapping.items())


def _is_blocked(column: str, rules: ReadingRules) -> str:
    bare = f"lower(trim({column}, E' \\t\\r\\n\"\\'`'))"
    own = "".join(
        f" or (project_id = {literal(project)} and {bare} = {literal(value.strip().lower())})"
        for project, value in rules.blocked_ids
    )
    # Trimming every id would cost more than parsing it, so look first whether it can be on the list.
    longest = 8 + max([len("not_authenticated"), *(len(value.encode()) for _, value in rules.blocked_ids)])
    is_candidate = f"(strlen({column}) <= {longest} or contains({column}, '00000000'))"
    return f"coalesce({is_candidate} and (list_contains([{literals(BLOCKED_IDS)}], {bare}){own}), false)"
