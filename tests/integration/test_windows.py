"""Windows of hours and minutes: every policy, at the edges and a microsecond beside them, as logins arrive late."""

from __future__ import annotations

from datetime import timedelta
from itertools import product
from pathlib import Path
from random import Random
from typing import Any

import oracle
import pytest
from histories import EMAIL, POLICIES, write_rules
from oracle import Rules
from warehouses import Warehouse, at, differences, ephemeral_warehouse

WINDOWS: tuple[tuple[int | str | None, int | str | None], ...] = (
    ("24h", "24h"),
    ("24h", None),
    ("0h", "0h"),
    ("30m", 1),
    (1, "90m"),
    (None, "24h"),
)
NEVER_SAME = ("never_same", "ann", "bob")
RULES = {
    f"{policy}-{number}-{limit}": Rules(
        policy=policy,
        lookback_days=lookback,
        carry_forward_days=carry_forward,
        max_users_per_device=limit,
        identifiers=EMAIL,
        decisions=(NEVER_SAME,) if limit == 3 else (),
    )
    for policy, (number, (lookback, carry_forward)), limit in product(POLICIES, enumerate(WINDOWS), (1, 3))
}
TABLES = ("stitched_sessions", "page_views", "stitched_events", "users", "visitor_stats", "user_mapping", "persons")
LOGINS = ("2026-03-04 00:00", "2026-03-04 12:00", "2026-03-05 11:59:59.999999", "2026-03-05 23:59:59.999999")
EDGES = tuple(
    sign * span + timedelta(microseconds=beside)
    for span in (timedelta(0), timedelta(minutes=30), timedelta(minutes=90), timedelta(hours=24))
    for sign in (1, -1)
    for beside in (-1, 0, 1)
)


def events(project: str, random: Random) -> list[dict[str, Any]]:
    """Users at the logins, in some order, and pages at and beside the edges of their windows; on two devices."""
    found: list[dict[str, Any]] = []
    for device in ("laptop", "phone"):
        for place, login in enumerate(LOGINS):
            user = random.choice(("ann", "ann", "bob", "cem"))
            last = random.choice((timedelta(0), timedelta(minutes=7)))
            found += [
                {"device": device, "at": at(login) + after, "user": user, "batch": place % 2 + 1}
                for after in {timedelta(0), last}
            ]
            found += [{"device": device, "at": at(login) + edge, "batch": 1} for edge in random.sample(EDGES, 6)]
        found.append({"device": device, "at": at(random.choice(LOGINS)), "email": "a@example.com", "batch": 2})
    return [
        {
            "event_id": f"{project}-{number:03}",
            "project_id": project,
            "occurred_at": event["at"],
            "received_at": event["at"],
            "event_type": "identify" if "user" in event else "page",
            "anonymous_id": event["device"],
            "user_id": event.get("user"),
            "properties": {"email": event["email"]} if "email" in event else None,
            "batch": event["batch"],
        }
        for number, event in enumerate(found)
    ]


@pytest.mark.slow
def test_every_policy_is_exact_at_the_edges_of_its_windows(tmp_path: Path) -> None:
    random = Random(1)
    landed = [event for project in RULES for event in events(project, random)]
    with ephemeral_warehouse(tmp_path) as warehouse:
        write_rules(warehouse, RULES)
        for batch in (1, 2):
            warehouse.land_events(f"jitsu/{batch}.ndjson", [event for event in landed if event["batch"] == batch])
            warehouse.settle(view_stitching=True)
            so_far = [
                {**event, "source": "jitsu", "platform": "web", "landing_file": f"jitsu/{event['batch']}.ndjson"}
                for event in landed
                if event["batch"] <= batch
            ]
            assert_is_as_the_oracle_says(warehouse, so_far)


def assert_is_as_the_oracle_says(warehouse: Warehouse, landed: list[dict[str, Any]]) -> None:
    expected = oracle.tables(landed, RULES)
    with warehouse.reading():
        for table in TABLES:
            assert not differences(warehouse.rows(table, expected[table][0].keys()), expected[table]), table
    columns = expected["user_mapping_history"][0].keys()
    known_now = [row for row in warehouse.rows("user_mapping_history") if row["known_until"] is None]
    found = [{name: row[name] for name in columns} for row in known_now]
    assert not differences(found, expected["user_mapping_history"])
