"""A forgotten person: in no table, in no history, and nobody inherits what the person did."""

from __future__ import annotations

import io
import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterable
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from random import Random
from time import monotonic
from typing import Any

import pytest
from conftest import NewWarehouse
from engines import OPENED, backup, engine_environment
from histories import POLICIES, History, history
from rich.console import Console
from warehouses import REPOSITORY, TABLES, VIEWS, Row, Warehouse, as_jitsu, differences, page_view

from stitch_pipeline.cli.main import main
from stitch_pipeline.cli.why import print_explanation
from stitch_pipeline.settings import Settings, SettingsError
from stitch_pipeline.settings.forgotten import Mode
from stitch_pipeline.stitching.explain import explain
from stitch_pipeline.stitching.forget import Request, add_to_list, look
from stitch_pipeline.stitching.forget import forget as use_case
from stitch_pipeline.stitching.prove import Certificate, prove
from stitch_pipeline.warehouse.engine import engine_of

ANN = "ann-7f3c"
START_AT = datetime(2026, 3, 1)
EVERY_TABLE = (*TABLES, "forgotten_events", "user_mapping_history", "person_name_history", "decision_history")

# A project for each policy, so that one deployment tells a story under all of them.
EACH_POLICY = "".join(f'[projects.{policy}]\npolicy = "{policy}"\n' for policy in POLICIES)


def forget(
    warehouse: Warehouse, value: str, kind: str = "user", mode: Mode = Mode.delete, project: str = "shop"
) -> None:
    """Put the id on the list, as ``stitch forget`` does."""
    add_to_list(warehouse.settings, Request(project, kind, value, mode))


def holding(warehouse: Warehouse, text: str) -> dict[str, int]:
    """The number of rows that contain the text in any column, by table and view."""
    columns: dict[str, list[str]] = {}
    found = {}
    with warehouse.reading():
        for row in warehouse.query(
            "select table_name, column_name from information_schema.columns where table_schema = 'stitch'"
        ):
            columns.setdefault(row["table_name"], []).append(row["column_name"])
        for table, names in columns.items():
            texts = " or ".join(f"position('{text}' in cast({name} as varchar)) > 0" for name in names)
            ((count,),) = [
                tuple(row.values()) for row in warehouse.query(f"select count(*) from stitch.{table} where {texts}")
            ]
            if count:
                found[table] = count
    return found


def credited(warehouse: Warehouse, project: str = "shop") -> dict[str, str]:
    views = warehouse.rows("page_views")
    return {row["event_id"]: row["stitched_user_id"] for row in views if row["project_id"] == project}


def in_each(events: list[Row], projects: Iterable[str] = POLICIES) -> list[Row]:
    """The events in each of the projects, by default in those of every policy."""
    return [{**event, "project_id": project} for project in projects for event in events]


def forget_in_each(warehouse: Warehouse, mode: Mode = Mode.delete) -> None:
    for policy in POLICIES:
        forget(warehouse, ANN, mode=mode, project=policy)


def assert_as_from_nothing(warehouse: Warehouse, fresh: Warehouse) -> None:
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
    with warehouse.reading(), fresh.reading():
        for table in (*TABLES, "forgotten_events", *VIEWS):
            ignored = {"candidate_loaded_at"}
            one, other = (
                [{name: value for name, value in row.items() if name not in ignored} for row in each.rows(table)]
                for each in (warehouse, fresh)
            )
            assert differences(one, other) == {}, table
        columns = warehouse.select_list("user_mapping_history", but=("known_since", "known_until"))
        known = f"select {columns} from stitch.user_mapping_history where known_until is null"
        assert differences(warehouse.query(known), fresh.query(known)) == {}


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
]
OF_ANOTHER = page_view("y1", "2026-03-02 13:00", anonymous_id="z", user_id=ANN, project_id="blog")
AFTER = {
    "latest": {"a0": "a", "a2": "a", "b1": "bob", "b2": "bob"},
    "first": {"a0": "a", "a2": "a", "b1": "bob", "b2": "a"},
    "device_split": {"a0": "a", "a2": "a", "b1": "bob", "b2": "bob"},
    "next_identify": {"a0": "a", "a2": "bob", "b1": "bob", "b2": "a"},
    "graph": {"a0": "a", "a2": "a", "b1": "bob", "b2": "bob"},
}


def test_what_a_forgotten_user_did_is_nobodys(new_warehouse: NewWarehouse) -> None:
    warehouse = new_warehouse(stitch_toml=EACH_POLICY)
    warehouse.land_events("jitsu/shared.ndjson", in_each(SHARED))
    warehouse.land_events("jitsu/others.ndjson", [*in_each(OTHERS), OF_ANOTHER])
    warehouse.settle()
    assert holding(warehouse, ANN)
    of_others = [row for row in warehouse.rows("page_views") if row["anonymous_id"] == "z"]
    assert len(of_others) == 11

    forget_in_each(warehouse)
    warehouse.settle()
    in_blog = {table: sum(ANN in str(row) for row in warehouse.rows(table)) for table in ("raw_events", "page_views")}
    assert in_blog == {"raw_events": 1, "page_views": 1}, "the same id in another project is another person"
    assert not [
        row
        for rows in warehouse.contents(EVERY_TABLE).values()
        for row in rows
        if ANN in str(row) and "blog" not in str(row)
    ]
    for policy, views in AFTER.items():
        assert credited(warehouse, policy) == {**views, "z0": "zoe", "z1": "zoe"}, policy
    assert [row for row in warehouse.rows("page_views") if row["anonymous_id"] == "z"] == of_others
    assert len(warehouse.rows("forgotten_events")) == 10
    assert_as_from_nothing(warehouse, new_warehouse())


@pytest.mark.slow
def test_the_rows_never_pass_to_the_next_user(new_warehouse: NewWarehouse) -> None:
    warehouse = new_warehouse(stitch_toml=EACH_POLICY)
    warehouse.land_events("jitsu/ann.ndjson", in_each(SHARED[:4]))
    warehouse.settle()
    before = {policy: credited(warehouse, policy) for policy in POLICIES}
    forget_in_each(warehouse)
    warehouse.settle()
    for policy in POLICIES:
        assert credited(warehouse, policy) == {"a0": "a", "a2": "a"}, policy
    warehouse.land_events("jitsu/bob.ndjson", in_each(SHARED[4:]))
    warehouse.settle()
    # Under next_identify a row after the login was never Ann's: it waits for the next login.
    assert {policy: views["a2"] for policy, views in before.items()} == {
        policy: "a" if policy == "next_identify" else ANN for policy in POLICIES
    }
    assert {policy: credited(warehouse, policy) for policy in POLICIES} == AFTER
    assert holding(warehouse, ANN) == {}
    assert_as_from_nothing(warehouse, new_warehouse())


@pytest.mark.slow
@pytest.mark.long
def test_a_wrong_link_is_not_forgetting(new_warehouse: NewWarehouse) -> None:
    """A decision changes who rows are credited to, and everything about the person stays."""
    decided, forgotten = new_warehouse(policy="device_split"), new_warehouse(policy="device_split")
    for warehouse in (decided, forgotten):
        warehouse.land_events("jitsu/shared.ndjson", SHARED)
        warehouse.settle()
    decided.write_overrides([f"shop,wrong_link,a,{ANN},"])
    decided.settle()
    forget(forgotten, ANN)
    forgotten.settle()
    assert credited(decided) == {"a0": "bob", "a1b": ANN, "a2": "bob", "b1": "bob", "b2": "bob"}
    assert credited(forgotten) == {"a0": "a", "a2": "a", "b1": "bob", "b2": "bob"}
    assert {"raw_events", "identity_map", "page_views", "users"} <= holding(decided, ANN).keys()
    assert holding(forgotten, ANN) == {}


@pytest.mark.slow
@pytest.mark.long
def test_what_others_did_on_the_device_stays_theirs(new_warehouse: NewWarehouse) -> None:
    """Under latest, Bob's own rows were credited to Ann, who came after him."""
    warehouse = new_warehouse(stitch_toml=EACH_POLICY)
    events = [
        page_view("b1", "2026-03-01 12:00", user_id="bob"),
        page_view("b2", "2026-03-01 12:05"),
        page_view("a1", "2026-03-02 12:00", user_id=ANN),
        page_view("b3", "2026-03-03 12:00", user_id="bob"),
    ]
    warehouse.land_events("jitsu/a.ndjson", in_each(events))
    warehouse.settle()
    forget_in_each(warehouse)
    warehouse.settle()
    for policy in POLICIES:
        views = credited(warehouse, policy)
        assert (views["b1"], views["b3"]) == ("bob", "bob"), policy
        assert views["b2"] == {"device_split": "bob", "first": "bob"}.get(policy, "a"), policy
    assert holding(warehouse, ANN) == {}


@pytest.mark.slow
def test_a_pseudonymised_user_counts_and_is_nobody(new_warehouse: NewWarehouse) -> None:
    warehouse = new_warehouse(stitch_toml=EACH_POLICY)
    warehouse.land_events("jitsu/shared.ndjson", in_each(SHARED))
    phone = page_view("p1", "2026-03-02 12:00", user_id=ANN, anonymous_id="phone")
    warehouse.land_events("jitsu/phone.ndjson", in_each([phone]))
    warehouse.settle()
    counted = ("project_id", "stat_date", "page_views", "visits")
    before = warehouse.rows("visitor_stats", counted)
    forget_in_each(warehouse, Mode.pseudonymise)
    warehouse.settle()
    assert holding(warehouse, ANN) == {}
    for policy in POLICIES:
        own = [row for row in warehouse.rows("raw_events") if row["project_id"] == policy]
        (name,) = {row["user_id"] for row in own if row["event_id"] in ("a1", "a1b", "p1")}
        assert name.startswith("forgotten:")
        views = credited(warehouse, policy)
        assert {views["a1b"], views["p1"]} == {name}, policy
        assert {event: views[event] for event in AFTER[policy]} == AFTER[policy], policy
        (row,) = [row for row in own if row["event_id"] == "a1b"]
        assert row["page_url"] is None
    assert differences(warehouse.rows("visitor_stats", counted), before) == {}
    assert_as_from_nothing(warehouse, new_warehouse())


@pytest.mark.slow
def test_a_forgotten_device_is_in_no_table_and_its_users_keep_what_they_did(new_warehouse: NewWarehouse) -> None:
    warehouse = new_warehouse(policy="device_split")
    device = "device-55aa"
    warehouse.land_events("jitsu/a.ndjson", in_each([{**event, "anonymous_id": device} for event in SHARED], Mode))
    warehouse.land_events("jitsu/z.ndjson", in_each(OTHERS, Mode))
    warehouse.settle()
    others = [row for row in warehouse.rows("page_views") if row["anonymous_id"] == "z"]
    assert len(others) == 2 * len(Mode)
    for mode in Mode:
        forget(warehouse, device, kind="device", mode=mode, project=mode)
    warehouse.settle()
    assert holding(warehouse, device) == {}
    for mode in Mode:
        views = credited(warehouse, mode)
        assert (views["a1b"], views["b1"]) == (ANN, "bob"), mode
        anonymous = {"a0", "a2", "b2"}
        assert anonymous & views.keys() == (set() if mode == Mode.delete else anonymous), mode
    assert [row for row in warehouse.rows("page_views") if row["anonymous_id"] == "z"] == others
    assert_as_from_nothing(warehouse, new_warehouse(policy="device_split"))


EMAIL = """
[projects.shop]
policy = "graph"
[projects.shop.identifiers.email]
paths = ["traits.email", "properties.mail"]
normalise = ["trim", "lower"]
"""


@pytest.mark.slow
def test_a_forgotten_identifier_takes_the_rows_that_carry_it(new_warehouse: NewWarehouse) -> None:
    warehouse = new_warehouse(stitch_toml=EMAIL)
    warehouse.land_events(
        "jitsu/a.ndjson",
        [
            page_view("a0", "2026-03-01 12:00"),
            page_view("a1", "2026-03-02 12:00", properties={"mail": " Ann@Example.com"}),
            page_view("a2", "2026-03-03 12:00"),
            page_view("c1", "2026-03-02 12:00", anonymous_id="c", user_id="cem", traits={"email": "ann@example.com"}),
            page_view("c2", "2026-03-02 12:00", anonymous_id="c", user_id="cem"),
        ],
    )
    warehouse.settle()
    assert credited(warehouse) == {"a0": "cem", "a1": "cem", "a2": "cem", "c1": "cem", "c2": "cem"}
    forget(warehouse, "ANN@example.com ", kind="email")
    warehouse.settle()
    assert credited(warehouse) == {"a0": "a", "a2": "a", "c2": "cem"}
    assert not {**holding(warehouse, "ann@"), **holding(warehouse, "Ann@")}
    warehouse.land_events("jitsu/b.ndjson", [page_view("b1", "2026-03-04 12:00", user_id="bob")])
    warehouse.settle()
    assert credited(warehouse) == {"a0": "a", "a2": "a", "b1": "bob", "c2": "cem"}
    assert_as_from_nothing(warehouse, new_warehouse(stitch_toml=EMAIL))


# Ann's browser is known from an alias of a server, her old id from another. Bob took over the old id of somebody.
ALIASES = [
    page_view("a0", "2026-03-01 12:00", anonymous_id="browser-31"),
    page_view("a1", "2026-03-02 12:00", anonymous_id=None, user_id=ANN, event_type="alias", previous_id="browser-31"),
    page_view("a2", "2026-03-03 12:00", anonymous_id="browser-31"),
    page_view("o0", "2026-03-01 12:00", anonymous_id="tablet-77"),
    page_view("b1", "2026-03-02 12:00", anonymous_id=None, user_id="bob", event_type="alias", previous_id="tablet-77"),
    page_view("b2", "2026-03-03 12:00", anonymous_id="b", user_id="bob"),
    page_view(
        "b3",
        "2026-03-03 13:00",
        anonymous_id="b",
        user_id="bob",
        event_type="alias",
        previous_id="olga-old-9",
        properties={"alias": "olga-old-9"},
    ),
    page_view("g1", "2026-03-04 12:00", anonymous_id="handed-1"),
    page_view("g2", "2026-03-04 12:00", anonymous_id="handed-2", event_type="alias", previous_id="handed-1"),
]
GRAPH_TOML = '[projects.shop]\npolicy = "graph"\n'


@pytest.mark.slow
@pytest.mark.long
def test_a_previous_id_is_forgotten_like_any_other(new_warehouse: NewWarehouse) -> None:
    warehouse = new_warehouse(stitch_toml=GRAPH_TOML)
    warehouse.land_events("jitsu/a.ndjson", ALIASES)
    warehouse.settle()
    before = {"a0": ANN, "a2": ANN, "o0": "bob", "b2": "bob", "g1": "handed-1"}
    assert credited(warehouse) == before
    with engine_of(warehouse.settings).open() as opened:
        concerned = look(opened, warehouse.settings, Request("shop", "device", "tablet-77"))
    assert ("user", "bob") in concerned.seen_with
    assert [file.lines for file in concerned.landing_files] == [[4, 5]]
    for kind, value, mode in (
        ("user", ANN, Mode.delete),
        ("device", "tablet-77", Mode.pseudonymise),
        ("user", "olga-old-9", Mode.delete),
        ("device", "handed-1", Mode.delete),
    ):
        forget(warehouse, value, kind, mode)
    warehouse.settle()
    # What Ann did stays with her browser, whoever comes next, and the totals of the tablet stay Bob's.
    warehouse.land_events(
        "jitsu/b.ndjson", [page_view("c1", "2026-03-05 12:00", anonymous_id="browser-31", user_id="cem")]
    )
    warehouse.settle()
    assert credited(warehouse) == {"a0": "browser-31", "a2": "browser-31", "o0": "bob", "b2": "bob", "c1": "cem"}
    for value in (ANN, "tablet-77", "olga-old-9", "handed-1"):
        assert holding(warehouse, value) == {}, value
    kept = warehouse.query("select event_id, previous_id from stitch.raw_events where previous_id is not null")
    assert {row["event_id"]: row["previous_id"].split(":")[0] for row in kept} == dict.fromkeys(
        ("b1", "b3", "g2"), "forgotten"
    )
    assert_as_from_nothing(warehouse, new_warehouse(stitch_toml=GRAPH_TOML))
    (warehouse.directory / "forgotten.csv").unlink()
    warehouse.load_settings()
    warehouse.settle()
    # Cem on her browser makes one person of the two again.
    assert credited(warehouse) == {**before, "c1": ANN}


@pytest.mark.slow
def test_late_events_of_a_forgotten_user_stay_out(new_warehouse: NewWarehouse) -> None:
    warehouse = new_warehouse()
    warehouse.land_events("jitsu/a.ndjson", SHARED[:1])
    warehouse.settle()
    forget(warehouse, ANN)
    warehouse.settle()
    warehouse.land_events("jitsu/late.ndjson", SHARED[1:4])
    warehouse.settle()
    assert holding(warehouse, ANN) == {}
    assert credited(warehouse) == {"a0": "a", "a2": "a"}
    assert [row["stitched_by"] for row in warehouse.rows("page_views")] == ["none", "none"]
    assert_as_from_nothing(warehouse, new_warehouse())


@pytest.mark.slow
def test_taking_the_line_out_brings_back_what_the_files_hold(new_warehouse: NewWarehouse) -> None:
    warehouse = new_warehouse()
    warehouse.land_events("jitsu/a.ndjson", SHARED)
    warehouse.settle()
    before = warehouse.contents()
    forget(warehouse, ANN)
    warehouse.settle()
    lines = warehouse.settings.forgotten_path.read_text().splitlines()
    warehouse.settings.forgotten_path.write_text("\n".join(lines[:-1]) + "\n")
    warehouse.settle()
    assert warehouse.contents() == before


@pytest.mark.slow
def test_a_restored_warehouse_forgets_again(new_warehouse: NewWarehouse) -> None:
    warehouse = new_warehouse(view_stitching="off")
    warehouse.land_events("jitsu/a.ndjson", SHARED)
    warehouse.write_overrides([f"shop,same_person,{ANN},ann2,", f"shop,wrong_link,z,{ANN},says {ANN}"])
    warehouse.settle(view_stitching=False)
    restore = backup(warehouse.settings)
    forget(warehouse, ANN)
    warehouse.settle(view_stitching=False)
    assert holding(warehouse, ANN) == {}
    after = warehouse.contents(EVERY_TABLE)
    restore()
    assert holding(warehouse, ANN)
    warehouse.settle(view_stitching=False, reconcile=True)
    assert holding(warehouse, ANN) == {}
    without_times = {table: [without_times_of(row) for row in rows] for table, rows in after.items()}
    assert {
        table: [without_times_of(row) for row in rows] for table, rows in warehouse.contents(EVERY_TABLE).items()
    } == without_times


def without_times_of(row: Row) -> Row:
    return {name: value for name, value in row.items() if name not in ("known_since", "known_until", "followed_since")}


@pytest.mark.slow
def test_forgetting_twice_changes_nothing(new_warehouse: NewWarehouse) -> None:
    warehouse = new_warehouse()
    warehouse.land_events("jitsu/a.ndjson", SHARED)
    warehouse.settle()
    forget(warehouse, ANN)
    warehouse.settle()
    after, listed = warehouse.contents(EVERY_TABLE), warehouse.settings.forgotten_path.read_bytes()
    forget(warehouse, ANN)
    assert not warehouse.settle().runs
    assert warehouse.settings.forgotten_path.read_bytes() == listed
    assert warehouse.contents(EVERY_TABLE) == after


@pytest.mark.slow
def test_histories_and_quarantine_hold_nothing(new_warehouse: NewWarehouse) -> None:
    warehouse = new_warehouse()
    warehouse.land_events("jitsu/a.ndjson", SHARED)
    warehouse.land_events("jitsu/again.ndjson", SHARED[1:3])
    bad = {"messageId": "x", "projectId": "shop", "userId": ANN, "type": "page"}
    warehouse.land("jitsu/bad.ndjson", [bad, {**bad, "userId": "bob"}, f'{{"messageId": "y", "userId": "{ANN}'])
    warehouse.settle()
    assert {"user_mapping_history", "duplicate_events", "quarantined_events"} <= holding(warehouse, ANN).keys()
    forget(warehouse, ANN)
    warehouse.settle()
    assert holding(warehouse, ANN) == {}
    columns = ("line", "problem", "raw_row")
    kept = sorted(tuple(row[name] for name in columns) for row in warehouse.rows("quarantined_events", columns))
    assert [(line, problem) for line, problem, _ in kept] == [
        (1, "no_event_time"),
        (2, "no_event_time"),
        (3, "not_json"),
    ]
    assert [raw_row is None for _, _, raw_row in kept] == [True, False, True]
    assert_as_from_nothing(warehouse, new_warehouse())


def test_a_dry_run_says_what_would_go_and_changes_nothing(new_warehouse: NewWarehouse) -> None:
    warehouse = new_warehouse(policy="device_split")
    warehouse.land_events("jitsu/a.ndjson", SHARED)
    warehouse.land_events("jitsu/b.ndjson", [*OTHERS, OF_ANOTHER])
    warehouse.write_overrides([f"shop,wrong_link,z,{ANN},"])
    warehouse.settle()
    before = warehouse.contents(EVERY_TABLE)
    with engine_of(warehouse.settings).open(read_only=True) as open_warehouse:
        concerned = look(open_warehouse, warehouse.settings, Request("shop", "user", ANN))
    rows = {held.table: (held.rows, held.fate) for held in concerned.tables}
    assert rows["raw_events"] == (2, "deleted")
    assert rows["identity_map"] == (1, "kept without the id")
    assert rows["page_views"] == (3, "built again from what is left")
    assert rows["user_mapping_history"][1] == "deleted"
    # In the other file it is the id of another project: a mention, for a person to judge.
    assert [(file.name, file.lines) for file in concerned.landing_files] == [
        ("jitsu/a.ndjson", [2, 3]),
        ("jitsu/b.ndjson", [3]),
    ]
    assert [(file.name, file.lines) for file in concerned.setting_files] == [("overrides.csv", [2])]
    assert concerned.seen_with == [("device", "a")]
    assert warehouse.contents(EVERY_TABLE) == before
    assert not warehouse.settings.forgotten_path.exists()


@pytest.mark.slow
def test_the_job_forgets_what_a_file_lists_and_tells_dagster_no_id(
    new_warehouse_on_disk: NewWarehouse, tmp_path: Path
) -> None:
    warehouse = new_warehouse_on_disk()
    warehouse.land_events("jitsu/a.ndjson", SHARED)
    warehouse.settle()
    before = warehouse.contents()
    ids = tmp_path / "ids.txt"
    ids.write_text(f"{ANN}\nnobody-known\n")
    config = {"project_id": "shop", "ids_file": str(ids)}
    warehouse.run("forget_job", {}, {"ops": {"forget_ids": {"config": config}}})
    assert warehouse.contents() == before, "a dry run"
    warehouse.run("forget_job", {}, {"ops": {"forget_ids": {"config": {**config, "dry_run": False}}}})
    warehouse.settle()
    assert holding(warehouse, ANN) == {}
    assert credited(warehouse) == AFTER["latest"]
    ids.unlink()
    homes = [path for path in tmp_path.glob("dagster*") if path.is_dir()]
    certificate = prove(warehouse.settings, Request("shop", "user", ANN), homes)
    assert certificate.is_clean, list(certificate.lines())
    assert any(file.path.suffix == ".db" for file in certificate.files)


@pytest.mark.slow
def test_the_proof_finds_what_is_left(new_warehouse: NewWarehouse, tmp_path: Path) -> None:
    warehouse = new_warehouse()
    warehouse.land_events("jitsu/a.ndjson", SHARED)
    warehouse.settle()
    home = tmp_path / "home"
    home.mkdir()
    (home / "log.txt").write_bytes(b"x" * 100 + ANN.encode("utf-16-le"))
    with closing(sqlite3.connect(home / "runs.db")) as db, db:
        db.execute("create table t (x)")
        db.execute("insert into t values (?)", (ANN,))
        db.commit()
        db.execute("delete from t")

    def certificate() -> Certificate:
        return prove(warehouse.settings, Request("shop", "user", ANN), [home])

    first = certificate()
    assert not first.is_clean
    assert first.line is None
    assert {"stitch.raw_events", "stitch.stitched_events"} <= {table for table, _, hits in first.tables if hits}
    forget(warehouse, ANN)
    assert certificate().is_pending
    warehouse.settle()
    second = certificate()
    assert [(file.path.name, file.hits) for file in second.files if file.hits] == [("log.txt", 1)]
    assert not any(hits for _, _, hits in second.tables)
    assert not second.is_clean
    (home / "log.txt").unlink()
    page = warehouse.settings.reports_to / "ann.html"
    page.parent.mkdir()
    page.write_text(f"user {ANN}")
    assert [file.path for file in certificate().files if file.hits] == [page]
    page.unlink()
    third = certificate()
    assert third.is_clean
    assert [(file.name, file.lines) for file in third.landing_files] == [("jitsu/a.ndjson", [2, 3])]
    text = "\n".join(third.lines())
    assert ANN not in text
    assert third.line is not None
    assert third.line.hash in text
    # The warehouse that was written anew is the one that the next run goes on with.
    warehouse.land_events("jitsu/bob.ndjson", [page_view("b9", "2026-03-06 12:00", user_id="bob")])
    warehouse.settle()
    assert credited(warehouse)["b9"] == "bob"


@pytest.mark.slow
def test_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    for name, variable in {**engine_environment(), "STITCH_START_DATE": "2026-03-01"}.items():
        monkeypatch.setenv(name, variable)
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    path = tmp_path / "data/landing/jitsu/a.ndjson"
    path.parent.mkdir(parents=True)
    path.write_text("".join(json.dumps(as_jitsu(event)) + "\n" for event in SHARED))
    assert main(["settle"]) == 0
    arguments = ["forget", "--project", "shop", "--user", "-"]

    def run(*options: str) -> tuple[int, str]:
        monkeypatch.setattr("sys.stdin", io.StringIO(f"{ANN}\n"))
        capsys.readouterr()
        code = main([*arguments, *options])
        return code, capsys.readouterr().out

    code, shown = run()
    assert code == 0
    assert "Nothing was changed" in shown
    misspelt = ["forget", "--project", "shp", "--user", ANN]
    for what in ([], ["--forget"]):
        assert main([*misspelt, *what]) == 2
        assert "There is no project 'shp' with events; these have: " in capsys.readouterr().err
    assert not (tmp_path / "forgotten.csv").exists()
    code, shown = run("--json")
    assert (code, json.loads(shown)["tables"][0]["table"]) == (0, "raw_events")
    assert run("--prove")[0] == 1
    code, shown = run("--forget")
    assert code == 0
    assert ANN not in shown
    code, shown = run("--prove")
    assert code == 0, shown
    assert ANN not in shown
    assert "Result: nothing that the project writes holds the id." in shown
    assert "jitsu/a.ndjson: lines 2, 3" in shown
    assert (tmp_path / "forgotten.key").stat().st_mode & 0o777 == 0o600
    assert ANN not in (tmp_path / "forgotten.csv").read_text()
    (tmp_path / "forgotten.key").rename(tmp_path / "lost.key")
    assert main(["settle"]) == 2
    assert "key" in capsys.readouterr().err


def test_without_its_key_the_list_is_refused(new_warehouse: NewWarehouse) -> None:
    warehouse = new_warehouse()
    forget(warehouse, ANN)
    key = warehouse.settings.forgotten_path.with_suffix(".key")
    right = key.read_text()
    key.unlink()
    with pytest.raises(SettingsError, match="is missing"):
        warehouse.load_settings()
    key.write_text("0" * 64 + "\n")
    with pytest.raises(SettingsError, match="is not the one"):
        warehouse.load_settings()
    key.unlink()
    warehouse.load_settings(forget_key=right.strip())
    assert warehouse.settings.forgotten.find("shop", "user", ANN)
    assert right.strip() not in repr(warehouse.settings)


def play_and_forget(warehouse: Warehouse, history: History, random: Random) -> list[tuple[str, str, Mode]]:
    """Play the history, and forget some ids somewhere in it."""
    forgotten = []
    moments = sorted(random.sample(range(2, len(history.steps)), 2))
    for position, step in enumerate(history.steps):
        History((step,)).play(warehouse)
        if position in moments:
            kind, value = random.choice((("user", "u1"), ("user", "u2"), ("device", "d1"), ("device", "u1")))
            mode, project = random.choice(list(Mode)), random.choice(("p1", "p2"))
            forget(warehouse, value, kind, mode, project)
            forgotten.append((project, kind, mode))
    warehouse.settle()
    return forgotten


def assert_history_forgets(seed: int, new_warehouse: NewWarehouse) -> None:
    random = Random(seed)
    warehouse = new_warehouse()
    play_and_forget(warehouse, history(seed, rounds=3), random)
    settings = warehouse.settings
    for table, columns in (
        ("raw_events", ("user_id", "anonymous_id")),
        ("user_mapping_history", ("user_id", "anonymous_id")),
    ):
        for row in warehouse.rows(table):
            assert not settings.forgotten.find(row["project_id"], "user", row[columns[0]] or ""), (table, row)
            assert not settings.forgotten.find(row["project_id"], "device", row[columns[1]] or ""), (table, row)
    assert_as_from_nothing(warehouse, new_warehouse())
    assert not warehouse.settle(reconcile=True).runs[1:], "a reconcile finds nothing to correct"


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.long)])
def test_whatever_happens_around_it_the_tables_are_as_from_nothing(seed: int, new_warehouse: NewWarehouse) -> None:
    assert_history_forgets(seed, new_warehouse)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("seed", range(2, 22))
def test_whatever_happens_around_it_with_more_histories(seed: int, new_warehouse: NewWarehouse) -> None:
    assert_history_forgets(seed, new_warehouse)


@pytest.mark.slow
@pytest.mark.long
def test_a_person_with_a_million_events(new_warehouse: NewWarehouse) -> None:
    """Measured: 16 CPU seconds to forget and settle, a little more than the first settle took."""
    warehouse = new_warehouse(policy="device_split")
    path = warehouse.settings.landing_dir / "jitsu/a.ndjson"
    path.parent.mkdir()
    with path.open("w") as file:
        for number in range(1_000_000):
            user = f', "userId": "{ANN}"' if number % 10 else ""
            at = START_AT + timedelta(seconds=number * 1.7)
            file.write(
                f'{{"messageId": "m{number}", "projectId": "shop", "timestamp": "{at.isoformat()}Z", "type": "page", '
                f'"anonymousId": "device-{number % 5}"{user}}}\n'
            )
    warehouse.land_events("jitsu/z.ndjson", OTHERS[:2])
    warehouse.settle()
    others = warehouse.query("select * from stitch.page_views where anonymous_id = 'z'")
    started = monotonic()
    forget(warehouse, ANN)
    warehouse.settle()
    assert monotonic() - started < 300
    (counts,) = warehouse.query(
        "select count(*) as views, count(*) filter (where stitched_user_id <> anonymous_id) as credited, "
        "(select count(*) from stitch.forgotten_events) as forgotten from stitch.page_views where anonymous_id <> 'z'"
    )
    assert counts == {"views": 100_000, "credited": 0, "forgotten": 900_000}
    assert warehouse.query("select * from stitch.page_views where anonymous_id = 'z'") == others


@pytest.mark.slow
@pytest.mark.parametrize("statement", [45, *(pytest.param(one, marks=pytest.mark.long) for one in (1, 8, 20, 75))])
def test_an_interrupted_forget_is_finished_by_the_next_settle(
    statement: int, new_warehouse: NewWarehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    warehouse = new_warehouse(policy="device_split")
    warehouse.land_events("jitsu/a.ndjson", SHARED)
    warehouse.settle()
    execute, count = OPENED.execute, 0

    def interrupted(self: Any, sql: str, **parameters: Any) -> None:
        nonlocal count
        count += 1
        if count == statement:
            raise KeyboardInterrupt
        execute(self, sql, **parameters)

    with monkeypatch.context() as patched, engine_of(warehouse.settings).open() as open_warehouse:
        patched.setattr(OPENED, "execute", interrupted)
        with pytest.raises(KeyboardInterrupt):
            use_case(open_warehouse, warehouse.settings, [Request("shop", "user", ANN)])
    warehouse.settle()
    assert holding(warehouse, ANN) == {}
    assert credited(warehouse) == AFTER["device_split"]
    assert_as_from_nothing(warehouse, new_warehouse(policy="device_split"))


KILLED = f"""
import os, sys
from {OPENED.__module__} import {OPENED.__name__} as Opened
execute, count = Opened.execute, 0
def killed(self, sql, **parameters):
    global count
    count += 1
    if count == int(sys.argv[1]):
        os._exit(9)
    execute(self, sql, **parameters)
Opened.execute = killed
from stitch_pipeline.cli.main import main
from stitch_pipeline.cli.why import print_explanation
sys.exit(main(["forget", "--project", "shop", "--user", sys.argv[2], "--forget"]))
"""


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("statement", [5, 40, 85, 100])
def test_a_killed_forget_is_finished_by_the_next_settle(
    statement: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, variable in {**engine_environment(), "STITCH_START_DATE": "2026-03-01"}.items():
        monkeypatch.setenv(name, variable)
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    path = tmp_path / "data/landing/jitsu/a.ndjson"
    path.parent.mkdir(parents=True)
    path.write_text("".join(json.dumps(as_jitsu(event)) + "\n" for event in SHARED))
    assert main(["settle"]) == 0
    killed = subprocess.run([sys.executable, "-c", KILLED, str(statement), ANN], capture_output=True, check=False)
    assert killed.returncode == 9, killed.stderr
    assert main(["settle", "--view-stitching"]) == 0
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{ANN}\n"))
    assert main(["forget", "--project", "shop", "--user", "-", "--prove"]) == 0, capsys.readouterr().out
    with engine_of(Settings.load()).open(read_only=True) as stored:
        views: dict[str, str] = dict(stored.rows("select event_id, stitched_user_id from page_views"))
    assert views == AFTER["latest"]


@pytest.mark.slow
@pytest.mark.long
def test_files_with_other_quarantined_rows_are_not_read_again(new_warehouse: NewWarehouse) -> None:
    warehouse = new_warehouse()
    bad = {"projectId": "shop", "type": "page", "timestamp": "yesterday"}
    warehouse.land("jitsu/ann.ndjson", [{**bad, "messageId": "1", "userId": ANN}])
    warehouse.land("jitsu/bob.ndjson", [{**bad, "messageId": "2", "userId": "bob"}])
    warehouse.land("jitsu/broken.ndjson", ['{"userId": '])
    warehouse.settle()
    loaded = {row["landing_file"]: row["loaded_at"] for row in warehouse.rows("landing_files")}
    forget(warehouse, ANN)
    warehouse.settle()
    again = {row["landing_file"]: row["loaded_at"] for row in warehouse.rows("landing_files")}
    assert {name for name in again if again[name] != loaded[name]} == {"jitsu/ann.ndjson", "jitsu/broken.ndjson"}
    forget(warehouse, "bob")
    warehouse.settle()
    once_more = {row["landing_file"]: row["loaded_at"] for row in warehouse.rows("landing_files")}
    assert {name for name in again if once_more[name] != again[name]} == {"jitsu/bob.ndjson"}
    assert not any(row["raw_row"] for row in warehouse.rows("quarantined_events"))
    assert_as_from_nothing(warehouse, new_warehouse())


@pytest.mark.slow
@pytest.mark.long
def test_a_forgotten_user_counts_towards_the_limits_as_before(new_warehouse: NewWarehouse) -> None:
    """Otherwise rows of a shared device would become somebody's, and the users of a hub one person."""
    events = [
        page_view("a1", "2026-03-01 12:00", user_id=ANN),
        page_view("b1", "2026-03-02 12:00", user_id="bob"),
        page_view("c1", "2026-03-03 12:00", user_id="cem"),
        page_view("x", "2026-03-04 12:00"),
    ]
    policies = ("device_split", "graph")
    warehouse = new_warehouse(stitch_toml=EACH_POLICY, max_users_per_device=2)
    warehouse.land_events("jitsu/a.ndjson", in_each(events, policies))
    warehouse.settle()
    before = {policy: credited(warehouse, policy) for policy in policies}
    for policy in policies:
        forget(warehouse, ANN, project=policy)
    warehouse.settle()
    for policy in policies:
        after = credited(warehouse, policy)
        assert after == {event: user for event, user in before[policy].items() if event != "a1"}, policy
        assert after == {"b1": "bob", "c1": "cem", "x": "a"}, policy


@pytest.mark.slow
@pytest.mark.long
def test_a_wrong_link_stays_wrong_when_its_user_is_forgotten(new_warehouse: NewWarehouse) -> None:
    warehouse = new_warehouse(policy="device_split")
    warehouse.land_events(
        "jitsu/a.ndjson", in_each([*SHARED[:4], page_view("b", "2026-02-28 12:00", user_id="bob")], Mode)
    )
    warehouse.land_events("jitsu/b.ndjson", in_each([page_view("b0", "2026-03-01 11:00", user_id="bob")], Mode))
    warehouse.write_overrides(f"{mode},wrong_link,a,{ANN},{ANN} was our support" for mode in Mode)
    warehouse.settle()
    assert [credited(warehouse, mode)["a2"] for mode in Mode] == ["bob"] * len(Mode)
    for mode in Mode:
        forget(warehouse, ANN, mode=mode, project=mode)
    warehouse.settle()
    assert [credited(warehouse, mode)["a2"] for mode in Mode] == ["bob"] * len(Mode)
    assert holding(warehouse, ANN) == {}


@pytest.mark.slow
@pytest.mark.long
def test_why_says_that_a_user_was_forgotten_and_not_who(new_warehouse: NewWarehouse) -> None:
    warehouse = new_warehouse()
    warehouse.land_events("jitsu/a.ndjson", SHARED)
    warehouse.settle()
    forget(warehouse, ANN)
    warehouse.settle()
    with io.StringIO() as text:
        print_explanation(explain(warehouse.settings, "shop", "a"), 40, Console(file=text, width=300))
        shown = text.getvalue()
    assert ANN not in shown
    assert "forgotten:" in shown
    assert "a user who was forgotten: the row is credited to nobody else, and stays with the device" in shown
    assert "takes no row over from a user who was forgotten" in shown


@pytest.mark.slow
@pytest.mark.long
def test_restored_tables_bring_nothing_back(new_warehouse: NewWarehouse) -> None:
    warehouse = new_warehouse(policy="device_split")
    warehouse.land_events("jitsu/a.ndjson", SHARED)
    warehouse.settle()
    tables = ("raw_events", "identity_map", "page_views", "users", "user_mapping_history")
    warehouse.write("create schema kept", *(f"create table kept.{t} as select * from stitch.{t}" for t in tables))
    forget(warehouse, ANN)
    warehouse.settle()
    for table in tables:
        warehouse.write(f"delete from stitch.{table}", f"insert into stitch.{table} select * from kept.{table}")
    warehouse.write(*(f"drop table kept.{table}" for table in tables))
    assert holding(warehouse, ANN)
    warehouse.settle(reconcile=True)
    assert holding(warehouse, ANN) == {}
    assert credited(warehouse) == AFTER["device_split"]
    assert_as_from_nothing(warehouse, new_warehouse(policy="device_split"))
