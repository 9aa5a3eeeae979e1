"""Human decisions: what a line changes is re-stitched and nothing else, and taking it out gives back what was."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from histories import POLICIES
from rich.console import Console
from warehouses import Row, Warehouse, at, differences, ephemeral_warehouse

from stitch_pipeline.cli.progress import Progress
from stitch_pipeline.orchestration.settle import Settled
from stitch_pipeline.stitching.preview import Proposal, preview_rules

pytestmark = pytest.mark.slow

LOOK, RESTITCH, VIEWS = "reconcile_job", "restitch_job", "restitch_page_views_job"
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
# Where a device is given to one owner it makes no difference here whether the first or the last.
OF_ONE_OWNER = {
    "tablet": ["tablet", "ann", "tablet", "ben", "tablet"],
    "till": ["till", "tom", "till"],
    "laptop": ["lea", "lea", "lea", "lea", "lea"],
    "phone": ["pia", "pia", "pia"],
    "other": ["zoe", "zoe", "zoe"],
    None: ["pia"],
}
# Sam's own row stays his, although he is no evidence for others'.
OF_OWN_USERS = {**OF_ONE_OWNER, "laptop": ["lea", "lea", "lea", "sam", "lea"]}
CREDITED = {
    "latest": OF_ONE_OWNER,
    "first": OF_ONE_OWNER,
    "device_split": OF_OWN_USERS,
    "next_identify": {
        "tablet": ["tablet", "ann", "tablet", "ben", "tablet"],
        "till": ["till", "tom", "till"],
        "laptop": ["lea", "lea", "laptop", "sam", "laptop"],
        "phone": ["pia", "pia", "phone"],
        "other": ["zoe", "zoe", "other"],
        None: ["pia"],
    },
    "graph": OF_OWN_USERS,
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


@dataclass(frozen=True)
class Told:
    """What the tables held and what was run as lines came and went."""

    before: dict[str, list[Row]]
    with_lines: dict[str, list[Row]]
    credited: dict[tuple[str, str], dict[str | None, list[str]]]
    reasons: list[Row]
    report: list[Row]
    preview_due: tuple[int, int]
    lines_came: Settled
    pending_after_death: list[tuple[str, str]]
    a_line_went: Settled
    with_fewer_lines: dict[str, list[Row]]
    another_reason: Settled
    without_lines: dict[str, list[Row]]
    history: list[Row]


@pytest.fixture(scope="module")
def told(warehouse: Warehouse) -> Told:
    def due() -> int:
        return preview_rules(warehouse.settings, Proposal(project_id="latest")).due_anyway

    before = warehouse.contents()
    nothing_due = due()
    warehouse.write_overrides(decided(*LINES))
    preview_due = (nothing_due, due())
    lines_came = warehouse.settle()
    tables = ("page_views", "stitched_sessions")
    with_lines: dict[str, Any] = {
        "with_lines": warehouse.contents(),
        "credited": {(table, policy): credited(warehouse, table, policy) for table in tables for policy in POLICIES},
        "reasons": warehouse.query("select * from stitch.stitching_reasons"),
        "report": warehouse.query("select * from stitch.guard_report where project_id = 'first' order by guard, found"),
    }
    assert warehouse.settle().runs == []

    warehouse.write_overrides(decided(*LINES[1:]))
    warehouse.follow_rules_and_die()
    pending = warehouse.query("select distinct project_id, anonymous_id from stitch.pending_devices order by 1, 2")
    a_line_went = warehouse.settle()
    with_fewer_lines = warehouse.contents()
    warehouse.write_overrides([*decided(*LINES[1:3]), *decided("same_person,pia,old-pia,sure of it")])
    warehouse.settle()
    warehouse.write_overrides([*decided(*LINES[1:3]), *decided(LINES[3])])
    another_reason = warehouse.settle()
    warehouse.write_overrides([])
    warehouse.settle()
    return Told(
        before=before,
        **with_lines,
        preview_due=preview_due,
        lines_came=lines_came,
        pending_after_death=[(row["project_id"], row["anonymous_id"]) for row in pending],
        a_line_went=a_line_went,
        with_fewer_lines=with_fewer_lines,
        another_reason=another_reason,
        without_lines=warehouse.contents(),
        history=warehouse.query(
            "select * from stitch.decision_history where project_id = 'first' order by followed_since, id, decision"
        ),
    )


def test_lines_change_the_rows_they_concern_and_no_others(told: Told) -> None:
    assert [run.job_name for run in told.lines_came.runs] == [LOOK, RESTITCH, VIEWS]
    for policy, expected in CREDITED.items():
        assert told.credited["page_views", policy] == expected
        sessions = {device: users for device, users in expected.items() if device is not None}
        assert told.credited["stitched_sessions", policy] == sessions
    # Only what differs is written, and how much that is was said before.
    changed = changed_keys(told.before, told.with_lines)
    assert changed == written(told.lines_came)
    due = told.lines_came.runs[0].rows_stale
    assert due == {table: changed[table] for table in ("stitched_sessions", "page_views")}
    assert 0 < changed["stitched_sessions"] < len(told.before["stitched_sessions"])
    assert told.with_lines["identity_map"] == told.before["identity_map"]


def test_a_line_that_is_taken_out_leaves_no_trace_but_in_the_history(told: Told) -> None:
    assert [run.job_name for run in told.a_line_went.runs] == [LOOK, RESTITCH, VIEWS]
    assert changed_keys(told.with_lines, told.with_fewer_lines) == written(told.a_line_went)
    assert told.without_lines == told.before
    lines = [(row["decision"], row["id"], row["other_id"], row["reason"]) for row in told.history]
    she_said, sure = (("same_person", "pia", "old-pia", reason) for reason in ("she said so", "sure of it"))
    assert lines == [
        ("never_same", "ann", "ben", "flatmates"),
        ("wrong_link", "laptop", "sam", "support"),
        she_said,
        ("shared_device", "till", "", ""),
        sure,
        she_said,
    ]
    flatmates, support, first_said, till, for_sure, said_again = told.history
    assert flatmates["followed_until"] < first_said["followed_until"] == for_sure["followed_since"]
    assert for_sure["followed_until"] == said_again["followed_since"] < said_again["followed_until"]
    assert support["followed_until"] == till["followed_until"] == said_again["followed_until"]


def test_only_devices_concerned_are_looked_at_and_none_is_lost_to_a_death(told: Told) -> None:
    assert told.pending_after_death == [(policy, "tablet") for policy in sorted(POLICIES)]
    look = told.a_line_went.runs[0]
    changed = changed_keys(told.with_lines, told.with_fewer_lines)
    assert look.rows_stale == {table: changed[table] for table in ("stitched_sessions", "page_views")}


def test_another_reason_for_a_line_changes_no_row(told: Told) -> None:
    (look,) = told.another_reason.runs
    assert (look.job_name, look.rows_stale) == (LOOK, {"stitched_sessions": 0, "page_views": 0})


def test_why_and_the_guard_report_quote_the_line_that_decided(told: Told) -> None:
    def reasons(policy: str, event_id: str) -> dict[str, str]:
        rows = [row for row in told.reasons if (row["project_id"], row["row_id"]) == (policy, event_id)]
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
    assert reasons("graph", "laptop3") == {
        "lea": "decides: the last link on the device within the lookback, to the person lea",
        "sam": "no link, as decided: wrong_link laptop, sam: support",
    }
    assert reasons("graph", "phone1") == {
        "old-pia": f"decides: the last link on the device within the lookback, to the person pia; {named}"
    }
    assert set(reasons("graph", "tablet1").values()) == {f"device is shared, as decided: {flatmates}"}
    assert [(row["guard"], row["field"], row["found"], row["event_count"]) for row in told.report] == [
        ("shared by decision", "anonymous_id", "tablet", 3),
        ("shared by decision", "anonymous_id", "till", 2),
        ("wrong link", "user_id", "sam", 1),
    ]


def test_a_preview_goes_by_the_lines_that_are_written(told: Told) -> None:
    due = changed_keys(
        {table: [row for row in rows if row.get("project_id") == "latest"] for table, rows in told.before.items()},
        {table: [row for row in rows if row.get("project_id") == "latest"] for table, rows in told.with_lines.items()},
    )
    of_devices = due["stitched_sessions"] + due["page_views"]
    assert told.preview_due == (0, of_devices)


def test_traits_follow_even_if_no_session_changes_hands(warehouse: Warehouse, told: Told) -> None:
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
