"""Policy ``graph``: limits by kind of id, patterns of values, and who gets an id equally near to two persons."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from warehouses import Row, Warehouse, at, ephemeral_warehouse

EMAIL = '[projects.{project}.identifiers.email]\npaths = "properties.email"\nnormalise = ["trim", "lower"]\n'
PHONE = '[projects.{project}.identifiers.phone]\npaths = "properties.phone"\nnormalise = "digits"\n'
RULES = {
    # A shop assistant logs in everywhere.
    "devices": "[projects.devices.limits.user]\ndevice = 2\n",
    # An address that three people gave.
    "addresses": EMAIL + "[projects.addresses.limits.email]\nuser = 2\n",
    "more-addresses": "max_users_per_device = 2\n" + EMAIL + "[projects.more-addresses.limits.email]\nuser = 3\n",
    # Somebody with three addresses.
    "values": EMAIL + "[projects.values.limits.email]\nper_person = 2\n",
    "enough-values": EMAIL + "[projects.enough-values.limits.email]\nper_person = 3\n",
    "nobody": 'unique_identifiers = "user"\n',
    "first": 'unique_identifiers = "user"\ncontested_ids = "first"\n',
    "patterns": 'blocked_patterns = ["test-.*", "[0-9]+"]\n'
    + PHONE
    + 'valid = "[0-9]{7,15}"\nblocked = ["0+", "(12)+34567"]\n',
}


def page(project: str, number: int, device: str | None, user: str | None = None, **properties: Any) -> Row:
    return {
        "project_id": project,
        "event_id": f"{project}-{number}",
        "occurred_at": at(f"2026-03-{number:02} 12:00"),
        "event_type": "page",
        "anonymous_id": device,
        "user_id": user,
        "properties": properties or None,
    }


EVENTS = [
    *(page("devices", n, f"d{n}", "staff") for n in (1, 2, 3)),
    page("devices", 4, "d1"),
    page("devices", 5, "d4", "ann"),
    page("devices", 6, "d5", "ann"),
    page("devices", 7, "d5"),
    *(
        page(project, n, f"d{n}", user, email="desk@example.com")
        for project in ("addresses", "more-addresses")
        for n, user in enumerate("abc", start=1)
    ),
    *(
        page(project, n, f"d{n}", "ann", email=f"ann{n}@example.com")
        for project in ("values", "enough-values")
        for n in (1, 2, 3)
    ),
    *(page(project, 4, "d1") for project in ("values", "enough-values")),
    *(page(project, n, "laptop", user) for project in ("nobody", "first") for n, user in ((1, "bob"), (2, "ann"))),
    *(page(project, 3, "laptop") for project in ("nobody", "first")),
    page("patterns", 1, "d1", "ann", phone="+49 30 1234 567"),
    page("patterns", 2, "d2", phone="49301234567"),
    page("patterns", 3, "d3", phone="000-0000"),
    page("patterns", 4, "d4", phone="110"),
    page("patterns", 5, "d5", "test-17"),
    page("patterns", 6, "12345", "ann"),
    page("patterns", 7, "d7", "a test-17"),
    page("patterns", 8, "d8", phone="1212 34567"),
]


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warehouse]:
    toml = "".join(
        f'[projects.{project}]\npolicy = "graph"\n' + rules.replace("{project}", project)
        for project, rules in RULES.items()
    )
    with ephemeral_warehouse(tmp_path_factory.mktemp("limits"), stitch_toml=toml) as warehouse:
        # Every second event comes later, so that persons are resolved again.
        warehouse.land_events("jitsu/a.ndjson", EVENTS[::2])
        warehouse.settle()
        warehouse.land_events("jitsu/b.ndjson", EVENTS[1::2])
        warehouse.settle()
        yield warehouse


def credited(warehouse: Warehouse, project: str) -> dict[int, str]:
    rows = warehouse.rows(f"page_views where project_id = '{project}'", ["event_id", "stitched_user_id"])
    return {int(row["event_id"].rsplit("-", 1)[1]): row["stitched_user_id"] for row in rows}


def over_the_limit(warehouse: Warehouse, project: str) -> dict[tuple[str, str], int]:
    rows = warehouse.query(
        "select field, found, event_count from stitch.guard_report "
        f"where guard = 'over the limit' and project_id = '{project}'"
    )
    return {(row["field"], row["found"]): row["event_count"] for row in rows}


def test_a_user_with_too_many_devices_connects_none(warehouse: Warehouse) -> None:
    assert credited(warehouse, "devices") == {
        **dict.fromkeys((1, 2, 3), "staff"),
        4: "d1",
        **dict.fromkeys((5, 6, 7), "ann"),
    }
    assert over_the_limit(warehouse, "devices") == {("user.device", "staff"): 3}


def test_an_identifier_with_too_many_users_connects_none(warehouse: Warehouse) -> None:
    assert credited(warehouse, "addresses") == {1: "a", 2: "b", 3: "c"}
    # Each event ties the address to a device and to a user; the limit is on users.
    assert over_the_limit(warehouse, "addresses") == {("email.user", "desk@example.com"): 3}
    # A limit of its own goes before max_users_per_device, also if it is higher.
    assert credited(warehouse, "more-addresses") == {1: "a", 2: "a", 3: "a"}
    assert over_the_limit(warehouse, "more-addresses") == {}


def test_a_person_with_too_many_values_is_cut(warehouse: Warehouse) -> None:
    # Ann is equally near to three addresses, so she is a person of her own; each device is an address's.
    assert credited(warehouse, "values") == {1: "ann", 2: "ann", 3: "ann", 4: "email:ann1@example.com"}
    addresses = {("email.per_person", f"ann{n}@example.com") for n in (1, 2, 3)}
    assert set(over_the_limit(warehouse, "values")) == addresses
    assert credited(warehouse, "enough-values") == {1: "ann", 2: "ann", 3: "ann", 4: "ann"}
    assert over_the_limit(warehouse, "enough-values") == {}


def test_a_contested_device_is_nobody_s_or_the_first_one_s(warehouse: Warehouse) -> None:
    assert credited(warehouse, "nobody") == {1: "bob", 2: "ann", 3: "laptop"}
    assert credited(warehouse, "first") == {1: "bob", 2: "ann", 3: "bob"}
    assert over_the_limit(warehouse, "first") == {("user.per_person", "ann"): 1, ("user.per_person", "bob"): 1}


def test_a_value_counts_only_if_its_patterns_say_so(warehouse: Warehouse) -> None:
    persons = {
        (row["id_kind"], row["id"]): row["person_id"]
        for row in warehouse.rows("persons")
        if row["project_id"] == "patterns"
    }
    assert persons == {
        ("user", "ann"): "ann",
        ("device", "d1"): "ann",
        ("phone", "49301234567"): "ann",
        ("device", "d2"): "ann",
        ("user", "a test-17"): "a test-17",
        ("device", "d7"): "a test-17",
    }
    rows = warehouse.query(
        "select field, found, event_count from stitch.guard_report "
        "where guard = 'blocked id' and project_id = 'patterns' union all "
        "select field, found, event_count from stitch.identifier_guard_report"
    )
    assert {tuple(row.values()) for row in rows} == {
        ("phone", "0000000", 1),
        ("phone", "110", 1),
        ("phone", "121234567", 1),
        ("user_id", "test-17", 1),
        ("anonymous_id", "12345", 1),
    }


def test_limits_are_found_again_when_persons_are_resolved_anew(warehouse: Warehouse) -> None:
    assert warehouse.rows("persons") == warehouse.persons_from_nothing()
    assert warehouse.settle().runs == []
