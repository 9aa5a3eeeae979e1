"""What the simulated shop promises to everything that is demonstrated or measured on it."""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import os
import re
import subprocess
import sys
from collections import Counter, defaultdict
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import pytest

from stitch_pipeline.demo.shop import STORY, Shop, land, simulate, write_truth

FIRST_DAY, DAYS, PEOPLE = date(2025, 1, 1), 24, 150
SESSION_TIMEOUT = timedelta(minutes=30)
CLIENT_SESSION = "contexts_com_snowplowanalytics_snowplow_client_session_1"
SCREEN_VIEW = "unstruct_event_com_snowplowanalytics_mobile_screen_view_1"


class Row(NamedTuple):
    """One row of a landed file, as a reader that knows nothing of the generator sees it."""

    path: str
    project_id: str
    event_id: str | None
    occurred_at: Any
    """A datetime, or None on a bad row."""
    anonymous_id: str | None
    user_id: str | None
    name: str


Truth = dict[tuple[str, str | None], tuple[Any, ...]]
Read = tuple[list[Row], list[str], list[str]]


@pytest.fixture(scope="module")
def shop() -> Shop:
    return simulate(seed=7, first_day=FIRST_DAY, days=DAYS, people=PEOPLE)


@pytest.fixture(scope="module")
def landing_dir(shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("landing")
    land(shop, directory)
    return directory


@pytest.fixture(scope="module")
def truth(shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Truth:
    path = tmp_path_factory.mktemp("truth") / "truth.parquet"
    write_truth(shop, path)
    with duckdb.connect() as connection:
        rows = connection.execute(
            "select project_id, event_id, person_id, user_id, is_bot from read_parquet(?)", [str(path)]
        ).fetchall()
    assert len(rows) == len({row[:2] for row in rows})
    return {row[:2]: row[2:] for row in rows}


@pytest.fixture(scope="module")
def read(landing_dir: Path) -> Read:
    """Rows, lines that are no JSON, and files that cannot be read."""
    rows, broken_lines, unreadable_files = [], [], []
    for path in sorted(file for file in landing_dir.rglob("*") if file.is_file()):
        name = str(path.relative_to(landing_dir))
        try:
            records, broken = _records(path)
        except (gzip.BadGzipFile, duckdb.Error):
            unreadable_files.append(name)
            continue
        to_row = _jitsu_row if name.startswith("jitsu/") else _snowplow_row
        rows += [to_row(name, record) for record in records]
        broken_lines += broken
    return rows, broken_lines, unreadable_files


@pytest.fixture(scope="module")
def rows(read: tuple[list[Row], list[str], list[str]]) -> list[Row]:
    return read[0]


def _records(path: Path) -> tuple[list[dict[str, Any]], list[str]]:
    if path.suffix == ".parquet":
        with duckdb.connect() as connection:
            result = connection.execute("select * from read_parquet(?)", [str(path)])
            names = [column[0] for column in result.description]
            return [dict(zip(names, row, strict=True)) for row in result.fetchall()], []
    raw = path.read_bytes()
    text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode()
    if path.suffix == ".csv":
        return list(csv.DictReader(text.splitlines())), []
    records, broken = [], []
    for line in text.splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            broken.append(line)
    return records, broken


def _time(value: str | datetime) -> datetime | None:
    try:
        return value if isinstance(value, datetime) else datetime.fromisoformat(value.removesuffix("Z"))
    except ValueError:
        return None


def _jitsu_row(path: str, record: dict[str, Any]) -> Row:
    time = _time(record["timestamp"])
    ids = (record.get("anonymousId"), record.get("userId"))
    name = record.get("event", record["type"])
    return Row(path, record["projectId"], record.get("messageId"), time, *ids, name)


def _snowplow_row(path: str, record: dict[str, Any]) -> Row:
    sessions = record.get(CLIENT_SESSION) or "[]"
    sessions = json.loads(sessions) if isinstance(sessions, str) else sessions
    anonymous_id = sessions[0]["userId"] if sessions else None
    name = record.get("se_action") or record["event_name"]
    ids = (anonymous_id, record.get("user_id") or None)
    return Row(path, record["app_id"], record.get("event_id") or None, _time(record["derived_tstamp"]), *ids, name)


def _valid(rows: list[Row], truth: Truth) -> list[Row]:
    """Every valid event once."""
    return list({key: row for row in rows if (key := (row.project_id, row.event_id)) in truth}.values())


def _digests(directory: Path) -> dict[str, str]:
    """Of text files the bytes; of Parquet the rows, in order."""
    digests = {}
    for path in directory.rglob("*"):
        if path.is_file():
            try:
                content = repr(_records(path)).encode() if path.suffix == ".parquet" else path.read_bytes()
            except duckdb.Error:
                content = path.read_bytes()
            digests[str(path.relative_to(directory))] = hashlib.sha256(content).hexdigest()
    return digests


def test_same_seed_gives_the_same_files_whatever_the_hash_seed(tmp_path: Path) -> None:
    program = (
        "import sys; from datetime import date; from pathlib import Path;"
        "from stitch_pipeline.demo.shop import land, simulate;"
        "land(simulate(3, date(2025, 1, 1), 8, 40), Path(sys.argv[1]))"
    )
    for hash_seed in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": hash_seed}
        subprocess.run([sys.executable, "-c", program, str(tmp_path / hash_seed)], env=environment, check=True)
    assert _digests(tmp_path / "1") == _digests(tmp_path / "2")
    land(simulate(4, FIRST_DAY, 8, 40), tmp_path / "other")
    assert _digests(tmp_path / "1") != _digests(tmp_path / "other")


def test_another_first_day_moves_everything_by_whole_days_and_changes_nothing_else(shop: Shop) -> None:
    def told(shop: Shop) -> list[Any]:
        """The shop without its dates."""
        began = datetime.combine(shop.days[0], datetime.min.time())

        def moved(event: Any) -> tuple[Any, ...]:
            people = (event.person.person_id, event.device.kind, event.device.project_id)
            times = (event.occurred_at - began, event.received_at - began)
            return (*times, *people, event.event_id, event.step, event.page, event.anonymous_id, event.user_id)

        return [
            *(moved(event) for event in shop.events),
            *(
                (
                    re.sub(
                        r"\d{4}-\d\d-\d\d", lambda day: str(date.fromisoformat(str(day[0])) - shop.days[0]), file.path
                    ),
                    file.lands_on - shop.days[0],
                    file.content if isinstance(file.content, bytes) else [(*moved(e), e.defect) for e in file.content],
                )
                for file in shop.files
            ),
        ]

    for days_later in (1, 5, 610):
        later = simulate(seed=7, first_day=FIRST_DAY + timedelta(days=days_later), days=DAYS, people=PEOPLE)
        assert later.days[0] == FIRST_DAY + timedelta(days=days_later)
        assert told(later) == told(shop)


def test_no_file_is_dated_in_the_future(tmp_path: Path) -> None:
    today = datetime.now(UTC).date()
    written = land(simulate(3, today - timedelta(days=8), 8, 60), tmp_path)
    assert any("-late-" in path.name for path in written)
    assert max(path.stat().st_mtime for path in written) <= datetime.now(UTC).timestamp()


def test_every_event_of_the_truth_is_in_the_files_and_row_counts_add_up(shop: Shop, truth: Truth, read: Read) -> None:
    rows, broken_lines, unreadable_files = read
    copies = Counter((row.project_id, row.event_id) for row in rows)
    assert truth.keys() <= copies.keys()
    duplicates = sum(copies[key] - 1 for key in truth)
    bad_rows = sum(count for key, count in copies.items() if key not in truth) + len(broken_lines)
    assert sum(file.rows for file in shop.files) == len(truth) + duplicates + bad_rows
    assert sorted(unreadable_files) == sorted(file.path for file in shop.files if file.rows == 0)


def test_landing_in_two_steps_gives_the_files_of_one(shop: Shop, landing_dir: Path, tmp_path: Path) -> None:
    middle = shop.days[DAYS // 2]
    first = land(shop, tmp_path, through=middle)
    second = land(shop, tmp_path, after=middle)
    lands_on = {file.path: file.lands_on for file in shop.files}
    assert all(lands_on[str(path.relative_to(tmp_path))] <= middle for path in first)
    assert all(lands_on[str(path.relative_to(tmp_path))] > middle for path in second)
    assert not set(first) & set(second)
    assert _digests(tmp_path) == _digests(landing_dir)
    assert land(shop, tmp_path / "one", after=shop.days[0], through=shop.days[0]) == []


def test_no_event_lands_before_it_happens(shop: Shop, truth: Truth, rows: list[Row]) -> None:
    lands_on = {file.path: file.lands_on for file in shop.files}
    days_late = {(lands_on[row.path] - row.occurred_at.date()).days for row in _valid(rows, truth)}
    assert days_late >= {0, 1, 2, 3}
    assert min(days_late) == 0


def test_the_story_is_anonymous_for_weeks_and_logs_in_on_both_devices_at_the_end() -> None:
    days, shop = 60, simulate(people=20)
    story = [event for event in shop.events if event.anonymous_id in STORY.anonymous_ids]
    logins = [event for event in story if event.user_id]
    last_days = shop.days[days - 3]
    for anonymous_id in STORY.anonymous_ids:
        own = [event for event in story if event.anonymous_id == anonymous_id]
        assert own[0].occurred_at.date() <= shop.days[-1] - timedelta(days=35)
        assert {event.user_id for event in own if event.occurred_at.date() < last_days} == {None}
        assert STORY.user_id in {event.user_id for event in own}
    assert {event.user_id for event in logins} == {STORY.user_id}
    assert {event.device.kind for event in logins} == {"laptop", "app"}
    assert all(event.received_at - event.occurred_at < timedelta(minutes=1) for event in story)


def test_many_people_first_log_in_during_the_last_three_days(shop: Shop, truth: Truth, rows: list[Row]) -> None:
    first_login: dict[tuple[str, str], datetime] = {}
    first_seen: dict[tuple[str, str], datetime] = {}
    for row in sorted(_valid(rows, truth), key=lambda row: row.occurred_at):
        person_id, user_id, _ = truth[row.project_id, row.event_id]
        first_seen.setdefault((row.project_id, person_id), row.occurred_at)
        if user_id and row.user_id == user_id:
            first_login.setdefault((row.project_id, person_id), row.occurred_at)
    late = [key for key, at in first_login.items() if at.date() >= shop.days[-3]]
    assert len(late) >= 10
    assert any(first_login[key] - first_seen[key] > timedelta(days=14) for key in late)
    never = {person_id for person_id, user_id, is_bot in truth.values() if user_id is None and not is_bot}
    assert len(never) >= 10
    assert first_login.keys() == {(key[0], person[0]) for key, person in truth.items() if person[1]}


def test_one_computer_has_more_than_twelve_users_and_others_have_two(truth: Truth, rows: list[Row]) -> None:
    users = defaultdict(set)
    for row in _valid(rows, truth):
        if row.user_id == truth[row.project_id, row.event_id][1] is not None:
            users[row.project_id, row.anonymous_id].add(row.user_id)
    users_per_device = Counter(len(ids) for (_, anonymous_id), ids in users.items() if anonymous_id)
    assert max(users_per_device) > 12
    assert users_per_device[2] >= 2


def test_people_browse_anonymously_after_logging_out(truth: Truth, rows: list[Row]) -> None:
    logged_in, anonymous_again = set(), set()
    for row in sorted(_valid(rows, truth), key=lambda row: row.occurred_at):
        device = (row.project_id, row.anonymous_id, truth[row.project_id, row.event_id][0])
        if row.user_id:
            logged_in.add(device)
        elif device in logged_in:
            anonymous_again.add(device)
    assert len(anonymous_again) >= 10


def test_browsers_lose_cookies_and_apps_do_not(shop: Shop) -> None:
    ids = defaultdict(set)
    for event in shop.events:
        ids[event.device].add(event.anonymous_id)
    kinds = Counter(device.kind for device, anonymous_ids in ids.items() if len(anonymous_ids) > 1)
    assert kinds.keys() == {"laptop", "phone"}
    assert kinds.total() >= 5


def test_both_projects_are_visited_by_the_same_people_under_different_ids(truth: Truth, rows: list[Row]) -> None:
    people, devices, owners = defaultdict(set), defaultdict(set), defaultdict(set)
    for row in _valid(rows, truth):
        person_id, user_id, _ = truth[row.project_id, row.event_id]
        people[row.project_id].add(person_id)
        devices[row.project_id].add(row.anonymous_id)
        owners[user_id].add((row.project_id, person_id))
    assert set(people) == {"shop", "blog"}
    assert len(people["shop"] & people["blog"]) >= 10
    assert devices["shop"] & devices["blog"] <= {None}
    assert any(len(who) == 2 for user_id, who in owners.items() if user_id)


def test_sessions_cross_midnight_and_have_several_views_without_a_gap(truth: Truth, rows: list[Row]) -> None:
    by_device = defaultdict(list)
    for row in _valid(rows, truth):
        if row.anonymous_id and not truth[row.project_id, row.event_id][2]:
            by_device[row.project_id, row.anonymous_id].append(row.occurred_at)
    sizes, across_midnight = [], 0
    for times in by_device.values():
        session: list[datetime] = []
        for at in sorted(times):
            if session and at - session[-1] >= SESSION_TIMEOUT:
                sizes.append(len(session))
                session = []
            across_midnight += bool(session) and at.date() > session[-1].date()
            session.append(at)
        sizes.append(len(session))
    assert across_midnight >= 5
    assert 3 < sum(sizes) / len(sizes) < 15


def test_a_bot_runs_through_whole_days_without_a_gap_and_without_a_login(truth: Truth, rows: list[Row]) -> None:
    times = defaultdict(list)
    for row in _valid(rows, truth):
        person_id, user_id, is_bot = truth[row.project_id, row.event_id]
        if is_bot:
            assert (user_id, row.user_id) == (None, None)
            times[person_id].append(row.occurred_at)
    assert len(times) == 2
    crawler = sorted(times["bot-crawler"])
    assert all(later - earlier < SESSION_TIMEOUT for earlier, later in pairwise(crawler))
    assert (crawler[-1].date() - crawler[0].date()).days >= 3  # two whole days at least in between


def test_some_events_carry_no_device_and_some_a_blocked_user_id(truth: Truth, rows: list[Row]) -> None:
    valid = _valid(rows, truth)
    assert sum(row.anonymous_id is None for row in valid) >= 50
    assert {"null", "undefined", ""} <= {row.user_id for row in valid}
    anonymous_ids_of_blocked = {row.anonymous_id for row in valid if row.user_id in ("null", "undefined", "")}
    assert len(anonymous_ids_of_blocked) >= 3


def test_events_are_sent_twice_in_one_file_and_again_in_a_later_one(truth: Truth, rows: list[Row]) -> None:
    paths = defaultdict(list)
    for row in rows:
        paths[row.project_id, row.event_id].append(row.path)
    repeated = [paths[key] for key in truth if len(paths[key]) > 1]
    for feed in ("jitsu/shop/", "jitsu/blog/", "snowplow/"):
        of_feed = [files for files in repeated if files[0].startswith(feed)]
        assert any(len(set(files)) == 1 for files in of_feed), feed
        assert any(len(set(files)) == 2 for files in of_feed), feed


def test_bad_rows_and_unreadable_files_of_every_kind_are_there(shop: Shop, truth: Truth, read: Read) -> None:
    rows, broken_lines, unreadable_files = read
    bad = [row for row in rows if (row.project_id, row.event_id) not in truth]
    assert len(broken_lines) >= 3
    assert unreadable_files == ["jitsu/shop/retry.ndjson.gz", "snowplow/retry.parquet"]
    for feed in ("jitsu/", "snowplow/"):
        of_feed = [row for row in bad if row.path.startswith(feed)]
        lands_on = {file.path: file.lands_on for file in shop.files}
        assert any(row.event_id is None for row in of_feed)
        assert any(row.occurred_at is None for row in of_feed)
        assert any(
            row.occurred_at and row.occurred_at.date() > lands_on[row.path] + timedelta(days=6) for row in of_feed
        )
    # Nothing else is wrong with them: each bad row has exactly one reason to be refused.
    assert all(row.event_id is None or row.event_id.startswith("bad-") for row in bad)


def test_both_trackers_send_the_shapes_their_readers_expect(landing_dir: Path) -> None:
    suffixes = {path.suffix for path in (landing_dir / "snowplow").iterdir()}
    assert suffixes == {".parquet", ".csv", ".ndjson"}
    jitsu = [record for path in (landing_dir / "jitsu/shop").glob("*.ndjson") for record in _records(path)[0]]
    assert {record["type"] for record in jitsu} == {"page", "identify", "track"}
    assert {"added_to_cart", "signup", "completed_checkout"} == {r["event"] for r in jitsu if r["type"] == "track"}
    assert all(set(r["traits"]) == {"email", "name", "plan"} for r in jitsu if r["type"] == "identify")
    assert all(r["properties"]["revenue"] > 0 for r in jitsu if r.get("event") == "completed_checkout")
    assert {"google", "newsletter"} <= {r["context"].get("campaign", {}).get("source") for r in jitsu}

    csv_file, ndjson_file, parquet_file = (
        next((landing_dir / "snowplow").glob(f"*-0[1-9].{suffix}")) for suffix in ("csv", "ndjson", "parquet")
    )
    in_csv, in_ndjson, in_parquet = (_records(file)[0] for file in (csv_file, ndjson_file, parquet_file))
    assert list(in_csv[0]) == list(in_parquet[0])
    assert isinstance(in_parquet[0]["derived_tstamp"], datetime)
    screens = [json.loads(row[SCREEN_VIEW])["name"] for row in (*in_csv, *in_parquet) if row[SCREEN_VIEW]]
    assert "Home" in screens
    sessions = [row[CLIENT_SESSION] for row in in_ndjson if CLIENT_SESSION in row]
    assert all({"userId", "sessionId", "sessionIndex"} == set(session[0]) for session in sessions)
    assert {row["event"] for row in in_csv} <= {"unstruct", "page_view", "struct"}
