"""DuckDB SQL that reads rows with hashed ids. Pure functions; nothing here runs unless a project hashes its ids.

Blocked ids were recognised before: they are no identity, and stay as they are. So do pseudonyms of forgotten ids. Of
each row of such a project

- the ids (``ID_COLUMNS``) become ``settings.hashing.hashed``;
- the values of further identifiers are normalised, as ``identifier_links`` would do it, and then hashed in their place.
  A blocked one stays, in its normalised form. One that a pattern excludes becomes ``EXCLUDED``. What is nothing once
  normalised is taken out;
- of what a source calls an identifier (``identifiers``), nothing stays that the project does not declare;
- wherever else the row has one of these ids in a text, its hash takes the place. What looks like an e-mail address of
  anybody becomes ``REMOVED_EMAIL``;
- ``raw_row`` is null, as for all rows of a file that may hold rows of such a project.

The keys are parameters of the query (``parameters``) and never in its text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from stitch_pipeline.landing.forgetting import normalised_sql
from stitch_pipeline.planning.sql_text import any_of, json_path, literal
from stitch_pipeline.settings.forgotten import PREFIX as PSEUDONYM
from stitch_pipeline.settings.hashing import DIGITS, PREFIX, Hashing
from stitch_pipeline.settings.rules import IdentifierSettings, ProjectSettings

ID_COLUMNS = ("anonymous_id", "user_id", "previous_id")
"""The columns of an event that hold an id."""
DOCUMENTS = ("traits", "properties", "identifiers")
"""The columns of an event that hold a JSON document, in which further identifiers stand."""
EXCLUDED = "undefined"
"""A blocked id, in place of a value that a pattern excludes: SQL cannot match a pattern with a hash."""
TEXTS = ("event_name", "page_url", "page_path", "page_title", "referrer", "utm_source", "utm_medium", "utm_campaign")
"""The other columns of an event in which an id may stand."""
KEPT_KEYS = ("event_id", "source_session_id")
"""Keys that stay as they are, unless one of the row's ids stands in them."""
REMOVED_EMAIL = "[email]"
SHORT = 6
"""An id with fewer characters occurs in a text by chance: it is replaced only where it is a word of its own."""
_EMAIL = r"[\p{L}\p{N}._%+-]+(@|%40)[\p{L}\p{N}-]+(\.[\p{L}\p{N}-]+)+"


@dataclass(frozen=True)
class HashedReading:
    """The keys, and where further identifiers stand on an event, by project and kind."""

    hashing: Hashing
    identifiers: Mapping[str, Mapping[str, IdentifierSettings]] = field(default_factory=dict)

    def projects_in(self, project_id: str | None) -> Sequence[str]:
        """The projects with hashed ids in a file: one that its feed names, or else any."""
        return [project for project in self.hashing.keys if project_id in (None, project)]

    def waits_for(self, project_id: str | None) -> tuple[str, str] | None:
        """A project of which the key is missing and which may have rows in a file, with the key's variable."""
        found = [item for item in self.hashing.missing.items() if project_id in (None, item[0])]
        return found[0] if found else None

    def state(self, project_id: str | None) -> list[object]:
        """What a file of this project is read by, without a key; empty if nothing is hashed in it."""
        return [
            [
                project,
                self.hashing.fingerprint(project),
                {kind: own.model_dump(mode="json") for kind, own in self.identifiers.get(project, {}).items()},
            ]
            for project in self.projects_in(project_id)
        ]

    def parameters(self, projects: Sequence[str]) -> dict[str, bytes]:
        """What ``with_hashed_ids`` needs as parameters: the padded keys of HMAC."""
        padded = [self.hashing.keys[project].ljust(64, b"\0") for project in projects]
        return {
            f"hash_{name}_{number}": bytes(byte ^ mask for byte in key)
            for number, key in enumerate(padded)
            for name, mask in (("inner", 0x36), ("outer", 0x5C))
        }


def hashed_reading(hashing: Hashing, projects: Mapping[str, ProjectSettings]) -> HashedReading | None:
    """None if no project hashes its ids."""
    if not hashing.keys and not hashing.missing:
        return None
    return HashedReading(hashing, {project: projects[project].identifiers for project in hashing.keys})


def with_hashed_ids(
    rows: str,
    reading: HashedReading,
    projects: Sequence[str],
    *,
    is_blocked: Callable[[str], str],
    ids_are_derived: bool,
) -> str:
    """The rows of ``reading.rows_sql`` with hashed ids.

    ``is_blocked`` gives SQL for whether a value is blocked. ``ids_are_derived``: an event id may be a plain hash of the
    row's fields, ids among them, so such a one is hashed with the key.
    """
    places = _places(reading, projects)
    numbers = range(len(places))
    bare = [f"{_normalised(place, f'sent_{number}')} as bare_{number}" for number, place in enumerate(places)]
    stays = [is_blocked(f"bare_{number}") for number in numbers]
    put = [
        f"case when {stays[number]} then bare_{number} {_excluded(place, f'bare_{number}')}"
        f"else {_hash(f'bare_{number}')} end as put_{number}"
        for number, place in enumerate(places)
    ]
    hashes = [f"{_hash(column)} as hashed_{column}" for column in ID_COLUMNS]
    patched = [f"{_patched(document, places)} as {document}" for document in DOCUMENTS]
    # Longer ones first, because a user id may be part of an e-mail address.
    mentioned = [(f"{name}_{number}", f"put_{number}") for name in ("sent", "bare") for number in numbers]
    mentioned += [(column, f"hashed_{column}") for column in ID_COLUMNS]
    texts = (*KEPT_KEYS, *TEXTS, *DOCUMENTS)
    without = [", ".join(f"{_without(column, *names)} as {column}" for column in texts) for names in mentioned]
    steps = "".join(
        f"""
without_{step} as not materialized (
  select * replace ({replaced}) from {f"without_{step - 1}" if step else "put"}
),"""
        for step, replaced in enumerate(without)
    )
    event_id = "event_id"
    if ids_are_derived:
        event_id = (
            "case when key_inner is not null and regexp_full_match(event_id, '[0-9a-f]{32}') "
            f"then {_digits('event_id')} else event_id end"
        )
    replaced = [
        *(f"hashed_{column} as {column}" for column in ID_COLUMNS),
        f"{event_id} as event_id",
        *(f"{_without_emails(column)} as {column}" for column in (*TEXTS, *DOCUMENTS)),
        # Of any row: nobody can tell of which project a row is that cannot be parsed, or that names none.
        "null::varchar as raw_row",
    ]
    dropped = ["key_inner", "key_outer", *(f"hashed_{column}" for column in ID_COLUMNS)]
    dropped += [f"{name}_{number}" for number in numbers for name in ("sent", "bare", "put")]
    return f"""
with readable as not materialized (
{rows}
),
keyed as not materialized (
  select *, {_key("inner", projects)} as key_inner, {_key("outer", projects)} as key_outer from readable
),
sent as not materialized (
  select {", ".join(["*", *(f"{_sent(place)} as sent_{number}" for number, place in enumerate(places))])} from keyed
),
bare as not materialized (
  select {", ".join(["*", *bare])} from sent
),
hashed as not materialized (
  select {", ".join(["*", *hashes, *put])} from bare
),
put as not materialized (
  select * replace ({", ".join(patched)}) from hashed
),{steps}
emptied as not materialized (
  select * from without_{len(mentioned) - 1}
)
select * exclude ({", ".join(dropped)}) replace ({", ".join(replaced)})
from emptied"""


@dataclass(frozen=True)
class _Place:
    """Where an identifier of a project stands."""

    project_id: str
    document: str
    names: tuple[str, ...]
    normalise: tuple[str, ...]
    valid: str | None
    blocked: str | None


def _places(reading: HashedReading, projects: Sequence[str]) -> list[_Place]:
    found = [
        _Place(project, *_split(path), own.normalise, own.valid, any_of(own.blocked))
        for project in projects
        for own in reading.identifiers.get(project, {}).values()
        for path in own.paths
    ]
    return list(dict.fromkeys(found))


def _split(path: str) -> tuple[str, tuple[str, ...]]:
    document, *names = path.split(".")
    return document, tuple(names)


def _key(part: str, projects: Sequence[str]) -> str:
    whens = " ".join(f"when {literal(project)} then $hash_{part}_{number}" for number, project in enumerate(projects))
    return f"case project_id {whens} end"


def _digits(value: str) -> str:
    message = f"encode(strlen(project_id) || ':' || project_id || {value})"
    return f"left(sha256(key_outer || unhex(sha256(key_inner || {message}))), {DIGITS})"


def _hash(value: str) -> str:
    """SQL for ``settings.hashing.hashed``; the value itself in a project without a key."""
    stays = f"key_inner is null or {value} is null or starts_with({value}, {literal(PSEUDONYM)})"
    return f"case when {stays} then {value} else {literal(PREFIX)} || {_digits(value)} end"


def _sent(place: _Place) -> str:
    """SQL for the value at a place, as ``identifier_links`` reads it."""
    path = literal(json_path(place.names))
    text = (
        f"case when json_type({place.document}, {path}) not in ('OBJECT', 'ARRAY', 'NULL') "
        f"then json_extract_string({place.document}, {path}) end"
    )
    return f"case when project_id = {literal(place.project_id)} then try({text}) end"


def _normalised(place: _Place, value: str) -> str:
    normalised = normalised_sql(value, place.normalise)
    return f"case when trim({value}, E' \\t\\r\\n') <> '' then {normalised} end"


def _excluded(place: _Place, value: str) -> str:
    """SQL for the branch of a value that a pattern excludes."""
    conditions = [f"regexp_full_match({value}, {literal(place.blocked)})"] if place.blocked is not None else []
    if place.valid is not None:
        conditions.append(f"not regexp_full_match({value}, {literal(place.valid)})")
    return f"when {' or '.join(conditions)} then {literal(EXCLUDED)} " if conditions else ""


def _patched(document: str, places: Sequence[_Place]) -> str:
    """SQL for a document with the stored values in place of those that were sent."""
    patches, conditions = [], []
    for number, place in enumerate(places):
        if place.document == document:
            patch = f"put_{number}"
            for name in reversed(place.names):
                patch = f"json_object({literal(name)}, {patch})"
            patches.append(f"case when sent_{number} is null then '{{}}' else {patch}::varchar end")
            conditions.append(f"sent_{number} is not null")
    is_of_identifiers = document == "identifiers"
    patched = "'{}'" if is_of_identifiers else document
    for patch in patches:
        patched = f"json_merge_patch({patched}, {patch})"
    found = f"when {' or '.join(conditions)} then {patched}::varchar " if conditions else ""
    if is_of_identifiers:
        return f"nullif(case when key_inner is null then identifiers {found}end, '{{}}')"
    return f"case {found}else {document} end" if found else document


def _without(column: str, plain: str, stored: str) -> str:
    """SQL for a text with the stored id wherever the id stands in it, also as JSON and in an address."""
    is_long = f"strlen({plain}) >= {SHORT}"
    word = f"'(^|[^\\p{{L}}\\p{{N}}])' || regexp_escape({plain}) || '($|[^\\p{{L}}\\p{{N}}])'"
    text = column
    if column in DOCUMENTS:
        # A number becomes a text, so that the document stays JSON.
        number = f"'([:\\[,]\\s*)' || regexp_escape({plain}) || '(\\s*[,}}\\]])'"
        text = f"regexp_replace({text}, {number}, '\\1\"' || {stored} || '\"\\2', 'g')"
    # Twice, because two words share what stands between them.
    words = text
    for _ in range(2):
        words = f"regexp_replace({words}, {word}, '\\1' || {stored} || '\\2', 'g')"
    everywhere = f"replace(replace({text}, {plain}, {stored}), url_encode({plain}), {stored})"
    in_json = f"replace({everywhere}, trim(to_json({plain})::varchar, '\"'), {stored})"
    replaced = f"case when {is_long} then {in_json if column in DOCUMENTS else everywhere} else {words} end"
    is_an_id = f"starts_with({stored}, {literal(PREFIX)}) and {plain} <> {stored} and {plain} <> ''"
    # `%` begins what an address writes otherwise, and `\\` what JSON does.
    may_be = f"contains({column}, {plain}) or contains({column}, '%') or contains({column}, '\\')"
    return f"case when {is_an_id} and ({may_be}) then {replaced} else {column} end"


def _without_emails(column: str) -> str:
    may_be = f"key_inner is not null and (contains({column}, '@') or contains({column}, '%40'))"
    removed = f"regexp_replace({column}, {literal(_EMAIL)}, {literal(REMOVED_EMAIL)}, 'g')"
    return f"case when {may_be} then {removed} else {column} end"
