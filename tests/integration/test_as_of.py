"""A report is reproduced as it was, from what was known then: after later logins, other rules and other overrides."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest
from histories import POLICIES
from warehouses import REPOSITORY, Row, Warehouse, at, ephemeral_warehouse, ordered

pytestmark = pytest.mark.slow

OTHERS = {"shared": "max_users_per_device = 1", "identify-only": 'link_on = "identify"\npolicy = "device_split"'}
PROJECTS = (*POLICIES, *OTHERS)
RULES = {**{policy: f'policy = "{policy}"' for policy in POLICIES}, **OTHERS}

Report = Mapping[str, int]
"""Sessions of the first five days of March, by the user that they are credited to."""


def documented_query() -> str:
    """The query of docs/policies.md by which a report is had as it was."""
    text = (REPOSITORY / "docs" / "policies.md").read_text(encoding="utf-8")
    (query,) = re.findall(r"```sql\n(with known as .*?)```", text, re.DOTALL)
    return str(query)


@dataclass
class Reported:
    """Each report with the moment of its making, by project."""

    warehouse: Warehouse
    reports: list[tuple[datetime, dict[str, Report]]]

    def report(self) -> None:
        self.warehouse.settle(view_stitching=False)
        made: dict[str, Mapping[str, int]] = {
            project: {
                row["stitched_user_id"]: row["sessions"]
                for row in self.warehouse.query(
                    "select stitched_user_id, count(*) as sessions from stitch.stitched_sessions "
                    f"where project_id = '{project}' and session_date between '2026-03-01' and '2026-03-05' "
                    "group by stitched_user_id"
                )
            }
            for project in PROJECTS
        }
        self.reports.append((datetime.now(UTC).replace(tzinfo=None), made))


def event(project: str, event_id: str, time: str, device: str, user: str | None = None, kind: str = "page") -> Row:
    return {
        "event_id": event_id,
        "project_id": project,
        "occurred_at": at(time),
        "event_type": kind,
        "anonymous_id": device,
        "user_id": user,
    }


def first_days(project: str) -> list[Row]:
    return [
        event(project, "a1", "2026-03-01 12:00", "a"),
        event(project, "a2", "2026-03-02 12:00", "a", "ann", "identify"),
        event(project, "a3", "2026-03-03 12:00", "a"),
        event(project, "a4", "2026-03-04 12:00", "a", "bob"),
        event(project, "a5", "2026-03-05 12:00", "a"),
        event(project, "b1", "2026-03-01 12:00", "b"),
        event(project, "b2", "2026-03-05 12:00", "b"),
        event(project, "c1", "2026-03-03 12:00", "c", "cem"),
        event(project, "c2", "2026-03-04 12:00", "c"),
    ]


def later_logins(project: str) -> list[Row]:
    return [
        event(project, "a6", "2026-03-06 12:00", "a", "dee", "identify"),
        event(project, "b3", "2026-03-07 12:00", "b", "ann", "identify"),
        event(project, "c3", "2026-03-08 12:00", "c", "ann", "identify"),
    ]


def stitch_toml(rules: Mapping[str, str]) -> str:
    return "".join(f"[projects.{project}]\n{rule}\n" for project, rule in rules.items())


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reported]:
    with ephemeral_warehouse(tmp_path_factory.mktemp("as-of"), stitch_toml=stitch_toml(RULES)) as warehouse:
        told = Reported(warehouse, [])
        warehouse.land_events("jitsu/a.ndjson", [row for project in PROJECTS for row in first_days(project)])
        told.report()
        warehouse.land_events("jitsu/b.ndjson", [row for project in PROJECTS for row in later_logins(project)])
        told.report()
        warehouse.write_overrides(
            f"{project},{line}," for project in PROJECTS for line in ("same_person,eve,ann", "shared_device,c,")
        )
        told.report()
        # Each under the policy of the next, and nobody's decisions any more.
        warehouse.write_overrides([])
        others = dict(zip(POLICIES, [f'policy = "{policy}"' for policy in (*POLICIES[1:], POLICIES[0])], strict=True))
        warehouse.write_stitch_toml(stitch_toml({**RULES, **others, "shared": "stitching = false"}))
        told.report()
        yield told


@pytest.mark.parametrize("project", PROJECTS)
def test_each_report_is_had_again_as_it_was(reported: Reported, project: str) -> None:
    changed = 0
    for moment, made in reported.reports:
        query = (
            documented_query()
            .replace("'shop'", f"'{project}'")
            .replace("timestamp '2026-04-01 00:00:00'", f"timestamp '{moment}'")
            .replace("'2026-03-31'", "'2026-03-05'")
        )
        assert moment.isoformat(sep=" ") in query
        asked = reported.warehouse.query(query)
        assert {row["stitched_user_id"]: row["sessions"] for row in asked} == made[project]
        changed += made[project] != reported.reports[-1][1][project]
    # Else it would have been nothing to have them again.
    assert changed >= 2


def test_what_was_known_is_ended_and_never_taken_out(reported: Reported) -> None:
    rows = reported.warehouse.query(
        "select user_id, valid_from, valid_until, known_since, known_until from stitch.user_mapping_history "
        "where project_id = 'first' and anonymous_id = 'b' order by known_since, valid_from"
    )
    moments = [moment for moment, _ in reported.reports]
    # Nobody knew b in the first report; Ann's login on the 7th reaches back 30 days.
    reached = at("2026-02-05 00:00")
    ann = [row for row in rows if row["user_id"] == "ann"]
    assert [(row["valid_from"], row["valid_until"]) for row in ann] == [
        (reached, at("2026-03-07 12:00")),  # link after
        (at("2026-03-07 12:00"), None),  # link before
        (reached, at("2026-03-07 12:00")),  # under device_split, after Ann was Eve for a while
        (at("2026-03-07 12:00"), None),
    ]
    assert all(moments[0] < row["known_since"] < moments[1] < row["known_until"] < moments[2] for row in ann[:2])
    assert all(moments[2] < row["known_since"] < moments[3] and row["known_until"] is None for row in ann[2:])
    eve = [row for row in rows if row["user_id"] == "eve"]
    assert all(moments[1] < row["known_since"] < moments[2] < row["known_until"] < moments[3] for row in eve)
    assert len(eve) == 2


def test_nothing_is_looked_at_that_has_not_changed(reported: Reported) -> None:
    warehouse = reported.warehouse
    history = f"select {warehouse.row_id}, * from stitch.user_mapping_history"
    before = ordered(warehouse.query(history))
    assert warehouse.settle(reconcile=True, view_stitching=False).runs[-1].job_name == "reconcile_job"
    assert warehouse.build(at("2026-03-01").date(), at("2026-03-09").date())["user_mapping_history"] == 0
    assert ordered(warehouse.query(history)) == before
