"""Projects whose ids are loaded as keyed hashes: the results are the same, and nothing stored leads back to an id."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import oracle
import pytest
from conftest import NewWarehouse
from dagster import DagsterInstance
from engines import IS_POSTGRES, new_database
from histories import DEVICES, EMAILS, MACHINES, PREVIOUS, USERS, History, Land, Rule, history
from oracle import Identifier, Rules
from warehouses import (
    TABLES,
    VIEWS,
    Row,
    Warehouse,
    as_jitsu,
    comparable,
    differences,
    ephemeral_warehouse,
    ordered,
    page_view,
)

from stitch_pipeline.landing.landed_file import UnreadableFile
from stitch_pipeline.landing.parser import Parser
from stitch_pipeline.landing.reading import numbered_rows_sql
from stitch_pipeline.landing.zone import landed_files, reading_rules
from stitch_pipeline.orchestration.status import notices
from stitch_pipeline.settings import SettingsError
from stitch_pipeline.settings.hashing import hashed
from stitch_pipeline.stitching.explain import explain
from stitch_pipeline.stitching.forget import Request, forget, look
from stitch_pipeline.stitching.person import person_history
from stitch_pipeline.stitching.prove import prove
from stitch_pipeline.stitching.rebuild import start_anew
from stitch_pipeline.warehouse.engine import engine_of

pytestmark = pytest.mark.slow

KEY, OTHER_KEY = "ab" * 32, "cd" * 32
VARIABLE = "KEY_OF_TESTS"


def stored(value: str, project_id: str = "shop") -> str:
    return hashed(bytes.fromhex(KEY), project_id, value)


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, KEY)


# The same results, up to the hash.


class Hashing(Warehouse):
    """A warehouse in which every project of ``stitch.toml`` hashes its ids."""

    def write_stitch_toml(self, text: str) -> None:
        super().write_stitch_toml(re.sub(r"(?m)^\[projects\.[^.]*\]$", rf'\g<0>\nhash_key = "{VARIABLE}"', text))


COMPARED = (*TABLES, *VIEWS, "user_mapping_history", "person_name_history")
# When a run took place, and when a file was written.
TIMES_OF_RUNS = {"known_since", "known_until", "followed_since", "followed_until", "candidate_loaded_at"}


def contents(warehouse: Warehouse, table: str) -> list[Row]:
    return [{name: value for name, value in row.items() if name not in TIMES_OF_RUNS} for row in warehouse.rows(table)]


def without_labels_of_devices(rows: list[Row]) -> list[Row]:
    """Rows of ``persons``: devices that are tied to devices alone may differ in nothing, so any may be the label."""
    members: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if (row["component_id"] or "").startswith("device:"):
            members.setdefault((row["project_id"], row["component_id"]), []).append(row["id"])
    return [
        {**row, "component_id": str(sorted(members[key]))}
        if (key := (row["project_id"], row["component_id"])) in members
        else row
        for row in rows
    ]


class Expected:
    """What a row of a plain warehouse is in one with hashed ids, worked out in Python alone."""

    def __init__(self, rules: Mapping[str, Rules]) -> None:
        self._rules = rules
        emails = {str(value).strip().lower() for value in EMAILS if not oracle.is_no_identity(str(value))} - {"none"}
        self._emails = emails
        self._machines = {value for machine in MACHINES for value in machine.values()}
        previous = {value for value in PREVIOUS if value is not None and value != "undefined"}
        known = {*DEVICES, *USERS, *previous, *self._machines, *emails - {"7"}}
        words = "|".join(re.escape(one) for one in sorted(known, key=len, reverse=True))
        self._ids = re.compile(rf"(?<![\w@.-])({words})(?![\w@.-])")

    def row(self, table: str, row: Row) -> Row:
        project = row.get("project_id")
        if table == "quarantined_events":
            return {**row, "raw_row": None}
        return {name: self._value(project, name, value) for name, value in row.items()}

    def _value(self, project: Any, name: str, value: Any) -> Any:
        if not isinstance(value, str) or name.startswith("blocked_"):
            return value
        if name in ("traits", "properties"):
            return json.dumps(self._document(project, json.loads(value)), sort_keys=True)
        if name == "identifiers":
            paths = {path for own in self._rules[project].identifiers.values() for path in own.paths}
            sent = json.loads(value).items()
            kept = {kind: stored(one, project) for kind, one in sent if f"identifiers.{kind}" in paths}
            return json.dumps(kept, sort_keys=True) if kept else None
        if value in ("7", "email:7"):
            return value.replace("7", stored("7", project))
        return self._ids.sub(lambda found: stored(found[0], project), value)

    def _document(self, project: str, document: Row) -> Row:
        paths = {path for own in self._rules[project].identifiers.values() for path in own.paths}
        found = {}
        for key, value in document.items():
            if f"properties.{key}" not in paths:
                is_address = isinstance(value, str) and "@" in value
                found[key] = re.sub(r"\S+@\S+", "[email]", value) if is_address else value
                continue
            if value is None:
                found[key] = None
            elif bare := str(value).strip().lower():
                found[key] = stored(bare, project) if bare in self._emails else bare
        return found


def assert_same_up_to_the_hash(history: History, directory: Path, **settings: Any) -> None:
    with ephemeral_warehouse(directory / "plain", **settings) as plain:
        history.play(plain)
        plain.settle()
        rows = {table: contents(plain, table) for table in COMPARED}
    if settings.get("warehouse"):
        settings["warehouse"] = new_database()
    with hashing_warehouse(directory / "hashed", **settings) as hashing:
        history.play(hashing)
        hashing.settle()
        expected = Expected(history.rules)
        for table in COMPARED:
            stored_rows, wanted_rows = contents(hashing, table), [expected.row(table, row) for row in rows[table]]
            if table == "persons":
                stored_rows, wanted_rows = map(without_labels_of_devices, (stored_rows, wanted_rows))
            found = differences(stored_rows, ordered(map(comparable, wanted_rows)))
            assert not found, f"{table}: {[(name, rows[:2]) for name, rows in found.items()]}"


@contextmanager
def hashing_warehouse(directory: Path, **settings: Any) -> Iterator[Warehouse]:
    with DagsterInstance.ephemeral() as instance:
        yield Hashing(directory, instance, **settings)


def ties() -> History:
    """Users, devices and addresses that are first seen at one instant, so that only a tie-break names them."""
    email = {"email": Identifier(("properties.email", "properties.mail"), ("trim", "lower"))}
    at = "2026-03-01 12:00"
    common = {"event_name": None, "platform": None, "traits": None, "received_at": None}

    def seen(event_id: str, device: str | None, user: str | None, address: str | None = None, **fields: Any) -> Row:
        properties = {"email": address} if address else None
        event = page_view(event_id, at, anonymous_id=device, user_id=user, properties=properties)
        return {**event, "project_id": "p1", **common, **fields}

    events = [
        # Three users of one person at one instant: the first event id decides, which no order of ids or hashes has.
        *(seen(f"e{n}", f"d{n}", user, "a@example.com") for n, user in ((2, "u1"), (1, "u2"), (3, "u3"))),
        # Two addresses of one device, without a user.
        seen("f2", "u1", None, "b@example.com"),
        seen("f1", "u1", None, "c@example.com"),
        # Two users of one device at one instant.
        *(
            seen(f"{project}{n}", "d1", user, project_id=project)
            for project in ("p2", "p3")
            for n, user in ((1, "u1"), (2, "u2"), (0, "u3"))
        ),
        seen("g0", "d1", None, project_id="p2", occurred_at=page_view("", "2026-03-01 12:05")["occurred_at"]),
    ]
    # One event shows two users first, and each is seen again. Of two users at one instant, one keeps the address.
    alias = {"event_type": "alias", "project_id": "p4"}
    events += [
        *(
            seen(f"h{n}", "d1", user, previous_id=previous, **alias)
            for n, user, previous in ((1, "u2", "u3"), (2, "u3", "u2"))
        ),
        seen("i1", None, "u1", previous_id="x1", **alias),
        seen("i2", "d2", None, previous_id="x2", **alias),
        *(seen(f"k{n}", f"d{n}", user, "a@example.com", project_id="p5") for n, user in ((2, "u1"), (1, "u2"))),
    ]
    graph = Rules(policy="graph", identifiers=email)
    rules = {"p1": graph, "p2": Rules(), "p3": Rules(policy="first"), "p4": graph}
    rules["p5"] = replace(graph, unique_identifiers=("user",), contested_ids="first")
    return History((Rule(rules), Land("jitsu/a.ndjson", tuple(events), ('{"messageId": ', "{}"))))


@pytest.mark.long
def test_ties_are_broken_as_without_hashes(tmp_path: Path) -> None:
    assert_same_up_to_the_hash(ties(), tmp_path)


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(2, 7))])
def test_results_are_the_same_up_to_the_hash(seed: int, tmp_path: Path) -> None:
    assert_same_up_to_the_hash(history(seed, 2), tmp_path)


@pytest.mark.skipif(IS_POSTGRES, reason="the other tests do it then")
@pytest.mark.long
def test_results_are_the_same_up_to_the_hash_on_postgres(tmp_path: Path) -> None:
    assert_same_up_to_the_hash(history(7, 1), tmp_path, warehouse=new_database())


# What is stored, and what is not.

DEVICE, USER, EMAIL, PHONE = "device-3f2a77", "ann.smith", "ann.s@example.org", "491701234567"
BOB, MACHINE = "bob.miller", "machine-77"
PLAIN = (
    DEVICE,
    USER,
    BOB,
    MACHINE,
    "Ann.S@Example.org",
    EMAIL,
    "ann.s%40example.org",
    "carl@example.com",
    PHONE,
    "4711-0815",
)
TOML = f"""
[feeds.jitsu]
[projects.shop]
policy = "graph"
hash_key = "{VARIABLE}"
identifiers.email.paths = ["traits.email", "properties.customer.mail"]
identifiers.email.normalise = ["trim", "lower"]
identifiers.phone.paths = "properties.phone"
identifiers.phone.normalise = "digits"
identifiers.phone.blocked = "0+"
identifiers.machine.paths = "identifiers.device_id"
identifiers.machine.valid = "[a-z]+-[0-9]+"
"""
SHOP = [
    page_view(
        "a1",
        "2026-03-01 12:00",
        anonymous_id=DEVICE,
        page_url=f"https://shop.example/?visitor={DEVICE}",
        properties={"phone": "000"},
        identifiers={"device_id": MACHINE},
    ),
    page_view(
        "a2",
        "2026-03-01 12:01",
        anonymous_id=DEVICE,
        user_id=USER,
        event_type="identify",
        traits={"email": " Ann.S@Example.org", "plan": "pro", "login": USER, "friend": "carl@example.com", "n": 1.5},
        properties={"customer": {"mail": "guest", "no": "4711-0815"}, "phone": "+49 170 1234567", "tel": 491701234567},
    ),
    page_view(
        "a3",
        "2026-03-01 12:02",
        anonymous_id="undefined",
        user_id=BOB,
        page_url="https://shop.example/?m=ann.s%40example.org",
        page_title=f"Account of {BOB}",
        traits={"email": "  ", "id": 4711},
        properties={"customer": {"mail": EMAIL}},
    ),
    page_view(
        "4711-a4",
        "2026-03-01 12:03",
        anonymous_id="4711-0815",
        source_session_id="4711-0815/1",
        identifiers={"device_id": "NONE OF OURS"},
    ),
]
BLOG = [page_view("b1", "2026-03-01 12:00", project_id="blog", anonymous_id=DEVICE, user_id=USER, traits={"e": EMAIL})]
BAD = ['{"messageId": "x", "userId": "ann.smith"', '{"projectId": "shop", "userId": "ann.smith", "type": "page"}']


def test_no_id_and_no_address_is_stored_and_decisions_and_explanations_take_either(
    new_warehouse_on_disk: NewWarehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    warehouse = new_warehouse_on_disk(stitch_toml=TOML, published_dir=None)
    warehouse.write_overrides([f"shop,never_same,{USER},{BOB},Ann said so"])
    warehouse.land_events("jitsu/shop.ndjson", SHOP)
    warehouse.land("jitsu/bad.ndjson", BAD)
    warehouse.settle()

    events = {row["event_id"]: row for row in warehouse.rows("raw_events")}
    assert events["a2"]["anonymous_id"] == events["a1"]["anonymous_id"] == stored(DEVICE)
    assert events["a2"]["user_id"] == stored(USER)
    assert events["a1"]["page_url"] == f"https://shop.example/?visitor={stored(DEVICE)}"
    assert json.loads(events["a2"]["traits"]) == {
        "email": stored(EMAIL),
        "plan": "pro",
        "login": stored(USER),
        "friend": "[email]",
        "n": 1.5,
    }
    assert json.loads(events["a2"]["properties"]) == {
        "customer": {"mail": "guest", "no": "4711-0815"},
        "phone": stored(PHONE),
        "tel": stored(PHONE),
    }
    assert (events["a3"]["anonymous_id"], events["a3"]["blocked_anonymous_id"]) == (None, "undefined")
    assert json.loads(events["a3"]["traits"]) == {"id": 4711}
    assert events["a3"]["page_url"] == f"https://shop.example/?m={stored(EMAIL)}"
    assert events["a3"]["page_title"] == f"Account of {stored(BOB)}"
    assert events["4711-a4"]["source_session_id"] == f"{stored('4711-0815')}/1"
    # What a pattern excludes is blocked, because no pattern matches a hash.
    assert json.loads(events["a1"]["properties"]) == {"phone": "undefined"}
    assert json.loads(events["a1"]["identifiers"]) == {"device_id": stored(MACHINE)}
    assert json.loads(events["4711-a4"]["identifiers"]) == {"device_id": "undefined"}
    links = {(row["id_kind"], row["id"], row["linked_id"]) for row in warehouse.rows("identifier_links")}
    assert links == {
        *(("email", stored(EMAIL), linked) for linked in (stored(DEVICE), stored(USER), stored(BOB))),
        *(("phone", stored(PHONE), linked) for linked in (stored(DEVICE), stored(USER))),
        ("machine", stored(MACHINE), stored(DEVICE)),
    }
    persons = {row["id"]: row["person_id"] for row in warehouse.rows("persons")}
    assert (persons[stored(USER)], persons[stored(BOB)]) == (stored(USER), stored(BOB)), "a decision names plain ids"
    assert len(warehouse.rows("quarantined_events")) == 2

    # The other person's number in somebody's properties is a mention, which nothing can find.
    mentions = {"4711-0815"}
    names = warehouse.query(
        "select table_name from information_schema.tables where table_schema = 'stitch' order by table_name"
    )
    for table in [row["table_name"] for row in names]:
        text = str(warehouse.rows(table))
        assert not [one for one in PLAIN if one in text and one not in mentions], table
        assert KEY not in text, table
        assert "Ann said so" not in text, table
    if warehouse.settings.publishes_to is not None:
        for table in ("raw_events", "users", "stitched_sessions", "persons"):
            text = str(warehouse.published_rows(table))
            assert stored(USER) in text or table == "users"
            assert not [one for one in PLAIN if one in text and one not in mentions], table
    own = {"shop.ndjson", "bad.ndjson", "stitch.toml", "overrides.csv"}
    files = [path for path in warehouse.directory.parent.rglob("*") if path.is_file() and path.name not in own]
    assert len(files) > 10
    for path in files:
        found = path.read_bytes()
        assert not [one for one in (*PLAIN, KEY) if one.encode() in found and one not in mentions], path

    for device in (DEVICE, stored(DEVICE)):
        explained = explain(warehouse.settings, "shop", device)
        assert {row.stitched_user_id for row in explained.rows} == {stored(USER)}
    assert [one.anonymous_id for one in person_history(warehouse.settings, "shop", user_id=USER).devices] == [
        stored(DEVICE)
    ]

    # Whoever has destroyed the key cannot look an id up any more, and the rest goes on.
    monkeypatch.delenv(VARIABLE)
    with pytest.raises(SettingsError, match=f"The key of project 'shop' is missing: set the variable {VARIABLE} again"):
        explain(warehouse.settings, "shop", DEVICE)
    assert explain(warehouse.settings, "shop", stored(DEVICE)).rows


def test_a_missing_or_another_key_is_refused_and_nothing_is_lost(
    new_warehouse: NewWarehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    toml = f"""
[feeds.web]
source = "jitsu"
project_id = "blog"
{TOML}"""
    warehouse = new_warehouse(stitch_toml=toml)
    warehouse.write_overrides([f"shop,never_same,{USER},{BOB},"])
    warehouse.land_events("jitsu/shop.ndjson", SHOP[:2])
    (warehouse.settings.landing_dir / "web").mkdir()
    warehouse.settle()
    before = warehouse.contents()
    decisions = warehouse.rows("decisions")
    assert decisions

    # Without the key, only feeds of other projects are loaded.
    monkeypatch.delenv(VARIABLE)
    warehouse.load_settings()
    warehouse.land_events("jitsu/shop.ndjson", SHOP[:3])
    warehouse.land_events("jitsu/more.ndjson", SHOP[3:])
    warehouse.land("web/blog.ndjson", map(as_jitsu, BLOG))
    settled = warehouse.settle()
    sentence = (
        f"The key of project 'shop' is missing: set the variable {VARIABLE} again. Until then its files, and those of "
        "feeds that name no project, are not loaded; nothing is lost."
    )
    assert sentence in settled.notices
    assert sentence in notices(warehouse.settings)
    events = warehouse.rows("raw_events")
    assert [row for row in events if row["project_id"] == "shop"] == before["raw_events"]
    assert [row["user_id"] for row in events if row["project_id"] == "blog"] == [USER]
    assert warehouse.rows("decisions") == decisions

    # With another key, nothing.
    monkeypatch.setenv(VARIABLE, OTHER_KEY)
    with pytest.raises(AssertionError, match="The key of project 'shop' is not the one that its ids were hashed with"):
        warehouse.settle()
    assert len(warehouse.rows("raw_events")) == 3

    # Nor without the setting.
    warehouse.write_stitch_toml(toml.replace(f'hash_key = "{VARIABLE}"', ""))
    with pytest.raises(AssertionError, match="its hash_key is not set any more"):
        warehouse.settle()

    monkeypatch.setenv(VARIABLE, KEY)
    warehouse.write_stitch_toml(toml)
    warehouse.settle()
    assert {row["event_id"] for row in warehouse.rows("raw_events")} == {"a1", "a2", "a3", "4711-a4", "b1"}

    # A project with rows begins to hash when its warehouse begins anew.
    warehouse.write_stitch_toml(
        toml.replace("[projects.shop]", f'[projects.blog]\nhash_key = "{VARIABLE}"\n[projects.shop]')
    )
    with pytest.raises(AssertionError, match="Project 'blog' has a hash_key now, and rows with ids as they were sent"):
        warehouse.settle()
    start_anew(warehouse.settings)
    warehouse.settle()
    users = {row["event_id"]: row["user_id"] for row in warehouse.rows("raw_events")}
    assert users["b1"] == stored(USER, "blog") != users["a2"] == stored(USER)


@pytest.mark.parametrize(
    ("kind", "value"), [("user", USER), pytest.param("email", "ANN.S@example.org", marks=pytest.mark.long)]
)
def test_a_hashed_id_is_forgotten(kind: str, value: str, new_warehouse: NewWarehouse) -> None:
    warehouse = new_warehouse(stitch_toml=TOML)
    warehouse.land_events("jitsu/shop.ndjson", SHOP)
    warehouse.settle()
    request = Request("shop", kind, value)
    with warehouse_of(warehouse, read_only=True) as opened:
        concerned = look(opened, warehouse.settings, request)
        assert {one.table: one.rows for one in concerned.tables}["raw_events"] == (1 if kind == "user" else 2)
        assert [one.lines for one in concerned.landing_files] == [[2] if kind == "user" else [2, 3]]
    with warehouse_of(warehouse) as opened:
        forget(opened, warehouse.settings, [request])
        held = str([opened.records(f"select * from {table}") for table in ("identity_map", "identifier_links")])
        assert stored(USER if kind == "user" else EMAIL) not in held, "it is taken out at once"
    warehouse.settle()
    gone = [stored(USER)] if kind == "user" else [stored(EMAIL)]
    for table, rows in warehouse.contents((*TABLES, *VIEWS, "user_mapping_history", "forgotten_events")).items():
        assert not [one for one in gone if one in str(rows)], table
    (forgotten, *_) = warehouse.rows("forgotten_events")
    assert forgotten["anonymous_id"] in (stored(DEVICE), None)
    assert prove(warehouse.settings, request, []).is_clean
    with pytest.raises(SettingsError, match="give the id as it was sent"), warehouse_of(warehouse) as opened:
        forget(opened, warehouse.settings, [Request("shop", "user", stored(BOB))])


@pytest.mark.long
def test_a_sealed_row_of_a_table_is_hashed_when_it_is_read_again(new_warehouse: NewWarehouse) -> None:
    toml = f"""
[feeds.web]
source = "custom"
project_id = "shop"
table = "events"
connection = "events.duckdb"
load_time = "occurred_at"
[feeds.web.fields]
event_id = "event_id"
occurred_at = "occurred_at"
event_type = "event_type"
anonymous_id = "anonymous_id"
user_id = "user_id"
[projects.shop]
hash_key = "{VARIABLE}"
"""
    warehouse = new_warehouse(stitch_toml=toml)
    with duckdb.connect(str(warehouse.directory / "events.duckdb")) as connection:
        connection.execute(
            "create table events as select * from (values "
            f"('a1', timestamp '2026-03-01 12:00', 'page', '{DEVICE}', '{USER}'), "
            f"('a2', timestamp '2026-03-01 12:01', 'page', '{DEVICE}', '{BOB}')) "
            "as rows(event_id, occurred_at, event_type, anonymous_id, user_id)"
        )
    warehouse.settle()
    with warehouse_of(warehouse) as opened:
        forget(opened, warehouse.settings, [Request("shop", "user", USER)])
    warehouse.settle()
    (extract,) = (warehouse.settings.landing_dir / "web").glob("*.parquet")
    with duckdb.connect() as connection:
        sealed = str(connection.sql(f"select * from '{extract}'").fetchall())
    assert DEVICE in sealed
    assert USER not in sealed
    (kept,) = warehouse.rows("raw_events")
    assert (kept["anonymous_id"], kept["user_id"]) == (stored(DEVICE), stored(BOB))
    (forgotten,) = warehouse.rows("forgotten_events")
    assert forgotten["anonymous_id"] == stored(DEVICE)
    assert forgotten["user_id"].startswith("forgotten:")


def warehouse_of(warehouse: Warehouse, *, read_only: bool = False) -> Any:
    return engine_of(warehouse.settings).open(read_only=read_only)


# The SQL.


def test_the_hash_is_that_of_python_and_no_message_holds_the_key(new_warehouse: NewWarehouse) -> None:
    warehouse = new_warehouse(stitch_toml=TOML)
    ids = ["x", "é", "\U0001f600" * 30, "a'b", 'q"q', "back\\slash", "1" * 200, "hashed:" + "0" * 32, " spaced "]
    events = [page_view(f"e{n}", "2026-03-01 12:00", anonymous_id=one) for n, one in enumerate(ids)]
    warehouse.land_events("jitsu/ids.ndjson", events)
    rules = reading_rules(warehouse.settings)
    with Parser() as parser:
        ((batch,), _) = parser.batches(landed_files(warehouse.settings).values(), rules)
        found = parser.rows(f"select event_id, anonymous_id from ({batch.events_sql})", **batch.parameters)
        assert dict(found) == {f"e{n}": stored(one) for n, one in enumerate(ids)}
        secrets = [KEY, repr(bytes.fromhex(KEY)), *(value.hex() for value in batch.parameters.values())]
        secrets += [secret.upper() for secret in secrets]
        sql = numbered_rows_sql(batch)
        texts = [sql, repr(batch), repr(rules), repr(warehouse.settings), str(warehouse.settings.model_dump())]
        (warehouse.settings.landing_dir / "jitsu" / "ids.ndjson").unlink()
        with pytest.raises(UnreadableFile) as raised:
            parser.rows(sql, **batch.parameters)
        texts += [str(raised.value), repr(raised.value.__cause__)]
    assert not [secret for secret in secrets for text in texts if secret in text]


def test_an_event_id_that_was_made_of_ids_is_hashed_with_the_key(new_warehouse: NewWarehouse) -> None:
    toml = f'''
[feeds.own]
source = "custom"
project_id = "shop"
event_id_from = ["who", "at"]
[feeds.own.fields]
occurred_at = "at"
event_type = "kind"
user_id = "who"
[projects.shop]
hash_key = "{VARIABLE}"
'''
    warehouse = new_warehouse(stitch_toml=toml)
    warehouse.land("own/a.ndjson", [{"who": USER, "at": "2026-03-01T12:00:00Z", "kind": "page"}] * 2)
    rules = reading_rules(warehouse.settings)
    with Parser() as parser:
        ((batch,), _) = parser.batches(landed_files(warehouse.settings).values(), rules)
        found = parser.rows(f"select event_id from ({batch.events_sql})", **batch.parameters)
    md5 = hashlib.md5(f"{USER}|2026-03-01T12:00:00Z".encode()).hexdigest()
    assert found == [(stored(md5).removeprefix("hashed:"),)] * 2
