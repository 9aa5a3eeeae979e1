"""A forgotten person: in no table, in no history, and nobody inherits what the person did."""

from __future__ import annotations

import pytest
from conftest import NewWarehouse
from histories import POLICIES
from warehouses import TABLES, VIEWS, Warehouse, differences, page_view

from stitch_pipeline.settings.forgotten import Mode
from stitch_pipeline.stitching.forget import Request, add_to_list

ANN = "ann-7f3c"
EVERY_TABLE = (*TABLES, "forgotten_events", "user_mapping_history", "person_name_history", "decision_history")


def forget(
    warehouse: Warehouse, value: str, kind: str = "user", mode: Mode = Mode.delete, project: str = "shop"
) -> None:
    """Put the id on the list, and load the settings anew, as a code location does."""
    add_to_list(warehouse.settings, Request(project, kind, value, mode))
    warehouse.load_settings()


def holding(warehouse: Warehouse, text: str) -> dict[str, int]:
    """The number of rows that contain the text in any column, by table and view."""
    tables = warehouse.query(
        "select table_name, list(column_name) as columns from information_schema.columns "
        "where table_schema = 'stitch' group by table_name"
    )
    found = {}
    for table in tables:
        texts = " or ".join(f"contains(cast({column} as varchar), '{text}')" for column in table["columns"])
        ((count,),) = [
            tuple(row.values())
            for row in warehouse.query(f"select count(*) from stitch.{table['table_name']} where {texts}")
        ]
        if count:
            found[table["table_name"]] = count
    return found


def credited(warehouse: Warehouse) -> dict[str, str]:
    return {row["event_id"]: row["stitched_user_id"] for row in warehouse.rows("page_views")}


def assert_as_from_nothing(warehouse: Warehouse, fresh: Warehouse, list_of: Warehouse | None = None) -> None:
    """Every table is what a rebuild from the landing zone and the list gives."""
    for name in ("forgotten.csv", "forgotten.key", "stitch.toml", "overrides.csv"):
        if (path := warehouse.directory / name).exists():
            (fresh.directory / name).write_bytes(path.read_bytes())
    for path in warehouse.settings.landing_dir.rglob("*.ndjson"):
        copy = fresh.settings.landing_dir / path.relative_to(warehouse.settings.landing_dir)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    fresh.load_settings()
    fresh.settle()
    for table in (*TABLES, "forgotten_events", *VIEWS):
        ignored = {"candidate_loaded_at"}
        one, other = (
            [{name: value for name, value in row.items() if name not in ignored} for row in each.rows(table)]
            for each in (warehouse, fresh)
        )
        assert differences(one, other) == {}, table


SHARED = [
    page_view("a0", "2026-03-01 12:00"),
    page_view("a1", "2026-03-02 12:00", user_id=ANN, event_type="identify", traits={"name": "Ann"}),
    page_view("a1b", "2026-03-02 12:01", user_id=ANN, page_url="https://shop/account"),
    page_view("a2", "2026-03-03 12:00"),
    page_view("b1", "2026-03-04 12:00", user_id="bob"),
    page_view("b2", "2026-03-05 12:00"),
]
OTHERS = [
    page_view("z0", "2026-03-01 12:00", anonymous_id="z"),
    page_view("z1", "2026-03-02 13:00", anonymous_id="z", user_id="zoe"),
    page_view("y1", "2026-03-02 13:00", anonymous_id="z", user_id=ANN, project_id="blog"),
]
AFTER = {
    "latest": {"a0": "a", "a2": "a", "b1": "bob", "b2": "bob"},
    "first": {"a0": "a", "a2": "a", "b1": "bob", "b2": "a"},
    "device_split": {"a0": "a", "a2": "a", "b1": "bob", "b2": "bob"},
    "next_identify": {"a0": "a", "a2": "bob", "b1": "bob", "b2": "a"},
    "graph": {"a0": "a", "a2": "a", "b1": "bob", "b2": "bob"},
}


@pytest.mark.parametrize("policy", POLICIES)
def test_what_a_forgotten_user_did_is_nobodys(policy: str, new_warehouse: NewWarehouse) -> None:
    warehouse = new_warehouse(policy=policy)
    warehouse.land_events("jitsu/shared.ndjson", SHARED)
    warehouse.land_events("jitsu/others.ndjson", OTHERS)
    warehouse.settle()
    assert holding(warehouse, ANN)
    of_others = [row for row in warehouse.rows("page_views") if row["anonymous_id"] == "z"]

    forget(warehouse, ANN)
    warehouse.settle()
    in_blog = {table: sum(ANN in str(row) for row in warehouse.rows(table)) for table in ("raw_events", "page_views")}
    assert in_blog == {"raw_events": 1, "page_views": 1}, "the same id in another project is another person"
    assert not [
        row for table in EVERY_TABLE for row in warehouse.rows(table) if ANN in str(row) and "blog" not in str(row)
    ]
    assert {event: user for event, user in credited(warehouse).items() if event[0] in "ab"} == AFTER[policy]
    assert [row for row in warehouse.rows("page_views") if row["anonymous_id"] == "z"] == of_others
    assert len(warehouse.rows("forgotten_events")) == 2
    assert_as_from_nothing(warehouse, new_warehouse(policy=policy))


@pytest.mark.parametrize("policy", POLICIES)
def test_the_rows_never_pass_to_the_next_user(policy: str, new_warehouse: NewWarehouse) -> None:
    warehouse = new_warehouse(policy=policy)
    warehouse.land_events("jitsu/ann.ndjson", SHARED[:4])
    warehouse.settle()
    before = credited(warehouse)
    forget(warehouse, ANN)
    warehouse.settle()
    assert credited(warehouse) == {"a0": "a", "a2": "a"}
    warehouse.land_events("jitsu/bob.ndjson", SHARED[4:])
    warehouse.settle()
    # Under next_identify a row after the login was never Ann's: it waits for the next login.
    assert before["a2"] == ("a" if policy == "next_identify" else ANN)
    assert credited(warehouse) == AFTER[policy]
    assert holding(warehouse, ANN) == {}
    assert_as_from_nothing(warehouse, new_warehouse(policy=policy))
