"""DuckDB SQL that reads landed files as canonical events. Pure functions: ``landing.parser`` runs the SQL.

Each row of a file becomes either an event, or a row with the ``problem``, ``field``, ``reason`` and ``remedy`` that say
why it cannot be one. A JSON file is read as lines of text, and each line is parsed once. So a line that is broken, or
changes the type of a field, spoils only its own row. One query reads all files of one shape, because planning a query
takes as long as reading some thousand rows.

The queries do not use ``x in (…)``: DuckDB turns it into a join, which costs more than all the rest. They need the
optimizer ``filter_pushdown`` to be off: otherwise DuckDB copies the parsing of the JSON into each filter above it, and
parses every line two or three times.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date
from pathlib import Path

from stitch_pipeline.landing.fields import ColumnFields, DocumentFields
from stitch_pipeline.landing.forgetting import Forgetting, opened_seals, without_forgotten
from stitch_pipeline.landing.hashing import HashedReading, with_hashed_ids
from stitch_pipeline.landing.landed_file import SEALED, LandedFile, Shape
from stitch_pipeline.landing.problems import problems_of_rows
from stitch_pipeline.planning.sql_text import identifier, literal, literals
from stitch_pipeline.settings.errors import SettingsError
from stitch_pipeline.settings.forgotten import PREFIX
from stitch_pipeline.settings.hashing import missing_key
from stitch_pipeline.sources import Layout
from stitch_pipeline.sources.source import CANONICAL_FIELDS, Lookup

# Values that clients send by mistake and that identify nobody. They are compared without surrounding white space and
# quotes, in lower case.
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
EVENT_FIELDS = (*CANONICAL_FIELDS, "identifiers")
_MAX_LINE_BYTES = 10_000_000
REJECTS_TABLE = "rejected_lines"
REFUSED_LINES_SQL = f"""
select file_path, line, any_value(csv_line) as raw_row, any_value(error_message) as reason
from {REJECTS_TABLE} inner join {REJECTS_TABLE}_scan using (scan_id, file_id)
group by file_path, line
"""
"""The lines that the reader refused, after a query that fills REJECTS_TABLE."""
# These decide whether a row is an event, and its day. Finding the days of a file needs no other field.
_DECIDING_FIELDS = ("event_id", "occurred_at", "received_at", "event_type", "anonymous_id", "user_id")


@dataclass(frozen=True)
class ReadingRules:
    """The settings that decide whether a row is an event and which ids are blocked."""

    start_date: date
    blocked_ids: tuple[tuple[str, str], ...] = ()
    """(project, value) pairs, in addition to BLOCKED_IDS."""
    blocked_patterns: tuple[tuple[str, str], ...] = ()
    """By project the regular expression of its further blocked ids."""
    identifiers: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """By project the kinds of an event's ``identifiers`` that it names; it gets no others."""
    forgetting: Forgetting | None = None
    """None if nobody was forgotten."""
    hashing: HashedReading | None = None
    """None if no project hashes its ids."""


@dataclass(frozen=True)
class EventBatch:
    """Files of one shape, with the rules that judge their rows. An engine loads one batch at a time."""

    shape: Shape
    files: tuple[LandedFile, ...]
    rules: ReadingRules

    @property
    def events_sql(self) -> str:
        """A query for the events, with the columns of ``raw_events``; see ``forgets`` for further ones."""
        return (
            "select * exclude (problem, field, reason, remedy, line, raw_row) "
            f"from ({rows_sql(self)}) where problem is null"
        )

    @property
    def hashed_projects(self) -> Sequence[str]:
        """The projects of the files whose ids are hashed."""
        return self.rules.hashing.projects_in(self.shape.project_id) if self.rules.hashing is not None else ()

    @property
    def parameters(self) -> dict[str, bytes]:
        """The parameters of ``events_sql``, ``rows_sql`` and ``numbered_rows_sql``: keys, which no text may hold."""
        return self.rules.hashing.parameters(self.hashed_projects) if self.rules.hashing is not None else {}

    @property
    def scratch_tables(self) -> tuple[str, ...]:
        return REJECTS_TABLE, f"{REJECTS_TABLE}_scan"

    @property
    def forgets(self) -> bool:
        """Whether rows of forgotten ids are among the events, marked by ``is_forgotten`` (``landing.forgetting``)."""
        return self.rules.forgetting is not None or self.shape.is_sealed

    def alone(self) -> Iterator[EventBatch]:
        """Each file as a batch of its own."""
        return (EventBatch(self.shape, (file,), self.rules) for file in self.files)


def rows_sql(batch: EventBatch) -> str:
    """A query for every row: the columns of ``raw_events``, then ``problem``, ``field``, ``reason`` and ``remedy``.

    ``problem`` is null exactly for events.
    """
    return _as_stored(batch, _picked(batch, EVENT_FIELDS, "null::bigint", "null::varchar"))


def numbered_rows_sql(batch: EventBatch) -> str:
    """The same rows, of one file, with ``line`` (from 1, a header counted) and ``raw_row``; read in order, so slower.

    Running the query to its end fills REJECTS_TABLE with the lines that the reader itself refused (text that is not
    UTF-8, a CSV record with too few columns). Those lines are not among the rows, and ``line`` does not count them.
    """
    raw_row = "line" if batch.shape.is_document else ColumnFields(batch.shape.columns, batch.shape.layout).row_sql
    number = f"row_number() over () + {1 if batch.shape.has_header else 0}"
    return _as_stored(batch, _picked(batch, EVENT_FIELDS, number, raw_row))


def profile_sql(batch: EventBatch) -> str:
    """A query for the rows per file and event day, with null for rows that are not events. Fills REJECTS_TABLE too."""
    picked = _picked(batch, _DECIDING_FIELDS, "null::bigint", "null::varchar")
    return f"select landing_file, event_date, count(*) from ({_canonical(batch, picked)}) group by all"


def written_times_sql(batch: EventBatch) -> str:
    """A query for the event times of the files as they are written, in a column ``occurred_at_text``."""
    picked = _picked(batch, ("occurred_at",), "null::bigint", "null::varchar")
    return f"select {_WRITTEN_TIME} as occurred_at_text from ({picked})"


def _picked(batch: EventBatch, columns: Sequence[str], line: str, raw_row: str) -> str:
    """SQL with one text column per canonical field, so that the rest does not depend on the file's own names."""
    shape, layout = batch.shape, batch.shape.layout
    identifiers = layout.identifiers if "identifiers" in columns else {}
    when_merging = {column: paths for column, paths in layout.fields_when_merging.items() if column in columns}
    lookup = shape.source.lookup if any("lookup:" in path for path in layout.all_paths()) else None
    fields: DocumentFields | ColumnFields
    if shape.is_document:
        paths = [path for column in columns for path in layout.paths(column)]
        paths += [path for several in (*when_merging.values(), *identifiers.values()) for path in several]
        keys = [lookup.key] if lookup else []
        fields = DocumentFields([*paths, *layout.event_id_from, *keys], layout)
        names, found = ["line"], f", {fields.found_sql} as found"
        kept, broken = " where found is not null or trim(line) <> ''", "found is null"
    else:
        fields = ColumnFields(shape.columns, layout)
        names, found, kept = fields.names, "", ""
        # A CSV line is refused for a value that is not in the encoding only if the query needs that value. Every query
        # must refuse the same lines, so each needs all values.
        broken = "false" if shape.file_type == ".parquet" else fields.is_missing_sql
    # The columns get names of our own, because the file's may be the ones that the query uses itself.
    records = (
        f"select *{found}, {line} as line_number, {raw_row} as raw_row "
        f"from {_relation(batch)} as records({', '.join([*names, 'file_path'])})"
    )

    def value(path: str) -> str | None:
        if lookup and path.startswith("lookup:"):
            return identifier(path) if batch.files[0].lookup_files else None
        return fields.value(path)

    def first_of(paths: Sequence[str]) -> str:
        found = [sql for path in paths if (sql := value(path)) is not None]
        return f"coalesce({', '.join(found)})" if found else "null::varchar"

    def first(column: str) -> str:
        if column not in columns:
            return "null::varchar"
        if column in when_merging:
            sent = first_of(layout.paths("event_type"))
            is_merging = " or ".join(f"lower({sent}) = {literal(name)}" for name in layout.merging_types)
            otherwise = first_of(layout.paths(column))
            return f"case when {is_merging} then {first_of(when_merging[column])} else {otherwise} end"
        found = [sql for path in layout.paths(column) if (sql := value(path)) is not None]
        if column == "event_id" and layout.event_id_from:
            parts = [fields.value(path) or "null" for path in layout.event_id_from]
            found.append("md5(concat_ws('|', " + ", ".join(f"coalesce({part}, '')" for part in parts) + "))")
        return f"coalesce({', '.join(found)})" if found else "null::varchar"

    def native_time(column: str) -> str | None:
        if not isinstance(fields, ColumnFields):
            return None
        native = [fields.timestamp(path) for path in layout.paths(column) if value(path) is not None]
        sql = ", ".join(timestamp for timestamp in native if timestamp is not None)
        return f"coalesce({sql})" if native and None not in native else None

    # Formatting the time of every row as text would cost as much as reading the file.
    native_times = {column: native_time(column) for column in ("occurred_at", "received_at")}

    picked = ",\n    ".join(
        [
            *(
                f"{'null::varchar' if native_times.get(column) else first(column)} as {column}_text"
                for column in CANONICAL_FIELDS
            ),
            f"{_object({kind: first_of(paths) for kind, paths in identifiers.items()})} as identifiers_text",
            *(f"{native or 'null::timestamp'} as {column}_native" for column, native in native_times.items()),
        ]
    )
    sealed = fields.sealed_sql if isinstance(fields, ColumnFields) else None
    joined = ""
    if lookup and batch.files[0].lookup_files:
        found_by_key = lookup_sql(batch.files[0].lookup_files, lookup)
        joined = f" left join ({found_by_key}) as lookups on {value(lookup.key)} = lookup_key"
    return (
        f"select\n    {picked},\n    file_path, line_number, raw_row, {broken} as is_broken"
        f"{f', {sealed} as sealed' if sealed else ''}\n"
        f"  from ({records}) as records{joined}{kept}"
    )


def _object(values: Mapping[str, str]) -> str:
    """SQL for a JSON object of those values, given as SQL by key, that are not null."""
    if not values:
        return "null::varchar"
    entries = ", ".join(f"{{'key': {literal(key)}, 'value': {value}}}" for key, value in values.items())
    known = f"list_filter([{entries}], lambda entry: entry.value is not null)"
    return f"to_json(map_from_entries({known}))::varchar"


def _own_identifiers(batch: EventBatch) -> str:
    """SQL for the ``identifiers`` of an event's own project: files hold what any project names."""
    read = batch.shape.layout.identifiers
    projects: dict[tuple[str, ...], list[str]] = {}
    for project, kinds in batch.rules.identifiers:
        if own := tuple(kind for kind in read if kind in kinds):
            projects.setdefault(own, []).append(project)
    if not projects:
        return "null::varchar"

    def values(own: Sequence[str]) -> str:
        if len(own) == len(read):
            return "identifiers_text"
        return _object({kind: f"json_extract_string(identifiers_text, {literal('$.' + kind)})" for kind in own})

    cases = " ".join(f"when project_id in ({literals(named)}) then {values(own)}" for own, named in projects.items())
    return f"nullif(case {cases} end, '{{}}')"


def lookup_sql(paths: Sequence[Path], lookup: Lookup) -> str:
    """A query over the source's lookup tables: one row per key, with a column ``lookup:<name>`` for each column."""
    # Each table gives its own few columns as text, so that a table which reads alone also reads beside the others.
    columns = (lookup.key, *lookup.columns)
    texts = ", ".join(f"nullif({identifier(name)}::varchar, '') as {identifier(name)}" for name in columns)
    nulls = ", ".join(f"null::varchar as {identifier(name)}" for name in columns)

    def table(path: Path) -> str:
        file = literal(str(path))
        if path.suffix.lower() == ".parquet":
            rows = f"read_parquet({file}, hive_partitioning = false)"
        else:
            rows = f"read_csv({file}, header = true, all_varchar = true, hive_partitioning = false)"
        return f"select {texts} from ((select {nulls} limit 0) union all by name select * from {rows})"

    wanted = ", ".join(
        f"max({identifier(name)}) {f'filter (where {identifier(unless)} is null) ' if unless else ''}"
        f"as {identifier('lookup:' + name)}"
        for name, unless in lookup.columns.items()
    )
    tables = " union all ".join(table(path) for path in paths)
    return f"select {identifier(lookup.key)} as lookup_key, {wanted} from ({tables}) group by 1"


def _relation(batch: EventBatch) -> str:
    """The files' rows as they are, with the path of the file as last column."""
    shape = batch.shape
    paths = f"[{literals(str(file.read_path) for file in batch.files)}]"
    if shape.file_type == ".parquet":
        # The column of this option must have a name that no column of the file has.
        taken = max((len(name) for name, _ in shape.columns), default=0)
        return f"read_parquet({paths}, filename = '{'f' * (taken + 1)}', hive_partitioning = false)"
    if shape.file_type == "array":
        return (
            "(select coalesce(json::varchar, 'null'), filename from "
            f"read_json({paths}, format = 'array', records = false, columns = {{json: 'JSON'}}, filename = true, "
            "hive_partitioning = false))"
        )
    if shape.is_document:
        # A separator that no text contains makes one column of the whole line.
        columns, header = "{'line': 'VARCHAR'}", False
        dialect = "delim = E'\\x01\\x02\\x03\\x04', quote = '', escape = ''"
        dialect += ", strict_mode = false"
    else:
        columns = (
            "{" + ", ".join(f"{name}: 'VARCHAR'" for name in ColumnFields(shape.columns, shape.layout).names) + "}"
        )
        header = shape.has_header
        quote = '"' if shape.has_header else ""
        dialect = f"delim = {literal(shape.delimiter)}, quote = {literal(quote)}, escape = {literal(quote)}"
    # Not `ignore_errors`: it also leaves out good lines beside a refused one.
    rejects = f"store_rejects = true, rejects_table = '{REJECTS_TABLE}', rejects_scan = '{REJECTS_TABLE}_scan'"
    return (
        f"read_csv({paths}, columns = {columns}, header = {header}, auto_detect = false, {dialect}, "
        f"encoding = {literal(shape.encoding)}, filename = true, hive_partitioning = false, "
        f"max_line_size = {_MAX_LINE_BYTES}, {rejects})"
    )


def _facts_of_files(batch: EventBatch) -> tuple[str, str]:
    """The columns with what is known about each file without reading it, and the join that they need, if any."""

    def facts(file: LandedFile) -> tuple[str, str]:
        modified = file.modified_at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
        return literal(file.landing_file), f"timestamp {literal(modified)}"

    if len(batch.files) == 1:
        landing_file, modified_at = facts(batch.files[0])
        return f"{landing_file} as landing_file, {modified_at} as modified_at", ""
    rows = ", ".join(f"({literal(str(file.read_path))}, {', '.join(facts(file))})" for file in batch.files)
    join = f" inner join (values {rows}) as files(read_path, landing_file, modified_at) on file_path = read_path"
    return "files.landing_file, files.modified_at", join


def _as_stored(batch: EventBatch, picked: str) -> str:
    """The rows without forgotten ids, and then with hashed ids: what is forgotten is listed by the ids as sent.

    Raises SettingsError if the key of a project that may be in the files is missing.
    """
    rows, projects = _without_forgotten(batch, picked), batch.hashed_projects
    if batch.rules.hashing is not None and (waits_for := batch.rules.hashing.waits_for(batch.shape.project_id)):
        raise SettingsError(missing_key(*waits_for))
    if batch.rules.hashing is None or not projects:
        return rows
    of_identifiers = replace(batch.rules, blocked_patterns=())  # those are for devices and users
    return with_hashed_ids(
        rows,
        batch.rules.hashing,
        projects,
        is_blocked=lambda value: _is_blocked(value, of_identifiers),
        ids_are_derived=bool(batch.shape.layout.event_id_from),
    )


def _without_forgotten(batch: EventBatch, picked: str) -> str:
    rows, rule = _canonical(batch, picked), batch.rules.forgetting
    if rule is None:
        return opened_seals(rows) if batch.shape.is_sealed else rows
    return without_forgotten(
        rows, rule, are_sealed=batch.shape.is_sealed, may_be_tokens=bool(batch.files[0].lookup_files)
    )


def _canonical(batch: EventBatch, picked: str) -> str:
    layout, rules = batch.shape.layout, batch.rules
    project_id = batch.files[0].project_id
    project = literal(project_id) if project_id else "coalesce(project_id_text, 'default')"
    problems = problems_of_rows(layout, rules.start_date)
    conditions = " ".join(f"when {one.condition} then {literal(one.code)}" for one in problems)
    names_the_time = " or ".join(f"problem = {literal(one.code)}" for one in problems if one.names_the_time)
    facts, joined = _facts_of_files(batch)
    is_read, sealed = "", ""
    if batch.shape.is_sealed:
        is_read, sealed = " where sealed is null", f" union all by name {_sealed(batch)}"
    user_id = "user_id_text"
    if layout.user_id_may_repeat_anonymous_id:
        user_id = "case when user_id_text is distinct from anonymous_id_text then user_id_text end"
    previous_id, previous_id_is_blocked = "null::varchar", "false"
    if layout.paths("previous_id") or "previous_id" in layout.fields_when_merging:
        # An object or a list is no id, and the event is one without it.
        is_structure = "ascii(previous_id_text) = ascii('{') or ascii(previous_id_text) = ascii('[')"
        previous_id = f"case when not ({is_structure}) then previous_id_text end"
        previous_id_is_blocked = _is_blocked("previous_id_text", rules)
    return f"""
with picked as not materialized (
  {picked}
),
mapped as not materialized (
  select
    picked.* replace ({user_id} as user_id_text, {previous_id} as previous_id_text),
    {facts},
    {project} as project_id,
    coalesce(occurred_at_native, {_time("occurred_at_text", layout)}) as occurred_at,
    coalesce(received_at_native, {_time("received_at_text", layout)}) as received_at,
    {_event_type(layout)} as event_type,
    {_platform(layout)} as platform,
    coalesce(page_path_text, regexp_extract(page_url_text, '^[a-z]+://[^/?#]+([^?#]*)', 1)) as page_path
  from picked{joined}{is_read}
),
screened as not materialized (
  select
    *,
    {_is_blocked("anonymous_id_text", rules)} as anonymous_id_is_blocked,
    {_is_blocked("user_id_text", rules)} as user_id_is_blocked,
    {previous_id_is_blocked} as previous_id_is_blocked
  from mapped
),
judged as not materialized (
  select
    *,
    case {conditions} end as problem
  from screened
)
select
  {literal(batch.shape.source.name)} as source,
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
  nullif(page_path, '') as page_path,
  page_title_text as page_title,
  referrer_text as referrer,
  utm_source_text as utm_source,
  utm_medium_text as utm_medium,
  utm_campaign_text as utm_campaign,
  nullif(nullif(traits_text, '{{}}'), '[]') as traits,
  nullif(nullif(properties_text, '{{}}'), '[]') as properties,
  case when not previous_id_is_blocked then previous_id_text end as previous_id,
  {_own_identifiers(batch)} as identifiers,
  landing_file,
  case when anonymous_id_is_blocked then anonymous_id_text end as blocked_anonymous_id,
  case when user_id_is_blocked then user_id_text end as blocked_user_id,
  case when previous_id_is_blocked then previous_id_text end as blocked_previous_id,
  problem,
  case problem {_whens({one.code: one.field for one in problems})} end as field,
  case when problem is not null then concat(
    case when {names_the_time} then concat('the event time "', {_WRITTEN_TIME}, '" ') end,
    case problem {_whens({one.code: one.reason for one in problems})} end
  ) end as reason,
  case problem {_whens({one.code: one.remedy for one in problems})} end as remedy,
  line_number as line,
  raw_row
from judged{sealed}"""


def _sealed(batch: EventBatch) -> str:
    """The rows of an extract that were sealed, as the rest of the query has rows; see ``landing.sealing``."""
    facts, joined = _facts_of_files(batch)
    kept = next(kind for name, kind in batch.shape.columns if name == SEALED)
    columns = [identifier(name) for name, _ in kept.children if name not in ("is_forgotten", "id_kind", "id")]
    fields = ", ".join(f"sealed.{name} as {name}" for name in columns)
    return (
        f"select * exclude (modified_at) from (select {fields}, {facts}, line_number as line, "
        "null::varchar as raw_row, sealed.is_forgotten as was_forgotten, sealed.id_kind as was_of_kind, "
        f"sealed.id as was_id from picked{joined} where sealed is not null)"
    )


# Use once per query: DuckDB evaluates a repeated expression eagerly for every row.
_WRITTEN_TIME = "coalesce(occurred_at_text, occurred_at_native::varchar)"


def _time(text: str, layout: Layout) -> str:
    """SQL for the time as a UTC timestamp; null if it is not written as the layout says.

    If the layout does not say, the number of digits of an epoch number gives its unit: for the years 1973 to 5138 the
    units never have equally many digits. A number with fewer or more digits is not a time.
    """
    # The usual forms without an offset come first: a cast that handles time zones takes four times as long.
    is_plain = (
        f"ends_with({text}, 'Z') or (strlen({text}) = 19 and {text}[17] = ':') "
        f"or (strlen({text}) = 23 and {text}[20] = '.')"
    )
    iso = (
        f"case when {is_plain} then try_cast({text} as timestamp) "
        f"else try_cast({text} as timestamptz) at time zone 'UTC' end"
    )
    # Repeat no expression here: DuckDB evaluates a repeated expression eagerly for every row.
    digits = f"strlen(split_part({text}, '.', 1))"
    microseconds = {
        "seconds": "1e6",
        "milliseconds": "1e3",
        "microseconds": "1",
        None: f"[1e6, 1e6, 1e6, 1e3, 1e3, 1e3, 1, 1, 1][greatest({digits} - 8, 0)]",
    }
    if layout.times == "iso8601":
        return iso
    number = f"round(try_cast({text} as double) * {microseconds[layout.times]})"
    counted = f"make_timestamp(try_cast({number} as bigint))"
    return f"try({counted})" if layout.times else f"coalesce({iso}, try({counted}))"


def _event_type(layout: Layout) -> str:
    by_name = {key: value for key, value in layout.event_types.items() if "/" in key}
    by_type = {key: value for key, value in layout.event_types.items() if "/" not in key}
    candidates = []
    if by_name:
        candidates.append(f"case lower(event_type_text || '/' || event_name_text) {_whens(by_name)} end")
    if by_type:
        candidates.append(f"case lower(event_type_text) {_whens(by_type)} end")
    kept = "lower(event_type_text)"
    if layout.other_event_type is not None:
        kept = f"case when event_type_text is not null then {literal(layout.other_event_type)} end"
    return f"coalesce({', '.join([*candidates, kept])})"


def _platform(layout: Layout) -> str:
    sent = "lower(platform_text)"
    named = f"case {sent} {_whens(layout.platforms)} else {sent} end" if layout.platforms else sent
    if layout.default_platform is None:
        return named
    return (
        f"coalesce({named}, case when lower(event_type_text) = 'screen' then 'mobile' end, "
        f"{literal(layout.default_platform)})"
    )


def _whens(mapping: Mapping[str, str]) -> str:
    return " ".join(f"when {literal(key)} then {literal(value)}" for key, value in mapping.items())


def _is_blocked(column: str, rules: ReadingRules) -> str:
    bare = f"lower(trim({column}, E' \\t\\r\\n\"\\'`'))"
    own = ""
    if rules.blocked_ids:
        projects, values = zip(*rules.blocked_ids, strict=True)
        # Two lists and not `values`, because DuckDB plans 30,000 rows of constants for seconds.
        both = f"select unnest([{literals(projects)}]), unnest([{literals(v.strip().lower() for v in values)}])"
        own = f" or (project_id, {bare}) in ({both})"
    # Trimming every id would cost more than parsing it, so first check whether it can be on the list: it is short, or
    # it has many zeros and begins with a zero or with a character that is trimmed off.
    longest = 8 + max([len("not_authenticated"), *(len(value.encode()) for _, value in rules.blocked_ids)])
    begins_so = f"(ascii({column}) <= ascii('0') or ascii({column}) = ascii('`'))"
    is_reserved = f"starts_with({column}, {literal(PREFIX)})"
    is_candidate = f"strlen({column}) <= {longest} or ({begins_so} and contains({column}, '00000000')) or {is_reserved}"
    # The list is one text with a separator that no id contains: a list of constants would become a join, as `in` does.
    listed = "'\\x01" + "\\x01".join(BLOCKED_IDS) + "\\x01'"
    is_listed = f"contains(E{listed}, E'\\x01' || {bare} || E'\\x01') or {is_reserved}{own}"
    found = f"case when {is_candidate} then coalesce({is_listed}, false) else false end"
    for project, pattern in rules.blocked_patterns:
        is_of_pattern = f"regexp_full_match({column}, {literal(pattern)})"
        found += f" or (project_id = {literal(project)} and coalesce({is_of_pattern}, false))"
    return f"({found})"
