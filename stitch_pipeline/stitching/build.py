"""Build models: one dbt run with the configured rules, which ends with a look for stale rows.

Belongs here: the models that a run needs in addition to the requested ones, and their variables. Does not: what a model
computes (``dbt_project``), or how Dagster shows it (``orchestration``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from typing import Any

from stitch_pipeline.planning.days import DayRange
from stitch_pipeline.planning.dbt_variables import days_per_step, dbt_variables
from stitch_pipeline.settings import Policy, ProjectSettings, Settings, SettingsError
from stitch_pipeline.settings.rules import as_stored
from stitch_pipeline.stitching import forget
from stitch_pipeline.stitching.facts import changed_rows, events_in_window
from stitch_pipeline.stitching.publish import queue_what_differs
from stitch_pipeline.stitching.rules import configure, is_followed
from stitch_pipeline.stitching.views import views_are_current
from stitch_pipeline.warehouse import dbt_project
from stitch_pipeline.warehouse.dbt_project import DbtEvent, ModelResult
from stitch_pipeline.warehouse.port import Engine, Warehouse
from stitch_pipeline.warehouse.tables import create_tables, index_rows

TABLES = (
    *("identity_map", "identifier_links", "persons", "user_mapping_history", "sessions", "stitched_sessions"),
    *("page_views", "users", "visitor_stats"),
)
RESTITCHED_TABLES = ("user_mapping_history", "stitched_sessions", "users", "visitor_stats")
"""The tables that a re-stitch of sessions writes."""
_TABLE_OF_GRAIN = {"sessions": "stitched_sessions", "page_views": "page_views"}
# Models whose changes can make stored rows of every grain stale. A run that builds one looks at every grain, and a run
# that builds the table of a grain looks at that grain.
_DECIDE_ANSWERS = ("identity_map", "identifier_links", "persons")
# Models with people who have no device. A re-stitch changes none of their events.
_COUNT_PEOPLE = ("users", "visitor_stats")
_FOLLOW_RULES = ("project_settings", "decisions", "persons")
# Sorting and joining this many events takes about 2 GB.
EVENTS_PER_STEP = 5_000_000


@dataclass(frozen=True)
class Options:
    """What one run does differently."""

    only_pending: bool = False
    restitch_only: bool = False
    view_stitching: bool | None = None
    """Whether to stitch page views in this run; None is as set."""
    exceptions: Mapping[str, Any] = field(default_factory=dict)
    """Run exceptions: rules that this run follows instead of the settings, by name. A value of None is unlimited."""


@dataclass(frozen=True)
class Built:
    """The result of a run. ``failures`` are dbt's messages, one for each failed or skipped model or test."""

    succeeded: Sequence[str]
    changed: Mapping[str, Mapping[date | None, int]]
    """Rows written or deleted, by table and day; under None for a table without days."""
    views: Sequence[str]
    """Views that were created because the warehouse had none of this version."""
    failures: Sequence[str]
    seconds: Mapping[str, float]
    stale: Stale | None
    """None if the run had no reason to look for stale rows, or failed before."""

    def followed_by(self, restitched: Built) -> Built:
        """This build and the re-stitch after it, as one result."""
        both = {table: Counter(self.changed.get(table, {})) for table in self.succeeded}
        for table, per_day in restitched.changed.items():
            both[table].update(per_day)
        seconds = Counter(self.seconds)
        seconds.update(restitched.seconds)
        looks = [built.stale for built in (self, restitched) if built.stale is not None]
        checked = {grain for stale in looks for grain in stale.checked}
        return replace(
            self,
            changed=both,
            failures=[*self.failures, *restitched.failures],
            seconds=seconds,
            stale=Stale(looks[-1].rows, sorted(checked)) if looks else None,
        )


@dataclass(frozen=True)
class Stale:
    """The numbers of stale rows by grain (sessions, page_views, mapping, users, stats) and day."""

    rows: Mapping[str, Mapping[date, int]]
    checked: Sequence[str] = tuple(_TABLE_OF_GRAIN)
    """The grains, sessions or page_views, that the run looked at; the others are as the last look left them."""

    def days(self, grain: str) -> list[date]:
        """The days that the next re-stitch of sessions or page views must touch, in order."""
        if grain != "sessions":
            return sorted(self.rows.get(grain, {}))
        # Any re-stitch brings mapping and users up to date, so they need a day only if nothing else is stale.
        found = self._days_of("sessions", "stats") or self._days_of("mapping", "users")
        return sorted(found)

    def _days_of(self, *grains: str) -> set[date]:
        return {day for grain in grains for day in self.rows.get(grain, {})}


def build(
    engine: Engine,
    warehouse: Warehouse,
    settings: Settings,
    window: DayRange,
    models: Collection[str],
    options: Options,
    on_event: Callable[[DbtEvent], None],
) -> Built:
    """Build the named models over the window; see ``dbt_project.run_models`` for ``on_event``.

    A build of every table also re-stitches the sessions of other days that it made stale, if these days are at most
    ``settings.restitch_in_build_days``. Raises SettingsError if a run exception cannot be followed, and DbtError if dbt
    itself cannot run.
    """
    ProjectSettings().changed_by(options.exceptions)
    create_tables(warehouse)
    configure(warehouse, settings)
    _refuse_unresolved_graph(warehouse, options)
    views_are_stitched = settings.view_stitching_is_on if options.view_stitching is None else options.view_stitching
    grains = [grain for grain, table in _TABLE_OF_GRAIN.items() if {*_DECIDE_ANSWERS, table} & set(models)]
    builds = {"sessions": "stitched_sessions" in models, "page_views": "page_views" in models and views_are_stitched}
    # A re-stitch takes all days at once, because it touches few of their rows.
    events = 0 if options.only_pending else events_in_window(warehouse, window)
    variables = _variables(
        settings,
        window,
        view_stitching=views_are_stitched,
        step_days=days_per_step(window, events, EVENTS_PER_STEP),
        only_pending=options.only_pending,
        restitch_only=options.restitch_only,
        exceptions={
            column: stored
            for name, value in options.exceptions.items()
            for column, stored in as_stored(name, value).items()
        },
        stale_grains=grains,
        just_built=[grain for grain in grains if builds[grain]],
    )
    built = _run(engine, warehouse, models, variables, on_event)
    # With a run exception the rows would follow rules that hold for the window only.
    if built.stale is None or built.failures or options.exceptions or not set(TABLES) <= set(models):
        return built
    stale = [day for day in built.stale.days("sessions") if day >= settings.start_date]
    if not 0 < len(stale) <= settings.restitch_in_build_days:
        return built
    reached = DayRange(stale[0], stale[-1])
    variables = _variables(
        settings,
        reached,
        view_stitching=views_are_stitched,
        step_days=len(reached),  # all at once, because it touches few of their rows
        only_pending=True,
        stale_grains=["sessions"],
        just_built=["sessions"],
    )
    return built.followed_by(_run(engine, warehouse, RESTITCHED_TABLES, variables, on_event))


def reconcile(engine: Engine, warehouse: Warehouse, settings: Settings, *, only_changed_rules: bool) -> Built:
    """Look for stale rows of all devices, or with ``only_changed_rules`` only in what a change of rules concerns.

    Ids that are listed as forgotten are taken out of the tables. Nothing is re-stitched. Raises DbtError if dbt
    itself cannot run.
    """
    create_tables(warehouse)
    forget.follow(warehouse, settings, look_again=not only_changed_rules)
    if not only_changed_rules:
        queue_what_differs(warehouse, settings)
    configure(warehouse, settings)
    today = datetime.now(UTC).date()
    variables = _variables(
        settings,
        DayRange(today, today),
        view_stitching=settings.view_stitching_is_on,
        reconcile=not only_changed_rules,
        stale_grains=list(_TABLE_OF_GRAIN),
    )
    return _run(engine, warehouse, (), variables, lambda event: None)


def build_views(
    engine: Engine,
    warehouse: Warehouse,
    settings: Settings,
    views: Collection[str],
    on_event: Callable[[DbtEvent], None],
) -> tuple[list[str], list[str]]:
    """Create the views again; returns the views in the order of their creation, and dbt's messages about failures."""
    create_tables(warehouse)
    today = datetime.now(UTC).date()
    variables = _variables(settings, DayRange(today, today), view_stitching=settings.view_stitching_is_on)
    results = dbt_project.run_models(engine, models=views, variables=variables, on_event=on_event)
    created = [result.name for result in results if result.is_model and result.succeeded]
    return created, [_message(result) for result in results if not result.succeeded]


def run_tests(
    engine: Engine,
    warehouse: Warehouse,
    settings: Settings,
    tests: Collection[str],
    on_event: Callable[[DbtEvent], None],
) -> None:
    """Run these of dbt's tests on what is stored, over all days; see ``dbt_project.run_models`` for ``on_event``.

    Raises DbtError if dbt itself cannot run.
    """
    create_tables(warehouse)
    every_day = DayRange(settings.start_date, datetime.now(UTC).date())
    variables = _variables(settings, every_day, view_stitching=settings.view_stitching_is_on)
    dbt_project.run_models(engine, models=tests, variables=variables, on_event=on_event)


def _variables(settings: Settings, window: DayRange, **variables: Any) -> dict[str, Any]:
    return dbt_variables(
        window,
        known_at=datetime.now(UTC).replace(tzinfo=None),
        session_timeout_minutes=settings.session_timeout_minutes,
        # While view stitching is off, nothing stitches page views. Switching it on is a change of rules, which looks at
        # every device.
        never_stale=() if settings.view_stitching_is_on else ("page_views",),
        **variables,
    )


def _run(
    engine: Engine,
    warehouse: Warehouse,
    models: Collection[str],
    variables: Mapping[str, Any],
    on_event: Callable[[DbtEvent], None],
) -> Built:
    views = [] if views_are_current(warehouse) else dbt_project.model_names("view")
    needed = [*views]
    if variables["reconcile"] or not is_followed(warehouse):
        needed += ["project_settings", "decisions"]
    if _persons_may_change(warehouse):
        needed.append("persons")
    if {*_COUNT_PEOPLE} & set(models) and not variables["only_pending"]:
        needed.append("activity_without_device")
    if variables["stale_grains"]:
        needed.append("stale_partitions")
    results = dbt_project.run_models(engine, models={*models, *needed}, variables=variables, on_event=on_event)
    succeeded = [result.name for result in results if result.succeeded and result.is_model]
    if views and set(views) <= set(succeeded):
        with warehouse.transaction():
            warehouse.execute("delete from views_version")
            warehouse.insert_rows("views_version", [(dbt_project.prepared_digest(),)])
    index_rows(warehouse)
    tables = [name for name in TABLES if name in models and name in succeeded]
    return Built(
        succeeded=tables,
        changed=changed_rows(warehouse, tables),
        views=[name for name in succeeded if name in views],
        failures=[_message(result) for result in results if not result.succeeded],
        seconds={result.name: result.seconds for result in results if result.is_model and result.name in models},
        stale=_stale(engine, warehouse, variables, succeeded, results),
    )


def _message(result: ModelResult) -> str:
    return f"{result.name}: {result.message or 'failed or skipped'}"


def _persons_may_change(warehouse: Warehouse) -> bool:
    resolved = "select 1 from configured_rules where resolves_persons"
    return bool(warehouse.rows(f"{resolved} union all (select 1 from persons limit 1)"))


def _look_again(engine: Engine, variables: Mapping[str, Any], grain: str, just_built: Collection[str]) -> bool:
    """Build ``stale_partitions`` alone for one grain; whether that succeeds."""
    again = {**variables, "stale_grains": [grain], "just_built": list(just_built)}
    results = dbt_project.run_models(engine, models=["stale_partitions"], variables=again, on_event=lambda event: None)
    return all(result.succeeded for result in results)


def _stale(
    engine: Engine,
    warehouse: Warehouse,
    variables: Mapping[str, Any],
    succeeded: Collection[str],
    results: Sequence[ModelResult],
) -> Stale | None:
    checked = list(variables["stale_grains"])
    if "stale_partitions" not in succeeded:
        # A model or a test failed before it. What was built all the same may have made rows stale.
        failed = {result.name for result in results if not result.succeeded}
        if failed & set(_FOLLOW_RULES):
            return None
        just_built = [grain for grain in variables["just_built"] if _TABLE_OF_GRAIN[grain] in succeeded]
        # One by one, because the table of one grain may be what is broken.
        checked = [grain for grain in checked if _look_again(engine, variables, grain, just_built)]
    elif _followed_something(warehouse, succeeded):
        others = [grain for grain in _TABLE_OF_GRAIN if grain not in checked]
        checked += [grain for grain in others if _look_again(engine, variables, grain, ())]
    return Stale(stored_stale(warehouse).rows, checked) if checked else None


def _followed_something(warehouse: Warehouse, succeeded: Collection[str]) -> bool:
    """Whether the run followed changed rules or renamed persons, which can make rows of every grain stale."""
    rows = warehouse.rows("select distinct model from changed_rows")
    return any(model in _FOLLOW_RULES and model in succeeded for (model,) in rows)


def stored_stale(warehouse: Warehouse) -> Stale:
    """What the last look at each grain found."""
    rows: dict[str, dict[date, int]] = {}
    for grain, day, count in warehouse.rows("select grain, day, row_count from stale_partitions"):
        rows.setdefault(grain, {})[day] = count
    return Stale(rows)


def _refuse_unresolved_graph(warehouse: Warehouse, options: Options) -> None:
    if options.exceptions.get("policy") != Policy.graph:
        return
    resolved = warehouse.rows("select project_id, resolves_persons from configured_rules order by project_id")
    if all(is_resolved for _, is_resolved in resolved):
        return
    unresolved = [repr(project) for project, is_resolved in resolved if not is_resolved]
    others = ", ".join(unresolved[:10]) + (", …" if len(unresolved) > 10 else "")
    raise SettingsError(
        f"policy 'graph' cannot be followed for one run: the persons of {others} are not resolved. Set it in "
        "stitch.toml, or preview with preview_rules_job what it would change."
    )
