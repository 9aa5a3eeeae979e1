"""``stitching_reasons`` and ``stitch why``: why each row is credited to this user, under every policy."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from hashlib import md5
from typing import Any

import pytest
from engines import IS_POSTGRES, environment, held_by_another_process, state
from warehouses import Row, Warehouse, at, ephemeral_warehouse

from stitch_pipeline.cli.main import main
from stitch_pipeline.orchestration.jobs import RESTITCH_JOB
from stitch_pipeline.orchestration.run_config import models_config
from stitch_pipeline.orchestration.run_records import run_request
from stitch_pipeline.planning.days import DayRange
from stitch_pipeline.planning.requests import Request

Why = Callable[..., tuple[int, str, str]]
WINDOWS = "lookback_days = 5\ncarry_forward_days = 2\n"
GUARDS = {
    "shared": "max_users_per_device = 1",
    "off": "stitching = false",
    "sessions-off": "session_stitching = false",
    "identify-only": 'link_on = "identify"',
    "windowed": 'lookback_days = "71h"\ncarry_forward_days = "90m"',
    "stale": "",
    "own-kept": 'policy = "first"\nkeep_own_user = true',
}
OWN, BEYOND, EXPIRED = (
    "own user decides under {}",
    "outside the lookback of 5 days",
    "expired: carried forward 2 days only",
)
# Of the pages e1 to e6, what becomes of the links of ann on the 3rd, bob on the 5th and cem on the 12th.
LATER = "a later link on the device wins under latest"
EARLIER = "an earlier link on the device wins under first"
LAST_BEFORE, NEXT = "decides: the last link at or before the row", "decides: the next link after the row"
GOES_FIRST = "a link at or before the row goes first under device_split"
WINS_BEFORE = "a later link at or before the row wins under device_split"
AHEAD = "began at or before the row: next_identify looks ahead only"
LAST, FIRST = "decides: the last link on the device within the lookback", "decides: the first link on the device"
REASONS = {
    "latest": {
        "e1": ("bob", LATER, LAST, BEYOND),
        "e2": ("bob", LATER, LAST, BEYOND),
        "e3": ("bob", LATER, LAST, BEYOND),
        "e4": ("bob", LATER, LAST, BEYOND),
        "e5": ("cem", EXPIRED, EXPIRED, LAST),
        "e6": ("cem", EXPIRED, EXPIRED, LAST),
        "e7": ("laptop", EXPIRED, EXPIRED, EXPIRED),
    },
    "first": {
        "e1": ("ann", FIRST, EARLIER, EARLIER),
        "e2": ("ann", FIRST, EARLIER, EARLIER),
        "e3": ("ann", FIRST, EARLIER, EARLIER),
        "e4": ("ann", FIRST, EARLIER, EARLIER),
        "e5": ("laptop", EXPIRED, EARLIER, EARLIER),
        "e6": ("cem", EXPIRED, EARLIER, EARLIER),
        "e7": ("laptop", EXPIRED, EARLIER, EARLIER),
    },
    "device_split": {
        "e1": ("ann", NEXT, "an earlier link after the row wins under device_split", BEYOND),
        "e2": ("ann", OWN, OWN, OWN),
        "e3": ("ann", LAST_BEFORE, GOES_FIRST, BEYOND),
        "e4": ("bob", OWN, OWN, OWN),
        "e5": ("cem", EXPIRED, EXPIRED, NEXT),
        "e6": ("cem", OWN, OWN, OWN),
        "e7": ("laptop", EXPIRED, EXPIRED, EXPIRED),
    },
    "next_identify": {
        "e1": ("ann", NEXT, "an earlier link after the row wins under next_identify", BEYOND),
        "e2": ("ann", OWN, OWN, OWN),
        "e3": ("bob", AHEAD, NEXT, BEYOND),
        "e4": ("bob", OWN, OWN, OWN),
        "e5": ("cem", AHEAD, AHEAD, NEXT),
        "e6": ("cem", OWN, OWN, OWN),
        "e7": ("laptop", AHEAD, AHEAD, AHEAD),
    },
}

# Under graph this story is another one, of a single person: see test_graph.py.
POLICIES = tuple(REASONS)


def page(project: str, event_id: str, time: str, user: str | None = None, device: str = "laptop") -> dict[str, Any]:
    return {
        "event_id": event_id,
        "project_id": project,
        "occurred_at": at(time),
        "received_at": at(time.replace("12:00", "12:01")),
        "event_type": "page",
        "anonymous_id": device,
        "user_id": user,
    }


def session(event_id: str) -> str:
    """The id of the session that begins with the event."""
    return md5(event_id.encode()).hexdigest()


def story(project: str) -> list[dict[str, Any]]:
    return [
        page(project, "e1", "2026-03-02 12:00"),
        page(project, "e2", "2026-03-03 12:00", "ann"),
        page(project, "e3", "2026-03-04 12:00"),
        page(project, "e4", "2026-03-05 12:00", "bob"),
        page(project, "e5", "2026-03-09 12:00"),
        page(project, "e6", "2026-03-12 12:00", "cem"),
        page(project, "e7", "2026-03-15 12:00"),
        page(project, "p1", "2026-03-02 12:00", device="phone"),
        page(project, "p2", "2026-03-02 12:05", "null", device="phone"),
        page(project, "p3", "2026-03-02 12:10", device="null"),
        page(project, "n1", "2026-03-02 12:00", device="nobody's"),
        page(project, "t1", "2026-03-02 12:00", "ann", device="tablet"),
        page(project, "t2", "2026-03-02 12:00", "bob", device="tablet"),
    ]


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warehouse]:
    rules = {**{policy: f'policy = "{policy}"\n{WINDOWS}' for policy in POLICIES}, **GUARDS}
    toml = "".join(f"[projects.{project}]\n{rule}\n" for project, rule in rules.items())
    with ephemeral_warehouse(tmp_path_factory.mktemp("why"), stitch_toml=toml) as warehouse:
        for project in rules:
            warehouse.land_events(f"jitsu/{project}.ndjson", story(project))
        warehouse.settle()
        yield warehouse


@pytest.fixture(scope="module")
def told(warehouse: Warehouse) -> list[Row]:
    return warehouse.query("select * from stitch.stitching_reasons order by candidate_at")


def reasons(told: list[Row], project: str, row_id: str) -> dict[str, str]:
    """By the user that the candidate names, in the order in which the candidates began."""
    rows = [row for row in told if (row["project_id"], row["row_id"]) == (project, row_id)]
    return {row["candidate_user_id"]: row["reason"] for row in rows}


@pytest.mark.parametrize("policy", POLICIES)
def test_each_link_decides_or_says_why_not(told: list[Row], policy: str) -> None:
    for event_id, (user, *expected) in REASONS[policy].items():
        wanted = {name: reason.format(policy) for name, reason in zip(("ann", "bob", "cem"), expected, strict=True)}
        # Every session of this story is one event, so session and event have the same reasons.
        for row_id in (event_id, session(event_id)):
            assert reasons(told, policy, row_id) == wanted, row_id
            assert {
                row["stitched_user_id"] for row in told if (row["project_id"], row["row_id"]) == (policy, row_id)
            } == {user}


def test_what_the_guards_held_back_says_so(told: list[Row]) -> None:
    in_window = "device is shared by 3 users, more than 1"
    for row_id, shared in (("e1", in_window), ("e2", f"own user decides: {in_window}")):
        assert set(reasons(told, "shared", row_id).values()) == {shared}
    assert set(reasons(told, "off", "e1").values()) == {"stitching is off for the project"}
    assert set(reasons(told, "sessions-off", session("e1")).values()) == {"session stitching is off for the project"}
    assert reasons(told, "sessions-off", "e1")["cem"] == LAST
    only_identify = "no link: only identify events link in this project"
    assert set(reasons(told, "identify-only", "e1").values()) == {only_identify}
    kept = reasons(told, "own-kept", "e6")
    assert set(kept.values()) == {"own user decides: the project keeps own users"}
    too_far = "outside the lookback of 71 hours"
    assert reasons(told, "windowed", "e1") == {"ann": LAST, "bob": too_far, "cem": too_far}
    assert reasons(told, "windowed", "e3") == {
        "ann": "expired: carried forward 90 minutes only",
        "bob": LAST,
        "cem": too_far,
    }
    assert reasons(told, "latest", "p1") == {"null": "no link: blocked id 'null'"}
    assert reasons(told, "latest", "t1") == {
        "ann": "no link: bob was seen at the same instant with the greater event id",
        "bob": LAST,
    }
    assert [row["reason"] for row in told if row["row_id"] == "n1"] == ["no event on this device names a user"] * 11


def test_reasons_agree_with_what_is_stitched(warehouse: Warehouse, told: list[Row]) -> None:
    """Whatever the reasons say, they say it of the answer that the tables hold, and name the link that it names."""
    of_row: dict[tuple[str, bool, str], list[Row]] = {}
    for row in told:
        of_row.setdefault((row["project_id"], row["grain"] == "session", row["row_id"]), []).append(row)
    sessions = {(row["project_id"], True, row["session_id"]): row for row in warehouse.rows("stitched_sessions")}
    events = {
        (row["project_id"], False, row["event_id"]): row
        for row in warehouse.rows("stitched_events")
        if row["anonymous_id"] is not None
    }
    stored_rows = {**sessions, **events}
    assert set(of_row) == set(stored_rows)
    for key, rows in of_row.items():
        stored = stored_rows[key]
        answers = {(row["stitched_user_id"], row["stored_user_id"], row["stitched_by"]) for row in rows}
        assert answers == {(stored["stitched_user_id"], stored["stitched_user_id"], stored["stitched_by"])}
        deciding = {row["candidate_event_id"]: row["candidate_user_id"] for row in rows if row["decides"]}
        link = stored["link_event_id"]
        assert deciding == ({} if link is None else {link: stored["stitched_user_id"]})


@pytest.fixture
def why(warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Why:
    """The command as a terminal of 200 columns has it: exit code, what it prints, what it complains of."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("STITCH_LOCK_WAIT_SECONDS", "0.5")
    for name, value in environment(warehouse.settings).items():
        monkeypatch.setenv(name, value)

    def run(project: str, device: str, *arguments: str) -> tuple[int, str, str]:
        code = main(["why", "--project", project, "--anonymous-id", device, *arguments])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


def test_a_person_reads_which_link_and_file_made_it_so(warehouse: Warehouse, why: Why) -> None:
    before = state(warehouse.settings)
    code, printed, _ = why("device_split", "laptop", "--at", "2026-03-04", "--json")
    document = json.loads(printed)
    assert code == 0
    assert {row["began_at"][:10] for row in document["rows"]} == {"2026-03-04"}
    assert "ann" in {candidate["user_id"] for candidate in document["candidates"]}
    code, printed, _ = why("device_split", "laptop", "--at", "2026-03-04")
    assert code == 0
    lines = [" ".join(line.split()) for line in printed.splitlines()]
    assert lines[0] == (
        "device_split, device laptop: policy device_split; lookback 5 days; carry forward 2 days; "
        "shared with more than 10 users"
    )
    _, printed, _ = why("windowed", "laptop", "--at", "2026-03-04")
    assert "; lookback 71 hours; carry forward 90 minutes; " in " ".join(printed.split())
    (ann,) = [line for line in lines if line.startswith("1 ann")]
    (loaded,) = warehouse.query(
        "select loaded_at from stitch.landing_files where landing_file = 'jitsu/device_split.ndjson'"
    )
    assert ann == (
        "1 ann 2026-03-03 12:00:00 1 e2 (page) jitsu/device_split.ndjson 2026-03-03 12:01 "
        + loaded["loaded_at"].isoformat(sep=" ", timespec="minutes")
    )
    session_line = f"2026-03-04 12:00:00 session {session('e3')[:11]}…: ann, link before"
    assert lines[-5:] == [
        session_line,
        "2026-03-04 12:00:00 page e3: ann, link before",
        f"#1 ann {LAST_BEFORE}",
        f"#2 bob: {GOES_FIRST}",
        f"#3 cem: {BEYOND}",
    ]
    assert state(warehouse.settings) == before


def test_the_rows_around_an_instant(warehouse: Warehouse, why: Why) -> None:
    def pages(*arguments: str) -> list[str]:
        code, printed, _ = why("latest", "laptop", *arguments)
        assert code == 0
        return [words[3].rstrip(":,") for line in printed.splitlines() if (words := line.split())[2:3] == ["page"]]

    assert pages() == ["e1", "e2", "e3", "e4", "e5", "e6", "e7"]
    assert pages("--at", "2026-03-04T13:00:00+01:00") == ["e3"]
    assert pages("--at", "2026-03-04T18:00") == ["e3", "e4"]
    assert pages("--at", "2026-04-01") == ["e7"]
    # A session before its page, at the same time.
    assert pages("--limit", "4") == ["e1", "e2"]


def test_what_is_not_there_is_said_in_one_sentence(warehouse: Warehouse, why: Why) -> None:
    for arguments, said in (
        (("nowhere", "laptop"), "There is no project 'nowhere' with events; these have: 'device_split', 'first'"),
        (("latest", "LAPTOP"), "Project 'latest' has no device 'LAPTOP' with events"),
        (("latest", "a' or 'a'='a"), "Project 'latest' has no device 'a' or 'a'='a' with events"),
        (("latest", "null"), "'null' is a blocked id and no device: 1 event of project 'latest' sent it"),
        (("latest", "laptop", "--at", "noon"), "--at 'noon' is not a time: write a UTC day such as 2026-03-01"),
    ):
        code, printed, complaint = why(*arguments)
        assert (code, printed) == (2, "")
        assert complaint.startswith(f"error: {said}")
        assert complaint.count("\n") == 1


def test_a_locked_warehouse_is_waited_for_and_then_said_to_be_busy(warehouse: Warehouse, why: Why) -> None:
    with held_by_another_process(warehouse.settings) as holder:
        code, printed, complaint = why("latest", "laptop")
    if IS_POSTGRES:  # where a reader never waits
        assert (code, complaint) == (0, "")
        assert "latest, device laptop" in printed
    else:
        assert code == 1
        assert f"{holder} and was not released within 0.5 seconds" in complaint


def test_a_short_answer_keeps_the_link_that_decides(why: Why) -> None:
    _, printed, _ = why("latest", "laptop", "--at", "2026-03-12", "--limit", "1")
    lines = printed.splitlines()
    assert [line.split()[:2] for line in lines[4:5]] == [["3", "cem"]]
    assert "and 2 more: use --at, or raise --limit" in lines[5]


def test_views_of_another_version_are_not_believed(warehouse: Warehouse, why: Why) -> None:
    (version,) = warehouse.query("select digest from stitch.views_version")
    for change, back in (
        (
            "update stitch.views_version set digest = 'old'",
            f"update stitch.views_version set digest = '{version['digest']}'",
        ),
        ("alter table stitch.views_version rename to kept", "alter table stitch.kept rename to views_version"),
    ):
        warehouse.write(change)
        code, _, complaint = why("latest", "laptop")
        warehouse.write(back)
        assert code == 1
        assert "are not those of this version: run `stitch settle --reconcile`" in complaint


def test_an_answer_that_is_stored_differently_is_pointed_out(warehouse: Warehouse, why: Why) -> None:
    assert "stored" not in why("stale", "laptop", "--at", "2026-03-15")[1]
    day = DayRange(at("2026-03-15").date(), at("2026-03-15").date())
    warehouse.run(RESTITCH_JOB, run_request(Request(day, base_key="by hand")).tags, models_config(policy="first"))
    _, printed, _ = why("stale", "laptop", "--at", "2026-03-15")
    assert "cem (stored: ann)" in printed
    assert "differs where a re-stitch is due: run `stitch settle --view-stitching`" in printed
