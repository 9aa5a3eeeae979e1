"""``make demo``: history lands and is stitched, late logins land and re-stitch it, and the truth is compared."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import duckdb
from dagster import DagsterInstance
from rich.console import Console
from rich.table import Table

from stitch_pipeline.cli.progress import Progress
from stitch_pipeline.definitions import build_defs
from stitch_pipeline.demo.shop import LAST_DAYS, STORY, land, simulate, write_truth
from stitch_pipeline.orchestration.settle import Settled, settle
from stitch_pipeline.settings import Policy, Settings
from stitch_pipeline.shipped_files import DAGSTER_YAML
from stitch_pipeline.stitching.partition_facts import IS_STITCHED
from stitch_pipeline.stitching.preview import write_rules_to_try
from stitch_pipeline.warehouse import tables as schema
from stitch_pipeline.warehouse.duckdb_old import connect
from stitch_pipeline.warehouse.trial import STORED, overlay


@dataclass(frozen=True)
class Accuracy:
    precision: float
    """Of the events credited to a user, the share of those that were the user's."""
    recall: float
    """Of the events of people with an account, the share that is credited to them."""


@dataclass(frozen=True)
class State:
    """What an analyst would look at, at one moment."""

    events: int
    sessions: int
    devices: int
    visitors: int
    users: int
    session_stitch_rate: float
    page_view_stitch_rate: float
    history: list[tuple[str, str, str, int, str]]
    """The named visitor's sessions: day, platform, device, page views, credited to."""
    accuracy: Accuracy


def tell(directory: Path, seed: int, people: int, console: Console) -> bool:
    """Run the demo in ``directory``, which is emptied first; True if everything settled."""
    directory = directory.resolve()
    shutil.rmtree(directory, ignore_errors=True)
    home = directory / "dagster_home"
    home.mkdir(parents=True)
    shutil.copy(DAGSTER_YAML, home)
    truth = directory / "truth.parquet"

    shop = simulate(seed=seed, people=people)
    late_from = shop.days[-1 - LAST_DAYS]
    settings = Settings.load(
        landing_dir=directory / "landing",
        duckdb_path=directory / "warehouse.duckdb",
        start_date=shop.days[0],
    )
    settings.landing_dir.mkdir()
    write_truth(shop, truth)

    console.rule(f"1. History lands: {shop.days[0]} to {late_from}")
    files = land(shop, settings.landing_dir, through=late_from)
    console.print(f"{len(files)} files, {_megabytes(files):.0f} MB, from a web shop, its mobile app and a blog")
    with DagsterInstance.from_config(str(home)) as instance:
        _, before = _settle_and_look(settings, instance, truth, console)
        _print_state(before, console)

        console.rule(f"2. The last {LAST_DAYS} days land, with their logins and what arrived late")
        files = land(shop, settings.landing_dir, after=late_from)
        console.print(f"{len(files)} files, {_megabytes(files):.0f} MB")
        settled, after = _settle_and_look(settings, instance, truth, console)

    console.rule("3. What the late logins changed in the past")
    _print_comparison(before, after, console)
    _print_restitch(settled, late_from, console)
    _print_history(before, after, console)
    _print_truth(before, after, console)
    with _reading(settings) as con:
        accuracies = _accuracies(con, truth, "policy_preview_events")
    with _under_graph(settings) as con:
        accuracies |= _accuracies(con, truth, "policy_preview_events", "where policy = 'graph'")
    _print_policies(accuracies, console)
    console.print(f"\nLook at it in the Dagster UI: [bold]make demo-ui[/]   (data in {_shown(directory)})")
    return settled.is_settled


def _shown(directory: Path) -> str:
    here = Path.cwd()
    return str(directory.relative_to(here)) if directory.is_relative_to(here) else str(directory)


def _megabytes(files: list[Path]) -> float:
    return sum(file.stat().st_size for file in files) / 1e6


def _settle_and_look(
    settings: Settings, instance: DagsterInstance, truth: Path, console: Console
) -> tuple[Settled, State]:
    with Progress(console) as progress:
        settled = settle(settings, build_defs(settings), instance, view_stitching=True, report=progress.show)
        progress.close(settled)
    with _reading(settings) as con:
        return settled, _state(con, truth)


@contextmanager
def _reading(settings: Settings) -> Iterator[duckdb.DuckDBPyConnection]:
    con = connect(settings.duckdb_path, wait_seconds=settings.lock_wait_seconds, read_only=True)
    try:
        yield con
    finally:
        con.close()


@contextmanager
def _under_graph(settings: Settings) -> Iterator[duckdb.DuckDBPyConnection]:
    """The warehouse as if every project followed the policy ``graph``, which resolves persons first."""
    tables = (*schema.TABLES_OF_RULES, "persons")
    with overlay(
        settings.duckdb_path,
        wait_seconds=settings.lock_wait_seconds,
        views=["all_persons", "policy_preview_events"],
        replaced={table: f"select * from {STORED}.stitch.{table} limit 0" for table in tables},
    ) as con:
        rules = {project: settings.rules(project) for project in schema.projects(con)}
        graph = {"policy": Policy.graph}
        write_rules_to_try(con, {project: own.model_copy(update=graph) for project, own in rules.items()})
        yield con


def _state(con: duckdb.DuckDBPyConnection, truth: Path) -> State:
    def value(query: str) -> int:
        return int(con.execute(query).fetchall()[0][0])

    def rate(table: str) -> float:
        query = f"select avg(case when {IS_STITCHED} then 1.0 else 0.0 end) from stitch.{table}"
        return float(con.execute(query).fetchall()[0][0])

    history = con.execute(
        """
        select strftime(session_date, '%d %b'), platform, anonymous_id, page_view_count, stitched_user_id
        from stitch.stitched_sessions
        where project_id = ? and anonymous_id in (select unnest(?))
        order by started_at
        """,
        [STORY.project_id, list(STORY.anonymous_ids)],
    ).fetchall()
    return State(
        events=value("select count(*) from stitch.raw_events"),
        sessions=value("select count(*) from stitch.stitched_sessions"),
        devices=value("select count(distinct (project_id, anonymous_id)) from stitch.stitched_sessions"),
        visitors=value("select count(*) from stitch.users"),
        users=value("select count(*) from stitch.users where is_identified"),
        session_stitch_rate=rate("stitched_sessions"),
        page_view_stitch_rate=rate("page_views"),
        history=history,
        accuracy=_accuracies(con, truth, "stitched_events")["latest"],
    )


def _accuracies(con: duckdb.DuckDBPyConnection, truth: Path, view: str, asked: str = "") -> dict[str, Accuracy]:
    """By policy, how the events of a view compare with who was really there."""
    policy = "policy" if view == "policy_preview_events" else "'latest'"
    rows = con.execute(
        f"""
        with compared as (
          select
            {policy} as policy, {IS_STITCHED} as is_credited, truth.user_id as true_user_id, events.stitched_user_id
          from (select * from stitch.{view} {asked}) as events
          inner join read_parquet(?) as truth using (project_id, event_id)
          where events.anonymous_id is not null
        )
        select
          policy,
          avg(case when true_user_id = stitched_user_id then 1.0 else 0.0 end) filter (is_credited),
          avg(case when true_user_id = stitched_user_id and is_credited then 1.0 else 0.0 end)
            filter (true_user_id is not null)
        from compared
        group by policy
        """,
        [str(truth)],
    ).fetchall()
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


def _print_restitch(settled: Settled, late_from: date, console: Console) -> None:
    for job, table in (("restitch_job", "stitched_sessions"), ("restitch_page_views_job", "page_views")):
        runs = [run for run in settled.runs if run.job_name == job]
        rows = sum(run.rows_changed.get(table, 0) for run in runs)
        days = sum(run.partitions_changed.get(table, 0) for run in runs)
        console.print(
            f"re-stitched [bold]{rows:,}[/] rows of {table} on {days} days before {late_from}, "
            f"in {len(runs)} run{'s' * (len(runs) != 1)}"
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
    console.print("\nUnder each policy (docs/policies.md), asked of the same events without writing anything:")
    table = _table("policy", "credited rightly", "of account holders, credited")
    for policy in Policy:
        accuracy = accuracies[policy.value]
        table.add_row(policy.value, f"{accuracy.precision:.1%}", f"{accuracy.recall:.1%}")
    console.print(table)
