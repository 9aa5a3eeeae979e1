"""`stitch demo` and the commands that it prints, run as they are printed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from dagster_server import REPOSITORY, served

from stitch_pipeline.demo.story import MARKER, _new_project

PEOPLE = 60


def demo(cwd: Path, directory: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    # As from a shell elsewhere: `python -m` would find the package in the current directory.
    path = os.environ.get("PYTHONPATH", str(REPOSITORY))
    return subprocess.run(
        [sys.executable, "-m", "stitch_pipeline", "demo", "--directory", str(directory), *arguments],
        env={**os.environ, "PYTHONPATH": path, **variables},
        cwd=cwd,
        text=True,
        capture_output=True,
        timeout=580,
        check=False,
    )


def test_a_directory_with_other_files_is_refused_and_left_alone(tmp_path: Path) -> None:
    holiday = tmp_path / "holiday"
    (holiday / "landing").mkdir(parents=True)
    (holiday / "landing" / "photo.jpg").write_text("dear to somebody")
    ended = demo(tmp_path, holiday)
    assert ended.returncode == 2
    assert ended.stderr == (
        f"error: '{holiday}' is not empty, and no demo was run in it: name another directory with --directory, or "
        "empty it yourself.\n"
    )
    assert [path.name for path in holiday.rglob("*")] == ["landing", "photo.jpg"]


def test_the_demo_writes_only_into_its_own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the environment says about another project, of which it must not replace what readers see."""
    others = tmp_path / "others"
    for name in ("PUBLISHED_DIR", "REPORT_DIR", "LANDING_DIR", "OVERRIDES_FILE", "FORGOTTEN_FILE"):
        monkeypatch.setenv(f"STITCH_{name}", str(others / name.lower()))
    settings = _new_project(tmp_path / "demo", date(2026, 3, 1), None)
    assert settings.publishes_to == tmp_path / "demo" / "warehouse.published"
    assert settings.overrides_file is None
    assert settings.forgotten_path.parent == tmp_path / "demo"
    assert not others.exists()


@pytest.mark.slow
def test_the_demo_ends_yesterday_and_what_it_prints_works_as_it_is(tmp_path: Path) -> None:
    directory = tmp_path / "our demo"
    # What an earlier demo left is replaced, and nothing else.
    (directory / "landing").mkdir(parents=True)
    for name in (MARKER, "notes.txt", "landing/old.ndjson", "warehouse.duckdb.wal"):
        (directory / name).write_text("earlier")
    # Another project's settings, which must not lead the commands astray.
    elsewhere = {
        "STITCH_DUCKDB_PATH": str(tmp_path / "ours.duckdb"),
        "STITCH_PUBLISHED_DIR": str(tmp_path / "ours.published"),
        "STITCH_START_DATE": "2020-01-01",
    }
    ended = demo(tmp_path, directory, "--people", str(PEOPLE), "--json", **elsewhere)
    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout)
    assert told["last_day"] == str(datetime.now(UTC).date() - timedelta(days=1))
    assert told["report"] == str(directory / "report" / "index.html")
    assert (directory / "report" / "report-shop.html").exists()
    assert (directory / "notes.txt").read_text() == "earlier"
    assert not (tmp_path / "ours.published").exists()
    assert not (directory / "landing" / "old.ndjson").exists()
    why, ui = told["commands"]
    assert why in ended.stderr
    assert ui in ended.stderr
    env = {**os.environ, "PYTHONPATH": os.environ.get("PYTHONPATH", str(REPOSITORY)), **elsewhere}

    printed = subprocess.run(why, shell=True, cwd=tmp_path, env=env, text=True, capture_output=True, check=True).stdout
    assert "shop, device maya-laptop-1c9e" in printed
    assert ": u1001, link after" in printed

    with served(directory, ui, env, cwd=tmp_path) as server:
        runs = {run["runId"]: run for run in server.runs()}
        assert {run["jobName"] for run in runs.values()} >= {"build_job"}
        found = server.query(PAGE_OF_JOB, label="__repository__@stitch_pipeline")
        on_page = {run["runId"] for run in found["pipelineOrError"]["runs"]}
        assert on_page == {run_id for run_id, run in runs.items() if run["jobName"] == "build_job"}
        assert {run["runId"] for run in found["runsOrError"]["results"]} == runs.keys()
        origins = [run["repositoryOrigin"] for run in found["runsOrError"]["results"]]
        assert {(origin["repositoryLocationName"], origin["repositoryName"]) for origin in origins} == {
            ("stitch_pipeline", "__repository__")
        }
        # The sensors find nothing to do: the settings are the demo's.
        assert partitions(server) == [told["first_day"], str(datetime.now(UTC).date())]


PAGE_OF_JOB = """
query($label: String!) {
  pipelineOrError(params: {
    pipelineName: "build_job", repositoryName: "__repository__", repositoryLocationName: "stitch_pipeline"
  }) { ... on Pipeline { runs(limit: 25) { runId } } }
  runsOrError(filter: {tags: [{key: ".dagster/repository", value: $label}]}) {
    ... on Runs { results { runId repositoryOrigin { repositoryName repositoryLocationName } } }
  }
}
"""


def partitions(server: Any) -> list[str]:
    """The first and the last partition of `sessions`."""
    keys = server.query('{ assetNodeOrError(assetKey: {path: ["sessions"]}) { ... on AssetNode { partitionKeys } } }')
    found = keys["assetNodeOrError"]["partitionKeys"]
    return [found[0], found[-1]]
