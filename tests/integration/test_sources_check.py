"""``stitch sources check``: what a new user sees first."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from test_recorded_traffic import RECORDED
from warehouses import REPOSITORY


def check(path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "stitch_pipeline", "sources", "check", str(path)],
        env={**os.environ, "COLUMNS": "220", "STITCH_DUCKDB_PATH": str(path / "nowhere" / "warehouse.duckdb")},
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
    ended = check(export)
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


def test_a_file_of_no_known_format_is_said_to_be_so(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.csv").write_text("when,who\n1,2\n")
    ended = check(tmp_path / "mine")
    assert ended.returncode == 1
    assert "looks like none of jitsu, segment" in ended.stdout
    assert '[feeds.mine] source = "custom"' in ended.stdout
    ended = check(tmp_path / "nothing")
    assert ended.returncode == 2
    assert "does not exist: name a directory" in ended.stderr
