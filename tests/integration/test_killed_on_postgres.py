"""Client or server killed at a random moment of a run on PostgreSQL: a plain ``settle`` then completes it.

By default a few kills; ``KILLS=200 KILLS_SEED=1`` for as many as it takes to trust it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from random import Random
from tempfile import mkdtemp

import pytest
from engines import new_server
from kills import STITCH_TOML, land_the_story, late_logins
from warehouses import REPOSITORY, START, TABLES, VIEWS, Row, Warehouse, comparable, differences, ordered

from stitch_pipeline.demo.postgres_server import PostgresServer
from stitch_pipeline.orchestration.event_storage import instance_at
from stitch_pipeline.warehouse.postgres import PostgresEngine

pytestmark = [pytest.mark.slow, pytest.mark.long]

KILLS = int(os.environ.get("KILLS", "6"))
SEED = int(os.environ.get("KILLS_SEED", "1"))
KILLED = ("client", "client", "client", "server")


def environment(directory: Path, url: str) -> dict[str, str]:
    return {
        **os.environ,
        "DAGSTER_HOME": str(directory / "dagster_home"),
        "STITCH_WAREHOUSE": url,
        "STITCH_LANDING_DIR": str(directory / "landing"),
        "STITCH_DUCKDB_PATH": str(directory / "warehouse.duckdb"),
        "STITCH_PROJECT_FILE": str(directory / "stitch.toml"),
        "STITCH_REPORT_DIR": str(directory / "reports"),
        "STITCH_START_DATE": str(START),
    }


def settle(directory: Path, url: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "stitch_pipeline", "settle", "--json", "--view-stitching"],
        env=environment(directory, url),
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def settled_runs(directory: Path, url: str) -> list[dict[str, object]]:
    """The runs of a plain ``settle``, which must end well."""
    process = settle(directory, url)
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, output + errors
    (document,) = [json.loads(line) for line in output.splitlines() if line.startswith('{"is_settled"')]
    assert document["is_settled"], document
    runs: list[dict[str, object]] = document["runs"]
    return runs


def contents(url: str) -> dict[str, list[Row]]:
    """Every table and view, without the times at which something was loaded or known."""
    with PostgresEngine(url, "stitch", 5).open(read_only=True) as warehouse:
        found = {}
        for table in (*TABLES, *VIEWS):
            rows = warehouse.records(f"select * from {table}")
            found[table] = ordered(
                comparable({name: value for name, value in row.items() if name != "candidate_loaded_at"})
                for row in rows
            )
        return found


def test_killed_at_a_random_moment_a_plain_settle_completes_it(tmp_path: Path) -> None:
    random = Random(SEED)
    with new_server(Path(mkdtemp(prefix="stitch-kills-")) / "server") as server:
        prepared, url = tmp_path / "prepared", server.create_database("prepared")
        _prepare(prepared, url)
        undisturbed, other = _copy(server, prepared, tmp_path / "undisturbed", "undisturbed")
        began = time.monotonic()
        assert settled_runs(undisturbed, other)
        seconds = time.monotonic() - began
        expected = contents(other)

        wrong: list[str] = []
        killed = Counter[str]()
        for number in range(KILLS):
            copy, copied = _copy(server, prepared, tmp_path / "copy", f"copy{number}")
            victim, after = random.choice(KILLED), random.uniform(0.15, 1) * seconds
            process = settle(copy, copied)
            time.sleep(after)
            if process.poll() is None:
                killed[victim] += 1
            if victim == "client":
                process.kill()
            else:
                server.control("-m", "immediate", "stop")
                process.communicate(timeout=300)
                server.control("-o", server.options, "-l", os.devnull, "start")
            process.communicate()
            settled_runs(copy, copied)
            actual = contents(copied)
            differing = {
                table: differences(actual[table], rows) for table, rows in expected.items() if actual[table] != rows
            }
            runs = settled_runs(copy, copied)
            if differing or runs:
                wrong.append(f"{victim} after {after:.2f} s: {differing} {runs}"[:2000])
            print(f"{number + 1} {victim} after {after:.2f} s: {len(wrong)} failures", flush=True)
            shutil.rmtree(copy)
            server.rows(f"drop database copy{number}", "postgres")
        print(dict(killed))
        assert not wrong, "\n".join(wrong)
        assert sum(killed.values()) >= KILLS * 0.7


def _prepare(directory: Path, url: str) -> None:
    """A settled history, then late logins, a changed file and another policy, which are not settled."""
    home = directory / "dagster_home"
    home.mkdir(parents=True)
    shutil.copy(REPOSITORY / "dagster_home" / "dagster.yaml", home)
    with instance_at(home) as instance:
        warehouse = Warehouse(directory, instance, stitch_toml=STITCH_TOML, warehouse=url)
        land_the_story(warehouse)
        warehouse.settle()
        warehouse.land_events("jitsu/late.ndjson", late_logins())
        warehouse.take_away("jitsu/0.ndjson")
    (directory / "stitch.toml").write_text('[projects.shop]\npolicy = "first"\nlookback_days = 1\n' + STITCH_TOML)


def _copy(server: PostgresServer, prepared: Path, directory: Path, name: str) -> tuple[Path, str]:
    """The prepared deployment once more: its files, and its database by PostgreSQL's own means."""
    shutil.copytree(prepared, directory)
    server.rows(f"create database {name} template prepared", "postgres")
    return directory, server.url(name)
