"""Changed decisions queue the devices and users that they concern, and no others."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from warehouses import Warehouse, page_view

pytestmark = pytest.mark.slow

CHAIN = ("same_person,a,b,", "same_person,b,c,")


@pytest.fixture
def warehouse(new_warehouse: Callable[..., Warehouse]) -> Warehouse:
    """Each user on a device of its own, and two devices that nobody logs in on; decided that a, b and c are one."""
    warehouse = new_warehouse()
    of_users = [page_view(f"e-{user}", "2026-03-02 12:00", anonymous_id=f"of-{user}", user_id=user) for user in "abcdx"]
    of_nobody = [page_view(f"e-{device}", "2026-03-02 12:00", anonymous_id=device) for device in ("laptop", "till")]
    warehouse.land_events("jitsu/a.ndjson", [*of_users, *of_nobody])
    decide(warehouse, CHAIN)
    warehouse.settle()
    return warehouse


def decide(warehouse: Warehouse, lines: Sequence[str]) -> None:
    warehouse.write_overrides(f"shop,{line}" for line in lines)


def queued(warehouse: Warehouse, lines: Sequence[str]) -> tuple[set[str], set[str]]:
    """The devices and canonical ids that are queued once these lines are followed instead of the chain."""
    decide(warehouse, lines)
    warehouse.follow_rules_and_die()
    devices = warehouse.query("select distinct anonymous_id from stitch.pending_devices")
    users = warehouse.query("select stitched_user_id from stitch.pending_users")
    return {row["anonymous_id"] for row in devices}, {row["stitched_user_id"] for row in users}


def test_a_new_name_for_a_person_concerns_all_ids_of_the_person(warehouse: Warehouse) -> None:
    devices, users = queued(warehouse, [*CHAIN, "same_person,x,a,"])
    assert devices == {"of-a", "of-b", "of-c"}
    assert users == {"a", "x"}


def test_the_same_persons_by_other_lines_concern_nobody(warehouse: Warehouse) -> None:
    assert queued(warehouse, ["same_person,a,b,!", "same_person,a,c,"]) == (set(), set())


def test_never_the_same_as_one_id_of_a_person_is_so_of_all_ids(warehouse: Warehouse) -> None:
    devices, users = queued(warehouse, [*CHAIN, "never_same,c,d,"])
    assert devices == {"of-a", "of-b", "of-c", "of-d"}
    assert users == set()


def test_a_wrong_link_concerns_its_device_and_the_traits_of_its_person(warehouse: Warehouse) -> None:
    devices, users = queued(warehouse, [*CHAIN, "wrong_link,laptop,c,", "shared_device,till,,"])
    assert devices == {"laptop", "till"}
    assert users == {"a"}
