"""``make demo``: history lands and is stitched, late logins re-stitch it, and both are compared with the truth."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from dagster import DagsterInstance
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from stitch_pipeline.cli.progress import Progress
from stitch_pipeline.definitions import build_defs
from stitch_pipeline.demo.shop import DAYS, LAST_DAYS, STORY, Truth, land, simulate, users_of_events, write_truth
from stitch_pipeline.orchestration.event_storage import instance_at
from stitch_pipeline.orchestration.jobs import JOBS
from stitch_pipeline.orchestration.run_records import job_states
from stitch_pipeline.orchestration.settle import Settled, settle
from stitch_pipeline.report import write_reports
from stitch_pipeline.settings import Policy, Settings, SettingsError
from stitch_pipeline.shipped_files import DAGSTER_YAML
from stitch_pipeline.stitching.facts import IS_STITCHED
from stitch_pipeline.stitching.rules import project_ids
from stitch_pipeline.stitching.views import rules_trial
from stitch_pipeline.warehouse.engine import engine_of
from stitch_pipeline.warehouse.port import Warehouse

MARKER = ".stitch-demo"
"""The file by which a directory is known as the demo's, which may be replaced."""
_OWN_NAMES = ("dagster_home", "landing", "report", "stitch.toml", "truth.parquet", "workspace.yaml")
_OWN_PATTERNS = ("warehouse.*",)
_OWN_SERVER = "postgres"
_SCHEMA = "stitch_demo"
_SETTINGS = """\
# The settings of the demo. In this directory, every command of `stitch` is about the demo.
landing_dir = "landing"
duckdb_path = "warehouse.duckdb"
report_dir = "report"
start_date = {first_day}
"""
_WORKSPACE = """\
load_from:
  - python_module:
      module_name: stitch_pipeline.definitions
      location_name: {code_location}
"""
_PLACES = (
    *("STITCH_LANDING_DIR", "STITCH_DUCKDB_PATH", "STITCH_REPORT_DIR", "STITCH_START_DATE"),
    *("STITCH_PROJECT_FILE", "STITCH_ENV_FILE", "STITCH_OVERRIDES_FILE", "STITCH_FORGOTTEN_FILE"),
    *("STITCH_PUBLISHED_DIR", "STITCH_KEY_PREFIX", "STITCH_WAREHOUSE", "STITCH_WAREHOUSE_SCHEMA"),
)
"""Variables that would lead a command elsewhere than to the demo's directory."""


@dataclass(frozen=True)
class Told:
    """What the demo did: its figures before and after the late logins, and the commands that look at its data."""

    is_settled: bool
    directory: Path
    first_day: date
    last_day: date
    before: Mapping[str, str]
    after: Mapping[str, str]
    commands: Sequence[str]
    report: Path
    """The index of the reports."""


@dataclass(frozen=True)
class Accuracy:
    """Shares from 0 to 1, over the events that have a device."""

    precision: float
    """The share of the events credited to a user that are this user's."""
    recall: float
    """The share of the events of people with an account that are credited to them."""


@dataclass(frozen=True)
class State:
    """The numbers of the warehouse that the demo shows, at one moment."""

    events: int
    sessions: int
    devices: int
    visitors: int
    users: int
    session_stitch_rate: float
    page_view_stitch_rate: float
    history: list[tuple[str, str, str, int, str]]
    """The named visitor's sessions: day, platform, device, page views, credited to."""
    sessions_of_story: list[tuple[date, str, str]]
    """The same sessions: date, device, credited to."""
    credited: Mapping[str, Mapping[str, tuple[date, str]]]
    """By table and row: its day, and whom it is credited to."""
    accuracy: Accuracy


def tell(directory: Path, seed: int, people: int, console: Console, warehouse: str | None = None) -> Told:
    """Run the demo in ``directory``; what an earlier demo left there is replaced. The data ends yesterday (UTC).

    ``warehouse`` is the address of a PostgreSQL database, or ``postgres`` for a server that is started in a temporary
    directory and stopped at the end; by default the warehouse is a DuckDB file. Raises SettingsError if the directory
    holds anything else, or the database has a schema of the demo's name.
    """
    directory = directory.resolve()
    if warehouse != _OWN_SERVER:
        return _tell(directory, seed, people, console, warehouse)
    from stitch_pipeline.demo.postgres_server import postgres_server

    with TemporaryDirectory(prefix="stitch-demo-") as place, postgres_server(Path(place) / "server") as server:
        told = _tell(directory, seed, people, console, server.create_database("demo"), is_kept=False)
        console.print("\nThe server ends with the demo. To keep the data, give --warehouse the address of a database.")
        return told


def _tell(
    directory: Path, seed: int, people: int, console: Console, warehouse: str | None, *, is_kept: bool = True
) -> Told:
    first_day = datetime.now(UTC).date() - timedelta(days=DAYS)
    settings = _new_project(directory, first_day, warehouse)
    shop = simulate(seed=seed, first_day=first_day, people=people)
    late_from = shop.days[-1 - LAST_DAYS]
    write_truth(shop, directory / "truth.parquet")
    truth = users_of_events(shop)

    console.rule(f"1. History lands: {shop.days[0]} to {late_from}")
    files = land(shop, settings.landing_dir, through=late_from)
    console.print(f"{len(files)} files, {_megabytes(files):.0f} MB, from a web shop, its mobile app and a blog")
    with instance_at(directory / "dagster_home") as instance:
        _, before = _settle_and_look(settings, instance, truth, console)
        _print_state(before, console)

        console.rule(f"2. The last {LAST_DAYS} days land, with their logins and what arrived late")
        files = land(shop, settings.landing_dir, after=late_from)
        console.print(f"{len(files)} files, {_megabytes(files):.0f} MB")
        settled, after = _settle_and_look(settings, instance, truth, console)
        jobs = job_states(instance, JOBS)

    console.rule("3. What the late logins changed in the past")
    _print_comparison(before, after, console)
    _print_restitch(before, after, late_from, console)
    _print_history(before, after, console)
    _print_truth(before, after, console)
    with engine_of(settings).open(read_only=True) as stored:
        accuracies = _accuracies(stored, truth, "policy_preview_events")
    accuracies |= {
        "graph": _accuracy_under_graph(settings, truth),
        "graph, unique users": _accuracy_under_graph(settings, truth, unique_identifiers=("user",)),
    }
    _print_policies(accuracies, console)

    report, *_ = write_reports(settings, settings.reports_to, jobs)
    commands = _print_what_to_do_next(directory, after, console, settings) if is_kept else ()
    console.print(f"The report of each project:\n  [bold]{escape(os.path.relpath(report))}[/]")
    return Told(
        is_settled=settled.is_settled,
        directory=directory,
        first_day=shop.days[0],
        last_day=shop.days[-1],
        before=dict(_figures(before)),
        after=dict(_figures(after)),
        commands=commands,
        report=report,
    )


def _new_project(directory: Path, first_day: date, warehouse: str | None) -> Settings:
    """The settings of a new project in the directory, which is emptied if it is a demo's."""
    if directory.exists():
        if not directory.is_dir() or (any(directory.iterdir()) and not (directory / MARKER).is_file()):
            raise SettingsError(
                f"'{directory}' is not empty, and no demo was run in it: name another directory with --directory, or "
                "empty it yourself."
            )
        _remove_earlier_demo(directory)
    home = directory / "dagster_home"
    home.mkdir(parents=True)
    (directory / MARKER).write_text(
        "`stitch demo` made this directory. It replaces what it wrote here, no other file.\n"
    )
    shutil.copy(DAGSTER_YAML, home)
    project_file = directory / "stitch.toml"
    project_file.write_text(_SETTINGS.format(first_day=first_day))
    # As arguments too, because variables of the environment come before the file. They may be those of another project,
    # and the demo must not publish over its tables.
    settings = Settings.load(
        env_file="off",
        key_prefix="",
        project_file=project_file,
        overrides_file=None,
        forgotten_file=None,
        published_dir=None,
        landing_dir=directory / "landing",
        duckdb_path=directory / "warehouse.duckdb",
        report_dir=directory / "report",
        start_date=first_day,
        warehouse=warehouse,
        warehouse_schema=_SCHEMA if warehouse else "stitch",
    )
    if warehouse is not None and (engine := engine_of(settings)).exists():
        raise SettingsError(
            f"'{engine.place}' has tables, perhaps of an earlier demo: run `drop schema {_SCHEMA} cascade` there."
        )
    (directory / "workspace.yaml").write_text(_WORKSPACE.format(code_location=settings.code_location))
    settings.landing_dir.mkdir()
    return settings


def _remove_earlier_demo(directory: Path) -> None:
    own = [directory / name for name in _OWN_NAMES]
    for path in [*own, *(path for pattern in _OWN_PATTERNS for path in directory.glob(pattern))]:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _print_what_to_do_next(directory: Path, after: State, console: Console, settings: Settings) -> Sequence[str]:
    """Print commands that work as they are, from the current directory. Returns them."""
    unset = [f"-u {name}" for name in _PLACES if name in os.environ]
    if settings.warehouse is not None:
        # Without the password, which the environment may have as PGPASSWORD.
        address = engine_of(settings).place.split(" ")[0]
        unset += [f"STITCH_WAREHOUSE={shlex.quote(address)}", f"STITCH_WAREHOUSE_SCHEMA={_SCHEMA}"]
    there = f"cd {shlex.quote(os.path.relpath(directory))} && " + " ".join(["env", *unset, ""] if unset else [])
    device = STORY.anonymous_ids[0]
    day = next(day for day, found, user in after.sessions_of_story if found == device and user == STORY.user_id)
    home = shlex.quote(str(directory / "dagster_home"))
    why = f"{there}{_program('stitch')} why --project {STORY.project_id} --anonymous-id {device} --at {day}"
    # The variable for dagster, which has no default.
    ui = f"{there}{'' if unset else 'env '}DAGSTER_HOME={home} {_program('dagster')} dev --host 127.0.0.1"
    console.print(f"\nWhy Maya's session of {day} is credited to her:\n  [bold]{escape(why)}[/]")
    console.print(f"The Dagster UI on this data (`make demo-ui` in a checkout):\n  [bold]{escape(ui)}[/]")
    return why, ui


def _program(name: str) -> str:
    """How a shell finds a program of this Python's environment."""
    here = Path(sys.executable).with_name(name)
    found = shutil.which(name)
    if found and Path(found).resolve() == here.resolve():
        return name
    return shlex.quote(str(here)) if here.exists() else f"{shlex.quote(sys.executable)} -m {_MODULES[name]}"


_MODULES = {"stitch": "stitch_pipeline", "dagster": "dagster"}


def _megabytes(files: list[Path]) -> float:
    return sum(file.stat().st_size for file in files) / 1e6


def _settle_and_look(
    settings: Settings, instance: DagsterInstance, truth: Truth, console: Console
) -> tuple[Settled, State]:
    with Progress(console) as progress:
        settled = settle(settings, lambda: build_defs(settings), instance, view_stitching=True, report=progress.show)
        progress.close(settled)
    with engine_of(settings).open(read_only=True) as warehouse:
        return settled, _state(warehouse, truth)


def _accuracy_under_graph(settings: Settings, truth: Truth, **rules: Any) -> Accuracy:
    """The accuracy if every project followed the policy ``graph``, which resolves persons first, with these rules."""
    with rules_trial(settings, ["policy_preview_events"]) as trial:
        graph = {"policy": Policy.graph, **rules}
        projects = project_ids(trial.warehouse)
        trial.follow({name: settings.rules(name).changed_by(graph) for name in projects}, settings.followed_decisions)
        return _accuracies(trial.warehouse, truth, "policy_preview_events", "where policy = 'graph'")["graph"]


def _state(warehouse: Warehouse, truth: Truth) -> State:
    def value(query: str) -> int:
        return int(warehouse.rows(query)[0][0])

    def rate(table: str) -> float:
        query = f"select avg(case when {IS_STITCHED} then 1.0 else 0.0 end) from {table}"
        return float(warehouse.rows(query)[0][0])

    sessions = warehouse.rows(
        """
        select session_date, platform, anonymous_id, page_view_count, stitched_user_id
        from stitched_sessions
        where project_id = $project and anonymous_id in (select unnest($devices))
        order by started_at
        """,
        project=STORY.project_id,
        devices=list(STORY.anonymous_ids),
    )

    def credited(table: str, row: str, day: str) -> dict[str, tuple[date, str]]:
        rows = warehouse.rows(f"select project_id || '/' || {row}, {day}, stitched_user_id from {table}")
        return {row: (day, user) for row, day, user in rows}

    return State(
        events=value("select count(*) from raw_events"),
        sessions=value("select count(*) from stitched_sessions"),
        devices=value("select count(distinct (project_id, anonymous_id)) from stitched_sessions"),
        visitors=value("select count(*) from users"),
        users=value("select count(*) from users where is_identified"),
        session_stitch_rate=rate("stitched_sessions"),
        page_view_stitch_rate=rate("page_views"),
        history=[(f"{day:%d %b}", *rest) for day, *rest in sessions],
        sessions_of_story=[(day, device, user) for day, _, device, _, user in sessions],
        credited={
            "stitched_sessions": credited("stitched_sessions", "session_id", "session_date"),
            "page_views": credited("page_views", "event_id", "event_date"),
        },
        accuracy=_accuracies(warehouse, truth, "stitched_events")["latest"],
    )


def _accuracies(warehouse: Warehouse, truth: Truth, view: str, condition: str = "") -> dict[str, Accuracy]:
    """The accuracy of a view's events, by policy."""
    policy = "policy" if view == "policy_preview_events" else "'latest'"
    rows = warehouse.rows(
        f"""
        with compared as (
          select
            {policy} as policy, {IS_STITCHED} as is_credited, truth.user_id as true_user_id, events.stitched_user_id
          from (select * from {view} {condition}) as events
          inner join (
            select unnest($projects) as project_id, unnest($events) as event_id, unnest($users) as user_id
          ) as truth using (project_id, event_id)
          where events.anonymous_id is not null
        )
        select
          policy,
          avg(case when true_user_id = stitched_user_id then 1.0 else 0.0 end) filter (where is_credited),
          avg(case when true_user_id = stitched_user_id and is_credited then 1.0 else 0.0 end)
            filter (where true_user_id is not null)
        from compared
        group by policy
        """,
        projects=truth.project_ids,
        events=truth.event_ids,
        users=truth.user_ids,
    )
    return {policy: Accuracy(precision, recall) for policy, precision, recall in rows}


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(columns[0])
    for column in columns[1:]:
        table.add_column(column, justify="right")
    return table


def _print_state(state: State, console: Console) -> None:
    table = _table("", "now")
    for name, value in _figures(state):
        table.add_row(name, value)
    console.print(table)


def _print_comparison(before: State, after: State, console: Console) -> None:
    table = _table("", "before", "after")
    for (name, old), (_, new) in zip(_figures(before), _figures(after), strict=True):
        table.add_row(name, old, new)
    console.print(table)


def _figures(state: State) -> list[tuple[str, str]]:
    return [
        ("events", f"{state.events:,}"),
        ("sessions", f"{state.sessions:,}"),
        ("sessions credited to a user", f"{state.session_stitch_rate:.1%}"),
        ("page views credited to a user", f"{state.page_view_stitch_rate:.1%}"),
        ("devices", f"{state.devices:,}"),
        ("visitors after stitching", f"{state.visitors:,}"),
        ("of these known users", f"{state.users:,}"),
    ]


def _print_restitch(before: State, after: State, late_from: date, console: Console) -> None:
    for table, rows in before.credited.items():
        now = after.credited[table]
        days = Counter(
            day for row, (day, user) in rows.items() if day < late_from and row in now and now[row][1] != user
        )
        console.print(
            f"re-stitched [bold]{days.total():,}[/] rows of {table} on {len(days)} days before {late_from}: "
            "the others are as they were"
        )


def _print_history(before: State, after: State, console: Console) -> None:
    console.print(f"\nMaya, who logs in as [bold]{STORY.user_id}[/] for the first time in the last {LAST_DAYS} days:")
    earlier = {row[:4]: row[4] for row in before.history}
    table = _table("day", "platform", "device", "page views", "credited before", "credited now")
    for day, platform, device, views, now in after.history:
        table.add_row(day, platform, device, str(views), earlier.get((day, platform, device, views), "—"), now)
    console.print(table)


def _print_truth(before: State, after: State, console: Console) -> None:
    console.print("\nCompared with who really was there (events on a device):")
    table = _table("", "before", "after")
    was, now = before.accuracy, after.accuracy
    table.add_row("of the events credited to a user, rightly", f"{was.precision:.1%}", f"{now.precision:.1%}")
    table.add_row("of the events of account holders, credited", f"{was.recall:.1%}", f"{now.recall:.1%}")
    console.print(table)


def _print_policies(accuracies: dict[str, Accuracy], console: Console) -> None:
    console.print("\nUnder each policy (docs/policies.md), over the same events, without writing anything:")
    table = _table("policy", "credited rightly", "of account holders, credited")
    for policy, accuracy in accuracies.items():
        table.add_row(policy, f"{accuracy.precision:.1%}", f"{accuracy.recall:.1%}")
    console.print(table)
