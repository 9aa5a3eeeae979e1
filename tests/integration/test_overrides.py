"""Human decisions: what a line changes is re-stitched and nothing else, and taking it out gives back what was."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest
from rich.console import Console
from warehouses import Row, Warehouse, at, differences, ephemeral_warehouse

from stitch_pipeline.progress import Progress
from stitch_pipeline.rules_preview import Proposal, preview_rules
from stitch_pipeline.settings import Settings
from stitch_pipeline.settle import Settled
from stitch_pipeline.warehouse import stale
from stitch_pipeline.warehouse.duckdb_file import connect

LOOK, RESTITCH, VIEWS = "reconcile_job", "restitch_job", "restitch_page_views_job"
POLICIES = ("latest", "first", "device_split", "next_identify")
KEYS = {
    "stitched_sessions": ("project_id", "session_id"),
    "page_views": ("project_id", "event_id"),
    "users": ("project_id", "stitched_user_id"),
    "visitor_stats": ("project_id", "stat_date"),
}
LINES = (
    "never_same,ann,ben,flatmates",
    "shared_device,till,,",
    "wrong_link,laptop,sam,support",
    "same_person,pia,old-pia,she said so",
)
# By device, on the 1st to the 5th of March: whose page view it is, or None for nobody's; and what the lines above make
# of them under each policy.
DEVICES: Mapping[str, Sequence[str | None]] = {
    "tablet": (None, "ann", None, "ben", None),
    "till": (None, "tom", None),
    "laptop": (None, "lea", None, "sam", None),
    "phone": (None, "old-pia", None),
    "other": (None, "zoe", None),
}
CREDITED = {
    "latest": {
        "tablet": ["tablet", "ann", "tablet", "ben", "tablet"],
        "till": ["till", "tom", "till"],
        "laptop": ["lea", "lea", "lea", "lea", "lea"],
        "phone": ["pia", "pia", "pia"],
        "other": ["zoe", "zoe", "zoe"],
        None: ["pia"],
    },
    "first": {
        "tablet": ["tablet", "ann", "tablet", "ben", "tablet"],
        "till": ["till", "tom", "till"],
        "laptop": ["lea", "lea", "lea", "lea", "lea"],
        "phone": ["pia", "pia", "pia"],
        "other": ["zoe", "zoe", "zoe"],
        None: ["pia"],
    },
    "device_split": {
        "tablet": ["tablet", "ann", "tablet", "ben", "tablet"],
        "till": ["till", "tom", "till"],
        "laptop": ["lea", "lea", "lea", "sam", "lea"],
        "phone": ["pia", "pia", "pia"],
        "other": ["zoe", "zoe", "zoe"],
        None: ["pia"],
    },
    "next_identify": {
        "tablet": ["tablet", "ann", "tablet", "ben", "tablet"],
        "till": ["till", "tom", "till"],
        "laptop": ["lea", "lea", "laptop", "sam", "laptop"],
        "phone": ["pia", "pia", "phone"],
        "other": ["zoe", "zoe", "other"],
        None: ["pia"],
    },
}


def page(project: str, event_id: str, day: int, device: str | None, user: str | None, **fields: Any) -> Row:
    return {
        "event_id": event_id,
        "project_id": project,
        "occurred_at": at(f"2026-03-0{day} 12:00"),
        "event_type": "page",
        "anonymous_id": device,
        "user_id": user,
        **fields,
    }


def story(project: str) -> list[Row]:
    pages = [
        page(project, f"{device}{day}", day, device, user)
        for device, users in DEVICES.items()
        for day, user in enumerate(users, start=1)
    ]
    return [*pages, page(project, "no-device", 3, None, "old-pia")]


TRAITS = [
    page("traits", "t1", 2, "phone", "old-pia", event_type="identify", traits={"city": "Rome"}),
    page("traits", "t2", 3, "phone", "pia"),
]


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warehouse]:
    toml = "".join(f'[projects.{policy}]\npolicy = "{policy}"\n' for policy in POLICIES)
    with ephemeral_warehouse(tmp_path_factory.mktemp("overrides"), stitch_toml=toml) as warehouse:
        warehouse.land_events("jitsu/a.ndjson", [event for policy in POLICIES for event in story(policy)] + TRAITS)
        warehouse.settle()
        yield warehouse


@pytest.fixture(autouse=True)
def no_overrides_at_first(warehouse: Warehouse) -> Iterator[None]:
    yield
    warehouse.write_overrides([])
    warehouse.settle()


def decided(*lines: str, projects: Sequence[str] = POLICIES) -> list[str]:
    return [f"{project},{line}" for project in projects for line in lines]


def credited(warehouse: Warehouse, table: str, policy: str) -> dict[str | None, list[str]]:
    day = "session_date" if table == "stitched_sessions" else "event_date"
    found: dict[str | None, list[str]] = {}
    for row in warehouse.query(f"select * from stitch.{table} where project_id = '{policy}' order by {day}"):
        found.setdefault(row["anonymous_id"], []).append(row["stitched_user_id"])
    return found


def changed_keys(before: Mapping[str, list[Row]], after: Mapping[str, list[Row]]) -> dict[str, int]:
    """How many rows of each table differ, those that came or went included."""
    counts = {}
    for table, key in KEYS.items():
        differing = differences(after[table], before[table])
        counts[table] = len({tuple(row[name] for name in key) for rows in differing.values() for row in rows})
    return counts


def written(settled: Settled) -> dict[str, int]:
    return {table: sum(run.rows_changed.get(table, 0) for run in settled.runs) for table in KEYS}


def test_lines_change_the_rows_they_concern_and_taken_out_leave_no_trace(warehouse: Warehouse) -> None:
    before = warehouse.contents()
    warehouse.write_overrides(decided(*LINES))
    settled = warehouse.settle()
    assert [run.job_name for run in settled.runs] == [LOOK, RESTITCH, VIEWS]
    with_lines = warehouse.contents()
    for policy, expected in CREDITED.items():
        assert credited(warehouse, "page_views", policy) == expected
        sessions = {device: users for device, users in expected.items() if device is not None}
        assert credited(warehouse, "stitched_sessions", policy) == sessions
    # Only what differs is written, and how much that is was said before.
    due = settled.runs[0].rows_stale
    changed = changed_keys(before, with_lines)
    assert changed == written(settled)
    assert due == {table: changed[table] for table in ("stitched_sessions", "page_views")}
    assert 0 < changed["stitched_sessions"] < len(before["stitched_sessions"])
    assert warehouse.settle().runs == []
    observed = warehouse.query("select project_id, user_id from stitch.identity_map where user_id = 'sam'")
    assert len(observed) == len(POLICIES)

    warehouse.write_overrides(decided(*LINES[1:]))
    settled = warehouse.settle()
    assert [run.job_name for run in settled.runs] == [LOOK, RESTITCH, VIEWS]
    assert changed_keys(with_lines, warehouse.contents()) == written(settled)
    warehouse.write_overrides([])
    warehouse.settle()
    assert warehouse.contents() == before
    assert warehouse.settle().runs == []
    history = warehouse.query(
        "select decision, id, other_id, reason, followed_until >= followed_since as is_over, count(*) as line_count "
        "from stitch.override_history group by all order by min(followed_until), id"
    )
    assert [tuple(row.values()) for row in history] == [
        ("never_same", "ann", "ben", "flatmates", True, 4),
        ("wrong_link", "laptop", "sam", "support", True, 4),
        ("same_person", "pia", "old-pia", "she said so", True, 4),
        ("shared_device", "till", "", "", True, 4),
    ]


def test_traits_follow_even_if_no_session_changes_hands(warehouse: Warehouse) -> None:
    def pia() -> Row:
        (row,) = warehouse.query("select * from stitch.users where project_id = 'traits'")
        return row

    assert (pia()["traits"], pia()["identified_at"]) == (None, at("2026-03-03 12:00"))
    warehouse.write_overrides(["traits,same_person,pia,old-pia,"])
    look, restitch = warehouse.settle().runs
    assert (look.job_name, restitch.job_name) == (LOOK, RESTITCH)
    assert look.rows_stale == {"stitched_sessions": 0, "page_views": 0, "user_mapping_history": 3, "users": 1}
    console = Console(width=200)
    with console.capture() as printed:
        Progress(console).show(look)
    assert "to be re-stitched: user_mapping_history 3 rows, users 1 row" in printed.get()
    changed = {"user_mapping_history": 3, "stitched_sessions": 0, "users": 1, "visitor_stats": 0}
    assert restitch.rows_changed == changed
    assert (pia()["traits"], pia()["identified_at"]) == ('{"city":"Rome"}', at("2026-03-02 12:00"))
    warehouse.write_overrides(["traits,wrong_link,phone,old-pia,"])
    warehouse.settle()
    assert (pia()["traits"], pia()["identified_at"]) == (None, at("2026-03-03 12:00"))


def test_only_devices_concerned_are_looked_at_and_none_is_lost_to_a_death(warehouse: Warehouse) -> None:
    before = warehouse.contents()
    warehouse.write_overrides(decided(*LINES, projects=["first"]))
    with connect(warehouse.settings.duckdb_path, wait_seconds=1) as con:
        rules = {policy: warehouse.settings.crediting_rules(policy) for policy in POLICIES}
        stale.follow_rules(con, rules, warehouse.settings.overrides)  # and dies before it tells anybody
    pending = warehouse.query("select distinct project_id, anonymous_id from stitch.pending_devices order by all")
    assert [tuple(row.values()) for row in pending] == [
        ("first", device) for device in ("", "laptop", "phone", "tablet", "till")
    ]
    assert [run.job_name for run in warehouse.settle().runs] == [LOOK, RESTITCH, VIEWS]
    assert credited(warehouse, "page_views", "first") == CREDITED["first"]
    for table, rows in warehouse.contents().items():
        others = [[row for row in of if row.get("project_id") != "first"] for of in (rows, before[table])]
        assert others[0] == others[1], table


def test_another_reason_for_a_line_is_remembered_and_changes_no_row(warehouse: Warehouse) -> None:
    warehouse.write_overrides(["latest,shared_device,till,,a guess"])
    warehouse.settle()
    warehouse.write_overrides(["latest,shared_device,till,,seen it"])
    (look,) = warehouse.settle().runs
    assert (look.job_name, look.rows_stale) == (LOOK, {"stitched_sessions": 0, "page_views": 0})
    told = warehouse.query("select reason, followed_until is null as is_followed from stitch.override_history")
    assert {"reason": "a guess", "is_followed": False} in told
    assert {"reason": "seen it", "is_followed": True} in told


def test_why_and_the_guard_report_quote_the_line_that_decided(warehouse: Warehouse) -> None:
    warehouse.write_overrides(decided(*LINES))
    warehouse.settle()

    def reasons(policy: str, event_id: str) -> dict[str, str]:
        rows = warehouse.query(
            "select candidate_user_id, reason from stitch.stitching_reasons "
            f"where project_id = '{policy}' and row_id = '{event_id}'"
        )
        return {row["candidate_user_id"]: row["reason"] for row in rows}

    flatmates, till = "never_same ann, ben: flatmates", "shared_device till"
    named = "goes by pia, as decided: same_person pia, old-pia: she said so"
    assert set(reasons("latest", "tablet1").values()) == {f"device is shared, as decided: {flatmates}"}
    assert set(reasons("first", "tablet2").values()) == {f"own user decides: device is shared, as decided: {flatmates}"}
    assert reasons("first", "till1") == {"tom": f"device is shared, as decided: {till}"}
    assert reasons("latest", "laptop3") == {
        "lea": "decides: the last link on the device within the lookback",
        "sam": "no link, as decided: wrong_link laptop, sam: support",
    }
    assert reasons("latest", "phone1") == {
        "old-pia": f"decides: the last link on the device within the lookback; {named}"
    }
    assert reasons("device_split", "phone2") == {"old-pia": f"own user decides under device_split; {named}"}
    report = warehouse.query(
        "select guard, field, found, event_count from stitch.guard_report "
        "where project_id = 'first' order by guard, found"
    )
    assert [tuple(row.values()) for row in report] == [
        ("shared by decision", "anonymous_id", "tablet", 3),
        ("shared by decision", "anonymous_id", "till", 2),
        ("wrong link", "user_id", "sam", 1),
    ]


def test_a_preview_goes_by_the_lines_that_are_written(warehouse: Warehouse) -> None:
    def due(settings: Settings) -> int:
        return preview_rules(settings, Proposal(project_id="latest")).due_anyway

    assert due(warehouse.settings) == 0
    warehouse.write_overrides(["latest,shared_device,till,,"])
    # Nobody's two sessions and views change hands; for the session that stays Tom's no link is asked any more.
    assert due(warehouse.settings) == 5
    assert preview_rules(warehouse.settings, Proposal(project_id="latest", lookback_days=0)).sessions_that_move > 0
