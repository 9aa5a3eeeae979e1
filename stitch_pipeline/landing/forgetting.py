"""DuckDB SQL that reads rows without forgotten ids. Pure functions; nothing here runs unless somebody was forgotten.

``forgotten.csv`` holds keyed hashes only, so the query hashes each user, each device and each value of a listed kind of
identifier, and looks the hash up. A row with a forgotten id

- is marked ``is_forgotten`` if it is to be deleted: the loader keeps its time and its device in ``forgotten_events``;
- otherwise carries a pseudonym in place of the id, and loses what describes the person.

A row of another user may name a forgotten id as the previous one (``previous_id``). It keeps a pseudonym of that. Of a
deleted row without a device, the previous id is the device on which the user's link stays.

An id that is only mentioned, as in the address of a page that another person saw, is not found: hashes are of whole
values.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from stitch_pipeline.landing.problems import (
    ANONYMOUS_ID_IS_STRUCTURE,
    EVENT_ID_IS_STRUCTURE,
    NOT_JSON,
    USER_ID_IS_STRUCTURE,
)
from stitch_pipeline.planning.functions import DUCKDB, Functions
from stitch_pipeline.planning.sql_text import json_path, literal, literals
from stitch_pipeline.settings.forgotten import PREFIX, Forgotten, Mode
from stitch_pipeline.settings.rules import OWN_KINDS, IdentifierSettings, ProjectSettings

DESCRIBING = ("page_url", "page_title", "referrer", "traits", "properties", "identifiers")
"""Columns that describe a person or may: a pseudonymised row has none of them."""
UNPARSED = (NOT_JSON, EVENT_ID_IS_STRUCTURE, USER_ID_IS_STRUCTURE, ANONYMOUS_ID_IS_STRUCTURE)
"""Problems of rows of which nobody can tell whether they carry a forgotten id."""
_KEPT_TEXTS = ("event_name", "page_path", "utm_source", "utm_medium", "utm_campaign")
_KEPT_KEYS = ("event_id", "source_session_id")


@dataclass(frozen=True)
class Forgetting:
    """The forgotten ids, and where further identifiers stand on an event, by project and kind."""

    forgotten: Forgotten
    identifiers: Mapping[str, Mapping[str, IdentifierSettings]] = field(default_factory=dict)

    @property
    def identifier_kinds(self) -> list[str]:
        """The listed kinds that are neither users nor devices."""
        return sorted({one.kind for one in self.forgotten.ids} - set(OWN_KINDS))


def forgetting(forgotten: Forgotten, projects: Mapping[str, ProjectSettings]) -> Forgetting | None:
    """None if nobody was forgotten."""
    if not forgotten:
        return None
    return Forgetting(forgotten, {project: own.identifiers for project, own in projects.items() if own.identifiers})


def hash_sql(key: bytes, kind: str, value: str, project_id: str = "project_id", functions: Functions = DUCKDB) -> str:
    """SQL for ``Forgotten.hash_of``. ``kind``, ``value`` and ``project_id`` are SQL; null if the value is null."""
    block = key.ljust(64, b"\0")
    inner, outer = bytes(byte ^ 0x36 for byte in block), bytes(byte ^ 0x5C for byte in block)
    message = f"{functions.byte_length(project_id)} || ':' || {project_id} || {kind} || ':' || {value}"
    return functions.keyed_hash(inner, outer, message)


def pseudonym_sql(id_hash: str) -> str:
    """SQL for ``forgotten.pseudonym``."""
    return f"({literal(PREFIX)} || left({id_hash}, 32))"


def token_sql(id_hash: str) -> str:
    """SQL for what stands in a lookup table in place of a forgotten id: longer than a pseudonym, and blocked like it.

    Only where its hash is listed is it an id, namely the one with this hash.
    """
    return f"({literal(PREFIX)} || {id_hash})"


def opened_seals(rows: str) -> str:
    """The rows of ``reading.rows_sql`` of sealed extracts, where nobody is forgotten any more."""
    return (
        "select * exclude (was_forgotten, was_of_kind, was_id), coalesce(was_forgotten, false) as is_forgotten, "
        f"was_of_kind as id_kind, was_id as id from ({rows})"
    )


def identifier_values_sql(
    identifiers: Mapping[str, Mapping[str, IdentifierSettings]], kind: str, functions: Functions = DUCKDB
) -> list[str]:
    """SQL for the values of a kind on an event, one per place, normalised as the event's project says."""
    paths: dict[int, list[str]] = {}
    for project, own in sorted(identifiers.items()):
        if kind in own:
            for place, path in enumerate(own[kind].paths):
                sql = normalised_sql(_text_at(path, functions), own[kind].normalise, functions)
                paths.setdefault(place, []).append(f"when {literal(project)} then {sql}")
    return [f"case project_id {' '.join(whens)} end" for whens in paths.values()]


def normalised_sql(value: str, steps: Iterable[str], functions: Functions = DUCKDB) -> str:
    """SQL for an identifier as ``identifier_links`` holds it."""
    sql, steps = value, set(steps)
    if "trim" in steps:
        sql = f"trim({sql}, E' \\t\\r\\n')"
    if "digits" in steps:
        return f"nullif(regexp_replace({sql}, '[^0-9]', '', 'g'), '')"
    return f"nullif({functions.lower(sql) if 'lower' in steps else sql}, '')"


def _text_at(path: str, functions: Functions) -> str:
    place, *names = path.split(".")
    return functions.json_text(place, json_path(names))


def without_forgotten(rows: str, rule: Forgetting, *, are_sealed: bool = False, may_be_tokens: bool = False) -> str:
    """The rows of ``reading.rows_sql`` without forgotten ids, with ``is_forgotten``, ``id_kind`` and ``id``.

    For a row that is forgotten, ``user_id`` is the pseudonym under which its link stays on the device, null if the row
    named no user; ``id_kind`` and ``id`` are those of a forgotten identifier. ``raw_row`` is null where it carries a
    forgotten id, or may: a line that cannot be parsed. ``are_sealed``: rows may have been through this already, and
    are only looked at again. ``may_be_tokens``: ids may be ``token_sql``, in a column of blocked ids.
    """
    forgotten, kinds = rule.forgotten, rule.identifier_kinds

    def hashed(kind: str, value: str) -> str:
        return hash_sql(forgotten.key, literal(kind), value)

    hashes = {"user": "user_hash", "device": "device_hash"}
    was_forgotten = "coalesce(was_forgotten, false)" if are_sealed else "false"

    def id_hash(kind: str, column: str) -> str:
        found = f"case when {column} is not null then {hashed(kind, column)} end"
        return f"coalesce({_hash_of_token(column)}, {found})" if may_be_tokens else found

    # Hashing costs a microsecond, so no id is hashed of a kind that is not listed.
    ids = {"user": "user_id", "device": "anonymous_id"}
    listed_kinds = {one.kind for one in forgotten.ids}
    columns = [
        f"{id_hash(kind, column)} as {hashes[kind]}" if kind in listed_kinds else f"null::varchar as {hashes[kind]}"
        for kind, column in ids.items()
    ]
    columns += [
        f"case when previous_id is not null then {hashed(kind, 'previous_id')} end as previous_{kind}_hash"
        if kind in listed_kinds
        else f"null::varchar as previous_{kind}_hash"
        for kind in ids
    ]
    of_kind: dict[str, list[str]] = {}
    for number, kind in enumerate(kinds):
        for place, value in enumerate(identifier_values_sql(rule.identifiers, kind)):
            name = f"identifier_hash_{number}_{place}"
            columns.append(f"{hashed(kind, value)} as {name}")
            of_kind.setdefault(kind, []).append(name)

    def listed(kind: str, mode: Mode) -> str:
        hashes_of_kind = [one.hash for one in forgotten.ids if (one.kind, one.mode) == (kind, mode)]
        return _is_among(hashes[kind], hashes_of_kind)

    def previous_pseudonym(kind: str) -> str:
        is_listed = _is_among(f"previous_{kind}_hash", [one.hash for one in forgotten.ids if one.kind == kind])
        return f"case when {is_listed} then {pseudonym_sql(f'previous_{kind}_hash')} end"

    # An identifier is one column: the hash of the first that is listed.
    found = [
        f"case when {_is_among(name, [one.hash for one in forgotten.ids if one.kind == kind])} "
        f"then {literal(kind)} || ':' || {name} end"
        for kind, names in of_kind.items()
        for name in names
    ]
    identifier = f"coalesce({', '.join(found)})" if found else "null::varchar"
    link_name = pseudonym_sql(hash_sql(forgotten.key, "'link'", "of_hash || ':' || device_name"))
    is_bare = "user_is_pseudonymised or (device_is_listed and user_id is null)"
    carried = (
        "concat_ws(chr(1), case when user_is_pseudonymised then user_id end, "
        "case when device_is_listed then anonymous_id end, "
        "case when previous_is_listed then previous_id end)"
    )
    is_forgotten = (
        f"user_is_deleted or found_identifier is not null or (device_is_deleted and user_id is null) or {was_forgotten}"
    )
    may_hold_an_id = f"coalesce(problem in ({literals(UNPARSED)}), false)"
    replaced = [
        *(f"case when {is_bare} or {_mentions(name)} then null else {name} end as {name}" for name in DESCRIBING),
        *(f"case when {_mentions(name)} then null else {name} end as {name}" for name in _KEPT_TEXTS),
        *(
            f"case when {was_forgotten} then {name} when is_forgotten or {_mentions(name)} "
            f"then left({hashed(name, name)}, 32) else {name} end as {name}"
            for name in _KEPT_KEYS
        ),
        f"case when {was_forgotten} then user_id "
        f"when is_forgotten then case when user_id is not null and device_name is not null then {link_name} end "
        f"when user_is_pseudonymised then {pseudonym_sql('user_hash')} else user_id end as user_id",
        "device_name as anonymous_id",
        "previous_name as previous_id",
        "case when is_forgotten or user_is_pseudonymised or device_is_listed or previous_is_listed "
        f"or {may_hold_an_id} then null else raw_row end as raw_row",
    ]
    of_kind_sql = "case when is_forgotten then split_part(found_identifier, ':', 1) end"
    id_sql = f"case when found_identifier is not null then {link_name} end"
    if are_sealed:
        of_kind_sql = f"case when {was_forgotten} then was_of_kind else {of_kind_sql} end"
        id_sql = f"case when {was_forgotten} then was_id else {id_sql} end"
    if may_be_tokens:
        rows = _with_tokens(rows, forgotten)
    return f"""
with canonical as not materialized (
{rows}
),
hashed as not materialized (
  select *, {", ".join(columns)} from canonical
),
listed as not materialized (
  select
    *,
    {listed("user", Mode.delete)} as user_is_deleted,
    {listed("user", Mode.pseudonymise)} as user_is_pseudonymised,
    {listed("device", Mode.delete)} as device_is_deleted,
    {listed("device", Mode.pseudonymise)} as device_is_pseudonymised,
    coalesce({previous_pseudonym("device")}, {previous_pseudonym("user")}) as previous_pseudonym,
    {identifier} as found_identifier
  from hashed
),
named as not materialized (
  select
    *,
    device_is_deleted or device_is_pseudonymised as device_is_listed,
    previous_pseudonym is not null as previous_is_listed,
    coalesce(previous_pseudonym, previous_id) as previous_name,
    {is_forgotten} as is_forgotten,
    case
      when device_is_deleted or device_is_pseudonymised then {pseudonym_sql("device_hash")}
      when anonymous_id is not null then anonymous_id
      when {is_forgotten} then coalesce(previous_pseudonym, previous_id)
    end as device_name,
    case when user_is_deleted then user_hash else split_part(found_identifier, ':', 2) end as of_hash
  from listed
),
carrying as not materialized (
  select *, {carried} as carried from named
)
select
  * exclude (
    {", ".join([*hashes.values(), *(name for names in of_kind.values() for name in names)])},
    user_is_deleted, user_is_pseudonymised, device_is_deleted, device_is_pseudonymised, found_identifier,
    device_is_listed, device_name, of_hash, carried, previous_user_hash, previous_device_hash, previous_pseudonym,
    previous_is_listed, previous_name{", was_forgotten, was_of_kind, was_id" if are_sealed else ""}
  ) replace ({", ".join(replaced)}),
  {of_kind_sql} as id_kind,
  {id_sql} as id
from carrying"""


def _with_tokens(rows: str, forgotten: Forgotten) -> str:
    """The rows with the tokens of listed ids as ids."""

    def read(column: str, kind: str) -> str:
        token = f"blocked_{column}"
        is_listed = _is_among(_hash_of_token(token), [one.hash for one in forgotten.ids if one.kind == kind])
        return f"case when {is_listed} then {token} else {column} end as {column}"

    return f"select * replace ({read('user_id', 'user')}, {read('anonymous_id', 'device')}) from ({rows})"


def _hash_of_token(column: str) -> str:
    """SQL for the hash in a token; null for any other text."""
    is_token = f"starts_with({column}, {literal(PREFIX)}) and strlen({column}) = {len(PREFIX) + 64}"
    return f"case when {is_token} then right({column}, 64) end"


def _mentions(column: str) -> str:
    """Whether a text contains an id that this very row carries and must lose."""
    parts = [f"split_part(carried, chr(1), {number})" for number in (1, 2, 3)]
    contained = " or ".join(f"({part} <> '' and contains({column}, {part}))" for part in parts)
    return f"(carried <> '' and {column} is not null and ({contained}))"


def _is_among(column: str, hashes: Sequence[str]) -> str:
    """SQL for whether a hash is on the list.

    The list is an array of 256 texts, by the first byte of the hash: a text of all hashes would be searched from its
    beginning for every row, and DuckDB turns ``in`` into a join.
    """
    if not hashes:
        return "false"
    buckets: list[list[str]] = [[] for _ in range(256)]
    for one in hashes:
        buckets[int(one[:2], 16)].append(one)
    texts = ", ".join(f"'{' '.join(bucket)}'" for bucket in buckets)
    return f"coalesce(contains([{texts}][('0x' || left({column}, 2))::int + 1], {column}), false)"
