"""The package as it is installed: from a wheel, outside the repository, with the versions of the lock."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import pytest
from warehouses import REPOSITORY

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory with the command ``stitch``, in an environment that holds the wheel and what it depends on."""
    directory = tmp_path_factory.mktemp("wheel")
    uv = [str(Path(sys.executable).with_name("uv")), "--quiet"]
    in_lock = directory / "in_lock.txt"
    built, venv = directory / "built", directory / "venv"
    run([*uv, "build", "--wheel", "--out-dir", built, REPOSITORY], directory)
    run([*uv, "export", "--frozen", "--no-dev", "--no-emit-project", "--no-hashes", "-o", in_lock], REPOSITORY)
    run([*uv, "venv", "--python", sys.executable, venv], directory)
    python = venv / "bin" / "python"
    run([*uv, "pip", "install", "--python", python, "--constraint", in_lock, *built.glob("*.whl")], directory)
    return python.parent


@pytest.fixture
def stitch(scripts: Path, tmp_path: Path) -> Any:
    """Runs the command in an empty directory, ``tmp_path / "work"``."""
    settings = ("STITCH_", "DAGSTER_", "PYTHONPATH", "VIRTUAL_ENV")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(settings)}
    environment |= {"XDG_CACHE_HOME": str(tmp_path / "cache"), "STITCH_START_DATE": "2026-03-01"}
    work = tmp_path / "work"
    work.mkdir()
    return lambda *arguments: run([scripts / "stitch", *arguments], work, environment)


def run(command: list[Any], directory: Path, environment: dict[str, str] | None = None) -> str:
    ended = subprocess.run(
        [str(part) for part in command],
        cwd=directory,
        env=environment,
        text=True,
        capture_output=True,
        timeout=900,
        check=False,
    )
    assert ended.returncode == 0, f"{command}\n{ended.stdout}\n{ended.stderr}"
    return ended.stdout


def shipped(scripts: Path) -> dict[str, float]:
    """Every file of the installed package with the time of its last change; Python's own caches left out."""
    (package,) = scripts.parent.glob("lib/python*/site-packages/stitch_pipeline")
    return {
        path.relative_to(package).as_posix(): path.stat().st_mtime
        for path in package.rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }


def test_the_wheel_holds_the_dbt_project_and_nothing_that_tools_left_in_it(scripts: Path) -> None:
    in_repository = {
        path.relative_to(REPOSITORY).as_posix()
        for folder in ("macros", "models", "tests")
        for path in (REPOSITORY / "dbt_project" / folder).rglob("*.*")
    }
    in_wheel = {path for path in shipped(scripts) if path.startswith("dbt_project/")}
    assert in_wheel == {*in_repository, "dbt_project/dbt_project.yml", "dbt_project/profiles.yml"}
    assert "dagster.yaml" in shipped(scripts)


def test_settle_works_in_an_empty_directory(stitch: Any, scripts: Path, tmp_path: Path) -> None:
    before, work = shipped(scripts), tmp_path / "work"
    events = [
        {"messageId": "1", "timestamp": "2026-03-01T10:00:00Z", "anonymousId": "device"},
        {"messageId": "2", "timestamp": "2026-03-02T10:00:00Z", "anonymousId": "device", "userId": "maya"},
    ]
    (work / "data" / "landing" / "jitsu").mkdir(parents=True)
    (work / "data" / "landing" / "jitsu" / "events.ndjson").write_text(
        "".join(json.dumps({"projectId": "shop", "type": "page", **event}) + "\n" for event in events)
    )
    assert "settled: 1 run" in stitch("settle")
    assert "settled: nothing to do" in stitch("settle"), "the second process finds the records of the first"
    assert sorted(path.name for path in work.iterdir()) == ["dagster_home", "data"]
    shipped_configuration = REPOSITORY / "dagster_home" / "dagster.yaml"
    assert (work / "dagster_home" / "dagster.yaml").read_text() == shipped_configuration.read_text()
    with duckdb.connect(str(work / "data" / "warehouse.duckdb"), read_only=True) as con:
        credited = con.execute("select stitched_user_id, count(*) from stitch.stitched_sessions group by 1").fetchall()
    assert credited == [("maya", 2)]
    assert "and 1 page beside it" in stitch("report")
    assert "vega" in (work / "data" / "reports" / "report-shop.html").read_text()
    assert shipped(scripts) == before


def test_the_demo_works_in_an_empty_directory(stitch: Any, scripts: Path, tmp_path: Path) -> None:
    before, work = shipped(scripts), tmp_path / "work"
    printed = stitch("demo", "--people", "60")
    assert "Compared with who really was there" in printed
    assert [path.name for path in work.iterdir()] == ["data"]
    with duckdb.connect(str(work / "data" / "demo" / "warehouse.duckdb"), read_only=True) as con:
        (credited,) = con.execute(
            "select count(*) from stitch.stitched_sessions where stitched_user_id = 'u1001' and user_id is null"
        ).fetchall()[0]
    assert credited > 0
    assert shipped(scripts) == before
