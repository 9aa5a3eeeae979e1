"""Extracts without forgotten ids. A row that carries one is *sealed*: of it stays what the reading rule leaves.

An extract is a file of the project's own, so a forgotten id may not be in it. But what a rebuild from nothing needs has
to be: that on this device, at this time, somebody was who is forgotten (``docs/forgetting.md``). So every column of the
row is emptied, and the column ``SEALED`` holds the row as ``landing.forgetting`` has left it. In a lookup table, the id
is replaced by its keyed hash.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from stitch_pipeline.landing.forgetting import Forgetting, hash_sql, token_sql
from stitch_pipeline.landing.landed_file import SEALED, LandedFile
from stitch_pipeline.landing.parser import Parser
from stitch_pipeline.landing.reading import EventBatch, ReadingRules, numbered_rows_sql
from stitch_pipeline.planning.sql_text import file_pattern, identifier, literal
from stitch_pipeline.sources.source import Source

_NOT_KEPT = ("landing_file", "line", "raw_row")
_KEPT_OF_DELETED = (
    *("source", "event_id", "project_id", "occurred_at", "received_at", "event_date", "event_type"),
    *("anonymous_id", "user_id", "is_forgotten", "id_kind", "id", "problem", "field", "reason", "remedy"),
)


def seal(parser: Parser, file: LandedFile, rules: ReadingRules, target: Path, about: Mapping[str, str]) -> bool:
    """Write the extract without forgotten ids to ``target``, with ``about`` as metadata; False if it holds none.

    Raises UnreadableFile if it cannot be read as its feed says, so that nobody knows which ids it holds.
    """
    if rules.forgetting is None or file.source is None:
        return False
    if file.has_no_events:
        return _seal_lookup(parser, file, file.source, rules.forgetting, target, about)
    # An extract is read again, and what is read is hashed then.
    rules = replace(rules, hashing=None)
    file = parser.staged(file)
    shape = parser.shape_of(file)
    sql = numbered_rows_sql(EventBatch(shape, (file,), rules))
    # Of each row that carries an id, or may, the reading rule takes away the raw row.
    parser.execute(f"create or replace temp table carrying_rows as select * from ({sql}) where raw_row is null")
    if not parser.rows("select 1 from carrying_rows limit 1"):
        return False
    kept = [name for name, *_ in parser.rows("describe carrying_rows") if name not in _NOT_KEPT]
    # Of a deleted row, what `forgotten_events` has or the quarantine.
    fields = ", ".join(
        f"{identifier(name)} := {name if name in _KEPT_OF_DELETED else f'case when not is_forgotten then {name} end'}"
        for name in kept
    )
    parser.execute(
        f"create or replace temp table sealed_rows as select line, struct_pack({fields}) as kept from carrying_rows"
    )
    columns = [name for name, _ in shape.columns]
    before = f"c{columns.index(SEALED)}" if SEALED in columns else "null"
    rows = _rows_of(file.read_path, len(columns))
    changed = parser.rows(
        f"select 1 from ({rows}) as stored inner join sealed_rows on line = row_number "
        f"where {before} is distinct from kept limit 1"
    )
    if changed:
        texts = [
            f"case when line is null then c{number} end as {identifier(name)}"
            for number, name in enumerate(columns)
            if name != SEALED
        ]
        _write(
            parser,
            f"select {', '.join([*texts, f'kept as {identifier(SEALED)}'])} "
            f"from ({rows}) as stored left join sealed_rows on line = row_number order by row_number",
            target,
            about,
        )
    for table in ("carrying_rows", "sealed_rows"):
        parser.execute(f"drop table {table}")
    return bool(changed)


def _seal_lookup(
    parser: Parser, file: LandedFile, source: Source, rule: Forgetting, target: Path, about: Mapping[str, str]
) -> bool:
    assert source.lookup is not None
    path = literal(file_pattern(file.path))
    names = [name for name, *_ in parser.rows(f"describe select * from read_parquet({path})")]
    kinds = {
        column: kind
        for layout in source.layouts
        for field, kind in (("user_id", "user"), ("anonymous_id", "device"))
        for column in source.lookup.columns
        if f"lookup:{column}" in layout.paths(field)
    }
    projects = {name for layout in source.layouts for name in layout.paths("project_id") if name in names}
    project = literal(file.project_id) if file.project_id else identifier(min(projects)) if projects else "'default'"
    hashed = {
        name: hash_sql(rule.forgotten.key, literal(kinds[name]), identifier(name), f"{project}::varchar")
        for name in names
        if name in kinds
    }
    conditions = {name: f"coalesce({_is_listed(rule, kinds[name], hashes)}, false)" for name, hashes in hashed.items()}
    anything = " or ".join(conditions.values()) or "false"
    if not parser.rows(f"select 1 from read_parquet({path}) where {anything} limit 1"):
        return False
    # What else describes the person goes with the id.
    kept = {source.lookup.key, *projects, *kinds}
    written = ", ".join(
        f"case when {conditions[name]} then {token_sql(hashed[name])} else {identifier(name)} end as {identifier(name)}"
        if name in conditions
        else identifier(name)
        if name in kept
        else f"case when not ({anything}) then {identifier(name)} end as {identifier(name)}"
        for name in names
    )
    _write(parser, f"select {written} from read_parquet({path})", target, about)
    return True


def _is_listed(rule: Forgetting, kind: str, hashes: str) -> str:
    listed = ", ".join(literal(one.hash) for one in rule.forgotten.ids if one.kind == kind)
    return f"{hashes} in ({listed})" if listed else "false"


def holds_seals(parser: Parser, path: Path) -> bool:
    """Whether a row of the extract was sealed."""
    names = parser.rows(f"describe select * from read_parquet({literal(file_pattern(path))})")
    return any(name == SEALED for name, *_ in names)


def rewrite(parser: Parser, path: Path, target: Path, about: Mapping[str, str]) -> None:
    """Write the file with other metadata."""
    _write(parser, f"select * from read_parquet({literal(file_pattern(path))})", target, about)


def _rows_of(path: Path, columns: int) -> str:
    # The columns get names of our own, because the file's may be the ones that the query uses itself.
    names = ", ".join(f"c{number}" for number in range(columns))
    return (
        f"select *, row_number() over () as row_number "
        f"from read_parquet({literal(file_pattern(path))}, hive_partitioning = false) as stored({names})"
    )


def _write(parser: Parser, sql: str, target: Path, about: Mapping[str, str]) -> None:
    pairs = ", ".join(f"{identifier(name)}: {literal(value)}" for name, value in about.items())
    parser.execute(
        f"copy ({sql}) to {literal(str(target))} (format parquet, compression zstd, kv_metadata {{{pairs}}})"
    )
