"""The processes of deploy/docker-compose.yml, with its commands, environment and files, and a real PostgreSQL.

Docker itself is left out: each service's command runs as a process of this machine. Host names become 127.0.0.1, ports
are free ones, and the images' directories are below a temporary one.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import orjson
import pytest
import yaml
from dagster_server import PATIENCE_SECONDS, end_group, free_port

from stitch_pipeline.demo.postgres_server import PostgresServer, postgres_server

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).resolve().parents[2]
DEPLOY = REPOSITORY / "deploy"
COMPOSE = yaml.safe_load((DEPLOY / "docker-compose.yml").read_text("utf-8"))
BROWSES = {
    "messageId": "m1",
    "type": "page",
    "anonymousId": "laptop",
    "timestamp": "2025-03-01T10:00:00Z",
    "context": {"page": {"path": "/"}},
}
LOGS_IN = {**BROWSES, "messageId": "m2", "type": "identify", "userId": "maya", "timestamp": "2025-03-09T10:00:00Z"}


@dataclass
class Deployed:
    directory: Path
    postgres: PostgresServer
    port: int

    def land(self, name: str, *events: dict[str, Any]) -> None:
        feed = self.directory / "data" / "landing" / "segment"
        feed.mkdir(exist_ok=True)
        (feed / name).write_bytes(b"".join(orjson.dumps(event) + b"\n" for event in events))

    def credited(self) -> list[tuple[str, str]]:
        """(day, stitched user) of the stored sessions; nothing while the warehouse is busy or new."""
        try:
            with duckdb.connect(str(self.directory / "data" / "warehouse" / "warehouse.duckdb"), read_only=True) as con:
                return con.execute(
                    "select session_date::varchar, stitched_user_id from stitch.stitched_sessions order by 1"
                ).fetchall()
        except duckdb.Error:
            return []

    def graphql(self, query: str) -> Any:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/graphql",
            data=orjson.dumps({"query": query}),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return orjson.loads(answer.read())["data"]


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    directory = tmp_path_factory.mktemp("deployed")
    with ExitStack() as stack:
        postgres = stack.enter_context(postgres_server(directory / "postgres"))
        # What the image of PostgreSQL does with POSTGRES_USER and POSTGRES_DB.
        postgres.rows("create role dagster login", "postgres")
        postgres.rows("create database dagster owner dagster", "postgres")
        for name in ("opt/dagster", "data/landing", "data/warehouse", "data/logs"):
            (directory / name).mkdir(parents=True)
        ports = {"4000": str(free_port()), "3000": str(free_port())}
        for name in ("dagster.yaml", "workspace.yaml"):
            text = (DEPLOY / name).read_text("utf-8").replace("4000", ports["4000"])
            (directory / "opt" / "dagster" / name).write_text(text)
        stack.enter_context(service("code", directory, postgres, ports))
        check = [here(word, directory, ports) for word in COMPOSE["services"]["code"]["healthcheck"]["test"][1:]]
        wait_until(lambda: subprocess.run(command(check), capture_output=True).returncode == 0)
        stack.enter_context(service("webserver", directory, postgres, ports))
        stack.enter_context(service("daemon", directory, postgres, ports))
        yield Deployed(directory, postgres, int(ports["3000"]))


@contextmanager
def service(name: str, directory: Path, postgres: PostgresServer, ports: dict[str, str]) -> Iterator[None]:
    """A service's command with its environment, as a process."""
    about = COMPOSE["services"][name]
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("STITCH_", "DAGSTER_"))}
    from_file = (
        {"STITCH_START_DATE": "2025-01-01", "STITCH_SENSOR_INTERVAL_SECONDS": "4"} if "env_file" in about else {}
    )
    environment = {key: here(value, directory, ports) for key, value in about["environment"].items()}
    environment |= {
        "DAGSTER_POSTGRES_HOST": "127.0.0.1",
        "DAGSTER_POSTGRES_PORT": str(postgres.port),
        "DAGSTER_POSTGRES_PASSWORD": "p@ss/word",
        "CODE_LOCATION_HOST": "127.0.0.1",
        "DAGSTER_HOME": str(directory / "opt" / "dagster"),
    }
    with (directory / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            command([here(word, directory, ports) for word in about["command"]]),
            cwd=directory / "data",
            env={**kept, "PYTHONPATH": str(REPOSITORY), **from_file, **environment},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield
    finally:
        end_group(process)


def here(word: str, directory: Path, ports: dict[str, str]) -> str:
    """A word of the compose file, with paths and ports of this machine."""
    word = re.sub(r"^/(opt/dagster|data)\b", lambda found: str(directory / found[1]), word)
    return "127.0.0.1" if word == "0.0.0.0" else ports.get(word, word)


def command(words: list[str]) -> list[str]:
    """The command, with the program of this environment."""
    return [str(Path(sys.executable).parent / words[0]), *words[1:]]


def wait_until(found: Any) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not found():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(1)


def test_files_that_land_become_stitched_rows(deployed: Deployed) -> None:
    deployed.land("one.ndjson", BROWSES)
    wait_until(lambda: deployed.credited() == [("2025-03-01", "laptop")])
    deployed.land("two.ndjson", LOGS_IN)
    wait_until(lambda: deployed.credited() == [("2025-03-01", "maya"), ("2025-03-09", "maya")])


def test_the_records_are_in_postgresql_and_the_webserver_shows_them(deployed: Deployed) -> None:
    def runs() -> list[tuple[object, ...]]:
        return deployed.postgres.rows("select status, count(*) from runs group by status", "dagster")

    wait_until(lambda: [status for status, _ in runs()] == ["SUCCESS"])
    found = deployed.graphql("{ runsOrError { ... on Runs { results { jobName status } } } }")["runsOrError"]["results"]
    assert {(run["jobName"], run["status"]) for run in found} == {("build_job", "SUCCESS")}
    assert len(found) == runs()[0][1]
    written = {path.name for path in (deployed.directory / "opt" / "dagster").rglob("*.db")}
    assert written == set()  # no SQLite


def test_what_the_image_copies_exists() -> None:
    copied = re.findall(r"^COPY (.+) \S+$", (DEPLOY / "Dockerfile").read_text("utf-8"), re.MULTILINE)
    for name in " ".join(copied).split():
        assert (REPOSITORY / name).exists(), name
    assert shutil.which("dagster", path=str(Path(sys.executable).parent))
    named = set(re.findall(r"\$\{(\w+)", (DEPLOY / "docker-compose.yml").read_text("utf-8")))
    explained = set(re.findall(r"^(\w+)=", (DEPLOY / "env.example").read_text("utf-8"), re.MULTILINE))
    assert named <= explained


def test_the_webserver_is_not_open_to_others() -> None:
    assert COMPOSE["services"]["webserver"]["ports"] == ["127.0.0.1:3000:3000"]
