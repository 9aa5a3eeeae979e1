"""SQL for the values at a source's paths (``sources.paths``), in JSON documents and in table columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Any

from stitch_pipeline.landing.landed_file import SEALED, Columns
from stitch_pipeline.planning.sql_text import identifier, literal, literals
from stitch_pipeline.sources import Layout
from stitch_pipeline.sources.paths import (
    Index,
    Key,
    Match,
    Parameter,
    Segment,
    is_constant,
    is_lookup,
    is_wildcard,
    parse_path,
)

FOUND = "found"
"""The column that holds the result of ``found_sql`` in a query over JSON lines."""


@dataclass(frozen=True)
class _Column:
    name: str
    sql: str
    type: Any


class DocumentFields:
    """Values of JSON documents, which are text in a column ``line``.

    ``found_sql`` looks up all plain paths in one call, because DuckDB parses the text once per call.
    """

    def __init__(self, paths: Sequence[str], layout: Layout) -> None:
        self._layout = layout
        stems = (_stem(parse_path(path)) for path in paths if parse_path(path))
        self._stems = sorted({_json_path(stem) for stem in stems})

    @property
    def found_sql(self) -> str:
        """SQL for a list of texts, one per path; null if the line is not JSON."""
        return f"try(json_extract_string(line, [{literals(self._stems)}]))"

    def value(self, path: str) -> str | None:
        """SQL for the text at the path, null where there is none. None for a lookup, which is not in the document."""
        if is_constant(path):
            return literal(path[1:])
        if is_lookup(path):
            return None
        if is_wildcard(path):
            return self._wildcard(path)
        segments = parse_path(path)
        stem = _stem(segments)
        text = f"{FOUND}[{self._stems.index(_json_path(stem)) + 1}]"
        return f"nullif({_within(text, segments[len(stem) :])}, '')"

    def _wildcard(self, path: str) -> str:
        prefix = path.removesuffix("*")
        used = {path.split(".")[0].split("[")[0].lower() for path in self._layout.paths_of_fields()}
        patterns = [*(name for name in used if not is_wildcard(name)), *self._layout.envelope]
        wanted = (
            f"starts_with(entry.key, {literal(prefix)})"
            if prefix
            else " and ".join(f"lower(entry.key) not like {_like(pattern)} escape '!'" for pattern in patterns)
        )
        entries = "map_entries(from_json(line, '\"MAP(VARCHAR, JSON)\"'))"
        chosen = (
            f"list_filter({entries}, lambda entry: {wanted} and entry.value is not null "
            "and entry.value::varchar not in ('null', '\"\"'))"
        )
        renamed = (
            f"list_transform({chosen}, lambda entry: {{'key': entry.key[{len(prefix) + 1}:], 'value': entry.value}})"
        )
        # `nullif` repeats its expression, and DuckDB evaluates a repeated expression eagerly and unguarded by `try`.
        return f"nullif(try(to_json(map_from_entries({renamed}))::varchar), '{{}}')"


class ColumnFields:
    """Values of a relation with columns: a CSV file or a Parquet file.

    The SQL calls the columns ``c0``, ``c1`` and so on (``names_sql``): a file may name them as it likes, or not at all.
    """

    def __init__(self, columns: Columns, layout: Layout) -> None:
        self._columns = [_Column(name, f"c{number}", kind) for number, (name, kind) in enumerate(columns)]
        # What is sealed is a whole row, and no field of one.
        self._own = [column for column in self._columns if column.name != SEALED]
        self._by_name = {column.name.lower(): column for column in reversed(self._own)}
        self._layout = layout

    @property
    def names(self) -> list[str]:
        """The names of the columns in SQL, in the order of the file."""
        return [column.sql for column in self._columns]

    @property
    def sealed_sql(self) -> str | None:
        """SQL for the row as it was sealed, a struct; None if no row of the relation was."""
        return next((column.sql for column in self._columns if column.name == SEALED), None)

    @property
    def row_sql(self) -> str:
        """SQL for the whole row as JSON text."""
        values = ", ".join(f"{literal(column.name)}, {column.sql}" for column in self._own)
        return f"json_object({values})::varchar"

    @property
    def is_missing_sql(self) -> str:
        """SQL that is never true, and needs the value of every column."""
        return f"coalesce({', '.join([*self.names, repr('')])}) is null"

    def value(self, path: str) -> str | None:
        """SQL for the text at the path; None if the relation has no such column."""
        if is_constant(path):
            return literal(path[1:])
        if is_lookup(path):
            return None
        if is_wildcard(path):
            return self._wildcard(path)
        column = self._by_name.get(path.lower())
        if column is not None:
            return _as_text(column.sql, column.type)
        segments = parse_path(path)
        first = segments[0]
        column = self._by_name.get(first.name.lower()) if isinstance(first, Key) else None
        if column is None or len(segments) == 1:
            return None
        return _descend(column.sql, column.type, segments[1:])

    def timestamp(self, path: str) -> str | None:
        """SQL for the UTC timestamp at the path; None unless the path is a column with a timestamp type."""
        column = self._by_name.get(path.lower())
        kinds = ("timestamp", "timestamp_ms", "timestamp_ns", "timestamp with time zone")
        if column is None or column.type.id not in kinds:
            return None
        # The session's zone is UTC.
        return f"{column.sql}::timestamp"

    def _wildcard(self, path: str) -> str | None:
        prefix = path.removesuffix("*").lower()
        used = {path.split(".")[0].split("[")[0].lower() for path in self._layout.paths_of_fields()}
        excluded = [*(name for name in used if not is_wildcard(name)), *self._layout.envelope]
        columns = [
            column
            for lower, column in self._by_name.items()
            if (lower.startswith(prefix) if prefix else not any(fnmatch(lower, pattern) for pattern in excluded))
        ]
        if not columns:
            return None
        # Lists, because planning takes a time that grows with the square of the number of expressions.
        texts = [column for column in columns if column.type.id == "varchar"]
        others = [column for column in columns if column.type.id != "varchar"]
        entries = []
        if texts:
            pairs = ", ".join(_entry(column.name[len(prefix) :], column.sql) for column in texts)
            filled = f"list_filter([{pairs}], lambda entry: entry.value <> '')"
            as_json = f"{{'key': entry.key, 'value': {_text_as_json('entry.value')}}}"
            entries.append(f"list_transform({filled}, lambda entry: {as_json})")
        if others:
            pairs = ", ".join(_entry(column.name[len(prefix) :], _value_as_json(column)) for column in others)
            entries.append(f"list_filter([{pairs}], lambda entry: entry.value is not null)")
        found = f"to_json(map_from_entries({' || '.join(entries)}))"
        # Merging into an empty object removes the nulls.
        return f"nullif(json_merge_patch('{{}}', {found})::varchar, '{{}}')"


def _stem(segments: Sequence[Segment]) -> tuple[Segment, ...]:
    """The segments before the first that searches the elements of a list or a text."""
    for position, segment in enumerate(segments):
        if isinstance(segment, Match | Parameter):
            return tuple(segments[:position])
    return tuple(segments)


def _within(text: str, segments: Sequence[Segment]) -> str:
    """SQL for the text at ``segments`` within JSON text."""
    if not segments:
        return text
    first, rest = segments[0], segments[1:]
    if isinstance(first, Parameter):
        return _parameter(text, first)
    if not isinstance(first, Match):
        stem = _stem(segments)
        extracted = f"try(json_extract_string({text}, {literal(_json_path(stem))}))"
        return _within(extracted, segments[len(stem) :])
    elements = f"json_extract(case when starts_with({text}, '{{') then '[' || {text} || ']' else {text} end, '$[*]')"
    key = f"json_extract_string(element, {literal(_json_path((Key(first.key),)))})"
    matched = f"list_filter({elements}, lambda element: {_matches(key, first)})[1]"
    if not rest:
        return f"try({matched}::varchar)"
    return _within(f"try({matched}::varchar)", rest)


def _descend(expression: str, column_type: Any, segments: Sequence[Segment]) -> str | None:
    """SQL for the text at ``segments`` within a value: through structs and lists by type, otherwise as JSON text."""
    if not segments:
        return _as_text(expression, column_type)
    first, rest = segments[0], segments[1:]
    if column_type.id == "struct" and isinstance(first, Key):
        for name, child in column_type.children:
            if name.lower() == first.name.lower():
                return _descend(f"{expression}.{identifier(name)}", child, rest)
        return None
    if column_type.id == "list":
        child = column_type.children[0][1]
        if isinstance(first, Index):
            return _descend(f"{expression}[{first.position + 1}]", child, rest)
        if isinstance(first, Match) and child.id == "struct":
            key = f"element.{identifier(first.key)}::varchar"
            chosen = f"list_filter({expression}, lambda element: {_matches(key, first)})[1]"
            return _descend(chosen, child, rest)
    return f"nullif({_within(_as_text(expression, column_type), segments)}, '')"


def _parameter(address: str, wanted: Parameter) -> str:
    """SQL for the text of a parameter in the query of an address, decoded; null if its bytes are no text."""
    query = f"regexp_extract({address}, '^[^?#]*[?]([^#]*)', 1)"
    sent = f"regexp_extract({query}, {literal(f'(?:^|&){wanted.name}=([^&]*)')}, 1)"
    decoded = f"try(url_decode({sent}))"
    return decoded if wanted.part is None else f"split_part({decoded}, '.', {wanted.part + 1})"


def _matches(key: str, wanted: Match) -> str:
    compared = (
        f"starts_with({key}, {literal(wanted.value)})" if wanted.is_prefix else f"{key} = {literal(wanted.value)}"
    )
    return f"coalesce({compared}, false)"


def _as_text(expression: str, column_type: Any) -> str:
    if column_type.id in ("struct", "map", "list", "array"):
        return f"nullif(to_json({expression})::varchar, 'null')"
    return f"nullif({expression}::varchar, '')"


def _entry(key: str, value: str) -> str:
    return f"{{'key': {literal(key)}, 'value': {value}}}"


def _value_as_json(column: _Column) -> str:
    if column.type.id in ("float", "double"):
        # JSON has neither NaN nor infinity: DuckDB writes them all the same, and other readers fail.
        return f"case when isfinite({column.sql}) then to_json({column.sql}) else to_json({column.sql}::varchar) end"
    return f"to_json({column.sql})"


def _text_as_json(expression: str) -> str:
    # Tables without a type for objects and lists hold them as text.
    structured = f"case when starts_with({expression}, '{{') or starts_with({expression}, '[') then {expression} end"
    return f"coalesce(try_cast({structured} as json), to_json({expression}))"


def _json_path(segments: Sequence[Segment]) -> str:
    path = "$"
    for segment in segments:
        if isinstance(segment, Index):
            path += f"[{segment.position}]"
        elif isinstance(segment, Key):
            path += '."' + segment.name.replace('"', '\\"') + '"'
    return path


def _like(pattern: str) -> str:
    escaped = pattern.lower().replace("!", "!!").replace("%", "!%").replace("_", "!_")
    return literal(escaped.replace("*", "%"))
