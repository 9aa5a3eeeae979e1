"""Processes that end themselves at a point of their work, on copies of one small deployment.

A fork server imports everything that is slow and opens nothing. For each task it forks a child, which works on one
directory and, if the task says so, ends itself with SIGKILL at the n-th point. A point is a statement or commit that
reaches the warehouse, a commit of the index or of Dagster's storage, or the release of the warehouse.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import duckdb
from dagster._core.storage.tags import GRPC_INFO_TAG
from warehouses import REPOSITORY, START, TABLES, VIEWS, Row, Warehouse, at, comparable, ordered

from stitch_pipeline.orchestration.event_storage import instance_at
from stitch_pipeline.orchestration.jobs import BUILD_JOB
from stitch_pipeline.orchestration.run_records import run_request
from stitch_pipeline.planning.days import DayRange
from stitch_pipeline.planning.requests import Request
from stitch_pipeline.stitching import forget
from stitch_pipeline.warehouse import dbt_project

HISTORIES = {
    "user_mapping_history": ("known_since", "known_until"),
    "rules_history": ("followed_since", "followed_until"),
    "decision_history": ("followed_since", "followed_until"),
    "person_name_history": ("followed_since", "followed_until"),
}
"""The histories, each with the columns that hold when something was noticed: no other process notices at that time."""

STITCH_TOML = """
[projects.blog]
policy = "graph"

[projects.blog.identifiers.email]
paths = ["properties.email"]
"""
DEVICES = 12


# The story.


def landed_events(first_device: int, last_device: int) -> Iterator[Row]:
    """Three days of anonymous browsing in two projects; every third device logs in on the second day."""
    for project in ("shop", "blog"):
        for device in range(first_device, last_device):
            for day in (1, 2, 3):
                for minute in (0, 20, 50):
                    yield {
                        "event_id": f"{device}-{day}-{minute}",
                        "project_id": project,
                        "occurred_at": at(f"2026-03-0{day} 12:{minute:02}"),
                        "received_at": at(f"2026-03-0{day} 13:00"),
                        "event_type": "page",
                        "anonymous_id": f"d{device}",
                        "user_id": f"u{device // 2}" if device % 3 == 0 and day == 2 else None,
                        "page_path": "/a",
                        "properties": {"email": f"{device // 4}@example.com"} if day == 3 and device % 4 else None,
                    }


def late_logins() -> Iterator[Row]:
    for project in ("shop", "blog"):
        for device in range(1, DEVICES, 2):
            yield {
                "event_id": f"late-{device}",
                "project_id": project,
                "occurred_at": at("2026-03-04 09:00"),
                "received_at": at("2026-03-04 09:00"),
                "event_type": "identify",
                "anonymous_id": f"d{device}",
                "user_id": f"u{device // 3}",
                "properties": {"email": f"{device}@example.com"},
            }


def land_the_story(warehouse: Warehouse) -> None:
    for number, first in enumerate(range(0, DEVICES, 2)):
        warehouse.land_events(f"jitsu/{number}.ndjson", landed_events(first, first + 2))
    again = list(landed_events(0, 1))[:3]
    sent = [json.dumps({"messageId": "bad", "type": "page", "timestamp": "yesterday"}), "{"]
    warehouse.land("jitsu/bad.ndjson", sent)
    warehouse.land_events("jitsu/again.ndjson", again)


# What is killed.


def settle(warehouse: Warehouse) -> None:
    warehouse.settle()


def settle_and_reconcile(warehouse: Warehouse) -> None:
    warehouse.settle(reconcile=True)


def build_as_the_daemon_does(warehouse: Warehouse) -> None:
    """Build the days that the late logins reach, which makes sessions of earlier days stale."""
    days = DayRange(START + timedelta(days=2), START + timedelta(days=5))
    request = run_request(Request(days, base_key="by the daemon"))
    warehouse.run(BUILD_JOB, {**request.tags, GRPC_INFO_TAG: json.dumps({"host": "localhost"})})


def nothing(warehouse: Warehouse) -> None:
    pass


@dataclass(frozen=True)
class Scenario:
    """``change`` happens to a settled deployment; then ``run`` is killed, and a plain settle follows."""

    change: Callable[[Warehouse], None]
    run: Callable[[Warehouse], None] = settle
    starts_empty: bool = False
    after: Callable[[Warehouse], None] = nothing
    """What else is done before the run that is killed, by a process that is not."""


def _land_late_logins(warehouse: Warehouse) -> None:
    warehouse.land_events("jitsu/late.ndjson", late_logins())


def _leave_logins_to_the_sensor(warehouse: Warehouse) -> None:
    write_settings(warehouse.directory, restitch_in_build_days=0)
    warehouse.load_settings(restitch_in_build_days=0)
    _land_late_logins(warehouse)


def _change_policies(warehouse: Warehouse) -> None:
    warehouse.write_stitch_toml('[projects.shop]\npolicy = "first"\nlookback_days = 1\n' + STITCH_TOML)


def _decide(warehouse: Warehouse) -> None:
    warehouse.write_overrides(["shop,wrong_link,d3,u1,", "blog,same_person,u0,u1,", "blog,shared_device,d9,,"])


def _take_a_file_away(warehouse: Warehouse) -> None:
    warehouse.take_away("jitsu/0.ndjson")


def _change_a_file(warehouse: Warehouse) -> None:
    events = [{**event, "user_id": None} for event in landed_events(2, 4) if event["occurred_at"].day != 1]
    warehouse.land_events("jitsu/1.ndjson", events)


def _change_the_timeout(warehouse: Warehouse) -> None:
    write_settings(warehouse.directory, session_timeout_minutes=15)
    warehouse.load_settings(session_timeout_minutes=15)


def _forget(warehouse: Warehouse) -> None:
    """One user of two devices, and in the other project a device, its identifiers and its links."""
    for project, kind, value in (("shop", "user", "u1"), ("blog", "device", "d3"), ("blog", "email", "1@example.com")):
        forget.add_to_list(warehouse.settings, forget.Request(project, kind, value))


def _settle_without_page_views(warehouse: Warehouse) -> None:
    warehouse.settle(view_stitching=False)


SCENARIOS = {
    "first build": Scenario(nothing, starts_empty=True),
    "late logins": Scenario(_land_late_logins),
    "late logins, built by a run of the daemon": Scenario(_land_late_logins, run=build_as_the_daemon_does),
    "late logins, left to the sensor": Scenario(_leave_logins_to_the_sensor),
    "sessions to re-stitch": Scenario(_leave_logins_to_the_sensor, after=build_as_the_daemon_does),
    "page views to re-stitch": Scenario(_land_late_logins, after=_settle_without_page_views),
    "changed policies": Scenario(_change_policies),
    "changed decisions": Scenario(_decide),
    "reconcile": Scenario(_change_policies, run=settle_and_reconcile),
    "a file that vanished": Scenario(_take_a_file_away),
    "a changed file": Scenario(_change_a_file),
    "changed session timeout": Scenario(_change_the_timeout),
    "forgotten ids": Scenario(_forget),
}


# One task, in a child of the fork server.


def write_settings(directory: Path, **settings: Any) -> None:
    (directory / "settings.json").write_text(json.dumps(settings))


@contextmanager
def deployment(directory: Path) -> Iterator[Warehouse]:
    """What ``directory`` holds: landing zone, warehouse, settings, and the records of Dagster on disk."""
    home = directory / "dagster_home"
    if not home.exists():
        home.mkdir(parents=True)
        shutil.copy(REPOSITORY / "dagster_home" / "dagster.yaml", home)
        (directory / "stitch.toml").write_text(STITCH_TOML)
        write_settings(directory)
    settings = json.loads((directory / "settings.json").read_text())
    with instance_at(home) as instance:
        stitch_toml = (directory / "stitch.toml").read_text()
        # One key for all deployments, so that their pseudonyms can be compared.
        yield Warehouse(directory, instance, stitch_toml=stitch_toml, forget_key="17" * 32, **settings)


def prepare(warehouse: Warehouse, scenario: Scenario) -> None:
    """Everything before the run that is killed."""
    land_the_story(warehouse)
    if not scenario.starts_empty:
        warehouse.settle()
    scenario.change(warehouse)
    scenario.after(warehouse)


def build_from_nothing(warehouse: Warehouse, scenario: Scenario) -> None:
    land_the_story(warehouse)
    scenario.change(warehouse)
    warehouse.settle()


def run_what_is_killed(warehouse: Warehouse, scenario: Scenario) -> None:
    scenario.run(warehouse)


def settle_plainly(warehouse: Warehouse, scenario: Scenario) -> None:
    warehouse.settle()


def settle_plainly_twice(warehouse: Warehouse, scenario: Scenario) -> None:
    warehouse.settle()
    runs = warehouse.settle().runs
    assert not runs, [f"{run.job_name} {run.days}" for run in runs]


STEPS: Mapping[str, Callable[[Warehouse, Scenario], None]] = {
    step.__name__: step
    for step in (prepare, build_from_nothing, run_what_is_killed, settle_plainly, settle_plainly_twice)
}


def contents(path: Path) -> dict[str, list[Row]]:
    """All that has to be as after an undisturbed build."""
    with duckdb.connect(str(path), read_only=True) as con:
        known_now = "select * exclude (known_since, known_until) from {} where known_until is null"
        queries = {table: f"select * from stitch.{table}" for table in (*TABLES, *VIEWS)}
        # A time of loading is that of the run.
        queries["stitching_reasons"] = "select * exclude (candidate_loaded_at) from stitch.stitching_reasons"
        queries["what is known now"] = known_now.format("stitch.user_mapping_history")

        def rows(sql: str) -> list[Row]:
            found = con.execute(sql)
            names = [column[0] for column in found.description]
            return ordered(comparable(dict(zip(names, row, strict=True))) for row in found.fetchall())

        return {name: rows(sql) for name, sql in queries.items()}


def histories(path: Path) -> dict[str, list[Row]]:
    """The histories without their times, which an undisturbed run of the same changes leaves as well."""
    with duckdb.connect(str(path), read_only=True) as con:
        found: dict[str, list[Row]] = {}
        for table, times in HISTORIES.items():
            rows = con.execute(f"select * exclude ({', '.join(times)}) from stitch.{table}")
            names = [column[0] for column in rows.description]
            found[table] = ordered(dict(zip(names, row, strict=True)) for row in rows.fetchall())
        return found


# Points.


class Points:
    """Counts the points of this process, and ends it at one of them."""

    def __init__(self, kill_at: int | None) -> None:
        self.kill_at = kill_at
        self.reached: list[str] = []
        self.job = "triggers"

    def reach(self, what: str) -> None:
        self.reached.append(f"{self.job}: {what}")
        if len(self.reached) == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(60)  # the signal ends the process, never this line

    def install(self) -> None:
        """Make every statement, commit and recorded event of this process a point. There is no way back."""
        self._in_the_warehouse()
        self._in_dbt()
        self._in_sqlite()
        self._in_dagster()

    def _in_the_warehouse(self) -> None:
        from stitch_pipeline.warehouse.duckdb import DuckDBEngine, DuckDBWarehouse

        for name in ("execute", "rows", "records", "insert_rows", "insert_frame", "load_events"):
            self._before(DuckDBWarehouse, name, lambda *arguments, name=name: f"port {name}")
        points, transaction, open_warehouse = self, DuckDBWarehouse.transaction, DuckDBEngine.open

        @contextmanager
        def counted_transaction(warehouse: Any) -> Iterator[None]:
            with transaction(warehouse):
                yield
                points.reach("port before commit")
            points.reach("port after commit")

        @contextmanager
        def counted_open(engine: Any, *, read_only: bool = False) -> Iterator[Any]:
            with open_warehouse(engine, read_only=read_only) as opened:
                points.reach("warehouse opened")
                yield opened
                points.reach("warehouse before close")
            points.reach("warehouse closed")

        DuckDBWarehouse.transaction = counted_transaction  # type: ignore[method-assign, assignment]
        DuckDBEngine.open = counted_open  # type: ignore[method-assign, assignment]

    def _in_dbt(self) -> None:
        from dbt.adapters.duckdb.environments.local import DuckDBCursorWrapper

        execute = DuckDBCursorWrapper.execute

        def counted(cursor: Any, sql: str, *arguments: Any) -> Any:
            verb = _verb(sql)
            self.reach(f"dbt before {verb}")
            result = execute(cursor, sql, *arguments)
            if verb == "commit":
                self.reach("dbt after commit")
            return result

        DuckDBCursorWrapper.execute = counted

    def _in_sqlite(self) -> None:
        points, connect = self, sqlite3.connect

        class Connection(sqlite3.Connection):
            whose = ""

            def commit(self) -> None:
                writes = self.in_transaction
                if writes:
                    points.reach(f"{self.whose} before commit")
                super().commit()
                if writes:
                    points.reach(f"{self.whose} after commit")

            def __exit__(
                self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
            ) -> Any:
                if kind is None:
                    self.commit()
                return super().__exit__(kind, error, trace)

        def counted(database: Any, *arguments: Any, **keywords: Any) -> sqlite3.Connection:
            connection: Connection = connect(database, *arguments, **{**keywords, "factory": Connection})
            connection.whose = "index" if str(database).endswith(".landing.sqlite") else "dagster"
            return connection

        sqlite3.connect = counted  # type: ignore[assignment]
        sqlite3.dbapi2.connect = counted  # type: ignore[assignment]

    def _in_dagster(self) -> None:
        from dagster._core.storage.event_log import SqliteEventLogStorage

        store_event = SqliteEventLogStorage.store_event

        def counted(storage: Any, event: Any) -> None:
            self.job = event.job_name or self.job
            what = event.dagster_event.event_type_value if event.dagster_event else "log"
            self.reach(f"dagster before {what}")
            store_event(storage, event)
            self.reach(f"dagster after {what}")

        SqliteEventLogStorage.store_event = counted  # type: ignore[method-assign, assignment]

    def _before(self, owner: type, name: str, label: Callable[..., str]) -> None:
        original = getattr(owner, name)

        def counted(*arguments: Any, **keywords: Any) -> Any:
            self.reach(label(*arguments))
            return original(*arguments, **keywords)

        setattr(owner, name, counted)


def _verb(sql: str) -> str:
    lines = (line.strip() for line in sql.replace("*/", "*/\n").splitlines())
    first = next((line for line in lines if line and not line.startswith(("--", "/*"))), "")
    return first.split(" ")[0].rstrip(";").lower()


# The fork server.


@dataclass(frozen=True)
class Ended:
    """How a child ended: killed by itself or by the server, or with an error. ``points`` are those that it reached."""

    was_killed: bool
    error: str | None
    seconds: float
    points: list[str]


class ForkServer:
    """A process that forks a child for each task, one at a time."""

    def __init__(self) -> None:
        dbt_project.prepare_manifest()  # here, because parsing starts threads
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={
                **{name: value for name, value in environment.items() if not name.startswith(("STITCH_", "DAGSTER_"))},
                "STITCH_ENV_FILE": "off",
            },
            text=True,
        )

    def run(
        self,
        step: Callable[[Warehouse, Scenario], None],
        directory: Path,
        scenario: str,
        *,
        kill_at: int | None = None,
        kill_after: float | None = None,
    ) -> Ended:
        """Run the step on what ``directory`` holds, in a process of its own.

        It is killed at its point ``kill_at``, counted from 1, or after ``kill_after`` seconds, if it gets as far.
        """
        task = {
            "step": step.__name__,
            "directory": str(directory),
            "scenario": scenario,
            "kill_at": kill_at,
            "kill_after": kill_after,
        }
        stdin, stdout = _pipes(self._process)
        stdin.write(json.dumps(task) + "\n")
        stdin.flush()
        line = stdout.readline()
        if not line:
            raise RuntimeError("The fork server has ended.")
        ended: dict[str, Any] = json.loads(line)
        return Ended(**ended)

    def close(self) -> None:
        _pipes(self._process)[0].close()
        self._process.wait(timeout=60)


def _pipes(process: subprocess.Popen[str]) -> tuple[IO[str], IO[str]]:
    assert process.stdin is not None
    assert process.stdout is not None
    return process.stdin, process.stdout


def serve() -> None:
    _import_what_is_slow()
    for line in sys.stdin:
        task = json.loads(line)
        if len(os.listdir("/proc/self/task")) != 1:
            raise RuntimeError("The fork server has threads, which a child would miss.")
        started = time.monotonic()
        outcome = Path(task["directory"]).with_suffix(".outcome")
        for left in (outcome, outcome.with_suffix(".contents")):
            left.unlink(missing_ok=True)
        child = os.fork()
        if not child:
            _work(task, outcome)
        was_killed = _wait(child, task["kill_after"])
        found: dict[str, Any] = {"error": None, "points": []}
        if outcome.exists():
            found = json.loads(outcome.read_text())
        elif not was_killed:
            found["error"] = "The process ended without a word."
        print(json.dumps({**found, "was_killed": was_killed, "seconds": time.monotonic() - started}), flush=True)


def _import_what_is_slow() -> None:
    import dagster_dbt  # noqa: F401
    import dbt.cli.main  # noqa: F401
    from dbt.adapters.duckdb.connections import DuckDBConnectionManager  # noqa: F401

    dbt_project.assets_manifest()
    dbt_project._parsed_project("warehouse")


def _wait(child: int, kill_after: float | None) -> bool:
    deadline = None if kill_after is None else time.monotonic() + kill_after
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        if deadline is not None and time.monotonic() >= deadline:
            os.kill(child, signal.SIGKILL)
            deadline = None
        time.sleep(0.002)


def _work(task: Mapping[str, Any], outcome: Path) -> None:
    """What the child does; it never returns."""
    directory = Path(task["directory"])
    log = os.open(directory.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for standard in (1, 2):
        os.dup2(log, standard)
    points = Points(task["kill_at"])
    error = None
    try:
        if task["step"] == run_what_is_killed.__name__:
            points.install()
        with deployment(directory) as warehouse:
            STEPS[task["step"]](warehouse, SCENARIOS[task["scenario"]])
        if task["step"] != run_what_is_killed.__name__:
            path = directory / "warehouse.duckdb"
            if path.exists():
                found = {**contents(path), **histories(path)}
                directory.with_suffix(".contents").write_bytes(pickle.dumps(found))
    except BaseException:
        error = traceback.format_exc()
    outcome.write_text(json.dumps({"error": error, "points": points.reached}))
    os._exit(0)


if __name__ == "__main__":
    serve()
