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
    assert '[feeds.export] source = "ga4"' in said["ga4.ndjson"]
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
    assert "1 row would be quarantined: not valid JSON (the whole line); send one complete" in ended.stdout


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
