"""Forget a person: the list of forgotten ids, what an id would concern, and the tables without it.

The list (``settings/forgotten.py``) is the truth, and a rule of reading: files are read without the ids that it lists.
``follow`` makes an existing warehouse obey a changed list. In one transaction it puts a pseudonym in place of the id in
every table, deletes what histories know of it, and notes the files that hold it as not loaded. From then on no run can
bring the id back. The existing loop then reads the files again, builds their days and re-stitches the queued devices.

This is the one place where Python writes to queues and histories: dbt must see neither an id nor the key.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from stitch_pipeline.landing.extracts import copy_sealed_again, is_extract, seal_extracts, table_feeds
from stitch_pipeline.landing.forgetting import (
    DESCRIBING,
    UNPARSED,
    hash_sql,
    identifier_values_sql,
    normalised_sql,
    pseudonym_sql,
)
from stitch_pipeline.landing.landed_file import UnreadableFile
from stitch_pipeline.landing.parser import Parser
from stitch_pipeline.landing.problems import REFUSED_LINE
from stitch_pipeline.landing.reading import numbered_rows_sql
from stitch_pipeline.landing.zone import landed_files, reading_rules
from stitch_pipeline.planning.sql_text import literal
from stitch_pipeline.settings import Settings, SettingsError
from stitch_pipeline.settings.forgotten import (
    PREFIX,
    Forgotten,
    ForgottenId,
    Mode,
    is_pseudonym,
    key_for,
    read_forgotten,
    write_forgotten,
)
from stitch_pipeline.settings.hashing import PREFIX as HASHED
from stitch_pipeline.settings.rules import OWN_KINDS, IdentifierSettings
from stitch_pipeline.stitching.facts import IS_STITCHED
from stitch_pipeline.stitching.publish import publish_everything_next
from stitch_pipeline.stitching.rules import no_such_project, project_ids
from stitch_pipeline.warehouse.port import Dialect, Row, Warehouse
from stitch_pipeline.warehouse.tables import create_tables

READ_AGAIN = "to be read again"
"""The version of a loaded file that has to be loaded again; no file has it."""
_A_DECISION = "a decision about a forgotten id"


@dataclass(frozen=True)
class Place:
    """A column that holds ids. ``holds`` says of which kind; rows that do not meet ``condition`` hold something else.
    The condition calls the table ``held``.

    A ``person`` is the name of a person: a user's id, or a kind and an identifier, as ``email:ann@example.com``.
    """

    table: str
    column: str
    holds: str
    condition: str = "true"


def _is_only_named(column: str, table: str, seen_as: str) -> str:
    """Whether an id was only named as a previous id, of either kind, and never seen as what ``column`` takes it for."""
    return (
        f"not exists (select 1 from {table} as seen "
        f"where seen.project_id = held.project_id and seen.{seen_as} = held.{column})"
    )


_OWN_ID = f"not ({IS_STITCHED})"
PLACES = (
    *(
        Place(table, column, holds)
        for table in ("raw_events", "duplicate_events", "sessions", "stitched_sessions", "page_views", "identity_map")
        for column, holds in (("user_id", "user"), ("anonymous_id", "device"))
    ),
    # The previous id may be of either kind.
    *(
        Place(table, "previous_id", holds)
        for table in ("raw_events", "duplicate_events")
        for holds in ("device", "user")
    ),
    Place("forgotten_events", "anonymous_id", "device"),
    Place("activity_without_device", "user_id", "user"),
    Place("identifier_links", "linked_id", "user", "linked_kind = 'user'"),
    Place("identifier_links", "linked_id", "device", "linked_kind = 'device'"),
    Place("identifier_links", "id", "user", "id_kind = 'user'"),
    Place("identifier_links", "id", "device", "id_kind = 'device'"),
    Place("identifier_links", "id", "identifier", "id_kind not in ('user', 'device')"),
    Place("persons", "id", "user", "id_kind = 'user'"),
    Place("persons", "id", "device", "id_kind = 'device'"),
    Place("persons", "id", "identifier", "id_kind not in ('user', 'device')"),
    Place("persons", "person_id", "person"),
    Place("persons", "component_id", "component"),
    *(
        Place(table, "stitched_user_id", holds, condition)
        for table in ("stitched_sessions", "page_views", "user_mapping_history")
        for holds, condition in (("person", IS_STITCHED), ("device", _OWN_ID))
    ),
    Place("user_mapping_history", "anonymous_id", "device"),
    Place("user_mapping_history", "user_id", "person"),
    Place("users", "stitched_user_id", "person", "is_identified"),
    Place("users", "stitched_user_id", "device", "not is_identified"),
    Place("user_mapping_history", "anonymous_id", "user", _is_only_named("anonymous_id", "sessions", "anonymous_id")),
    *(
        Place(table, column, "device", _is_only_named(column, "raw_events", "user_id"))
        for table, column in (
            *(("user_mapping_history", "stitched_user_id"), ("user_mapping_history", "user_id")),
            *(("person_name_history", "user_id"), ("person_name_history", "person_id")),
        )
    ),
    *(
        Place(table, column, holds, f"{kind} = '{of_kind}' and {_is_only_named(column, seen_in, seen_as)}")
        for table, kind, column in (
            *(("persons", "id_kind", "id"), ("pending_ids", "id_kind", "id")),
            *(("identifier_links", "id_kind", "id"), ("identifier_links", "linked_kind", "linked_id")),
        )
        for holds, of_kind, seen_in, seen_as in (
            ("device", "user", "raw_events", "user_id"),
            ("user", "device", "sessions", "anonymous_id"),
        )
    ),
    Place("person_name_history", "user_id", "user"),
    Place("person_name_history", "person_id", "person"),
    Place("pending_devices", "anonymous_id", "device"),
    Place("pending_ids", "id", "user", "id_kind = 'user'"),
    Place("pending_ids", "id", "device", "id_kind = 'device'"),
    Place("pending_ids", "id", "identifier", "id_kind not in ('user', 'device')"),
    Place("pending_users", "stitched_user_id", "person"),
    Place("pending_users", "stitched_user_id", "device"),
    *(
        place
        for table, kind in (("decisions", "kind"), ("configured_decisions", "kind"), ("decision_lines", "decision"))
        for place in (
            Place(table, "id", "device", f"{kind} in ('wrong_link', 'shared_device', 'same_device')"),
            Place(table, "id", "user", f"{kind} in ('same_person', 'never_same')"),
            Place(table, "other_id", "person", f"{kind} not in ('shared_device', 'same_device')"),
            Place(table, "other_id", "device", f"{kind} = 'same_device'"),
        )
    ),
    Place("decision_history", "id", "device", "decision in ('wrong_link', 'shared_device', 'same_device')"),
    Place("decision_history", "id", "user", "decision in ('same_person', 'never_same')"),
    Place("decision_history", "other_id", "person", "decision not in ('shared_device', 'same_device')"),
    Place("decision_history", "other_id", "device", "decision = 'same_device'"),
)
"""Every place of an id, apart from texts that may contain one (``properties``, addresses, raw rows)."""


def follow(warehouse: Warehouse, settings: Settings, *, look_again: bool = False) -> bool:
    """Make the tables obey the list of forgotten ids; whether there was anything to do.

    Files that hold an id are noted as not loaded. Ids are searched for only if the list has changed since the last
    call, or with ``look_again``, which also finds what came back with a restored table.
    """
    listed, followed = listed_and_followed(warehouse, settings)
    if listed == followed and not (look_again and listed):
        return False
    with warehouse.transaction():
        stored_as = {(one.project_id, one.kind, one.hash): one.stored_hash for one in settings.forgotten.ids}
        _note(warehouse, "newly_listed", listed if look_again else listed - followed, stored_as)
        _note(warehouse, "no_longer_listed", followed - listed, {})
        _find_ids(warehouse, settings)
        _have_files_read_again(warehouse, settings)
        _seal_extracts(warehouse, settings, has_returned=bool(followed - listed))
        _put_pseudonyms(warehouse)
        _queue(warehouse)
        publish_everything_next(warehouse)
        warehouse.execute("delete from forgotten_ids")
        warehouse.insert_rows("forgotten_ids", sorted(listed))
    for table in ("newly_listed", "no_longer_listed", "found_ids", "scrubs", "files_to_read"):
        warehouse.execute(f"drop table {table}")
    return True


def listed_and_followed(warehouse: Warehouse, settings: Settings) -> tuple[set[Row], set[Row]]:
    """The lines of the list, and those that the tables obey: project, kind, hash and mode of each."""
    listed = {(one.project_id, one.kind, one.hash, one.mode.value) for one in settings.forgotten.ids}
    return listed, set(warehouse.rows("select project_id, kind, hash, mode from forgotten_ids"))


def _note(warehouse: Warehouse, name: str, lines: Iterable[Row], stored_as: Mapping[Row, str]) -> None:
    """Create a table of lines. ``found_by`` is the hash of the id as tables hold it, or may: a line has up to two."""
    warehouse.create_temporary(name, "(project_id varchar, kind varchar, hash varchar, mode varchar, found_by varchar)")
    rows = [(*line, found_by) for line in sorted(lines) for found_by in (line[2], stored_as.get(line[:3])) if found_by]
    warehouse.insert_rows(name, rows)


def _find_ids(warehouse: Warehouse, settings: Settings) -> None:
    """Create ``found_ids``, the listed ids that some table holds, and ``scrubs``, how they are written."""
    key = settings.forgotten.key
    kinds = {kind for (kind,) in warehouse.rows("select distinct kind from newly_listed")}
    candidates = ["select null::varchar as project_id, null::varchar as kind, null::varchar as id limit 0"]
    for place in PLACES:
        # The name of a person may be a user's id or hold an identifier.
        if place.holds in kinds or (place.holds == "person" and "user" in kinds):
            kind = "user" if place.holds == "person" else place.holds
            candidates.append(
                f"select project_id, {literal(kind)}, {place.column} from {place.table} as held where {place.condition}"
            )
    if kinds - set(OWN_KINDS):
        for table in ("identifier_links", "persons", "pending_ids"):
            candidates.append(f"select project_id, id_kind, id from {table}")
    for kind in sorted(kinds - set(OWN_KINDS)):
        for value in identifier_values_sql(_stored_identifiers(settings), kind, warehouse.dialect):
            for table in ("raw_events", "duplicate_events"):
                candidates.append(f"select project_id, {literal(kind)}, {value} from {table}")
    union = " union ".join(f"(select * from ({candidate}))" for candidate in candidates)
    id_hash = hash_sql(key, "ids.kind", "ids.id", "ids.project_id", warehouse.dialect)
    warehouse.create_temporary(
        "found_ids",
        f"""
        as select listed.project_id, listed.kind, ids.id, listed.mode, {pseudonym_sql("listed.hash")} as name
        from (
          select * from ({union}) as known
          where id is not null and (project_id, kind) in (select project_id, kind from newly_listed)
        ) as ids
        inner join newly_listed as listed
          on ids.project_id = listed.project_id and ids.kind = listed.kind and {id_hash} = listed.found_by
        """,
    )
    warehouse.create_temporary(
        "scrubs",
        """
        as select case when kind in ('user', 'device') then kind else 'identifier' end as holds,
          project_id, id as written, name, mode from found_ids
        union all
        select 'person', project_id, case kind when 'user' then id else kind || ':' || id end, name, mode
        from found_ids where kind <> 'device'
        union all
        select 'component', project_id, kind || ':' || id, kind || ':' || name, mode from found_ids
        """,
    )


def _identifiers(settings: Settings) -> dict[str, Mapping[str, IdentifierSettings]]:
    return {project: own.identifiers for project, own in settings.projects.items() if own.identifiers}


def _stored_identifiers(settings: Settings) -> dict[str, Mapping[str, IdentifierSettings]]:
    """The same, as events in tables hold them: where they are hashed, they were normalised before."""
    return {
        project: {kind: one.model_copy(update={"normalise": ()}) for kind, one in own.items()}
        if settings.projects[project].hash_key
        else own
        for project, own in _identifiers(settings).items()
    }


def _have_files_read_again(warehouse: Warehouse, settings: Settings) -> None:
    """Note the files with rows of the ids as not loaded, those with a quarantined row of an id included."""
    conditions = [
        _holds_found(column, kind)
        for column, kind in (
            *(("user_id", "user"), ("anonymous_id", "device")),
            *(("previous_id", "user"), ("previous_id", "device")),
        )
    ]
    for (kind,) in warehouse.rows("select distinct kind from found_ids where kind not in ('user', 'device')"):
        conditions += [
            _holds_found(value, kind)
            for value in identifier_values_sql(_stored_identifiers(settings), kind, warehouse.dialect)
        ]
    of_changed_projects = (
        "project_id in (select project_id from no_longer_listed) "
        f"and (user_id like '{PREFIX}%' or anonymous_id like '{PREFIX}%' or previous_id like '{PREFIX}%')"
    )
    holds = " or ".join([*conditions, f"({of_changed_projects})"])
    quarantined = _files_with_quarantined_rows(settings, warehouse.dialect)
    warehouse.create_temporary(
        "files_to_read",
        f"""
        as select landing_file from raw_events where {holds}
        union select landing_file from duplicate_events where {holds}
        union select landing_file from forgotten_events
          where project_id in (select project_id from no_longer_listed)
        union ({quarantined})
        """,
    )
    is_read = "landing_file in (select landing_file from files_to_read)"
    warehouse.execute(f"update landing_files set version = {literal(READ_AGAIN)} where {is_read}")
    warehouse.execute(f"update quarantined_events set raw_row = null where raw_row is not null and {is_read}")


def _seal_extracts(warehouse: Warehouse, settings: Settings, *, has_returned: bool) -> None:
    """Take the ids out of the project's own files: those with rows of them, and those that are not loaded yet.

    If the process dies before the transaction ends, all of this is done again.
    """
    holding = {name for (name,) in warehouse.rows("select landing_file from files_to_read")}
    loaded: dict[str, str] = dict(warehouse.rows("select landing_file, version from landing_files"))
    versions = {name: file.version for name, file in landed_files(settings).items()} if table_feeds(settings) else {}
    seal_extracts(settings, lambda name: name in holding or loaded.get(name) != versions.get(name))
    if has_returned:
        copy_sealed_again(settings)


def _files_with_quarantined_rows(settings: Settings, dialect: Dialect) -> str:
    """SQL for the files of which a reading may give other raw rows in quarantine.

    Of a raw row that is JSON every value is hashed, in each project of the list, because such a row may have none. Any
    other raw row is not kept while the list has a line.
    """
    kinds = sorted({one.kind for one in settings.forgotten.ids})
    values = []
    for kind in kinds:
        steps: set[tuple[str, ...]] = {()} if kind in OWN_KINDS else set()
        steps |= {own[kind].normalise for own in _identifiers(settings).values() if kind in own}
        for normalised in sorted(steps):
            value = normalised_sql("rows.value", normalised, dialect)
            hashed = hash_sql(settings.forgotten.key, literal(kind), value, "listed.project_id", dialect)
            values.append(
                "select rows.landing_file from (select landing_file, "
                f"{dialect.json_values('raw_row')} as value from quarantined_events where raw_row is not null) as rows "
                f"inner join newly_listed as listed on listed.kind = {literal(kind)} and {hashed} = listed.hash"
            )
    not_json = ", ".join(map(literal, (*UNPARSED, REFUSED_LINE)))
    return " union ".join(
        [
            "select landing_file from quarantined_events where exists (select 1 from no_longer_listed)",
            "select landing_file from quarantined_events "
            f"where raw_row is not null and problem in ({not_json}) and exists (select 1 from newly_listed)",
            *values,
        ]
    )


def _holds_found(value: str, kind: str) -> str:
    return f"(project_id, {value}) in (select project_id, id from found_ids where kind = {literal(kind)})"


def _put_pseudonyms(warehouse: Warehouse) -> None:
    if not warehouse.rows("select 1 from found_ids limit 1"):
        return
    _return_page_views(warehouse)
    _forget_texts(warehouse)
    for place in PLACES:
        warehouse.execute(
            f"update {place.table} as held set {place.column} = scrubs.name from scrubs as scrubs "
            f"where scrubs.holds = {literal(place.holds)} and held.project_id = scrubs.project_id "
            f"and held.{place.column} = scrubs.written and ({place.condition})"
        )
    names = "select name from found_ids"
    deleted = f"{names} where mode = {literal(Mode.delete)}"
    warehouse.execute(
        f"delete from user_mapping_history where stitched_user_id in ({deleted}) or anonymous_id in ({deleted})"
    )
    warehouse.execute(f"delete from person_name_history where user_id in ({names}) or person_id in ({names})")
    for table in ("decision_history", "decision_lines", "configured_decisions"):
        warehouse.execute(f"delete from {table} where id in ({names}) or other_id in ({names})")
    for table, columns in (
        *((table, DESCRIBING) for table in ("raw_events", "duplicate_events")),
        ("page_views", ("page_url", "page_title")),
        *((table, ("referrer",)) for table in ("sessions", "stitched_sessions")),
        ("identity_map", ("traits",)),
        ("activity_without_device", ("traits", "referrer")),
    ):
        nulls = ", ".join(f"{column} = null" for column in columns)
        warehouse.execute(f"update {table} set {nulls} where user_id in ({names})")
    warehouse.execute(f"update users set traits = null where stitched_user_id in ({names})")


def _return_page_views(warehouse: Warehouse) -> None:
    """Page views that are credited to a forgotten person are the device's from now on, whenever views are stitched."""
    warehouse.execute(
        f"""
        update page_views as held set
          stitched_user_id = coalesce(user_id, anonymous_id, event_id),
          stitched_by = case when user_id is null then 'none' else 'own' end
        from scrubs as scrubs
        where scrubs.holds = 'person' and held.project_id = scrubs.project_id
          and held.stitched_user_id = scrubs.written and {IS_STITCHED}
          and held.user_id is distinct from scrubs.written
        """
    )


def _forget_texts(warehouse: Warehouse) -> None:
    """Texts that hold one of the ids: quoted lines of decisions, and traits with a forgotten identifier."""
    warehouse.execute(
        f"update decisions as held set line = {literal(_A_DECISION)} from scrubs as scrubs "
        "where held.project_id = scrubs.project_id and strpos(held.line, scrubs.written) > 0"
    )
    lower = warehouse.dialect.lower
    for table, columns in (
        *((table, ("traits", "properties", "identifiers")) for table in ("raw_events", "duplicate_events")),
        ("identity_map", ("traits",)),
        ("activity_without_device", ("traits",)),
        ("users", ("traits",)),
    ):
        for column in columns:
            warehouse.execute(
                f"update {table} as held set {column} = null from found_ids as found "
                "where found.kind not in ('user', 'device') and held.project_id = found.project_id "
                f"and strpos({lower(f'held.{column}')}, {lower('found.id')}) > 0"
            )


def _queue(warehouse: Warehouse) -> None:
    """Queue what the ids are linked with: their devices for all grains, their components, and the persons."""
    names = "select name from found_ids"
    linked = [
        "select project_id, coalesce(anonymous_id, '') as anonymous_id "
        f"from {table} where user_id in ({names}) or anonymous_id in ({names})"
        for table in ("identity_map", "sessions", "page_views")
    ]
    warehouse.execute(
        f"""
        insert into pending_devices (grain, project_id, anonymous_id)
        select grains.grain, devices.project_id, devices.anonymous_id
        from (
          {" union ".join(linked)}
          union select project_id, anonymous_id from stitched_sessions where stitched_user_id in ({names})
          union select project_id, linked_id from identifier_links
            where linked_kind = 'device' and id in ({names})
          union select project_id, previous_id from raw_events
            where previous_id is not null and (user_id in ({names}) or previous_id in ({names}))
          union select project_id, id from persons where id_kind = 'device' and person_id in ({names})
          union select project_id, '' from found_ids
        ) as devices
        cross join (values ('sessions'), ('page_views'), ('mapping')) as grains (grain)
        except select grain, project_id, anonymous_id from pending_devices
        """
    )
    warehouse.execute(
        f"""
        insert into pending_ids
        select project_id, id_kind, id from persons
        where (project_id, component_id) in (
            select project_id, component_id from persons where id in ({names}) or person_id in ({names})
          ) or id in ({names}) or person_id in ({names})
        except select project_id, id_kind, id from pending_ids
        """
    )
    warehouse.execute(
        """
        insert into pending_users
        select project_id, stitched_user_id from (
          select project_id, name as stitched_user_id from found_ids
          -- A device may be called as the user was.
          union select project_id, stitched_user_id from stitched_sessions
          where (project_id, stitched_user_id) in (select project_id, written from scrubs)
        ) as found
        except select project_id, stitched_user_id from pending_users
        """
    )


@dataclass(frozen=True)
class Request:
    """An id to forget. ``kind`` is ``user``, ``device`` or a kind of identifier that the project configures."""

    project_id: str
    kind: str
    value: str
    mode: Mode = Mode.delete


def add_to_list(settings: Settings, request: Request) -> ForgottenId:
    """Write the id's hash into the list of forgotten ids; returns its line. The list on disk counts, not the settings'.

    Raises SettingsError if the id cannot be forgotten so.
    """
    value = checked_value(settings, request)
    path, in_environment = settings.forgotten_path, settings.forget_key_in_environment
    listed = read_forgotten(path, in_environment)
    stored = settings.hashing.stored(request.project_id, value)
    forgotten = Forgotten(listed.ids, key_for(path, in_environment))
    stored_hash = "" if stored == value else forgotten.hash_of(request.project_id, request.kind, stored)
    known = forgotten.find(request.project_id, request.kind, value)
    if known is not None and (known.mode, known.stored_hash) == (request.mode, stored_hash):
        return known
    line = ForgottenId(
        request.project_id,
        request.kind,
        forgotten.hash_of(request.project_id, request.kind, value),
        request.mode,
        datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        stored_hash,
    )
    others = tuple(one for one in listed.ids if one is not known)
    write_forgotten(path, replace(forgotten, ids=(*others, line)))
    return line


def checked_value(settings: Settings, request: Request) -> str:
    """The id as events are compared with it: an identifier is normalised as its project says. Raises SettingsError."""
    if not request.project_id or not request.value.strip():
        raise SettingsError("Name the project and the id to forget: one of them is blank.")
    if request.value.startswith(PREFIX):
        raise SettingsError("This is the pseudonym of an id that was forgotten already, and no id.")
    if request.value.startswith(HASHED) and request.project_id in settings.hashing.keys:
        raise SettingsError("This is a hashed id: give the id as it was sent, because files hold it so.")
    if request.kind in OWN_KINDS:
        return request.value
    own = settings.rules(request.project_id).identifiers
    if request.kind not in own:
        kinds = ", ".join((*OWN_KINDS, *own))
        raise SettingsError(
            f"Project '{request.project_id}' has no identifiers of the kind '{request.kind}'; the kinds are: {kinds}."
        )
    if request.mode == Mode.pseudonymise:
        raise SettingsError(
            "Rows with an identifier can only be deleted: forget the user or the device to keep totals."
        )
    with Parser() as parser:
        ((value,),) = parser.rows(
            f"select {normalised_sql('$value', own[request.kind].normalise)}", value=request.value
        )
    if value is None:
        raise SettingsError(f"This is no value of the kind '{request.kind}': nothing is left of it once normalised.")
    return str(value)


@dataclass(frozen=True)
class Held:
    """A table with rows of the id, and what becomes of them."""

    table: str
    rows: int
    fate: str


@dataclass(frozen=True)
class OwnFile:
    """A file of the team's own that holds the id. It is left as it is."""

    name: str
    lines: Sequence[int]


@dataclass(frozen=True)
class Concerned:
    """What is stored of an id, by table, and where else it stands."""

    tables: Sequence[Held]
    landing_files: Sequence[OwnFile]
    """Rows that carry the id, by file. No row of these is loaded with it, as long as the id is listed."""
    setting_files: Sequence[OwnFile]
    """Lines of overrides.csv and stitch.toml that name it, for the team to correct."""
    seen_with: Sequence[tuple[str, str]]
    """Kind and value of the ids on the same rows: those that may have to be forgotten as well."""


_READ_AGAIN = "built again from what is left"
_FATES = {
    "raw_events": {Mode.delete: "deleted", Mode.pseudonymise: "pseudonymised"},
    "duplicate_events": {Mode.delete: "deleted", Mode.pseudonymise: "pseudonymised"},
    "forgotten_events": {Mode.delete: "pseudonymised", Mode.pseudonymise: "pseudonymised"},
    "identity_map": {Mode.delete: "kept without the id", Mode.pseudonymise: "kept without the id"},
    "user_mapping_history": {Mode.delete: "deleted", Mode.pseudonymise: "pseudonymised"},
    "person_name_history": {Mode.delete: "deleted", Mode.pseudonymise: "deleted"},
    "decision_history": {Mode.delete: "deleted", Mode.pseudonymise: "deleted"},
    "quarantined_events": {Mode.delete: "raw row removed", Mode.pseudonymise: "raw row removed"},
    "sessions": {},
    "stitched_sessions": {},
    "page_views": {},
    "activity_without_device": {},
    "identifier_links": {},
    "persons": {},
    "users": {},
}


def refuse_unknown_project(warehouse: Warehouse, settings: Settings, request: Request) -> None:
    """Raise SettingsError if the project has no event, and nothing of it was forgotten: its name is misspelt."""
    known = project_ids(warehouse)
    listed = {one.project_id for one in settings.forgotten.ids}
    if request.project_id not in {*known, *listed}:
        raise SettingsError(no_such_project(request.project_id, known))


def look(warehouse: Warehouse, settings: Settings, request: Request) -> Concerned:
    """What forgetting the id would concern. Nothing is written.

    Raises SettingsError as ``add_to_list`` does, and as ``refuse_unknown_project`` does.
    """
    value = settings.hashing.stored(request.project_id, checked_value(settings, request))
    refuse_unknown_project(warehouse, settings, request)
    holds = request.kind if request.kind in OWN_KINDS else "identifier"
    stored = {
        table
        for (table,) in warehouse.rows(
            "select table_name from information_schema.tables where table_schema = current_schema()"
        )
    }
    tables = []
    for table, fates in _FATES.items():
        if table not in stored:
            continue  # an older version created the warehouse
        conditions = [
            f"({place.column} = $value and {place.condition})"
            for place in PLACES
            if place.table == table and (place.holds == holds or (place.holds == "person" and holds == "user"))
        ]
        if holds == "identifier":
            conditions = [f"id_kind = $kind and {one}" for one in conditions]
            if table in ("raw_events", "duplicate_events"):
                values = identifier_values_sql(_stored_identifiers(settings), request.kind, warehouse.dialect)
                conditions = [f"{found} = $value" for found in values]
        if table == "quarantined_events":
            conditions = ["strpos(raw_row, $value) > 0"]
        if not conditions:
            continue
        in_project = "true" if table == "quarantined_events" else "project_id = $project"
        condition = f"{in_project} and ({' or '.join(conditions)})"
        parameters = {"value": value, "kind": request.kind, "project": request.project_id}
        ((count,),) = warehouse.rows(
            f"select count(*) from {table} as held where {condition}",
            **{name: given for name, given in parameters.items() if f"${name}" in condition},
        )
        if count:
            tables.append(Held(table, count, fates.get(request.mode, _READ_AGAIN)))
    return Concerned(
        tables,
        landing_lines(settings, request),
        setting_lines(settings, request),
        _seen_with(warehouse, request, value),
    )


def _seen_with(warehouse: Warehouse, request: Request, value: str) -> list[tuple[str, str]]:
    """The ids that links tie to this one."""
    user_of_device, identifier_of = "identity_map where project_id = $project", "identifier_links where"
    if request.kind in OWN_KINDS:
        other, column, own = {
            "user": ("device", "anonymous_id", "user_id"),
            "device": ("user", "user_id", "anonymous_id"),
        }[request.kind]
        query = (
            f"select {literal(other)}, {column} from {user_of_device} and {own} = $value union "
            f"select id_kind, id from {identifier_of} "
            "project_id = $project and linked_kind = $kind and linked_id = $value union "
            f"select linked_kind, linked_id from {identifier_of} "
            "project_id = $project and id_kind = $kind and id = $value"
        )
    else:
        query = (
            f"select distinct linked_kind, linked_id from {identifier_of} "
            "project_id = $project and id_kind = $kind and id = $value"
        )
    rows = warehouse.rows(f"{query} order by 1, 2", project=request.project_id, kind=request.kind, value=value)
    return [(kind, found) for kind, found in rows if not is_pseudonym(found)]


def landing_lines(settings: Settings, request: Request) -> list[OwnFile]:
    """The lines of landed files whose rows carry the id or mention it; without lines where a file cannot be read."""
    value = checked_value(settings, request)
    columns = {"user": ["user_id", "previous_id"], "device": ["anonymous_id", "previous_id"]}
    values = columns.get(request.kind) or identifier_values_sql(_identifiers(settings), request.kind)
    carries = " or ".join([*(f"{one} = {literal(value)}" for one in values), f"contains(raw_row, {literal(value)})"])
    rules = replace(reading_rules(settings), forgetting=None, hashing=None)
    found = []
    with Parser(settings.memory_limit) as parser:
        files = [
            file
            for name, file in landed_files(settings).items()
            if file.source and file.size and not file.has_no_events and not is_extract(settings, name)
        ]
        batches, problems = parser.batches(files, rules)
        for batch in (alone for several in batches for alone in several.alone()):
            name = batch.files[0].landing_file
            parser.forget_refused_lines()
            try:
                rows = parser.rows(f"select line from ({numbered_rows_sql(batch)}) where {carries}")
                rows += parser.rows(f"select line from ({parser.refused_lines_sql()}) where {_contains(value)}")
            except UnreadableFile:
                problems[name] = ""
                continue
            if rows:
                found.append(OwnFile(name, sorted(line for (line,) in rows)))
    return sorted([*found, *(OwnFile(name, ()) for name in problems)], key=lambda file: file.name)


def _contains(value: str) -> str:
    return f"contains(raw_row, {literal(value)})"


def setting_lines(settings: Settings, request: Request) -> list[OwnFile]:
    """The lines of overrides.csv and stitch.toml with the id as it is written."""
    overrides = settings.overrides_file or settings.project_file.with_name("overrides.csv")
    found = []
    for path in (overrides, settings.project_file):
        if path.exists():
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
            if numbers := [number for number, line in enumerate(lines, 1) if request.value in line]:
                found.append(OwnFile(path.name, numbers))
    return found


def forget(warehouse: Warehouse, settings: Settings, requests: Iterable[Request]) -> None:
    """Put the ids on the list, and take them out of the tables. The loop does the rest. Raises as ``add_to_list``."""
    for request in requests:
        add_to_list(settings, request)
    create_tables(warehouse)
    follow(warehouse, settings)
