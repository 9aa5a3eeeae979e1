"""``stitch sources check``: what a new user sees first."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from test_recorded_traffic import RECORDED
from warehouses import REPOSITORY

from stitch_pipeline.landing.check import SAMPLE_COLUMNS


def check(path: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "stitch_pipeline", "sources", "check", str(path), *arguments],
        env={
            **os.environ,
            "COLUMNS": "220",
            "STITCH_DUCKDB_PATH": str(path / "nowhere" / "warehouse.duckdb"),
            **variables,
        },
        cwd=REPOSITORY,
        text=True,
        capture_output=True,
        check=False,
    )


def contents(directory: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_each_file_is_recognised_and_nothing_is_written(tmp_path: Path) -> None:
    export = tmp_path / "export"
    export.mkdir()
    looks = {
        "jitsu.ndjson": "looks like jitsu: event JSON (or segment, rudderstack)",
        "jitsu_single_table.csv": "looks like jitsu: single table",
        "segment_tracks.csv": "looks like segment: warehouse table tracks, or of one event",
        "snowplow_enriched.tsv": "looks like snowplow: enriched TSV",
        "snowplow_events.parquet": "looks like snowplow: canonical columns",
        "millimetric.ndjson": "looks like millimetric: event table",
        "umami_website_event.csv": "looks like umami: table website_event",
        "umami_identity_link.csv": "looks like umami: table identity_link",
        "umami_session.csv": "named like a table of umami that holds no events",
        "ga4.ndjson": "looks like ga4: BigQuery export",
        "posthog.parquet": "looks like posthog: batch export",
    }
    for name in looks:
        shutil.copy(RECORDED / name, export)
    before = contents(tmp_path)
    ended = check(export, "--details")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    said = dict(part.split("\n  ", 1) for part in ended.stdout.split("\nexport/")[1:])
    said = {name.split(" ")[0]: text for name, text in said.items()}
    for name, look in looks.items():
        assert said[name].startswith(look), said[name]
    assert '\n[feeds.export]\nsource = "ga4"\n' in said["ga4.ndjson"]
    assert "times are microseconds (stated)" in said["ga4.ndjson"]
    assert "8 events of 2026-03-02 to 2026-03-10" in said["jitsu.ndjson"]
    assert "2 of 3 devices would stitch, which credits up to 4 anonymous events" in said["jitsu.ndjson"]
    # With the session table beside it, two sessions are one visitor's.
    assert "1 of 4 devices would stitch" in said["umami_website_event.csv"]
    assert "All files together" in ended.stdout
    summary = check(export).stdout
    assert re.search(r"^ export +1 +looks like ga4: BigQuery export +\d+ +2026-03-02 to 2026-03-10", summary, re.M)
    assert "sample" in summary
    assert "occurred_at" not in summary
    document = json.loads(check(export, "--json").stdout)
    assert document["is_good"]
    assert len(document["files"]) == len(looks)
    (jitsu,) = [file for file in document["files"] if file["landing_file"] == "export/jitsu.ndjson"]
    assert jitsu["read_as"] == {"source": "jitsu", "layout": "event JSON"}
    assert jitsu["contents"]["identifiers"]["events"] == 8
    assert contents(tmp_path) == before


def test_a_feed_with_bad_rows_says_how_many_and_why(tmp_path: Path) -> None:
    feed = tmp_path / "jitsu"
    feed.mkdir()
    lines = (RECORDED / "jitsu.ndjson").read_text().splitlines()
    bad = [lines[0].replace("2026-03-02T09", f"2026-03-0{n}X09") for n in (3, 4)]
    (feed / "a.ndjson").write_text("\n".join([*lines, *bad, '{"messageId": 1', ""]))
    ended = check(tmp_path)
    assert ended.returncode == 0
    assert "read as jitsu: event JSON" in ended.stdout
    assert "2 rows would be quarantined: the event time" in ended.stdout
    assert "1 row would be quarantined: not valid JSON (the whole line); write one complete" in ended.stdout


def test_a_summary_has_a_line_per_feed_and_format_and_each_problem_once(tmp_path: Path) -> None:
    feed = tmp_path / "jitsu"
    feed.mkdir()
    lines = (RECORDED / "jitsu.ndjson").read_text().splitlines()
    for n in range(4):
        (feed / f"{n}.ndjson").write_text("\n".join([*lines, '{"messageId": 1', ""]))
        (feed / f"{n}.parquet").write_text("PAR1 cut off")
    ended = check(tmp_path)
    assert ended.returncode == 1
    assert re.search(r"^ jitsu +4 +cannot be read", ended.stdout, re.M)
    assert re.search(r"^ jitsu +4 +read as jitsu: event JSON +32 +2026-03-02 to 2026-03-10 +4 *$", ended.stdout, re.M)
    assert ended.stdout.count("not valid JSON") == 1
    assert "4 rows would be quarantined, for instance of jitsu/0.ndjson: not valid JSON" in ended.stdout
    assert ended.stdout.count(".parquet cannot be read") == 3
    assert "… and 1 more of jitsu" in ended.stdout


UNKNOWN = {
    "seconds.csv": (
        "when,visitor,customer_no,action,page,browser user agent\n"
        "1772445600,v1,,view,/,Firefox 1\n1772445660,v1,,view,/shop,Firefox 1\n"
        "1772445700,v1,c7,login,/account,Firefox 1\n1772445800,v2,,view,/,Firefox 1\n"
    ),
    "semicolons.csv": (
        "eventUuid;createdAt;clientId;memberNumber;eventName;pageUrl;utm_source\n"
        "e1;2026-03-02T10:00:00Z;v1;;Page viewed;https://x.example/;ads\n"
        "e2;2026-03-02T10:01:00Z;v1;;Added to cart;https://x.example/p;\n"
        "e3;2026-03-02T10:02:00Z;v1;c7;Signed in;https://x.example/a;\n"
        "e4;2026-03-02T10:03:00Z;v2;;Page viewed;https://x.example/;\n"
    ),
    "nested.ndjson": (
        '{"id": "e1", "ts": 1772445600000, "device": {"cookie": "v1"}, "who": {"login": null}, "what": "page_view"}\n'
        '{"id": "e2", "ts": 1772445600001, "device": {"cookie": "v1"}, "who": {"login": null}, "what": "click"}\n'
        '{"id": "e3", "ts": 1772445600002, "device": {"cookie": "v1"}, "who": {"login": "c7"}, "what": "login"}\n'
        '{"id": "e4", "ts": 1772445600003, "device": {"cookie": "v2"}, "who": {"login": null}, "what": "click"}\n'
    ),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_the_draft_for_an_unknown_file_reads_it_when_it_is_pasted(name: str, tmp_path: Path) -> None:
    feed = tmp_path / "landing" / "our app"
    feed.mkdir(parents=True)
    (feed / name).write_text(UNKNOWN[name])
    unknown = check(tmp_path / "landing")
    assert unknown.returncode == 1
    assert "looks like none of jitsu, segment" in unknown.stdout
    pasted = tmp_path / "stitch.toml"
    pasted.write_text(unknown.stdout[unknown.stdout.index("[feeds.") :].split("\n  ")[0])
    ended = check(tmp_path / "landing", "--json", STITCH_PROJECT_FILE=str(pasted))
    assert ended.returncode == 0, ended.stderr
    (file,) = json.loads(ended.stdout)["files"]
    assert file["read_as"]["source"] == "custom"
    found = file["contents"]["identifiers"]
    counts = ("events", "device_only", "both", "user_only", "neither", "devices", "linked_devices", "credited_events")
    assert [found[count] for count in counts] == [4, 3, 1, 0, 0, 2, 1, 2]
    sample = [dict(zip(SAMPLE_COLUMNS, row, strict=True)) for row in file["contents"]["sample"]]
    assert [(row["anonymous_id"], row["user_id"]) for row in sample] == [
        *(("v1", None), ("v1", None), ("v1", "c7"), ("v2", None)),
    ]
    assert sample[0]["event_type"] == "page"
    assert {row["project_id"] for row in sample} == {"our app"}


def test_a_draft_says_what_it_could_not_guess(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.csv").write_text("moment,value\nnoon,1\n")
    ended = check(tmp_path / "mine")
    assert ended.returncode == 1
    assert '[feeds.mine]\nsource = "custom"' in ended.stdout
    assert "No column holds a time that can be read" in ended.stdout
    assert "No column is named like a device's id" in ended.stdout
    assert 'occurred_at = "?"    # the time\'s column; it belongs into event_id_from too' in ended.stdout
    ended = check(tmp_path / "nothing")
    assert ended.returncode == 2
    assert "does not exist: name a directory" in ended.stderr


def test_a_file_of_which_nothing_can_be_guessed_stops_no_other(tmp_path: Path) -> None:
    """A line that is longer than a field of CSV may be, and a name outside of Unicode's first plane."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.csv").write_text("x" * 200_000)
    (tmp_path / "mine" / "b.csv").write_text("\N{BUST IN SILHOUETTE} user id,device,when\nu,d,2026-03-02\n")
    ended = check(tmp_path, "--json")
    assert ended.returncode == 1
    document = json.loads(ended.stdout)
    assert len(document["files"]) == 2
    (draft,) = document["drafts"]
    assert "\N{BUST IN SILHOUETTE} user id" in tomllib.loads(draft["toml"])["feeds"]["mine"]["fields"].values()


VISITS = "visitor,customer,what,url,ts\n" + "".join(
    f"v{n % 3},{'c1' if n == 7 else ''},view,https://x.example/{n % 2},2026-10-{n % 28 + 1:02}T09:{n:02}:00Z\n"
    for n in range(39)
)


def mine(directory: Path, text: str, table: str = "") -> Path:
    """A landing directory with a feed ``mine`` of one file, and its ``stitch.toml`` beside it."""
    feed = directory / "landing" / "mine"
    feed.mkdir(parents=True, exist_ok=True)
    (feed / "a.csv").write_text(text)
    (directory / "stitch.toml").write_text(table)
    return directory / "landing"


def check_mine(landing: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return check(landing, *arguments, STITCH_PROJECT_FILE=str(landing.parent / "stitch.toml"), **variables)


TABLE = """
[feeds.mine]
source = "custom"
project_id = "mine"
event_id_from = [{id_from}]

[feeds.mine.fields]
occurred_at = "ts"
anonymous_id = "{device}"
user_id = "customer"
event_name = "what"
event_type = "=page"
page_url = "url"
"""


def test_one_bad_time_does_not_hide_the_column_of_times(tmp_path: Path) -> None:
    one_bad = VISITS.replace("2026-10-06T09:05:00Z", "not a time")
    landing = mine(tmp_path, one_bad)
    (draft,) = json.loads(check_mine(landing, "--json").stdout)["drafts"]
    drafted = tomllib.loads(draft["toml"])["feeds"]["mine"]
    assert drafted["event_id_from"] == ["ts", "visitor", "customer", "what", "url"]
    assert drafted["fields"]["occurred_at"] == "ts"
    assert "times" not in drafted
    assert draft["missing"] == []
    ended = check_mine(mine(tmp_path, one_bad, draft["toml"]), "--json")
    assert ended.returncode == 0
    (file,) = json.loads(ended.stdout)["files"]
    assert file["contents"]["identifiers"]["events"] == 38
    assert file["contents"]["identifiers"]["repeated"] == 0
    assert 'the event time "not a time" cannot be read' in file["contents"]["bad_rows"][0]["reason"]


def test_without_a_time_the_draft_cannot_be_used_as_it_is(tmp_path: Path) -> None:
    header, *rows = VISITS.splitlines()
    landing = mine(tmp_path, "\n".join(line.rsplit(",", 1)[0] for line in (header, *rows)))
    (draft,) = json.loads(check_mine(landing, "--json").stdout)["drafts"]
    drafted = tomllib.loads(draft["toml"])["feeds"]["mine"]
    assert drafted["fields"]["occurred_at"] == "?"
    assert drafted["event_id_from"] == ["?", "visitor", "customer", "what", "url"]
    assert "set occurred_at and event_id_from" in draft["missing"][0]


def test_times_that_cannot_be_read_are_shown_with_a_remedy(tmp_path: Path) -> None:
    dotted = re.sub(r"(\d{4})-(\d\d)-(\d\d)T(.{8})Z", r"\3.\2.\1 \4", VISITS)
    ended = check_mine(mine(tmp_path, dotted))
    assert ended.returncode == 1
    assert "The times of column 'ts' cannot be read, for instance '01.10.2026 09:00:00': convert" in ended.stdout
    assert 'occurred_at = "ts"' in ended.stdout
    assert 'event_id_from = ["ts", ' in ended.stdout
    mapped = check_mine(mine(tmp_path, dotted, TABLE.format(id_from='"ts", "visitor"', device="visitor")))
    assert mapped.returncode == 1
    assert '39 rows would be quarantined: the event time "' in mapped.stdout
    assert "cannot be read (ts); write ISO 8601" in mapped.stdout


def test_rows_with_the_event_id_of_another_row_are_counted(tmp_path: Path) -> None:
    table = TABLE.format(id_from='"visitor", "customer", "what", "url"', device="visitor")
    landing = mine(tmp_path, VISITS, table)
    ended = check_mine(landing)
    assert ended.returncode == 0
    assert "32 rows repeat the event id of another row and would not count" in ended.stdout  # 39 rows, 7 ids
    assert "mine: event_id_from lacks the time" in ended.stdout
    assert "Add 'ts' to it" in ended.stdout
    good = TABLE.format(id_from='"ts", "visitor"', device="visitor")
    (landing / "mine" / "b.csv").write_text(VISITS)
    ended = check_mine(mine(tmp_path, VISITS, good))
    assert "39 rows repeat the event id" in ended.stdout, "of two files with the same events"
    assert "lacks the time" not in ended.stdout


@pytest.mark.parametrize("form", ["csv", "ndjson"])
def test_a_declared_column_that_no_file_has_is_named(form: str, tmp_path: Path) -> None:
    landing = mine(tmp_path, VISITS, TABLE.format(id_from='"ts", "vistor"', device="visiter"))
    if form == "ndjson":
        names, *rows = (line.split(",") for line in VISITS.splitlines())
        lines = [json.dumps(dict(zip(names, row, strict=True))) for row in rows]
        (landing / "mine" / "a.csv").unlink()
        (landing / "mine" / "a.ndjson").write_text("\n".join([*lines, "not JSON", "[1]", ""]))
    ended = check_mine(landing)
    assert ended.returncode == 1
    assert f"anonymous_id: no column 'visiter' in mine/a.{form}; did you mean visitor?" in ended.stdout
    assert f"event_id_from: no column 'vistor' in mine/a.{form}; did you mean visitor?" in ended.stdout
    assert ended.stdout.count("no column") == 2
    document = json.loads(check_mine(landing, "--json").stdout)
    assert not document["is_good"]
    assert document["feeds"][0]["feed"] == "mine"
    assert len(document["feeds"][0]["problems"]) == 2
    # A column that another file has is there, and so is an alternative.
    (landing / "mine" / "b.csv").write_text(VISITS.replace("visitor", "vistor", 1))
    (tmp_path / "stitch.toml").write_text(
        TABLE.format(id_from='"ts", "vistor"', device="visitor").replace('"visitor"', '["visiter", "visitor"]')
    )
    assert check_mine(landing).returncode == 0


def test_a_feed_without_devices_and_users_fails_the_check(tmp_path: Path) -> None:
    table = TABLE.format(id_from='"ts", "url"', device="=").replace('anonymous_id = "="\nuser_id = "customer"\n', "")
    ended = check_mine(mine(tmp_path, VISITS, table))
    assert ended.returncode == 1
    assert "mine: no event has a device or a user, so nothing can be stitched" in ended.stdout
    assert "in [feeds.mine.fields]" in ended.stdout


def test_output_that_does_not_fit_has_a_field_per_line(tmp_path: Path) -> None:
    landing = mine(tmp_path, VISITS, TABLE.format(id_from='"ts", "visitor"', device="visitor"))
    (landing / "mine" / "b.csv").write_text(VISITS.replace("2026-10", "2026-09"))
    narrow = check_mine(landing, "--details", COLUMNS="80").stdout
    assert re.search(r"^ occurred_at +2026-10-01 09:00:00$", narrow, re.M)
    assert re.search(r"^ anonymous_id +v0$", narrow, re.M)
    assert "…" not in narrow
    summary = check_mine(landing, COLUMNS="80").stdout
    assert re.search(r"^ feed +files +format +events +days +bad rows *$", summary, re.M)
    assert re.search(r"^ mine +2 +read as custom: as +78 +2026-09-01 to 2026-10-28 *$", summary, re.M)
    summary = check_mine(landing, COLUMNS="50").stdout
    assert re.search(r"^ days +2026-09-01 to 2026-10-28$", summary, re.M)
