"""``preview_rules_job``: what other rules would change is what they do change, and asking changes nothing."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from dagster import AssetKey, TableMetadataValue
from engines import environment, state
from test_why import page
from warehouses import Row, Warehouse, ephemeral_warehouse

from stitch_pipeline.cli.main import main
from stitch_pipeline.orchestration.jobs import PREVIEW_RULES_JOB
from stitch_pipeline.orchestration.settle import Settled
from stitch_pipeline.settings import Settings, SettingsError
from stitch_pipeline.stitching.preview import Proposal, RulesPreview, how_to_follow, preview_rules

pytestmark = pytest.mark.slow

PROPOSALS: dict[str, dict[str, Any]] = {
    "first": {"policy": "first"},
    "split": {"policy": "device_split"},
    "next": {"policy": "next_identify"},
    "graph": {"policy": "graph"},
    "hours": {"lookback_days": "47h", "carry_forward_days": "24h"},
    "near": {"lookback_days": 1},
    "short": {"carry_forward_days": 0},
    "crowd": {"max_users_per_device": 1},
    "few": {"policy": "graph", "limits": "user.per_person=2, email.device=1", "max_ids_per_person": 3},
    "unique": {"policy": "graph", "unique_identifiers": "user", "contested_ids": "first"},
    "both": {"policy": "device_split", "lookback_days": 1, "carry_forward_days": 1},
}
UNTOUCHED = "untouched"
EMAIL = '[projects.few.identifiers.email]\npaths = "traits.email"\n'
"""Set from the beginning, because a kind that is new cannot be tried."""
THESE_HAVE = "these have: 'both', 'crowd', 'few', 'first', 'graph', 'hours', 'near', 'next', 'short', 'split', …."
TABLES = ("stitched_sessions", "page_views", "users")
IS_CREDITED = ("stitched_user_id", "stitched_by", "linked_at", "link_event_id")


@dataclass(frozen=True)
class Told:
    """What each preview said of its project, and the rows of the project before and after the rules were followed."""

    metadata: Mapping[str, Mapping[str, Any]]
    before: Mapping[str, Sequence[Row]]
    after: Mapping[str, Sequence[Row]]
    previewing_changed_the_warehouse: bool
    of_all_projects: Mapping[str, int]
    of_one_project: Mapping[str, int]
    settled: Settled


def preview(warehouse: Warehouse, **config: Any) -> dict[str, Any]:
    """Launch the job as the launchpad does; its observation's metadata, tables as lists of dicts."""
    result = warehouse.defs.resolve_job_def(PREVIEW_RULES_JOB).execute_in_process(
        instance=warehouse.instance, run_config={"ops": {"try_rules": {"config": config}}}
    )
    (event,) = result.get_asset_observation_events()
    observation = event.asset_observation_data.asset_observation
    assert observation.asset_key == AssetKey("stitched_sessions")
    assert result.get_asset_materialization_events() == []
    return {
        name: [dict(record.data) for record in value.records] if isinstance(value, TableMetadataValue) else value.value
        for name, value in observation.metadata.items()
    }


def story(project: str) -> list[dict[str, Any]]:
    """Three users of a laptop in turn, on days in a row so that each settling is one run; and a phone's own user."""
    users = {3: "ann", 5: "bob", 7: "cem"}
    return [
        *(page(project, f"e{day}", f"2026-03-0{day} 12:00", users.get(day)) for day in range(2, 9)),
        # A session whose page views differ under device_split: before and after the login within it.
        page(project, "p1", "2026-03-04 12:00", device="phone"),
        page(project, "p2", "2026-03-04 12:10", "dan", device="phone"),
        page(project, "p3", "2026-03-04 12:20", device="phone"),
        page(project, "n1", "2026-03-04 12:00", device="nobody's"),
    ]


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warehouse]:
    with ephemeral_warehouse(tmp_path_factory.mktemp("preview"), show_ids=True) as warehouse:
        yield warehouse


@pytest.fixture(scope="module")
def told(warehouse: Warehouse) -> Told:
    warehouse.write_stitch_toml(EMAIL)
    warehouse.land_events("jitsu/a.ndjson", [event for project in (*PROPOSALS, UNTOUCHED) for event in story(project)])
    warehouse.settle()
    before = warehouse.contents(TABLES)
    stored = state(warehouse.settings)
    metadata = {name: preview(warehouse, project_id=name, **rules) for name, rules in PROPOSALS.items()}
    one = numbers(preview_rules(warehouse.settings, Proposal(UNTOUCHED, {"lookback_days": 1})))
    everything = numbers(preview_rules(warehouse.settings, Proposal(rules={"lookback_days": 1})))
    changed = state(warehouse.settings) != stored
    assert warehouse.contents(TABLES) == before
    assert warehouse.settle().runs == []
    warehouse.write_stitch_toml(toml())
    settled = warehouse.settle()
    return Told(metadata, before, warehouse.contents(TABLES), changed, everything, one, settled)


def toml() -> str:
    lines = (
        f"[projects.{project}]\n" + "".join(f"{name} = {value!r}\n" for name, value in rules.items())
        for project, rules in PROPOSALS.items()
    )
    return "".join(lines) + EMAIL


def numbers(found: RulesPreview) -> dict[str, int]:
    return {name: value for name, value in vars(found).items() if type(value) is int}


def changed_rows(told: Told, table: str, project: str, columns: Sequence[str]) -> list[tuple[Row, Row]]:
    """The rows of the project before and after, of those that differ in one of the columns."""
    key = "session_id" if table == "stitched_sessions" else "event_id"
    after = {row[key]: row for row in told.after[table] if row["project_id"] == project}
    before = [row for row in told.before[table] if row["project_id"] == project]
    assert {row[key] for row in before} == set(after)
    pairs = [(row, after[row[key]]) for row in before]
    return [(was, is_) for was, is_ in pairs if any(was[column] != is_[column] for column in columns)]


@pytest.mark.parametrize("project", PROPOSALS)
def test_what_was_previewed_is_what_changes(told: Told, project: str) -> None:
    said = told.metadata[project]
    sessions = changed_rows(told, "stitched_sessions", project, ["stitched_user_id"])
    views = changed_rows(told, "page_views", project, ["stitched_user_id"])
    assert sessions, "the proposal moves nothing, so the test shows nothing"
    assert said["sessions_that_move"] == len(sessions)
    assert said["page_views_that_move"] == len(views)
    assert said["sessions_that_change"] == len(changed_rows(told, "stitched_sessions", project, IS_CREDITED))
    assert said["page_views_that_change"] == len(
        changed_rows(told, "page_views", project, ["stitched_user_id", "stitched_by"])
    )
    people = {row["stitched_user_id"] for pair in sessions for row in pair}
    assert said["people_that_change"] == len(people)
    users = [[row for row in rows["users"] if row["project_id"] == project] for rows in (told.before, told.after)]
    assert [said["visitors_before"], said["visitors_after"]] == [len(rows) for rows in users]
    # The rows of users that the re-stitch made, took away or changed are those of these people.
    assert {
        row["stitched_user_id"] for row in [*users[0], *users[1]] if row not in users[0] or row not in users[1]
    } == (people)
    assert said["due_anyway"] == 0

    per_day = Counter(str(was["session_date"]) for was, _ in sessions)
    views_per_day = Counter(str(was["event_date"]) for was, _ in views)
    assert {row["day"]: (row["sessions"], row["page_views"]) for row in said["moves_per_day"]} == {
        day: (per_day[day], views_per_day[day]) for day in {*per_day, *views_per_day}
    }
    moved = {
        ("sessions" if "session_date" in was else "page_views", was.get("event_id") or was["session_id"]): (
            was["stitched_user_id"],
            is_["stitched_user_id"],
        )
        for was, is_ in [*sessions, *views]
    }
    assert said["sample"]
    for row in said["sample"]:
        assert moved[row["table"], row["row_id"]] == (row["before"], row["after"])


def test_all_of_it_is_what_settling_says_and_writes(told: Told) -> None:
    look, restitch, views = told.settled.runs
    for table, name in (("stitched_sessions", "sessions"), ("page_views", "page_views")):
        total = sum(said[f"{name}_that_change"] for said in told.metadata.values())
        assert look.rows_stale[table] == total
        assert {**restitch.rows_changed, **views.rows_changed}[table] == total
    assert changed_rows(told, "stitched_sessions", UNTOUCHED, IS_CREDITED) == []


def test_a_preview_leaves_the_warehouse_as_it_is_to_the_byte(told: Told) -> None:
    assert not told.previewing_changed_the_warehouse


def test_all_projects_together_are_the_sum_of_each(told: Told) -> None:
    # Before the rules were followed every project had the same story and the same rules.
    count = len(PROPOSALS) + 1
    assert told.of_all_projects == {name: count * value for name, value in told.of_one_project.items()}
    assert told.of_all_projects["sessions_that_move"] > 0


def test_the_rules_and_how_to_follow_them_are_said(told: Told) -> None:
    said = told.metadata["both"]
    assert [(row["rule"], row["in_force"], row["proposed"]) for row in said["rules"]] == [
        ("policy", "latest", "device_split"),
        ("lookback_days", "30", "1"),
        ("carry_forward_days", "unlimited", "1"),
    ]
    assert said["to_follow"] == (
        'in stitch.toml, under [projects."both"]: policy = "device_split", lookback_days = 1, carry_forward_days = 1'
    )
    assert f"{said['sessions_that_move']} of 9 sessions" in said["summary"]


def test_rules_that_only_projects_have_are_tried_on_one(told: Told, warehouse: Warehouse) -> None:
    assert [(row["rule"], row["in_force"], row["proposed"]) for row in told.metadata["few"]["rules"]][1:] == [
        ("max_ids_per_person", "1000", "3"),
        ("limits", "none", "user.per_person=2, email.device=1"),
    ]
    assert told.metadata["few"]["to_follow"] == (
        'in stitch.toml, under [projects."few"]: policy = "graph", max_ids_per_person = 3, '
        "limits.user.per_person = 2, limits.email.device = 1"
    )
    assert told.metadata["unique"]["to_follow"] == (
        'in stitch.toml, under [projects."unique"]: policy = "graph", unique_identifiers = ["user"], '
        'contested_ids = "first"'
    )
    with pytest.raises(SettingsError, match=r"^contested_ids is set per project: name the project to try it on"):
        preview_rules(warehouse.settings, Proposal(rules={"contested_ids": "first"}))
    for limits, complaint in (
        ("user.tablet=1", r"^limits\.user names 'tablet'; it can limit: device, email, per_person\.$"),
        ("user=1", "must be written as user.device=5"),
        ("user.device=many", "should be a valid integer"),
    ):
        with pytest.raises(SettingsError, match=complaint):
            preview_rules(warehouse.settings, Proposal("few", {"limits": limits}))


def test_unlimited_is_written_as_the_settings_read_it() -> None:
    assert how_to_follow(Settings.load(), Proposal("shop", {"lookback_days": 36500, "policy": "first"})) == (
        'in stitch.toml, under [projects."shop"]: lookback_days = "unlimited", policy = "first"'
    )
    unlimited = Proposal(rules={"carry_forward_days": None})
    assert "set STITCH_CARRY_FORWARD_DAYS=unlimited (" in how_to_follow(Settings.load(), unlimited)


def test_the_command_says_the_same(
    told: Told, warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    for name, value in environment(warehouse.settings).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("STITCH_PROJECT_FILE", str(warehouse.settings.project_file))
    monkeypatch.setenv("STITCH_KEEP_OWN_USER", "false")  # as in the warehouse
    assert main(["preview", "--project", UNTOUCHED, "--policy", "first"]) == 0
    printed = capsys.readouterr().out
    said = told.metadata["first"]
    assert f"{said['sessions_that_move']} of 9 sessions and {said['page_views_that_move']} of 11 page views" in printed
    (rule,) = [line.split() for line in printed.splitlines() if line.startswith(f" {UNTOUCHED}  policy")]
    assert rule == [UNTOUCHED, "policy", "latest", "first"]
    for row in said["moves_per_day"]:
        assert [row["day"], *(str(row[name]) for name in ("sessions", "page_views", "devices"))] in [
            line.split() for line in printed.splitlines()
        ]
    assert (
        'Nothing was changed. To follow these rules, in stitch.toml, under [projects."untouched"]: policy = "first"'
        in (printed)
    )
    assert main(["preview", "--project", UNTOUCHED, "--policy", "first", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["sessions"], document["sessions_that_move"]) == (9, said["sessions_that_move"])
    # With nothing proposed it says what is due by the rules in force.
    assert main(["preview", "--project", UNTOUCHED]) == 0
    assert "0 of 9 sessions and 0 of 11 page views" in capsys.readouterr().out

    limits = ["--policy", "graph", "--limits", "user.per_person=1", "--unique-identifiers", "none"]
    assert main(["preview", "--project", UNTOUCHED, *limits]) == 0
    assert "limits.user.per_person = 1" in capsys.readouterr().out
    assert main(["preview", "--project", UNTOUCHED, "--contested-ids", "last"]) == 2
    assert "contested_ids = 'last': input should be 'nobody' or 'first'" in capsys.readouterr().err
    assert main(["preview", "--project", "nowhere'"]) == 2
    assert capsys.readouterr().err == f"error: There is no project 'nowhere'' with events; {THESE_HAVE}\n"
    for arguments, complaint in (
        (
            ["--lookback-days", "-1"],
            "'-1' must be a number of days (0 to 36500), hours as 24h, minutes as 30m, or unlimited",
        ),
        (["--max-users-per-device", "0"], "'0' is not a whole number of at least 1"),
        (["--policy", "last"], "invalid choice: 'last' (choose from"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(["preview", *arguments])
        assert ended.value.code == 2
        assert complaint in capsys.readouterr().err


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"project_id": "nowhere"}, f"There is no project 'nowhere' with events; {THESE_HAVE}"),
        (
            {"lookback_days": -1},
            "lookback_days = '-1': must be a number of days (0 to 36500), hours as 24h, minutes as 30m, or unlimited.",
        ),
    ],
)
def test_what_cannot_be_tried_fails_the_run_with_one_sentence(
    told: Told, warehouse: Warehouse, config: dict[str, Any], sentence: str
) -> None:
    result = warehouse.defs.resolve_job_def(PREVIEW_RULES_JOB).execute_in_process(
        instance=warehouse.instance,
        run_config={"ops": {"try_rules": {"config": config}}},
        raise_on_error=False,
    )
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    assert failure.step_failure_data.user_failure_data is not None
    assert failure.step_failure_data.user_failure_data.description == sentence
