"""Events that say that two ids are one, and identifiers that are neither traits nor properties: what they lead to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from warehouses import Row, Warehouse, ephemeral_warehouse

from stitch_pipeline.settings import SettingsError
from stitch_pipeline.stitching.explain import explain, sentences

STITCH_TOML = """
[feeds.jitsu]
[feeds.shop]
source = "jitsu"
[feeds.shop.fields]
previous_id = "context.page.url?_sp.0"
[feeds.shop.identifiers]
idfa = "context.device.idfa"
idfv = "context.device.idfv"

[projects.segment]
policy = "graph"
[projects.rudder]
policy = "graph"
[projects.rudder.identifiers.email]
paths = ["traits.email", "identifiers.email"]
normalise = ["trim", "lower"]
[projects.posthog]
policy = "graph"
[projects.handed]
policy = "graph"
[projects.handed.identifiers.idfa]
paths = "identifiers.idfa"
[projects.partly]
policy = "graph"
[projects.partly.identifiers.vendor]
paths = "identifiers.idfv"
[projects.strict]
link_on = "identify"
[projects.wrong]
policy = "graph"
"""
OVERRIDES = ["wrong,wrong_link,old,ann,", "wrong,wrong_link,one,device:two,"]


def segment(event_id: str, time: str, kind: str, project: str = "segment", **fields: Any) -> Row:
    return {"messageId": event_id, "projectId": project, "timestamp": f"2026-03-0{time}:00Z", "type": kind, **fields}


def posthog(event_id: str, time: str, event: str, distinct_id: str, **properties: Any) -> Row:
    return {
        "uuid": event_id,
        "team_id": "posthog",
        "timestamp": f"2026-03-0{time}:00Z",
        "event": event,
        "distinct_id": distinct_id,
        "properties": properties,
    }


BOTH = {"idfa": "EA7583CD", "idfv": "6D92078A"}
FILES: dict[str, list[Row]] = {
    "segment/a.ndjson": [
        segment("s1", "1T12:00", "page", anonymousId="browser"),
        segment("s2", "2T12:00", "identify", anonymousId="laptop", userId="jen@email.com"),
        segment("s3", "3T12:00", "alias", previousId="jen@email.com", userId="507f191e81"),
        segment("s4", "3T12:01", "alias", previousId="browser", userId="507f191e81"),
        segment("s5", "3T12:02", "alias", previousId="undefined", userId="507f191e81"),
        segment("s6", "4T12:00", "page", anonymousId="phone", userId="507f191e81"),
        # The same ids in another project, where nothing ties them.
        segment("s1", "1T12:00", "page", "other", anonymousId="browser"),
        segment("s2", "2T12:00", "page", "other", anonymousId="laptop", userId="507f191e81"),
        # Only events that say outright who is who.
        segment("l1", "1T12:00", "page", "strict", anonymousId="one"),
        segment("l2", "2T12:00", "alias", "strict", previousId="one", userId="ann"),
        segment("l3", "2T12:00", "page", "strict", anonymousId="two", userId="ann"),
        segment("l4", "3T12:00", "page", "strict", anonymousId="two"),
        # Two lines of overrides.csv say that these are wrong.
        segment("w1", "1T12:00", "page", "wrong", anonymousId="old"),
        segment("w2", "1T13:00", "page", "wrong", anonymousId="desk", userId="old"),
        segment("w3", "2T12:00", "alias", "wrong", previousId="old", userId="ann"),
        segment("w4", "3T12:00", "alias", "wrong", previousId="one", anonymousId="two"),
        segment("w5", "3T13:00", "identify", "wrong", anonymousId="two", userId="ann"),
        segment("w6", "3T13:00", "page", "wrong", anonymousId="one"),
    ],
    "rudderstack/a.ndjson": [
        segment("r1", "1T12:00", "identify", "rudder", anonymousId="pad", traits={"email": "Alex@example.com"}),
        segment(
            "r2",
            "2T12:00",
            "merge",
            "rudder",
            userId="1hKOmRA4GRlm",
            mergeProperties=[{"type": "email", "value": "alex@example.com"}, {"type": "mobile", "value": "+1-202"}],
        ),
    ],
    "posthog/a.jsonl": [
        posthog("p1", "1T12:00", "$pageview", "d1", **{"$device_id": "d1"}),
        posthog("p2", "1T13:00", "$identify", "ann", **{"$device_id": "d1"}),
        posthog("p3", "2T12:00", "$create_alias", "ann", **{"$device_id": "d1"}, alias="backend-7"),
        posthog("p4", "2T13:00", "order paid", "backend-7"),
        posthog("p5", "3T12:00", "$pageview", "bob", **{"$device_id": "d2"}),
        posthog("p6", "3T13:00", "$merge_dangerously", "ann", alias="bob"),
    ],
    "shop/a.ndjson": [
        segment("h1", "1T12:00", "page", "handed", anonymousId="blog"),
        segment(
            "h2",
            "1T12:05",
            "page",
            "handed",
            anonymousId="shop",
            context={"page": {"url": "https://shop.example/?_sp=blog.1767225600"}},
        ),
        segment("h3", "2T12:00", "identify", "handed", anonymousId="shop", userId="ann"),
        segment("h4", "3T12:00", "screen", "handed", anonymousId="app", context={"device": {"idfa": "EA7583CD"}}),
        segment(
            "h5", "4T12:00", "page", "handed", anonymousId="web", userId="zoe", context={"device": {"idfa": "EA7583CD"}}
        ),
        *(
            segment(f"{name}1", "4T12:00", "page", name, anonymousId=name, context={"device": BOTH})
            for name in ("partly", "neither")
        ),
    ],
}


@pytest.fixture(scope="module")
def stitched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warehouse]:
    with ephemeral_warehouse(tmp_path_factory.mktemp("previous"), stitch_toml=STITCH_TOML) as warehouse:
        warehouse.write_overrides(OVERRIDES)
        for landing_file, documents in FILES.items():
            warehouse.land(landing_file, documents)
        warehouse.settle()
        yield warehouse


CREDITED = {
    "segment": {
        **{"s1": "jen@email.com", "s2": "jen@email.com", "s3": "jen@email.com", "s4": "jen@email.com"},
        **{"s5": "jen@email.com", "s6": "jen@email.com"},
    },
    "other": {"s1": "browser", "s2": "507f191e81"},
    "strict": {"l1": "ann", "l2": "ann", "l3": "ann", "l4": "two"},
    "wrong": {"w1": "old", "w2": "old", "w3": "ann", "w4": "ann", "w5": "ann", "w6": "one"},
    "rudder": {"r1": "1hKOmRA4GRlm", "r2": "1hKOmRA4GRlm"},
    "posthog": {"p1": "ann", "p2": "ann", "p3": "ann", "p4": "ann", "p5": "ann", "p6": "ann"},
    "handed": {"h1": "ann", "h2": "ann", "h3": "ann", "h4": "zoe", "h5": "zoe"},
    "partly": {"partly1": "vendor:6D92078A"},
    "neither": {"neither1": "neither"},
}


@pytest.mark.parametrize("project", CREDITED)
def test_rows_follow_what_the_vendors_events_say(project: str, stitched: Warehouse) -> None:
    found = stitched.query(f"select * from stitch.stitched_events where project_id = '{project}'")
    assert {row["event_id"]: row["stitched_user_id"] for row in found} == CREDITED[project]


def test_an_id_that_only_an_alias_names_is_nobody_in_users(stitched: Warehouse) -> None:
    users = {(row["project_id"], row["stitched_user_id"]) for row in stitched.rows("users")}
    assert users == {
        ("segment", "jen@email.com"),
        *(("other", name) for name in ("browser", "507f191e81")),
        *(("strict", name) for name in ("ann", "two")),
        *(("wrong", name) for name in ("old", "ann", "one")),
        ("rudder", "1hKOmRA4GRlm"),
        ("posthog", "ann"),
        *(("handed", name) for name in ("ann", "zoe")),
        *(("partly", "vendor:6D92078A"), ("neither", "neither")),
    }


def test_an_event_keeps_the_identifiers_that_its_own_project_names(stitched: Warehouse) -> None:
    found = stitched.query("select event_id, identifiers from stitch.raw_events where identifiers is not null")
    assert {row["event_id"]: row["identifiers"] for row in found} == {
        "r2": '{"email":"alex@example.com"}',
        **dict.fromkeys(("h4", "h5"), '{"idfa":"EA7583CD"}'),
        "partly1": '{"idfv":"6D92078A"}',
    }


def test_the_guards_count_previous_ids(stitched: Warehouse) -> None:
    held = stitched.query(
        "select project_id, guard, found, event_count from stitch.guard_report where field = 'previous_id'"
    )
    assert sorted(tuple(row.values()) for row in held) == [
        ("segment", "blocked id", "undefined", 1),
        ("wrong", "wrong link", "old", 1),
        ("wrong", "wrong link", "one", 1),
    ]


def why(warehouse: Warehouse, project: str, device: str) -> tuple[list[tuple[str, str | None]], list[list[str]]]:
    explained = explain(warehouse.settings, project, device)
    named = [(candidate.user_id, candidate.event_type) for candidate in explained.candidates]
    return named, [sentences(row) for row in explained.rows if row.grain != "session"]


def test_why_shows_the_event_that_names_a_previous_id(stitched: Warehouse) -> None:
    named, rows = why(stitched, "segment", "browser")
    assert named == [("507f191e81", "alias")]
    assert rows == [
        ["#1 507f191e81 decides: the last link on the device within the lookback, to the person jen@email.com"]
    ]
    named, rows = why(stitched, "handed", "blog")
    assert named == [("device:shop", "page")]
    assert rows == [["#1 device:shop decides: the last link on the device within the lookback, to the person ann"]]
    named, rows = why(stitched, "wrong", "one")
    assert named == [("device:two", "alias")]
    assert rows == [["#1 device:two: no link, as decided: wrong_link one, device:two"]]


def test_a_kind_that_nothing_reads_is_refused(stitched: Warehouse) -> None:
    with pytest.raises(SettingsError, match=r"names 'identifiers\.idfo', and neither a source nor a feed says where"):
        stitched.write_stitch_toml('[projects.shop.identifiers.idfa]\npaths = "identifiers.idfo"\n')
    stitched.write_stitch_toml(STITCH_TOML)


def test_another_mapping_has_the_files_read_again(stitched: Warehouse) -> None:
    """The last test of this file: the files of the feed, and no others, are read by the new paths."""
    stitched.write_stitch_toml(STITCH_TOML.replace("context.device.idfa", "context.device.id"))
    assert any(run.job_name == "build_job" for run in stitched.settle().runs)
    found = stitched.query("select event_id from stitch.raw_events where identifiers is not null")
    assert {row["event_id"] for row in found} == {"r2", "partly1"}
    assert {row["stitched_user_id"] for row in stitched.rows("stitched_events") if row["event_id"] == "h4"} == {"app"}
