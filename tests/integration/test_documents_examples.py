"""The examples of the documents of Jitsu, Snowplow, Millimetric and Umami, event for event.

Each example is a project of one deployment. First the anonymous half of each story lands and everything comes
to rest; then the logins land and everything comes to rest again. So what is seen at the end was re-stitched.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pytest
from warehouses import Row, Warehouse, at, ephemeral_warehouse

STITCH_TOML = """
[projects.jitsu-21-days]
lookback_days = 21

[projects.jitsu-off]
stitching = false
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """The warehouse at the end (``now``), and what some of its tables held before the logins came."""
    directory: Path = tmp_path_factory.mktemp("documents")
    with ephemeral_warehouse(directory, stitch_toml=STITCH_TOML, start_date=date(2023, 1, 1)) as warehouse:
        warehouse.land("jitsu/1-anonymous.ndjson", JITSU_BEFORE)
        warehouse.land("snowplow/1-anonymous.ndjson", SNOWPLOW_BEFORE)
        warehouse.settle()
        before = warehouse.contents(("sessions", "stitched_sessions", "identity_map", "visitor_stats", "users"))
        warehouse.land("jitsu/2-logins.ndjson", JITSU_AFTER)
        warehouse.land("snowplow/2-logins.ndjson", SNOWPLOW_AFTER)
        warehouse.settle()
        yield {"now": warehouse, "before": before}


def jitsu(project: str, event_id: str, time: str, kind: str, device: str | None, user: Any = None, **more: Any) -> Row:
    """An event as Jitsu sends it; ``path``, ``traits``, ``name`` and ``source`` (as ``facebook/paid``) may be given."""
    document: Row = {
        "messageId": event_id,
        "projectId": project,
        "timestamp": time.replace(" ", "T") + "Z",
        "type": kind,
        "context": {"page": {"path": more.get("path", "/")}},
    }
    if "source" in more:
        document["context"]["campaign"] = dict(zip(("source", "medium"), more["source"].split("/"), strict=True))
    for name, value in (
        ("anonymousId", device),
        ("userId", user),
        ("traits", more.get("traits")),
        ("event", more.get("name")),
    ):
        if value is not None:
            document[name] = value
    return document


def snowplow(event_id: str, time: str, device: str, user: str | None = None) -> Row:
    """A row of ``atomic.events``, from the web tracker or, for a phone, from a mobile one."""
    row: Row = {"event_id": event_id, "app_id": "snowplow-overview", "derived_tstamp": time, "user_id": user}
    if device.startswith("phone"):
        session = [{"userId": device, "sessionId": f"{device}/{time[:10]}"}]
        screen = {"name": "Home", "id": event_id}
        return {
            **row,
            "platform": "mob",
            "event": "unstruct",
            "event_name": "screen_view",
            "unstruct_event_com_snowplowanalytics_mobile_screen_view_1": screen,
            "contexts_com_snowplowanalytics_snowplow_client_session_1": session,
        }
    web = {
        "platform": "web",
        "event": "page_view",
        "domain_userid": device,
        "domain_sessionid": f"{device}/{time[:10]}",
    }
    return {**row, **web, "page_urlpath": "/home"}


def jitsu_table(project: str) -> tuple[list[Row], list[Row]]:
    """Jitsu's own example, before and after the visitor signs up."""
    email = {"email": "test@example.com"}
    return [
        jitsu(project, "j1", "2023-01-01 00:00:00", "page", "abc123", path="/shop"),
        jitsu(project, "j2", "2023-01-01 00:01:00", "page", "abc123", path="/order"),
    ], [
        jitsu(project, "j3", "2023-01-23 00:00:00", "page", "abc123", path="/signup"),
        jitsu(project, "j4", "2023-01-23 00:01:00", "identify", "abc123", "1001", path="/signup", traits=email),
    ]


JITSU_TABLE, JITSU_21_DAYS, JITSU_OFF = map(jitsu_table, ("jitsu-table", "jitsu-21-days", "jitsu-off"))

JITSU_BEFORE = [
    *(event for before, _ in (JITSU_TABLE, JITSU_21_DAYS, JITSU_OFF) for event in before),
    # J7, U5: consent refused, private browsing: no anonymous id.
    jitsu("no-consent", "c1", "2023-01-02 10:00:00", "page", None),
    jitsu("no-consent", "c2", "2023-01-02 10:01:00", "page", "undefined"),
    jitsu("no-consent", "c3", "2023-01-02 10:02:00", "page", None, "member"),
    # Millimetric's six events, from day 1 to day 9.
    jitsu("millimetric", "m1", "2023-01-01 14:00:00", "page", "u_abc", source="facebook/paid", path="/landing"),
    jitsu("millimetric", "m2", "2023-01-01 14:02:00", "track", "u_abc", source="facebook/paid", name="clicked_pricing"),
    jitsu("millimetric", "m3", "2023-01-05 09:30:00", "page", "u_abc", source="direct/direct", path="/pricing"),
    # U3, U4: one person on two browsers, not known yet.
    jitsu("umami", "u1", "2023-01-03 09:00:00", "page", "v-laptop"),
    jitsu("umami", "u2", "2023-01-03 20:00:00", "page", "v-phone"),
    jitsu("umami", "u3", "2023-01-03 20:00:00", "page", "v-stranger"),
    # M8: the same ids in two projects.
    jitsu("tenant-a", "t1", "2023-01-04 09:00:00", "page", "same-device"),
    jitsu("tenant-b", "t1", "2023-01-04 09:00:00", "page", "same-device"),
    jitsu("blocked", "b0", "2023-01-04 09:00:00", "page", "b-device"),
    jitsu("switch", "w0", "2023-01-04 09:00:00", "page", "w-device"),
    jitsu("funnel", "f0", "2023-01-04 09:00:00", "page", "f-phone"),
]
BLOCKED = (
    "",
    " ",
    "null",
    "NULL",
    "undefined",
    '"undefined"',
    "[object Object]",
    "anonymous",
    "0",
    "-1",
    "N/A",
    "guest",
)
JITSU_AFTER = [
    *(event for _, after in (JITSU_TABLE, JITSU_21_DAYS, JITSU_OFF) for event in after),
    jitsu("millimetric", "m4", "2023-01-07 11:14:00", "identify", "u_abc", "user_42", traits={"plan": "pro"}),
    jitsu("millimetric", "m5", "2023-01-07 11:14:00", "track", "u_abc", "user_42", name="signup"),
    jitsu("millimetric", "m6", "2023-01-09 16:22:00", "track", "u_abc", "user_42", name="feature_used"),
    jitsu("umami", "u4", "2023-01-06 09:00:00", "page", "v-laptop"),
    jitsu("umami", "u5", "2023-01-06 10:00:00", "identify", "v-laptop", "user1"),
    jitsu("umami", "u6", "2023-01-06 11:00:00", "page", "v-laptop"),  # logged out, browses on
    jitsu("umami", "u7", "2023-01-06 12:00:00", "identify", "v-phone", "user1"),
    jitsu("umami", "u8", "2023-01-06 12:10:00", "page", "v-stranger"),
    jitsu("umami", "u9", "2023-01-08 12:00:00", "page", "v-laptop-cleared"),  # storage cleared
    jitsu("umami", "u10", "2023-01-08 12:01:00", "identify", "v-laptop-cleared", "user1"),
    jitsu("tenant-a", "t2", "2023-01-05 09:00:00", "identify", "same-device", "same-user", traits={"of": "a"}),
    jitsu("tenant-b", "t2", "2023-01-05 09:00:00", "page", "same-device"),
    jitsu("tenant-b", "t3", "2023-01-05 09:00:00", "identify", "other-device", "same-user", traits={"of": "b"}),
    *(
        jitsu("blocked", f"b{n}", f"2023-01-05 09:{n:02}:00", "identify", "b-device", value)
        for n, value in enumerate(BLOCKED, start=1)
    ),
    # M6: identify on every page, then out, then somebody else.
    *(jitsu("switch", f"w{n}", f"2023-01-05 09:0{n}:00", "identify", "w-device", "first") for n in (1, 2, 3)),
    jitsu("switch", "w4", "2023-01-05 09:04:00", "page", "w-device"),
    jitsu("switch", "w5", "2023-01-05 09:05:00", "identify", "w-device", "second"),
    jitsu("switch", "w6", "2023-01-05 09:06:00", "page", "w-device"),
    jitsu("funnel", "f1", "2023-01-05 09:00:00", "track", "f-laptop", "buyer", name="signup"),
    jitsu("funnel", "f2", "2023-01-07 21:00:00", "track", "f-phone", "buyer", name="completed_checkout"),
    jitsu("funnel", "f3", "2023-01-08 21:00:00", "track", "f-phone", "buyer", name="completed_checkout"),
]
SNOWPLOW_BEFORE = [
    snowplow("s1", "2023-01-02 08:00:00", "laptop"),
    snowplow("s2", "2023-01-03 08:00:00", "phone-1"),
    snowplow("s3", "2023-01-03 08:10:00", "kiosk"),
]
SNOWPLOW_AFTER = [
    snowplow("s4", "2023-01-05 08:00:00", "laptop"),
    snowplow("s5", "2023-01-05 08:05:00", "laptop", "ada"),
    snowplow("s6", "2023-01-06 08:00:00", "laptop"),
    snowplow("s7", "2023-01-07 08:00:00", "phone-1", "ada"),
    snowplow("s8", "2023-01-08 08:00:00", "phone-1"),
    snowplow("s9", "2023-01-08 08:10:00", "kiosk"),
    snowplow("s10", "2023-01-08 09:00:00", "tablet", "bob"),
]


def rows(told: dict[str, Any], sql: str, trait: str | None = None) -> list[tuple[Any, ...]]:
    """The rows of a query. With ``trait``, the last column is ``traits``, of which only that trait is given."""
    warehouse: Warehouse = told["now"]
    found = [tuple(row.values()) for row in warehouse.query(sql)]
    return found if trait is None else [(*row, json.loads(last or "{}").get(trait)) for *row, last in found]


def before(told: dict[str, Any], table: str, project: str) -> list[Row]:
    return [row for row in told["before"][table] if row["project_id"] == project]


def test_j3_all_four_events_carry_the_user_and_the_traits(told: dict[str, Any]) -> None:
    table = rows(
        told,
        "select occurred_at, event_type, page_path, anonymous_id, stitched_user_id, traits "
        "from stitch.stitched_events where project_id = 'jitsu-table' order by occurred_at",
        trait="email",
    )
    assert table == [
        (at("2023-01-01 00:00:00"), "page", "/shop", "abc123", "1001", "test@example.com"),
        (at("2023-01-01 00:01:00"), "page", "/order", "abc123", "1001", "test@example.com"),
        (at("2023-01-23 00:00:00"), "page", "/signup", "abc123", "1001", "test@example.com"),
        (at("2023-01-23 00:01:00"), "identify", "/signup", "abc123", "1001", "test@example.com"),
    ]


def test_j2_j4_tables_are_updated_in_place(told: dict[str, Any]) -> None:
    def credited(rows: list[Row]) -> list[tuple[Any, ...]]:
        return [
            (row["session_date"].day, row["event_count"], row["stitched_user_id"], row["stitched_by"]) for row in rows
        ]

    assert credited(before(told, "stitched_sessions", "jitsu-table")) == [(1, 2, "abc123", "none")]
    now = [row for row in told["now"].rows("stitched_sessions") if row["project_id"] == "jitsu-table"]
    assert sorted(credited(now)) == [(1, 2, "1001", "link after"), (23, 2, "1001", "own")]
    views = (
        "select event_id, stitched_user_id from stitch.page_views where project_id = 'jitsu-table' order by event_id"
    )
    assert rows(told, views) == [("j1", "1001"), ("j2", "1001"), ("j3", "1001")]
    users = (
        "select stitched_user_id, session_count, event_count, first_seen_at from stitch.users "
        "where project_id = 'jitsu-table'"
    )
    assert rows(told, users) == [("1001", 2, 4, at("2023-01-01 00:00:00"))]


def test_j2_the_window_is_configurable(told: dict[str, Any]) -> None:
    events = (
        "select event_id, stitched_user_id, stitched_by from stitch.stitched_events "
        "where project_id = 'jitsu-21-days' order by event_id"
    )
    assert rows(told, events) == [
        ("j1", "abc123", "none"),
        ("j2", "abc123", "none"),
        ("j3", "1001", "link after"),
        ("j4", "1001", "own"),
    ]


def test_j6_a_project_can_be_left_unstitched(told: dict[str, Any]) -> None:
    for table in ("stitched_sessions", "stitched_events", "page_views"):
        credited = f"select distinct stitched_user_id, stitched_by from stitch.{table} where project_id = 'jitsu-off'"
        assert rows(told, credited) == [("abc123", "off")]
    assert len(rows(told, "select 1 from stitch.identity_map where project_id = 'jitsu-off'")) == 1


def test_j7_u5_without_an_anonymous_id_an_event_is_kept_and_never_stitched(told: dict[str, Any]) -> None:
    events = (
        "select event_id, anonymous_id, user_id, stitched_user_id, stitched_by, linked_at "
        "from stitch.stitched_events where project_id = 'no-consent' order by event_id"
    )
    assert rows(told, events) == [
        ("c1", None, None, "c1", "none", None),
        ("c2", None, None, "c2", "none", None),
        ("c3", None, "member", "member", "own", None),
    ]
    views = (
        "select event_id, session_id, stitched_user_id from stitch.page_views "
        "where project_id = 'no-consent' order by event_id"
    )
    assert rows(told, views) == [("c1", None, "c1"), ("c2", None, "c2"), ("c3", None, "member")]
    for table in ("sessions", "identity_map"):
        assert rows(told, f"select * from stitch.{table} where project_id = 'no-consent'") == []
    # Who says who they are is a user, with no device.
    users = "select stitched_user_id, device_count, event_count from stitch.users where project_id = 'no-consent'"
    assert rows(told, users) == [("member", 0, 1)]


def test_s9_sessions_before_during_and_after_login_on_several_devices(told: dict[str, Any]) -> None:
    sessions = (
        "select extract(day from session_date), anonymous_id, platform, user_id, stitched_user_id, stitched_by "
        "from stitch.stitched_sessions where project_id = 'snowplow-overview' order by started_at"
    )
    assert rows(told, sessions) == [
        (2, "laptop", "web", None, "ada", "link after"),
        (3, "phone-1", "mobile", None, "ada", "link after"),
        (3, "kiosk", "web", None, "kiosk", "none"),
        (5, "laptop", "web", "ada", "ada", "own"),
        (6, "laptop", "web", None, "ada", "link before"),
        (7, "phone-1", "mobile", "ada", "ada", "own"),
        (8, "phone-1", "mobile", None, "ada", "link before"),
        (8, "kiosk", "web", None, "kiosk", "none"),
        (8, "tablet", "web", "bob", "bob", "own"),
    ]
    was = {
        row["anonymous_id"]: row["stitched_user_id"] for row in before(told, "stitched_sessions", "snowplow-overview")
    }
    assert was == {"laptop": "laptop", "phone-1": "phone-1", "kiosk": "kiosk"}


def test_s1_s3_mapping_and_users_say_the_same(told: dict[str, Any]) -> None:
    mapping = (
        "select anonymous_id, user_id, stitched_user_id from stitch.user_mapping "
        "where project_id = 'snowplow-overview' order by anonymous_id"
    )
    assert rows(told, mapping) == [
        ("kiosk", None, "kiosk"),
        ("laptop", "ada", "ada"),
        ("phone-1", "ada", "ada"),
        ("tablet", "bob", "bob"),
    ]
    users = (
        "select stitched_user_id, is_identified, session_count, device_count, first_seen_at, identified_at "
        "from stitch.users where project_id = 'snowplow-overview' order by stitched_user_id"
    )
    assert rows(told, users) == [
        ("ada", True, 6, 2, at("2023-01-02 08:00:00"), at("2023-01-05 08:05:00")),
        ("bob", True, 1, 1, at("2023-01-08 09:00:00"), at("2023-01-08 09:00:00")),
        ("kiosk", False, 2, 1, at("2023-01-03 08:10:00"), None),
    ]


def test_u3_logging_in_out_and_browsing_on_is_one_visitor(told: dict[str, Any]) -> None:
    stats = (
        "select page_views, visits, visitors, visitors_unstitched, bounces, total_time_seconds "
        "from stitch.visitor_stats where project_id = 'umami' and stat_date = date '2023-01-06'"
    )
    # user1 on two browsers, three visits on one of them, and the stranger.
    assert rows(told, stats) == [(3, 5, 2, 3, 3, 0.0)]


def test_u4_earlier_anonymous_sessions_are_credited_retroactively(told: dict[str, Any]) -> None:
    stats = (
        "select visits, visitors, visitors_unstitched from stitch.visitor_stats "
        "where project_id = 'umami' and stat_date = date '2023-01-03'"
    )
    was = [
        (row["visits"], row["visitors"], row["visitors_unstitched"]) for row in before(told, "visitor_stats", "umami")
    ]
    assert was == [(3, 3, 3)]
    assert rows(told, stats) == [(3, 2, 3)]


def test_u1_u6_a_cleared_storage_is_a_new_visitor_id_of_the_same_person(told: dict[str, Any]) -> None:
    links = "select anonymous_id, user_id from stitch.identity_map where project_id = 'umami' order by first_seen_at"
    assert rows(told, links) == [("v-laptop", "user1"), ("v-phone", "user1"), ("v-laptop-cleared", "user1")]
    stats = (
        "select visits, visitors, bounces, total_time_seconds from stitch.visitor_stats "
        "where project_id = 'umami' and stat_date = date '2023-01-08'"
    )
    assert rows(told, stats) == [(1, 1, 1, 60.0)]
    users = (
        "select stitched_user_id, device_count, session_count, event_count from stitch.users "
        "where project_id = 'umami' order by 1"
    )
    assert rows(told, users) == [("user1", 3, 7, 8), ("v-stranger", 1, 2, 2)]


def test_m2_m10_the_signup_is_credited_to_the_first_click(told: dict[str, Any]) -> None:
    first_touch = (
        "select stitched_user_id, first_touch_source, first_touch_medium, first_seen_at, first_touch_anonymous_id "
        "from stitch.user_first_touch where project_id = 'millimetric'"
    )
    assert rows(told, first_touch) == [("user_42", "facebook", "paid", at("2023-01-01 14:00"), "u_abc")]
    users = (
        "select stitched_user_id, event_count, first_touch_source, first_touch_medium, identified_at, "
        "traits from stitch.users where project_id = 'millimetric'"
    )
    assert rows(told, users, trait="plan") == [("user_42", 6, "facebook", "paid", at("2023-01-07 11:14"), "pro")]


def test_m1_m3_what_they_did_before_signing_in_in_order(told: dict[str, Any]) -> None:
    behaviour = (
        "select occurred_at, coalesce(event_name, event_type), utm_source, utm_medium, page_path "
        "from stitch.stitched_events where project_id = 'millimetric' "
        "and stitched_user_id = 'user_42' and user_id is null order by occurred_at"
    )
    assert rows(told, behaviour) == [
        (at("2023-01-01 14:00"), "page", "facebook", "paid", "/landing"),
        (at("2023-01-01 14:02"), "clicked_pricing", "facebook", "paid", "/"),
        (at("2023-01-05 09:30"), "page", "direct", "direct", "/pricing"),
    ]
    raw = (
        "select event_id from stitch.raw_events where project_id = 'millimetric' and user_id is null order by event_id"
    )
    assert rows(told, raw) == [("m1",), ("m2",), ("m3",)]


def test_m4_time_to_conversion(told: dict[str, Any]) -> None:
    columns = "stitched_user_id, event_name, first_seen_at, converted_at, hours_since_first_seen, "
    columns += "days_since_previous_conversion"
    six_events = f"select {columns} from stitch.user_conversions where project_id = 'millimetric'"
    assert rows(told, six_events) == [
        ("user_42", "signup", at("2023-01-01 14:00"), at("2023-01-07 11:14"), pytest.approx(141.2333, abs=0.0001), None)
    ]
    funnel = f"select {columns} from stitch.user_conversions where project_id = 'funnel' order by funnel_position"
    first_seen = at("2023-01-04 09:00")  # on the phone, before anybody knew
    assert rows(told, funnel) == [
        ("buyer", "signup", first_seen, at("2023-01-05 09:00"), 24.0, None),
        ("buyer", "completed_checkout", first_seen, at("2023-01-07 21:00"), 84.0, 2.5),
    ]


def test_m5_devices_per_user(told: dict[str, Any]) -> None:
    devices = (
        "select user_id, anonymous_id, first_seen_at, last_seen_at, event_count from stitch.user_devices "
        "where project_id = 'funnel' order by anonymous_id"
    )
    assert rows(told, devices) == [
        ("buyer", "f-laptop", at("2023-01-05 09:00"), at("2023-01-05 09:00"), 1),
        ("buyer", "f-phone", at("2023-01-07 21:00"), at("2023-01-08 21:00"), 2),
    ]
    with_many = (
        "select user_id, count(*) from stitch.user_devices where project_id in ('funnel', 'umami') "
        "and last_seen_at > timestamp '2023-01-31' - interval '90' day group by user_id having count(*) > 1 order by 1"
    )
    assert rows(told, with_many) == [("buyer", 2), ("user1", 3)]


def test_m6_repeated_identify_is_one_link_and_switching_accounts_another(told: dict[str, Any]) -> None:
    links = (
        "select user_id, event_count, first_event_id, first_seen_at, last_seen_at from stitch.identity_map "
        "where project_id = 'switch' order by first_seen_at"
    )
    assert rows(told, links) == [
        ("first", 3, "w1", at("2023-01-05 09:01"), at("2023-01-05 09:03")),
        ("second", 1, "w5", at("2023-01-05 09:05"), at("2023-01-05 09:05")),
    ]
    users = "select stitched_user_id, event_count from stitch.users where project_id = 'switch'"
    assert rows(told, users) == [("second", 7)]  # the last authenticated


def test_m7_values_sent_by_mistake_never_link(told: dict[str, Any]) -> None:
    assert rows(told, "select * from stitch.identity_map where project_id = 'blocked'") == []
    users = "select stitched_user_id, is_identified, event_count from stitch.users where project_id = 'blocked'"
    assert rows(told, users) == [("b-device", False, 1 + len(BLOCKED))]
    sent = (
        "select blocked_user_id from stitch.raw_events "
        "where project_id = 'blocked' and event_type = 'identify' order by occurred_at"
    )
    assert [value for (value,) in rows(told, sent)] == [value or None for value in BLOCKED]


def test_m8_the_same_ids_in_two_projects_are_two_people(told: dict[str, Any]) -> None:
    users = (
        "select project_id, stitched_user_id, device_count, event_count, traits from stitch.users "
        "where project_id like 'tenant-%' order by 1, 2"
    )
    assert rows(told, users, trait="of") == [
        ("tenant-a", "same-user", 1, 2, "a"),
        ("tenant-b", "same-device", 1, 2, None),
        ("tenant-b", "same-user", 1, 1, "b"),
    ]
    events = (
        "select project_id, event_id, stitched_user_id, traits from stitch.stitched_events "
        "where project_id like 'tenant-%' order by 1, 2"
    )
    assert rows(told, events, trait="of") == [
        ("tenant-a", "t1", "same-user", "a"),
        ("tenant-a", "t2", "same-user", "a"),
        ("tenant-b", "t1", "same-device", None),
        ("tenant-b", "t2", "same-device", None),
        ("tenant-b", "t3", "same-user", "b"),
    ]


def test_sessions_are_not_touched_by_a_restitch(told: dict[str, Any]) -> None:
    now = told["now"].rows("sessions")
    assert all(row in now for row in told["before"]["sessions"])
    assert min(row["started_at"] for row in now) == datetime(2023, 1, 1)
