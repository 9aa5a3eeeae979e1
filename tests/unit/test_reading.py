"""Landed files as canonical events: every row comes out, as an event or with the reason why not."""

import csv
import gzip
import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest

from stitch_pipeline.landing import reading
from stitch_pipeline.landing.landed_file import LandedFile, UnreadableFile
from stitch_pipeline.landing.parser import Parser
from stitch_pipeline.landing.reading import EventBatch, ReadingRules
from stitch_pipeline.settings.project_file import kinds_of_identifiers
from stitch_pipeline.sources import SOURCES

ARRIVED = datetime(2025, 2, 1, 12, tzinfo=UTC)
RULES = ReadingRules(
    start_date=date(2025, 1, 1),
    blocked_ids=(("shop", "Test's user"),),
    identifiers=tuple((project, tuple(kinds_of_identifiers({}))) for project in ("default", "shop", "web")),
)
JITSU_EVENT: dict[str, Any] = {
    "messageId": "m1",
    "timestamp": "2025-01-10T12:00:00.250+01:00",
    "receivedAt": "2025-01-10T11:00:03Z",
    "type": "page",
    "projectId": "shop",
    "anonymousId": "abc",
    "userId": 1001,
    "context": {
        "page": {"url": "https://shop.example/p/1?x=2#top", "title": "", "referrer": "https://a.example/"},
        "campaign": {"source": "facebook", "medium": "paid", "name": "spring"},
    },
    "traits": {"email": "a@example.com"},
    "properties": {},
}
SNOWPLOW_EVENT: dict[str, Any] = {
    "app_id": "shop",
    "platform": "mob",
    "collector_tstamp": "2025-01-10 11:00:03.000",
    "derived_tstamp": "2025-01-10 11:00:00.250",
    "event": "unstruct",
    "event_name": "screen_view",
    "event_id": "e1",
    "user_id": "",
    "domain_userid": "",
    "contexts_com_snowplowanalytics_snowplow_client_session_1": [{"userId": "phone-1", "sessionId": "s-1"}],
    "unstruct_event_com_snowplowanalytics_mobile_screen_view_1": {"name": "Home"},
}


@pytest.fixture
def con() -> duckdb.DuckDBPyConnection:
    con = duckdb.connect()
    con.execute("set TimeZone = 'UTC'")
    return con


def landed(path: Path, source: str, project_id: str | None = None) -> LandedFile:
    arrived_ns = int(ARRIVED.timestamp() * 1_000_000_000)
    return LandedFile(path, f"{source}/{path.name}", SOURCES[source], path.stat().st_size, arrived_ns, project_id)


def alone(parser: Parser, file: LandedFile) -> EventBatch:
    return EventBatch(parser.shape_of(file), (file,), RULES)


def rows(con: duckdb.DuckDBPyConnection, file: LandedFile) -> list[dict[str, Any]]:
    with Parser() as parser:
        sql = reading.rows_sql(alone(parser, file))
    con.execute("set disabled_optimizers = 'filter_pushdown'")
    result = con.execute(sql)
    names = [column[0] for column in result.description]
    return [dict(zip(names, row, strict=True)) for row in result.fetchall()]


def ndjson(path: Path, *events: Any) -> Path:
    path.write_text("".join((event if isinstance(event, str) else json.dumps(event)) + "\n" for event in events))
    return path


def test_jitsu_json_becomes_a_canonical_event(con: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    (row,) = rows(con, landed(ndjson(tmp_path / "a.ndjson", JITSU_EVENT), "jitsu"))
    assert row["reason"] is None
    expected = {
        "source": "jitsu",
        "event_id": "m1",
        "project_id": "shop",
        "occurred_at": datetime(2025, 1, 10, 11, 0, 0, 250_000),
        "received_at": datetime(2025, 1, 10, 11, 0, 3),
        "event_date": date(2025, 1, 10),
        "event_type": "page",
        "platform": "web",
        "anonymous_id": "abc",
        "user_id": "1001",
        "page_path": "/p/1",
        "page_title": None,
        "referrer": "https://a.example/",
        "utm_source": "facebook",
        "utm_medium": "paid",
        "utm_campaign": "spring",
        "traits": '{"email":"a@example.com"}',
        "properties": None,
        "landing_file": "jitsu/a.ndjson",
    }
    assert {name: row[name] for name in expected} == expected


def test_snowplow_columns_read_alike_from_ndjson_csv_and_parquet(
    con: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    flat = {
        key: json.dumps(value) if isinstance(value, list | dict) else value for key, value in SNOWPLOW_EVENT.items()
    }
    with (tmp_path / "a.csv").open("w", newline="") as text:
        writer = csv.DictWriter(text, list(flat))
        writer.writeheader()
        writer.writerow(flat)
    document = ndjson(tmp_path / "a.ndjson", SNOWPLOW_EVENT)
    con.execute(f"copy (from read_json('{document}')) to '{tmp_path}/a.parquet'")
    con.execute(f"copy (from read_csv('{tmp_path}/a.csv', all_varchar = true)) to '{tmp_path}/b.parquet'")
    read = [
        rows(con, landed(tmp_path / name, "snowplow"))[0] for name in ("a.ndjson", "a.csv", "a.parquet", "b.parquet")
    ]
    for row in read:
        assert row["reason"] is None
        assert row["occurred_at"] == datetime(2025, 1, 10, 11, 0, 0, 250_000)
        assert (row["event_type"], row["event_name"], row["platform"]) == ("screen", "screen_view", "mobile")
        assert (row["anonymous_id"], row["user_id"], row["source_session_id"]) == ("phone-1", None, "s-1")
        assert (row["page_path"], row["project_id"]) == ("Home", "shop")


def test_gzip_crlf_byte_order_mark_and_blank_lines_are_read(con: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    text = "\ufeff" + json.dumps(JITSU_EVENT) + "\r\n\r\n   \r\n" + json.dumps({**JITSU_EVENT, "messageId": "m2"})
    path = tmp_path / "a.ndjson.gz"
    path.write_bytes(gzip.compress(text.encode()))
    assert [row["event_id"] for row in rows(con, landed(path, "jitsu"))] == ["m1", "m2"]


@pytest.mark.parametrize(
    ("change", "field", "reason"),
    [
        ({"messageId": ""}, "messageId", "there is no event id"),
        ({"timestamp": None}, "timestamp or originalTimestamp", "there is no event time"),
        ({"timestamp": "soon"}, "timestamp or originalTimestamp", 'the event time "soon" cannot be read'),
        ({"timestamp": "2024-12-31T23:59:59Z"}, "timestamp or originalTimestamp", "before the start date 2025-01-01"),
        ({"timestamp": "2025-01-11T11:00:04Z"}, "timestamp or originalTimestamp", "more than one day after"),
        ({"type": ""}, "type", "there is no event type"),
    ],
)
def test_a_row_that_cannot_be_an_event_says_which_field_why_and_what_helps(
    change: dict[str, Any], field: str, reason: str, con: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    (row,) = rows(con, landed(ndjson(tmp_path / "a.ndjson", {**JITSU_EVENT, **change}), "jitsu"))
    assert row["field"] == field
    assert reason in row["reason"]
    assert row["remedy"]
    assert row["event_date"] is None


@pytest.mark.parametrize("kind", ["timestamp", "timestamptz", "timestamp_ns"])
def test_times_that_are_no_text_are_judged_alike(kind: str, con: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    con.execute(
        f"""
        copy (
          select 'shop' as app_id, 'e' || number as event_id, 'struct' as event, time::{kind} as derived_tstamp,
            arrival::{kind} as collector_tstamp
          from (values
            (1, '2025-01-10 11:00:00.25', '2025-01-10 11:00:03'), (2, null, null),
            (3, '2024-12-31 23:59:59', '2025-01-10 11:00:03'), (4, '2025-01-11 11:00:04', '2025-01-10 11:00:03')
          ) as events (number, time, arrival)
        ) to '{path}'
        """
    )
    read = {row["event_id"]: row for row in rows(con, landed(path, "snowplow"))}
    assert read["e1"]["reason"] is None
    assert read["e1"]["occurred_at"] == datetime(2025, 1, 10, 11, 0, 0, 250_000)
    assert {row["reason"] for row in read.values()} - {None} == {
        "there is no event time",
        'the event time "2024-12-31 23:59:59" is before the start date 2025-01-01',
        'the event time "2025-01-11 11:00:04" is more than one day after the event arrived',
    }


def test_an_event_at_the_very_start_and_one_day_ahead_of_its_arrival_are_events(
    con: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    first = {**JITSU_EVENT, "timestamp": "2025-01-01T00:00:00Z"}
    ahead = {**JITSU_EVENT, "timestamp": "2025-01-11T11:00:03Z"}
    unknown = {**JITSU_EVENT, "timestamp": (ARRIVED + timedelta(days=1)).isoformat(), "receivedAt": None}
    read = rows(con, landed(ndjson(tmp_path / "a.ndjson", first, ahead, unknown), "jitsu"))
    assert [row["reason"] for row in read] == [None, None, None]


def test_a_field_that_changes_its_type_spoils_its_row_only(con: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    file = landed(
        ndjson(tmp_path / "a.ndjson", JITSU_EVENT, {**JITSU_EVENT, "context": "none"}, "[1, 2]", "{", JITSU_EVENT),
        "jitsu",
    )
    read = rows(con, file)
    assert [row["reason"] for row in read] == [
        None,
        None,
        "there is no event id",
        "not valid JSON",
        None,
    ]
    assert read[1]["page_url"] is None


BLOCKED = [
    "null",
    " NULL ",
    '"undefined"',
    "'None'",
    "nil",
    "NaN",
    "[object Object]",
    "anonymous",
    "Guest",
    "unknown",
    "N/A",
    "true",
    "false",
    "0",
    "-1",
    "id",
    "distinct_id",
    "not_authenticated",
    "00000000-0000-0000-0000-000000000000",
    "`00000000-0000-0000-0000-000000000000`",
    ' "00000000000000000000000000000000"',
    "  ",
    "test's USER",
]


@pytest.mark.parametrize("value", BLOCKED)
def test_blocked_ids_are_no_identity_but_are_kept_to_be_seen(
    value: str, con: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    event = {**JITSU_EVENT, "anonymousId": value, "userId": value}
    (row,) = rows(con, landed(ndjson(tmp_path / "a.ndjson", event), "jitsu"))
    assert (row["reason"], row["anonymous_id"], row["user_id"]) == (None, None, None)
    assert (row["blocked_anonymous_id"], row["blocked_user_id"]) == (value, value)


@pytest.mark.parametrize("value", ["10", "nullable", "user-null", "a0", "00000000-0000-0000-0000-000000000001"])
def test_ids_that_only_resemble_blocked_ones_are_identities(
    value: str, con: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    (row,) = rows(con, landed(ndjson(tmp_path / "a.ndjson", {**JITSU_EVENT, "userId": value}), "jitsu"))
    assert (row["user_id"], row["blocked_user_id"]) == (value, None)


def test_another_projects_blocked_ids_do_not_apply(con: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    event = {**JITSU_EVENT, "projectId": "blog", "userId": "Test's user"}
    (row,) = rows(con, landed(ndjson(tmp_path / "a.ndjson", event), "jitsu"))
    assert row["user_id"] == "Test's user"


def test_a_feed_may_say_which_project_its_events_belong_to(con: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    (row,) = rows(con, landed(ndjson(tmp_path / "a.ndjson", JITSU_EVENT), "jitsu", project_id="o'brien"))
    assert row["project_id"] == "o'brien"


def test_lines_are_numbered_as_they_stand_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.ndjson"
    path.write_bytes(
        json.dumps(JITSU_EVENT).encode() + b"\n\n{\n\xff\xfe not text\n" + json.dumps(JITSU_EVENT).encode()
    )
    with Parser() as parser:
        parser.forget_refused_lines()
        sql = reading.numbered_rows_sql(alone(parser, landed(path, "jitsu")))
        found = parser.rows(f"select line, reason, raw_row from ({sql}) order by line")
        refused = parser.rows(f"select line from ({parser.refused_lines_sql()})")
    assert [(line, reason) for line, reason, _ in found] == [(1, None), (3, "not valid JSON"), (4, None)]
    assert found[1][2] == "{"
    assert [line for (line,) in refused] == [4]


def test_a_file_without_a_readable_structure_says_so(tmp_path: Path) -> None:
    with Parser() as parser:
        (tmp_path / "a.xlsx").write_text("?")
        with pytest.raises(UnreadableFile, match="its type is not one of"):
            parser.shape_of(landed(tmp_path / "a.xlsx", "jitsu"))
        (tmp_path / "a.csv").write_text("event_id,event_id\n1,2\n")
        with pytest.raises(UnreadableFile, match="header with distinct column names"):
            parser.shape_of(landed(tmp_path / "a.csv", "snowplow"))


def test_names_and_values_with_quotes_do_not_become_sql(con: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    directory = tmp_path / "it's; drop"
    directory.mkdir()
    path = directory / "o'clock.csv"
    path.write_text('event_id,"x""y\'",app_id,event,derived_tstamp\n"a\'b",1,shop,page_view,2025-01-10 00:00:00\n')
    (row,) = rows(con, landed(path, "snowplow"))
    assert (row["event_id"], row["reason"]) == ("a'b", None)


ENVELOPE = {"messageId": "m1", "projectId": "shop", "timestamp": "2025-01-10T12:00:00Z"}
POSTHOG = {"uuid": "e1", "timestamp": "2025-01-10T12:00:00Z", "team_id": "shop"}
# What each vendor sends: the canonical type of the event, its device, its user and its previous id.
MERGING: dict[str, tuple[str, dict[str, Any], tuple[str | None, ...]]] = {
    # https://segment.com/docs/connections/spec/alias/
    "alias of a user": (
        "segment",
        {**ENVELOPE, "type": "alias", "previousId": "jen@email.com", "userId": "507f191e81"},
        ("alias", None, "507f191e81", "jen@email.com"),
    ),
    # https://www.rudderstack.com/docs/event-spec/standard-events/alias/: either of the two ids may be missing.
    "alias without a user": (
        "rudderstack",
        {**ENVELOPE, "type": "alias", "previousId": "old", "anonymousId": "new"},
        ("alias", "new", None, "old"),
    ),
    "no alias": (
        "jitsu",
        {**ENVELOPE, "type": "track", "previousId": "old", "anonymousId": "new"},
        ("track", "new", None, None),
    ),
    "previous id that is none": (
        "segment",
        {**ENVELOPE, "type": "alias", "previousId": {"id": 1}, "userId": "ann"},
        ("alias", None, "ann", None),
    ),
    "single table": (
        "jitsu",
        {"message_id": "m1", "timestamp": "2025-01-10T12:00:00Z", "type": "alias", "user_id": "u", "previous_id": "d"},
        ("alias", None, "u", "d"),
    ),
    # https://posthog.com/docs/product-analytics/identify: sent by a server, with a user's id in both places.
    "merge of a server": (
        "posthog",
        {**POSTHOG, "event": "$merge_dangerously", "distinct_id": "keep", "properties": {"alias": "merged"}},
        ("merge", None, "keep", "merged"),
    ),
    "alias in a browser": (
        "posthog",
        {
            **POSTHOG,
            "event": "$create_alias",
            "distinct_id": "ann",
            "properties": {"$device_id": "d1", "alias": "backend-1"},
        },
        ("alias", "d1", "ann", "backend-1"),
    ),
    "alias in a browser without a login": (
        "posthog",
        {**POSTHOG, "event": "$create_alias", "distinct_id": "d1", "properties": {"$device_id": "d1", "alias": "d2"}},
        ("alias", "d1", None, "d2"),
    ),
    "property of that name": (
        "posthog",
        {**POSTHOG, "event": "$pageview", "distinct_id": "d1", "properties": {"alias": "d2"}},
        ("page", "d1", None, None),
    ),
}


@pytest.mark.parametrize("case", MERGING)
def test_events_that_say_that_two_ids_are_one(case: str, con: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    source, event, expected = MERGING[case]
    (row,) = rows(con, landed(ndjson(tmp_path / "a.ndjson", event), source))
    assert row["reason"] is None
    assert tuple(row[name] for name in ("event_type", "anonymous_id", "user_id", "previous_id")) == expected


def test_a_table_of_aliases_is_read(con: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    (tmp_path / "aliases.csv").write_text("id,timestamp,user_id,previous_id\nm1,2025-01-10 12:00:00,ann,d1\n")
    (row,) = rows(con, landed(tmp_path / "aliases.csv", "segment"))
    assert (row["event_type"], row["user_id"], row["previous_id"]) == ("alias", "ann", "d1")


@pytest.mark.parametrize("value", BLOCKED[1:4])
def test_a_blocked_previous_id_is_none(value: str, con: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    event = {**ENVELOPE, "type": "alias", "previousId": value, "userId": "ann"}
    (row,) = rows(con, landed(ndjson(tmp_path / "a.ndjson", event), "segment"))
    assert (row["previous_id"], row["blocked_previous_id"]) == (None, value)


def test_properties_of_a_table_are_as_without_a_previous_id(con: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    event = {"message_id": "m1", "timestamp": "2025-01-10T12:00:00Z", "type": "track", "previous_id": "p", "color": "c"}
    (row,) = rows(con, landed(ndjson(tmp_path / "a.ndjson", event), "jitsu"))
    assert (row["previous_id"], row["properties"]) == (None, '{"previous_id":"p","color":"c"}')


IDENTIFIERS: dict[str, tuple[str, dict[str, Any], dict[str, str]]] = {
    "segment": (
        "segment",
        {
            **ENVELOPE,
            "type": "track",
            "context": {
                "device": {"id": "B5372DB0", "advertisingId": "7A3CBEA0"},
                "externalIds": [{"id": "a@example.com", "type": "email"}, {"id": "x-1", "type": "cross_domain_id"}],
            },
        },
        {"device_id": "B5372DB0", "advertising_id": "7A3CBEA0", "cross_domain_id": "x-1"},
    ),
    # https://www.rudderstack.com/docs/event-spec/standard-events/merge/
    "rudderstack": (
        "rudderstack",
        {
            **ENVELOPE,
            "type": "merge",
            "userId": "1hKOmRA4GRlm",
            "mergeProperties": [
                {"type": "email", "value": "alex@example.com"},
                {"type": "mobile", "value": "+1-202-555-0146"},
            ],
        },
        {"email": "alex@example.com", "mobile": "+1-202-555-0146"},
    ),
    "snowplow": (
        "snowplow",
        {**SNOWPLOW_EVENT, "domain_userid": "web-1", "network_userid": "n-1"},
        {"network_userid": "n-1", "domain_userid": "web-1"},
    ),
    "posthog": (
        "posthog",
        {**POSTHOG, "event": "$pageview", "distinct_id": "ann", "properties": {"$device_id": "d1"}},
        {"device_id": "d1"},
    ),
    "none of them": ("segment", {**ENVELOPE, "type": "track", "context": {}}, {}),
}


@pytest.mark.parametrize("case", IDENTIFIERS)
def test_identifiers_of_an_event(case: str, con: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    source, event, expected = IDENTIFIERS[case]
    (row,) = rows(con, landed(ndjson(tmp_path / "a.ndjson", event), source))
    assert json.loads(row["identifiers"] or "{}") == expected
