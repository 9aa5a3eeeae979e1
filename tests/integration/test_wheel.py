"""The package as it is installed: from a wheel, outside the repository, with the versions of the lock."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pytest
from engines import of_duckdb
from warehouses import REPOSITORY

pytestmark = [pytest.mark.slow, of_duckdb("it is the engine of an installation that sets nothing")]


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
    environment = clean_environment(tmp_path) | {"STITCH_START_DATE": "2026-03-01"}
    work = tmp_path / "work"
    work.mkdir()
    return lambda *arguments: run([scripts / "stitch", *arguments], work, environment)


def clean_environment(directory: Path) -> dict[str, str]:
    """The environment without settings of the caller, and with a cache of its own."""
    settings = ("STITCH_", "DAGSTER_", "PYTHONPATH", "VIRTUAL_ENV")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(settings)}
    return {**inherited, "XDG_CACHE_HOME": str(directory / "cache")}


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
    assert "vega" in (work / "data" / "warehouse.reports" / "report-shop.html").read_text()
    assert shipped(scripts) == before


@pytest.mark.long
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


TEAM = """
import dagster as dg


@dg.asset
def users(warehouse: dg.ResourceParam[str]) -> str:
    return warehouse


@dg.asset(deps=[dg.AssetKey(["identity", "stitched_sessions"])])
def weekly_report() -> None: ...


@dg.definitions
def theirs() -> dg.Definitions:
    return dg.Definitions(
        assets=[users, weekly_report],
        resources={"warehouse": "the team's"},
        executor=dg.multiprocess_executor,
    )
"""
DAYS = "2026-03-01...2026-03-03"
TABLES = (
    *("raw_events", "quarantined_events", "identity_map", "identifier_links", "persons", "user_mapping_history"),
    *("sessions", "stitched_sessions", "users", "page_views", "visitor_stats"),
)


@dataclass
class Project:
    """A dg project as the official command makes it, in the environment with the wheel."""

    root: Path
    scripts: Path
    environment: dict[str, str]

    def dg(self, *arguments: str) -> str:
        return run([self.scripts / "dg", *arguments], self.root, self.environment)

    def refused(self, *arguments: str) -> str:
        ended = subprocess.run(
            [str(self.scripts / "dg"), *arguments],
            cwd=self.root,
            env=self.environment,
            text=True,
            capture_output=True,
            timeout=300,
            check=False,
        )
        assert ended.returncode != 0
        return ended.stdout + ended.stderr

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [str(self.scripts / "dg"), *arguments],
            cwd=self.root,
            env=self.environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    @property
    def yaml(self) -> Path:
        return self.root / "src" / "my_project" / "defs" / "identity" / "defs.yaml"

    def land(self, name: str, *events: dict[str, str]) -> None:
        path = self.root / "data" / "landing" / "jitsu" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [json.dumps({"projectId": "shop", "type": "page", **event}) + "\n" for event in events]
        path.write_text("".join(lines))

    def credited(self) -> list[tuple[str, int]]:
        """Users and devices, each with the number of sessions credited to it; waits for a run that writes."""
        for _ in range(1500):
            try:
                with duckdb.connect(str(self.root / "data" / "identity.duckdb"), read_only=True) as con:
                    return con.execute(
                        "select stitched_user_id, count(*) from stitch.stitched_sessions group by 1 order by 1"
                    ).fetchall()
            except duckdb.Error:
                time.sleep(0.2)
        raise AssertionError("The warehouse could not be opened.")


@pytest.fixture(scope="module")
def project(scripts: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    directory = tmp_path_factory.mktemp("team")
    uv = [str(Path(sys.executable).with_name("uv")), "--quiet", "pip", "install", "--python", scripts / "python"]
    in_lock = directory / "in_lock.txt"
    export = [Path(sys.executable).with_name("uv"), "--quiet", "export", "--frozen", "--no-emit-project"]
    run([*export, "--no-hashes", "-o", in_lock], REPOSITORY)
    run([*uv, "--constraint", in_lock, "create-dagster", "dagster-dg-cli"], directory)
    environment = clean_environment(directory) | {
        "HOME": str(directory),
        "PATH": f"{scripts}:{os.environ['PATH']}",
        "DAGSTER_HOME": str(directory / "dagster_home"),
        "DAGSTER_DISABLE_TELEMETRY": "true",
    }
    # Without a dagster.yaml, so without a limit for the pool and with Dagster's own storage.
    (directory / "dagster_home").mkdir()
    run([scripts / "create-dagster", "project", "my-project", "--no-uv-sync"], directory, environment)
    made = Project(directory / "my-project", scripts, environment)
    run([*uv, "--constraint", in_lock, "--editable", made.root], directory)
    made.dg("scaffold", "defs", "stitch_pipeline.IdentityStitching", "identity")
    (made.yaml.parent.parent / "team.py").write_text(TEAM)
    return made


def test_three_commands_lead_to_stitched_rows_in_a_project_of_dg(project: Project, scripts: Path) -> None:
    before = shipped(scripts)
    # The fixture has scaffolded the component: the first command.
    project.land(
        "events.ndjson",
        {"messageId": "1", "timestamp": "2026-03-01T10:00:00Z", "anonymousId": "device"},
        {"messageId": "2", "timestamp": "2026-03-02T10:00:00Z", "anonymousId": "device", "userId": "maya"},
    )
    assert "successfully" in project.dg("check", "defs")
    project.dg("launch", "--job", "identity_build_job", "--partition-range", DAYS)
    assert ("maya", 2) in project.credited()
    # What the files touch beside these days is left to do. The only component of the project needs not be named.
    rest = run([scripts / "stitch", "--component", "identity", "settle"], project.root, project.environment)
    assert "identity_build_job" in rest
    assert "changed no row" in rest
    assert "settled: nothing to do" in run([scripts / "stitch", "settle"], project.root, project.environment)
    assert shipped(scripts) == before
    assert not (project.root / "data" / "warehouse.duckdb").exists()


def test_dg_finds_the_component_and_says_which_field_is_wrong(project: Project) -> None:
    listed = json.loads(project.dg("list", "components", "--json"))["items"]
    assert "stitch_pipeline.IdentityStitching" in [found["key"] for found in listed]
    printed = project.dg("list", "defs", "--json")
    assets = json.loads(printed[printed.index("{") :])["assets"]
    assert {"users", "weekly_report", "identity/users"} < {found["asset_key"] for found in assets}
    assert "successfully" in project.dg("check", "yaml")
    written = project.yaml.read_text()
    try:
        project.yaml.write_text(written.replace('"2025-01-01"', '"2025-01-01"\n  lookback_days: many'))
        refused = project.refused("check", "yaml")
        assert "attributes.lookback_days" in refused
        assert "'many' does not match '^unlimited$|" in refused
        project.yaml.write_text(written.replace('"2025-01-01"', '"2025-01-01"\n  daily_cron: every day'))
        assert "daily_cron = 'every day': is not a cron expression of five fields" in project.refused("check", "defs")
    finally:
        project.yaml.write_text(written)


@pytest.mark.long
def test_two_runs_at_once_under_the_executor_of_the_team_write_one_after_the_other(project: Project) -> None:
    for day in (1, 2, 3):
        time_of_day = f"2026-03-0{day}T18:00:00Z"
        project.land(f"evening{day}.ndjson", {"messageId": f"e{day}", "timestamp": time_of_day, "anonymousId": "other"})
    tables = ",".join(f"identity/{table}" for table in TABLES)
    days = ("2026-03-01...2026-03-01", "2026-03-03...2026-03-03")
    runs = [project.start("launch", "--assets", tables, "--partition-range", one) for one in days]
    logs = [one.communicate(timeout=600)[0] for one in runs]
    assert [one.returncode for one in runs] == [0, 0], logs
    for log in logs:
        assert 'Launching subprocess for "identity__landing_zone"' in log or "Executing steps using multiprocess" in log
        assert "The pool 'identity_duckdb' has no limit in this Dagster instance" in log
    project.dg("launch", "--job", "identity_build_job", "--partition-range", DAYS)
    assert ("other", 3) in project.credited()


@pytest.mark.long
def test_the_daemon_stitches_what_lands(project: Project) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    log = project.root.parent / "dev.log"
    server = subprocess.Popen(
        [str(project.scripts / "dg"), "dev", "--host", "127.0.0.1", "--port", str(port)],
        cwd=project.root,
        env=project.environment,
        stdin=subprocess.DEVNULL,
        stdout=log.open("ab"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        visit = {"messageId": "d1", "timestamp": "2026-03-04T10:00:00Z", "anonymousId": "phone"}
        login = {"messageId": "d2", "timestamp": "2026-03-06T10:00:00Z", "anonymousId": "phone", "userId": "noor"}
        for event, wanted in ((visit, ("phone", 1)), (login, ("noor", 2))):
            project.land(f"{event['messageId']}.ndjson", event)
            wait_until = time.monotonic() + 300
            while wanted not in (credited := project.credited()):
                assert server.poll() is None, log.read_text()
                assert time.monotonic() < wait_until, (credited, log.read_text()[-5000:])
                time.sleep(2)
        assert "The pool 'identity_duckdb' has no limit in this Dagster instance" in log.read_text()
    finally:
        for end in (signal.SIGINT, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(server.pid, end)
            with suppress(subprocess.TimeoutExpired):
                server.wait(30)
