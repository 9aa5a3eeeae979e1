"""People whose events have no device: in ``users`` and, where a project says so, among the visitors."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import date
from typing import Any

import pytest
from conftest import NewWarehouse
from engines import environment
from warehouses import Row, Warehouse, at, ephemeral_warehouse, page_view

from stitch_pipeline.cli.main import main
from stitch_pipeline.settings.forgotten import Mode
from stitch_pipeline.stitching.figures import read_figures
from stitch_pipeline.stitching.forget import Request, add_to_list

COUNTED = "count_people_without_devices = true\n"
TOML = (
    f'[projects.graph]\npolicy = "graph"\n{COUNTED}identifiers.email.paths = "properties.email"\n'
    f"[projects.counted]\n{COUNTED}"
)


def server_event(event_id: str, time: str, user_id: str | None, **fields: Any) -> Row:
    return {
        "project_id": "shop",
        "event_id": event_id,
        "occurred_at": at(time),
        "received_at": at(time),
        "event_type": "track",
        "anonymous_id": None,
        "user_id": user_id,
        **fields,
    }


EVENTS = [
    # Sue is known to a server only; Ann also has a laptop; Bob's second id pays by invoice.
    server_event("s1", "2026-03-01 10:00", "sue", utm_source="letter", event_type="identify", traits={"n": 1}),
    server_event("s2", "2026-03-01 11:00", "sue", event_type="page", utm_source="later"),
    server_event("s3", "2026-03-03 09:00", "sue"),
    server_event("a0", "2026-03-01 08:00", "ann", utm_source="crm", event_type="identify", traits={"n": 2}),
    page_view("a1", "2026-03-02 12:00", anonymous_id="laptop", utm_source="facebook"),
    page_view("a2", "2026-03-02 12:05", anonymous_id="laptop", user_id="ann"),
    server_event("a3", "2026-03-02 12:06", "ann"),
    page_view("b1", "2026-03-02 13:00", anonymous_id="phone", user_id="bob", properties={"email": "bob@example.com"}),
    server_event("b2", "2026-03-02 14:00", "bob@work", properties={"email": "bob@example.com"}),
    # Nobody: an event that names neither.
    server_event("n1", "2026-03-02 15:00", None),
]


def land(warehouse: Warehouse) -> None:
    for project in ("shop", "counted", "graph"):
        rows = [{**event, "project_id": project, "event_id": event["event_id"]} for event in EVENTS]
        warehouse.land_events(f"jitsu/{project}.ndjson", rows)


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warehouse]:
    with ephemeral_warehouse(tmp_path_factory.mktemp("people"), stitch_toml=TOML) as built:
        land(built)
        built.settle()
        yield built


def users(warehouse: Warehouse, project: str = "shop") -> dict[str, Row]:
    return {row["stitched_user_id"]: row for row in warehouse.rows("users") if row["project_id"] == project}


def visitors(warehouse: Warehouse, project: str) -> dict[int, tuple[int, int, int]]:
    """Visitors, visitors without stitching and visits by day of March."""
    return {
        row["stat_date"].day: (row["visitors"], row["visitors_unstitched"], row["visits"])
        for row in warehouse.rows("visitor_stats")
        if row["project_id"] == project
    }


def test_somebody_without_a_device_is_a_user(warehouse: Warehouse) -> None:
    sue = users(warehouse)["sue"]
    assert sue == {
        "project_id": "shop",
        "stitched_user_id": "sue",
        "is_identified": True,
        "first_seen_at": at("2026-03-01 10:00"),
        "last_seen_at": at("2026-03-03 09:00"),
        "identified_at": at("2026-03-01 10:00"),
        "session_count": 0,
        "page_view_count": 1,
        "event_count": 3,
        "device_count": 0,
        "first_touch_source": "letter",
        "first_touch_medium": None,
        "first_touch_campaign": None,
        "first_touch_referrer": None,
        "traits": '{"n": 1}',
    }
    assert set(users(warehouse)) == {"sue", "ann", "bob", "bob@work"}


def test_what_somebody_did_on_a_device_and_without_one_is_one_row(warehouse: Warehouse) -> None:
    ann = users(warehouse)["ann"]
    assert (ann["first_seen_at"], ann["identified_at"]) == (at("2026-03-01 08:00"), at("2026-03-01 08:00"))
    assert (ann["session_count"], ann["device_count"], ann["page_view_count"], ann["event_count"]) == (1, 1, 2, 4)
    # The event of a server comes first, and knows of no campaign that brought somebody.
    assert (ann["first_touch_source"], ann["traits"]) == ("facebook", '{"n": 2}')
    of_ann = [row for row in warehouse.rows("stitched_events") if row["stitched_user_id"] == "ann"]
    assert {json.dumps(json.loads(row["traits"])) for row in of_ann} == {'{"n": 2}'}


def test_under_graph_the_person_has_the_rows_of_each_id(warehouse: Warehouse) -> None:
    found = users(warehouse, "graph")
    assert set(found) == {"sue", "ann", "bob"}
    assert (found["bob"]["event_count"], found["bob"]["device_count"]) == (2, 1)


def test_visitors_without_a_device_count_where_the_project_says_so(warehouse: Warehouse) -> None:
    assert visitors(warehouse, "shop") == {1: (0, 0, 0), 2: (2, 2, 2)}  # the first has a page view of a server
    # Ann has a session on the second: she counts once. Under graph Bob's two ids are one person, who has one too.
    assert visitors(warehouse, "counted") == {1: (2, 0, 0), 2: (3, 2, 2), 3: (1, 0, 0)}
    assert visitors(warehouse, "graph") == {1: (2, 0, 0), 2: (2, 2, 2), 3: (1, 0, 0)}


def test_the_report_counts_them_too_and_keeps_its_figures_of_devices(warehouse: Warehouse) -> None:
    figures = {project.project_id: project for project in read_figures(warehouse.settings).projects}
    assert {name: found.visitors for name, found in figures.items()} == {"shop": 2, "counted": 4, "graph": 3}
    assert {found.persons for found in figures.values()} == {2}
    assert {tuple(found.devices_per_person.items()) for found in figures.values()} == {((1, 2),)}


@pytest.fixture
def why(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    def ask(warehouse: Warehouse, *arguments: str) -> tuple[int, str]:
        for name, value in environment(warehouse.settings).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("COLUMNS", "300")
        code = main(["why", *arguments])
        return code, capsys.readouterr().out

    return ask


def test_why_says_that_no_link_is_needed(warehouse: Warehouse, why: Callable[..., tuple[int, str]]) -> None:
    code, out = why(warehouse, "--project", "shop", "--user", "sue")
    assert code == 0
    assert " ".join(out.split()) == (
        "shop, user sue in events without a device: 3 events, 1 of them page views, from 2026-03-01 10:00:00 to "
        "2026-03-03 09:00:00 UTC Each names the user, so all are credited to sue, own, whatever the policy. "
        "They are in no session."
    )
    code, out = why(warehouse, "--project", "graph", "--user", "bob@work", "--json")
    found = json.loads(out)
    assert (code, found["without_device"]["stitched_user_id"], found["without_device"]["event_count"]) == (0, "bob", 1)
    code, out = why(warehouse, "--project", "shop", "--user", "ann")
    assert code == 0
    assert "2 events, 0 of them page views" in out
    assert "device laptop" in out
    code, out = why(warehouse, "--project", "shop", "--user", "sue", "--html", str(warehouse.directory / "sue.html"))
    assert "Without a device: 3 events" in (warehouse.directory / "sue.html").read_text("utf-8")


def as_from_nothing(warehouse: Warehouse, fresh: Warehouse) -> None:
    for name in ("stitch.toml", "overrides.csv", "forgotten.csv", "forgotten.key"):
        if (path := warehouse.directory / name).exists():
            (fresh.directory / name).write_bytes(path.read_bytes())
    for path in warehouse.settings.landing_dir.rglob("*.ndjson"):
        copy = fresh.settings.landing_dir / path.relative_to(warehouse.settings.landing_dir)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    fresh.load_settings()
    fresh.settle()
    for table in ("users", "visitor_stats", "activity_without_device"):
        assert warehouse.rows(table) == fresh.rows(table), table


@pytest.mark.slow
def test_settings_decisions_and_persons_find_these_rows(new_warehouse: NewWarehouse) -> None:
    """Each changes who is counted on days of which no event changes."""
    warehouse = new_warehouse(stitch_toml=TOML)
    land(warehouse)
    warehouse.settle()

    warehouse.write_stitch_toml(TOML + f"[projects.shop]\n{COUNTED}")
    warehouse.settle()
    assert visitors(warehouse, "shop") == visitors(warehouse, "counted")

    # Sue is Ann by decision: on the first one person, and no user of her own.
    warehouse.write_overrides([f"{project},same_person,ann,sue," for project in ("shop", "graph")])
    warehouse.settle()
    assert set(users(warehouse)) == {"ann", "bob", "bob@work"}
    assert users(warehouse)["ann"]["event_count"] == 7
    assert visitors(warehouse, "shop") == {1: (1, 0, 0), 2: (3, 2, 2), 3: (1, 0, 0)}
    assert visitors(warehouse, "graph")[1] == (1, 0, 0)

    # Without the address nothing ties Bob's two ids.
    warehouse.write_stitch_toml(TOML.replace('"properties.email"', '"properties.other"'))
    warehouse.settle()
    assert set(users(warehouse, "graph")) == {"ann", "bob", "bob@work"}
    assert visitors(warehouse, "graph")[2] == (3, 2, 2)
    assert visitors(warehouse, "shop") == {1: (0, 0, 0), 2: (2, 2, 2)}
    as_from_nothing(warehouse, new_warehouse())


@pytest.mark.slow
@pytest.mark.parametrize("mode", [Mode.delete, Mode.pseudonymise])
def test_a_forgotten_person_without_a_device_is_gone(mode: Mode, new_warehouse: NewWarehouse) -> None:
    warehouse = new_warehouse(stitch_toml=TOML)
    land(warehouse)
    warehouse.write_overrides(["shop,same_person,ann,sue,"])
    warehouse.settle()
    for project in ("shop", "counted"):
        add_to_list(warehouse.settings, Request(project, "user", "sue", mode))
    warehouse.settle()
    of_sue = [
        row
        for table in ("users", "activity_without_device", "stitched_events", "pending_users")
        for row in warehouse.rows(table)
        if "sue" in row.values() and row["project_id"] != "graph"
    ]
    assert of_sue == []
    kept = 0 if mode == Mode.delete else 1
    assert sum(name.startswith("forgotten:") for name in users(warehouse, "counted")) == kept
    assert visitors(warehouse, "counted").get(1) == (1 + kept, 0, 0)
    assert users(warehouse)["ann"]["event_count"] == 4
    as_from_nothing(warehouse, new_warehouse())


@pytest.mark.slow
def test_a_day_that_loses_its_events_loses_its_people(new_warehouse: NewWarehouse) -> None:
    warehouse = new_warehouse(stitch_toml=TOML)
    land(warehouse)
    warehouse.settle()
    warehouse.land_events("jitsu/counted.ndjson", [{**event, "project_id": "counted"} for event in EVENTS[3:]])
    warehouse.settle()
    assert set(users(warehouse, "counted")) == {"ann", "bob", "bob@work"}
    assert visitors(warehouse, "counted") == {1: (1, 0, 0), 2: (3, 2, 2)}
    assert users(warehouse)["sue"]["event_count"] == 3, "the same id in another project is another person"
    changed = warehouse.build(date(2026, 3, 1), date(2026, 3, 3))
    assert not any(changed.values())
