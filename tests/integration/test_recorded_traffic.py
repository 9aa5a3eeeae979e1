"""Events as the official clients sent them and their vendors land them, stitched from files to people.

Every format holds the same journey (``tests/fixtures/recorded/README.md``): a laptop browses, logs in a week later and
browses on; a phone browses and logs in as the same user; a stranger looks at one product.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from warehouses import Warehouse, ephemeral_warehouse

RECORDED = Path(__file__).resolve().parent.parent / "fixtures" / "recorded" / "landed"
LAPTOP = "a1a1a1a1-0000-4000-8000-000000000001"
PHONE = "b2b2b2b2-0000-4000-8000-000000000002"
STRANGER = "c3c3c3c3-0000-4000-8000-000000000003"
USER = "user-1001"
# Umami names a visitor without a visitor id by the session; GA4 has ids of its own.
DEVICES = {
    "ga4_json": ("1111111111.1772442000", "2222222222.1773126900", "3333333333.1773144000"),
    "ga4_parquet": ("1111111111.1772442000", "2222222222.1773126900", "3333333333.1773144000"),
    **dict.fromkeys(
        ("umami_postgres", "umami_parquet", "umami_clickhouse"),
        (LAPTOP, PHONE, "b549b7ef-6c79-5897-ac46-7ec1a04f1323"),
    ),
}
# In Umami's PostgreSQL tables a session with a user has no device that can be trusted but itself.
IDENTIFIED_SESSIONS = dict.fromkeys(("umami_postgres", "umami_parquet"), "dc425914-d113-5fc2-8eb6-32a818851ea8")

FORMATS: dict[str, tuple[str, tuple[str, ...]]] = {
    "jitsu_events": ("jitsu", ("jitsu.ndjson",)),
    "jitsu_nested": ("jitsu", ("jitsu_single_table.ndjson",)),
    "jitsu_flat": ("jitsu", ("jitsu_single_table.csv",)),
    "segment_events": ("segment", ("segment.ndjson",)),
    "segment_tables": (
        "segment",
        (
            *("segment_pages.csv", "segment_tracks.csv", "segment_identifies.csv", "segment_product_viewed.csv"),
            "segment_users.csv",
        ),
    ),
    "rudderstack_events": ("rudderstack", ("rudderstack.ndjson",)),
    "rudderstack_tables": (
        "rudderstack",
        (
            *("rudderstack_pages.csv", "rudderstack_tracks.csv", "rudderstack_identifies.csv"),
            "rudderstack_users.csv",
        ),
    ),
    "snowplow_tsv": ("snowplow", ("snowplow_enriched.tsv",)),
    "snowplow_csv": ("snowplow", ("snowplow_events.csv",)),
    "snowplow_ndjson": ("snowplow", ("snowplow_events.ndjson",)),
    "snowplow_parquet": ("snowplow", ("snowplow_events.parquet",)),
    "millimetric_table": ("millimetric", ("millimetric.ndjson",)),
    "umami_postgres": (
        "umami",
        ("umami_website_event.csv", "umami_session.csv", "umami_identity_link.csv", "umami_session_data.csv"),
    ),
    "umami_parquet": (
        "umami",
        ("umami_website_event.parquet", "umami_session.parquet", "umami_identity_link.parquet"),
    ),
    "umami_clickhouse": ("umami", ("umami_clickhouse_website_event.csv", "umami_identity_link.csv")),
    "ga4_json": ("ga4", ("ga4.ndjson",)),
    "ga4_parquet": ("ga4", ("ga4.parquet",)),
    "posthog_json": ("posthog", ("posthog.jsonl",)),
    "posthog_parquet": ("posthog", ("posthog.parquet",)),
    "posthog_postgres": ("posthog", ("posthog_postgres.csv",)),
}
# Of the identifiers that sources know, those that the recorded clients sent, by the device that they came with.
IDENTIFIERS: dict[str, tuple[str, dict[str, str]]] = {
    "snowplow": (
        "network_userid",
        {LAPTOP: "bad4f88a-0586-5048-a83a-3e476feee373", STRANGER: "9d2e7864-e945-5d74-bfd1-d07d7f8e6eae"},
    ),
    "posthog": ("device_id", {LAPTOP: LAPTOP, PHONE: PHONE, STRANGER: STRANGER}),
}
TOML = "".join(
    f'[feeds.{feed}]\nsource = "{source}"\nproject_id = "{feed}"\n' for feed, (source, _) in FORMATS.items()
) + "".join(
    f'[projects.{feed}.identifiers.other]\npaths = "identifiers.{IDENTIFIERS[source][0]}"\n'
    for feed, (source, _) in FORMATS.items()
    if source in IDENTIFIERS
)


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warehouse]:
    with ephemeral_warehouse(tmp_path_factory.mktemp("recorded"), stitch_toml=TOML) as warehouse:
        for feed, (_, files) in FORMATS.items():
            (warehouse.settings.landing_dir / feed).mkdir()
            for file in files:
                shutil.copy(RECORDED / file, warehouse.settings.landing_dir / feed)
        warehouse.settle()
        yield warehouse


def journey(warehouse: Warehouse, feed: str) -> list[tuple[str, ...]]:
    """Time to the minute, type, device and stitched user of the feed's events, GA4's extra ones left out."""
    rows = warehouse.query(
        "select occurred_at, event_type, anonymous_id, stitched_user_id "
        f"from stitch.stitched_events where project_id = '{feed}' "
        "and coalesce(event_name, '') not in ('first_visit', 'session_start') order by occurred_at, event_id"
    )
    return [(f"{row.pop('occurred_at'):%d %H:%M}", *row.values()) for row in rows]


def expected_journey(feed: str) -> list[tuple[str, ...]]:
    laptop, phone, stranger = DEVICES.get(feed, (LAPTOP, PHONE, STRANGER))
    login = "track" if feed.startswith("ga4") else "identify"
    return [
        ("02 09:00", "page", laptop, USER),
        ("02 09:01", "page", laptop, USER),
        ("02 09:02", "track", laptop, USER),
        ("09 18:30", login, laptop, USER),
        ("09 18:30", "page", IDENTIFIED_SESSIONS.get(feed, laptop), USER),
        ("10 07:15", "screen" if feed.startswith("snowplow") else "page", phone, USER),
        ("10 07:16", login, phone, USER),
        ("10 12:00", "track", stranger, stranger),
    ]


@pytest.mark.parametrize("feed", FORMATS)
def test_the_journey_is_credited_to_one_person_in_every_format(warehouse: Warehouse, feed: str) -> None:
    assert journey(warehouse, feed) == expected_journey(feed)


@pytest.mark.parametrize("feed", [feed for feed, (source, _) in FORMATS.items() if source in IDENTIFIERS])
def test_the_identifiers_of_a_source_are_found_in_every_format(warehouse: Warehouse, feed: str) -> None:
    kind, expected = IDENTIFIERS[FORMATS[feed][0]]
    rows = warehouse.query(
        "select distinct anonymous_id, identifiers from stitch.raw_events "
        f"where project_id = '{feed}' and identifiers is not null"
    )
    assert {row["anonymous_id"]: json.loads(row["identifiers"]) for row in rows} == {
        device: {kind: value} for device, value in expected.items()
    }
    links = warehouse.query(f"select distinct id_kind, id from stitch.identifier_links where project_id = '{feed}'")
    assert {(row["id_kind"], row["id"]) for row in links} == {("other", value) for value in expected.values()}


def test_no_row_of_any_format_is_quarantined(warehouse: Warehouse) -> None:
    assert warehouse.rows("quarantined_events") == []


def test_the_table_of_one_event_repeats_the_rows_of_tracks(warehouse: Warehouse) -> None:
    rows = warehouse.query("select project_id, event_name from stitch.duplicate_events")
    assert rows == [{"project_id": "segment_tables", "event_name": "Product Viewed"}] * 2


@pytest.mark.parametrize("feed", sorted(set(FORMATS) - {"umami_postgres", "umami_parquet", "umami_clickhouse"}))
def test_traits_of_the_login_and_properties_of_the_product_arrive(warehouse: Warehouse, feed: str) -> None:
    (login,) = warehouse.query(
        f"select traits, properties from stitch.raw_events where project_id = '{feed}' and user_id = '{USER}' "
        f"and event_type in ('identify', 'track') and anonymous_id = '{expected_journey(feed)[3][2]}'"
    )
    # Snowplow and Millimetric send what is known of the person as properties of the login.
    assert "test@example.com" in (login["traits"] or login["properties"]) or feed.startswith("ga4")
    (seen,) = warehouse.query(
        f"select properties, page_path from stitch.raw_events where project_id = '{feed}' "
        "and occurred_at between '2026-03-02 09:01:59' and '2026-03-02 09:02:01'"
    )
    if feed != "rudderstack_tables":  # whose properties lie in a table that was not recorded
        assert "SKU-7" in seen["properties"]
    assert seen["page_path"] == "/pricing"


@pytest.mark.parametrize("feed", FORMATS)
def test_first_touch_is_the_campaign_of_the_first_page(warehouse: Warehouse, feed: str) -> None:
    (touch,) = warehouse.query(
        "select first_touch_source, first_touch_medium from stitch.users "
        f"where project_id = '{feed}' and stitched_user_id = '{USER}'"
    )
    assert touch == {"first_touch_source": "google", "first_touch_medium": "cpc"}


@pytest.mark.slow
def test_events_of_one_project_from_two_sources_are_one_person(tmp_path: Path) -> None:
    toml = '[feeds.web]\nsource = "jitsu"\nproject_id = "shop"\n[feeds.app]\nsource = "snowplow"\nproject_id = "shop"\n'
    with ephemeral_warehouse(tmp_path, stitch_toml=toml) as warehouse:
        for feed, file in (("web", "jitsu.ndjson"), ("app", "snowplow_enriched.tsv")):
            (warehouse.settings.landing_dir / feed).mkdir()
            shutil.copy(RECORDED / file, warehouse.settings.landing_dir / feed)
        warehouse.settle()
        people = warehouse.query(
            "select stitched_user_id, is_identified, device_count, event_count from stitch.users order by 1"
        )
        assert people == [
            {"stitched_user_id": STRANGER, "is_identified": False, "device_count": 1, "event_count": 2},
            {"stitched_user_id": USER, "is_identified": True, "device_count": 2, "event_count": 14},
        ]
