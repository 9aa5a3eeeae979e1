"""Files in every state that a landing zone sees: encodings, ends of lines, drift, growth, tables beside."""

from __future__ import annotations

import gzip
import itertools
import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from conftest import NewWarehouse
from engines import OPENED
from warehouses import Warehouse

from stitch_pipeline.landing.reading import EventBatch

EVENT: dict[str, Any] = {"type": "page", "anonymousId": "a", "projectId": "shop"}


def lines(*events: dict[str, Any]) -> str:
    return "".join(json.dumps({**EVENT, **event}, ensure_ascii=False) + "\n" for event in events)


def put(warehouse: Warehouse, landing_file: str, content: bytes | str) -> Path:
    path = warehouse.settings.landing_dir / landing_file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def titles(warehouse: Warehouse) -> dict[str, str]:
    return {row["event_id"]: row["page_title"] for row in warehouse.rows("raw_events")}


def quarantined(warehouse: Warehouse) -> dict[tuple[str, int | None], str]:
    rows = warehouse.rows("quarantined_events")
    return {(row["landing_file"], row["line"]): row["reason"] for row in rows}


FIRST = {"messageId": "1", "timestamp": "2026-03-02T12:00:00Z", "context": {"page": {"title": "Café"}}}
SECOND = {"messageId": "2", "timestamp": "2026-03-02T13:00:00Z", "context": {"page": {"title": "Ende"}}}


SPREAD: dict[str, dict[str, Any]] = {
    "jitsu": {"message_id": "1", "timestamp": "2026-03-02T12:00:00Z", "type": "track", "context": {}, "sku": 7},
    "snowplow": {"event_id": "1", "app_id": "shop", "derived_tstamp": "2026-03-02 12:00:00", "event": "unstruct"}
    | {"unstruct_event_com_acme_seen_1": {"sku": 7}},
}


def test_encodings_ends_of_lines_and_empty_files(new_warehouse: NewWarehouse) -> None:
    """Each file of the event under another id: what is the same event in all must read the same."""
    toml = (
        '[feeds.latin]\nsource = "jitsu"\nencoding = "latin-1"\n[feeds.bare]\nsource = "jitsu"\nfile_type = "ndjson"\n'
    )
    warehouse = new_warehouse(stitch_toml=toml)

    def two(name: str) -> str:
        return lines({**FIRST, "messageId": f"{name} 1"}, {**SECOND, "messageId": f"{name} 2"})

    put(warehouse, "jitsu/bom.ndjson", b"\xef\xbb\xbf" + two("bom").encode())
    put(warehouse, "jitsu/crlf.ndjson", two("crlf").replace("\n", "\r\n"))
    put(warehouse, "jitsu/no_end.ndjson", two("no end").rstrip("\n"))
    put(warehouse, "jitsu/blank.ndjson", "\n\n" + two("blank").replace("\n", "\n\n"))
    put(warehouse, "jitsu/utf16.ndjson", two("utf16").encode("utf-16"))
    put(warehouse, "jitsu/zipped.ndjson.gz", gzip.compress(two("zipped").encode()))
    put(warehouse, "jitsu/list.json", json.dumps([json.loads(line) for line in two("list").splitlines()], indent=1))
    put(warehouse, "latin/a.ndjson", two("latin").encode("latin-1"))
    put(warehouse, "bare/part-00000", two("bare"))
    put(warehouse, "jitsu/empty.ndjson", "")
    put(warehouse, "jitsu/only_blank.ndjson", "\n \n")
    put(warehouse, "jitsu/empty.json", "[]")
    put(warehouse, "segment/only_header_pages.csv", "id,anonymous_id,timestamp\n")
    warehouse.settle()
    names = ("bom", "crlf", "no end", "blank", "utf16", "zipped", "list", "latin", "bare")
    assert titles(warehouse) == {f"{name} {n}": title for name in names for n, title in ((1, "Café"), (2, "Ende"))}
    assert quarantined(warehouse) == {}
    assert warehouse.settle().runs == []


def test_text_that_is_not_in_the_encoding_spoils_its_line_only(new_warehouse: NewWarehouse) -> None:
    warehouse = new_warehouse()
    put(warehouse, "jitsu/a.ndjson", lines(SECOND).encode() + lines(FIRST).encode("latin-1"))
    warehouse.settle()
    assert titles(warehouse) == {"2": "Ende"}
    assert "not utf-8" in quarantined(warehouse)["jitsu/a.ndjson", 2]


@pytest.mark.slow
def test_a_half_written_last_line_is_quarantined_until_the_file_is_complete(new_warehouse: NewWarehouse) -> None:
    warehouse = new_warehouse()
    whole = lines(FIRST, SECOND)
    put(warehouse, "jitsu/a.ndjson", whole[:-20])
    warehouse.settle()
    assert titles(warehouse) == {"1": "Café"}
    assert quarantined(warehouse) == {("jitsu/a.ndjson", 2): "not valid JSON"}
    put(warehouse, "jitsu/a.ndjson", whole)
    warehouse.settle()
    assert titles(warehouse) == {"1": "Café", "2": "Ende"}
    assert quarantined(warehouse) == {}


@pytest.mark.slow
def test_a_file_that_keeps_growing_while_it_is_read_never_loses_its_rows(
    new_warehouse: NewWarehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer is given its chance between the look at the file and the load, each time."""
    warehouse = new_warehouse()
    growth = iter([lines(FIRST, SECOND), lines(FIRST, SECOND, {**FIRST, "messageId": "3"}) + '{"messageId": '])
    path = put(warehouse, "jitsu/a.ndjson", lines(FIRST))
    put(warehouse, "jitsu/b.ndjson", lines({**SECOND, "messageId": "b"}))
    load_events = OPENED.load_events

    def grown_meanwhile(stored: Any, batch: EventBatch) -> None:
        for grown in itertools.islice(growth, 1):
            path.write_text(grown)
        load_events(stored, batch)

    def seen() -> dict[str, str]:
        build_days = [date(2026, 3, 2), date(2026, 3, 3)]
        warehouse.build(*build_days)  # its checks fail if a row is lost or counted twice
        return titles(warehouse)

    monkeypatch.setattr(OPENED, "load_events", grown_meanwhile)
    assert seen() == {"1": "Café", "2": "Ende", "b": "Ende"}
    assert seen() == {"1": "Café", "2": "Ende", "3": "Café", "b": "Ende"}
    assert quarantined(warehouse) == {}, "a line that came after the look is not there yet"
    assert [run.succeeded for run in warehouse.settle().runs] == [True]
    assert quarantined(warehouse) == {("jitsu/a.ndjson", 4): "not valid JSON"}
    assert sum(row["event_count"] for row in warehouse.rows("sessions")) == 4
    assert warehouse.settle().runs == []


def test_a_file_replaced_in_place_and_one_deleted_leave_nothing_behind(new_warehouse: NewWarehouse) -> None:
    warehouse = new_warehouse()
    put(warehouse, "jitsu/a.ndjson", lines(FIRST))
    gone = put(warehouse, "jitsu/b.ndjson", lines({**SECOND, "userId": "u"}))
    warehouse.settle()
    assert [row["stitched_user_id"] for row in warehouse.rows("stitched_sessions")] == ["u", "u"]
    put(warehouse, "jitsu/a.ndjson", lines({**FIRST, "messageId": "3"}))
    gone.unlink()
    warehouse.settle()
    assert titles(warehouse) == {"3": "Café"}
    assert [row["stitched_user_id"] for row in warehouse.rows("stitched_sessions")] == ["a"]
    assert warehouse.rows("identity_map") == []


def test_fields_that_come_go_and_change_their_type(new_warehouse: NewWarehouse) -> None:
    warehouse = new_warehouse()
    odd: list[dict[str, Any]] = [
        {**FIRST, "messageId": "new field", "color": {"deep": [1]}},
        {"messageId": "fewer fields", "timestamp": "2026-03-02T12:00:00Z"},
        {**FIRST, "messageId": "time as number", "timestamp": 1772452800000},
        {**FIRST, "messageId": "user as number", "userId": 1001},
        {**FIRST, "messageId": "user as object", "userId": {"id": 1001}},
        {**FIRST, "messageId": "device as list", "anonymousId": ["a"]},
        {**FIRST, "messageId": {"id": 5}},
        {**FIRST, "messageId": "page as text", "context": {"page": "home"}},
    ]
    put(warehouse, "jitsu/a.ndjson", lines(*odd))
    put(
        warehouse,
        "segment/a_pages.csv",
        "id;anonymous_id;timestamp;color;title\nshort;a;2026-03-02 12:00:00\ncsv;a;2026-03-02 12:00:00;;Red\n",
    )
    warehouse.settle()
    rows = {row["event_id"]: row for row in warehouse.rows("raw_events")}
    assert set(rows) == {
        *("new field", "fewer fields", "time as number", "user as number", "page as text", "csv"),
    }
    assert rows["user as number"]["user_id"] == "1001"
    assert rows["time as number"]["occurred_at"] == rows["new field"]["occurred_at"]
    assert rows["csv"]["page_title"] == "Red"
    assert {key: reason for key, reason in quarantined(warehouse).items() if key[0] == "jitsu/a.ndjson"} == {
        ("jitsu/a.ndjson", 5): "the user id is an object or a list",
        ("jitsu/a.ndjson", 6): "the anonymous id is an object or a list",
        ("jitsu/a.ndjson", 7): "the event id is an object or a list",
    }
    assert ("segment/a_pages.csv", 2) in quarantined(warehouse)


@pytest.mark.parametrize(("source", "event"), SPREAD.items())
def test_a_broken_line_of_a_format_whose_properties_are_spread(
    new_warehouse: NewWarehouse, source: str, event: dict[str, Any]
) -> None:
    warehouse = new_warehouse()
    put(warehouse, f"{source}/a.ndjson", json.dumps(event) + '\n{"event_id": "\n[1]\n' + json.dumps(event)[:-1] + "\n")
    warehouse.settle()
    (row,) = warehouse.rows("raw_events")
    assert "sku" in row["properties"]
    assert sorted(line or 0 for _, line in quarantined(warehouse)) == [2, 3, 4]


def test_columns_of_no_layout_are_reported_with_what_is_expected(new_warehouse: NewWarehouse) -> None:
    warehouse = new_warehouse()
    put(warehouse, "segment/unnamed.csv", "id,anonymous_id,timestamp\n1,a,2026-03-02\n")
    put(warehouse, "jitsu/a.xml", "<a/>")
    warehouse.settle()
    reasons = quarantined(warehouse)
    assert "a name like *pages*" in reasons["segment/unnamed.csv", None]
    assert "its type is not one of .ndjson" in reasons["jitsu/a.xml", None]
    assert warehouse.rows("raw_events") == []


@pytest.mark.slow
def test_the_lookup_table_may_come_after_the_events(new_warehouse: NewWarehouse) -> None:
    warehouse = new_warehouse()
    put(
        warehouse,
        "umami/2026-03/website_event.csv",
        "event_id,website_id,session_id,visit_id,created_at,url_path,event_type\n"
        "1,shop,s1,v1,2026-03-02 12:00:00,/,1\n2,shop,s2,v2,2026-03-03 12:00:00,/,1\n"
        "3,shop,s3,v3,2026-03-03 12:00:00,/,1\n",
    )
    put(
        warehouse,
        "umami/2026-03/identity_link.csv",
        "website_id,visitor_id,distinct_id,created_at\nshop,visitor,ada,2026-03-03 12:30:00\n",
    )
    warehouse.settle()
    # Without the sessions nobody knows whose visitor they are: each is a device of its own.
    assert {row["anonymous_id"] for row in warehouse.rows("sessions") if row["event_count"]} >= {"s1", "s2", "s3"}
    put(
        warehouse,
        "umami/2026-03/session.csv",
        "session_id,website_id,visitor_id,distinct_id,created_at\n"
        "s1,shop,visitor,,2026-03-02 12:00:00\ns2,shop,visitor,,2026-03-03 12:00:00\ns3,shop,,,2026-03-03 12:00:00\n",
    )
    warehouse.settle()
    credited = {row["event_id"]: row["stitched_user_id"] for row in warehouse.rows("page_views_live")}
    assert credited == {"1": "ada", "2": "ada", "3": "s3"}
    assert warehouse.settle().runs == []


def test_custom_fields_nested_and_as_columns(new_warehouse: NewWarehouse) -> None:
    toml = """
        [feeds.app]
        source = "custom"
        project_id = "shop"
        times = "seconds"
        event_id_from = ["when", "meta.install"]
        event_types = { opened = "screen", "tapped/login" = "identify" }
        other_event_type = "track"
        [feeds.app.fields]
        occurred_at = "when"
        event_type = "what"
        event_name = "button"
        anonymous_id = "meta.install"
        user_id = ["properties.account_id", "ids[kind=account].value"]
        source_session_id = "meta.session"
        platform = "=mobile"
    """
    warehouse = new_warehouse(stitch_toml=toml)
    documents = [
        {"when": 1772452800, "what": "opened", "meta": {"install": "phone", "session": 1}},
        {"when": 1772452860.5, "what": "tapped", "button": "login", "meta": {"install": "phone", "session": 1}}
        | {"properties": {"account_id": 42}},
        {"when": 1772452900, "what": "tapped", "button": "buy", "meta": {"install": "tablet"}}
        | {"ids": [{"kind": "device", "value": "x"}, {"kind": "account", "value": "42"}]},
        {"when": "2026-03-02T12:00:00Z", "what": "opened", "meta": {"install": "phone"}},
    ]
    put(warehouse, "app/a.ndjson", "".join(json.dumps(document) + "\n" for document in documents))
    put(
        warehouse,
        "app/b.csv",
        'when,what,meta,ids\n1772452950,opened,"{""install"": ""phone""}",\n'
        '1772452960,opened,"{""install"": ""tv""}","[{""kind"": ""account"", ""value"": ""7""}]"\n',
    )
    warehouse.settle()
    rows = warehouse.query(
        "select event_type, platform, anonymous_id, user_id, stitched_user_id from stitch.stitched_events "
        "order by occurred_at"
    )
    assert [tuple(row.values()) for row in rows] == [
        ("screen", "mobile", "phone", None, "42"),
        ("identify", "mobile", "phone", "42", "42"),
        ("track", "mobile", "tablet", "42", "42"),
        ("screen", "mobile", "phone", None, "42"),
        ("screen", "mobile", "tv", "7", "7"),
    ]
    assert quarantined(warehouse) == {
        ("app/a.ndjson", 4): 'the event time "2026-03-02T12:00:00Z" cannot be read',
    }


def test_any_field_of_a_built_in_source_can_be_the_user_id(new_warehouse: NewWarehouse) -> None:
    warehouse = new_warehouse(stitch_toml='[feeds.jitsu.fields]\nuser_id = ["traits.email", "userId"]\n')
    login = {**SECOND, "type": "identify", "userId": "1001", "traits": {"email": "test@example.com"}}
    put(warehouse, "jitsu/a.ndjson", lines(FIRST, login))
    warehouse.settle()
    assert [row["stitched_user_id"] for row in warehouse.rows("stitched_sessions")] == ["test@example.com"] * 2
    assert [row["user_id"] for row in warehouse.rows("user_mapping")] == ["test@example.com"]
