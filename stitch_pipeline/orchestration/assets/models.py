"""The assets that dbt builds: identity map, sessions, stitched sessions, users, page views, stats, views.

The definitions come from dbt's manifest; a run is one call of dbt in this process, with the warehouse
opened once around it. After it, the run works out which partitions now hold a wrong answer and puts
them into the metadata of what it materialized, where ``identify_sensor`` finds them.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from dagster import (
    AssetCheckResult,
    AssetExecutionContext,
    AssetKey,
    AssetMaterialization,
    AssetObservation,
    AssetsDefinition,
    BackfillPolicy,
    Config,
    Failure,
    MetadataValue,
    Output,
    PartitionsDefinition,
)
from dagster_dbt import DagsterDbtTranslator, DagsterDbtTranslatorSettings, dbt_assets
from dagster_dbt.core.dbt_cli_event import DbtCoreCliEventMessage
from duckdb import DuckDBPyConnection
from pydantic import Field

from stitch_pipeline.landing.index import LandingIndex
from stitch_pipeline.orchestration.assets.landing import OWNERS, POOL
from stitch_pipeline.orchestration.partitions import daily_partitions, last_day, window_of
from stitch_pipeline.planning.days import DayRange, ranges, settled_by
from stitch_pipeline.planning.dbt_variables import days_per_step, dbt_variables
from stitch_pipeline.settings import Policy, Settings
from stitch_pipeline.stitching import partition_facts, stale
from stitch_pipeline.warehouse import dbt_project as dbt_models
from stitch_pipeline.warehouse import tables as schema
from stitch_pipeline.warehouse.duckdb import DuckDBWarehouse
from stitch_pipeline.warehouse.duckdb_old import WarehouseResource

TABLES = (
    *("identity_map", "identifier_links", "persons", "user_mapping_history", "sessions", "stitched_sessions"),
    *("page_views", "users", "visitor_stats"),
)
STALE_SESSION_DAYS = "stale_session_days"
STALE_PAGE_VIEW_DAYS = "stale_page_view_days"
# In whose metadata the sensors look for them. A run that builds none of these tables need not look itself.
STALE_RECORDS: Mapping[stale.Grain, tuple[str, ...]] = {
    "sessions": ("identity_map", "stitched_sessions"),
    "page_views": ("identity_map", "page_views"),
}
# So many events are sorted and joined within some 2 GB.
EVENTS_PER_STEP = 5_000_000


class ModelsConfig(Config):
    """What one run does differently. Every field has a default, so an empty editor is a valid config."""

    only_pending: bool = Field(
        default=False,
        description="Touch only rows of devices whose links changed, instead of every row of the partitions.",
    )
    restitch_only: bool = Field(
        default=False,
        description="Page views: keep the rows and bring only their answers up to date.",
    )
    view_stitching: bool | None = Field(
        default=None,
        description="Stitch page views in this run, or leave their answers as they are; by default as set.",
    )
    session_stitching: bool | None = Field(
        default=None, description="Stitch sessions in this run, or not; by default as set per project."
    )
    policy: Policy | None = Field(
        default=None, description="Who gets a device's rows, in this run; by default as set per project."
    )
    lookback_days: int | None = Field(
        default=None, ge=0, description="Days back from a login, for this run; by default as set per project."
    )


def model_assets(settings: Settings) -> list[AssetsDefinition]:
    manifest = dbt_models.manifest()
    translator = _Translator(settings)

    @dbt_assets(
        name="stitch_models",
        manifest=manifest,
        select="config.materialized:in_place",
        dagster_dbt_translator=translator,
        backfill_policy=BackfillPolicy.single_run(),
        partitions_def=daily_partitions(settings),
        pool=POOL,
    )
    def stitch_models(
        context: AssetExecutionContext, config: ModelsConfig, warehouse: WarehouseResource
    ) -> Iterator[Output[None] | AssetCheckResult | AssetObservation | AssetMaterialization]:
        window = window_of(context)
        models = [name for name in TABLES if AssetKey(name) in context.selected_asset_keys]
        with warehouse.get_connection() as con:
            write_rules(con, settings, ModelsConfig())
            if "persons" not in models:
                resolve_persons(con, warehouse.path, settings)
            try:
                if _overrides_rules(config):
                    write_rules(con, settings, config)
                step_days = _step_days(con, window, config)
                events, succeeded, messages, seconds = _run(
                    context, warehouse, settings, window, models, config, step_days
                )
                for name in keep_views(con, warehouse.path, settings):
                    yield AssetMaterialization(name)
            finally:
                # Before anybody asks what is stale: what this run does differently is no reason to be.
                if _overrides_rules(config):
                    write_rules(con, settings, ModelsConfig())
            # Links that this run changed, if it did not build `persons`.
            resolve_persons(con, warehouse.path, settings)
            metadata = _metadata(con, settings, config, window, succeeded)
            _add_partition_metadata(context, con, window, succeeded)
        if not messages and set(succeeded) == set(TABLES):
            _clear_changed_days(settings, window)
        for event in events:
            if isinstance(event, Output):
                name = event.output_name
                extra = {**metadata.get(name, {}), "seconds": round(seconds.get(name, 0.0), 3)}
                yield Output(None, output_name=name, metadata={**event.metadata, **extra})
            else:
                yield event
        if messages:
            raise Failure("\n".join(messages))
        if set(succeeded) == set(TABLES):
            # The event log has what the rules in force change, in this run's own metadata.
            LandingIndex(settings.index_path).set_followed_rules(settings.all_crediting_rules)

    @dbt_assets(
        name="stitch_views",
        manifest=manifest,
        select="config.materialized:view",
        dagster_dbt_translator=translator,
        pool=POOL,
    )
    def stitch_views(
        context: AssetExecutionContext, warehouse: WarehouseResource
    ) -> Iterator[Output[None] | AssetCheckResult | AssetObservation | AssetMaterialization]:
        models = [key.path[-1] for key in context.selected_asset_keys]
        with warehouse.get_connection() as con:
            schema.create_tables(DuckDBWarehouse(con))
            today = DayRange(last_day(), last_day())
            events, _, messages, _ = _run(context, warehouse, settings, today, models, ModelsConfig())
        yield from events
        if messages:
            raise Failure("\n".join(messages))

    return [stitch_models, stitch_views]


def _overrides_rules(config: ModelsConfig) -> bool:
    return any(value is not None for value in (config.session_stitching, config.policy, config.lookback_days))


def write_rules(con: DuckDBPyConnection, settings: Settings, config: ModelsConfig) -> None:
    """Put the rules where the models read them, with what this run overrides; note what their change makes stale."""
    override: dict[str, Any] = {}
    if config.session_stitching is not None:
        override["session_stitching"] = config.session_stitching
    if config.policy is not None:
        override["policy"] = config.policy
    if config.lookback_days is not None:
        override["lookback_days"] = config.lookback_days
    schema.create_tables(DuckDBWarehouse(con))
    names = {*schema.projects(con), *settings.projects}
    stale.follow_rules(con, {name: settings.crediting_rules(name) for name in sorted(names)}, settings.decisions)
    own = {name: settings.rules(name) for name in sorted(names)}
    resolved = [name for name, rules in own.items() if rules.resolves_persons]
    if config.policy == Policy.graph and len(resolved) < len(own):
        others = ", ".join(repr(name) for name in own if name not in resolved)
        raise Failure(
            f"policy 'graph' cannot be followed for one run: nobody has resolved the persons of {others}. Set it in "
            "stitch.toml, or ask preview_rules_job what it would change.",
            allow_retries=False,
        )
    rules = {name: own_rules.model_copy(update=override) for name, own_rules in own.items()}
    schema.write_project_settings(con, rules, resolved)


def _run(
    context: AssetExecutionContext,
    warehouse: WarehouseResource,
    settings: Settings,
    window: DayRange,
    models: Sequence[str],
    config: ModelsConfig,
    step_days: int = 1,
) -> tuple[list[Any], list[str], list[str], dict[str, float]]:
    """Dagster's events, the models that were built, what went wrong, and seconds per model."""
    manifest = dbt_models.manifest()
    translator = _Translator(settings)
    events: list[Any] = []

    def on_event(raw: Mapping[str, Any]) -> None:
        if raw["info"]["name"] not in ("LogModelResult", "LogTestResult", "RunResultError"):
            return
        log = context.log.error if raw["info"]["level"] == "error" else context.log.info
        log(raw["info"]["msg"])
        message = DbtCoreCliEventMessage(raw_event=dict(raw), event_history_metadata={})
        events.extend(
            message.to_default_asset_events(manifest=manifest, context=context, dagster_dbt_translator=translator)
        )

    results = dbt_models.run_models(
        warehouse.path,
        models=models,
        variables=_variables(settings, config, window, step_days),
        on_event=on_event,
    )
    names = {result.unique_id: result.unique_id.split(".")[2] for result in results}
    succeeded = [
        names[result.unique_id] for result in results if result.succeeded and result.unique_id.startswith("model.")
    ]
    seconds = {names[result.unique_id]: result.seconds for result in results}
    messages = [
        f"{names[result.unique_id]}: {result.message or 'failed or skipped'}"
        for result in results
        if not result.succeeded
    ]
    return events, succeeded, messages, seconds


def _step_days(con: DuckDBPyConnection, window: DayRange, config: ModelsConfig) -> int:
    """How many days the models take at once: a re-stitch all of them, because it touches few of their rows."""
    events = 0 if config.only_pending else partition_facts.events_in_window(con, window)
    return days_per_step(window, events, EVENTS_PER_STEP)


def _variables(settings: Settings, config: ModelsConfig, window: DayRange, step_days: int = 1) -> dict[str, Any]:
    return dbt_variables(
        window,
        session_timeout_minutes=settings.session_timeout_minutes,
        only_pending=config.only_pending,
        restitch_only=config.restitch_only,
        view_stitching=_views_are_stitched(settings, config),
        follows_settings=not _overrides_rules(config),
        step_days=step_days,
        known_at=schema.utc_now(),
    )


def _views_are_stitched(settings: Settings, config: ModelsConfig) -> bool:
    return settings.view_stitching_is_on if config.view_stitching is None else config.view_stitching


def _metadata(
    con: DuckDBPyConnection, settings: Settings, config: ModelsConfig, window: DayRange, succeeded: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Metadata per model for the run as a whole, the stale partitions among it."""
    metadata: dict[str, dict[str, Any]] = {}
    for name in succeeded:
        changed = partition_facts.changed_rows(con, name)
        metadata[name] = {
            "rows_changed_in_run": sum(changed.values()),
            "partitions_changed": len([day for day in changed if day is not None]),
        }
    if "users" in metadata:
        metadata["users"]["rows"] = partition_facts.row_count(con, "users")
    stale_metadata = stale_partitions(
        con,
        settings,
        grains=[grain for grain, tables in STALE_RECORDS.items() if set(tables) & set(succeeded)],
        built_sessions=window if "stitched_sessions" in succeeded else None,
        built_page_views=window if "page_views" in succeeded and _views_are_stitched(settings, config) else None,
    )
    for name in {name for tables in STALE_RECORDS.values() for name in tables} & set(succeeded):
        metadata[name].update(stale_metadata)
    return metadata


def stale_partitions(
    con: DuckDBPyConnection,
    settings: Settings,
    *,
    grains: Collection[stale.Grain] = tuple(STALE_RECORDS),
    built_sessions: DayRange | None = None,
    built_page_views: DayRange | None = None,
) -> dict[str, MetadataValue]:
    """Which days hold a wrong answer, as metadata: lists of [first day, last day]; and how much there is to do."""
    metadata: dict[str, MetadataValue] = {}

    def add(key: str, table: str, found: Mapping[date, int], days: Iterable[date]) -> None:
        metadata[key] = MetadataValue.json([[str(days.first), str(days.last)] for days in ranges(days)])
        metadata[f"{table}_stale_rows"] = MetadataValue.int(sum(found.values()))
        metadata[f"{table}_stale_partitions"] = MetadataValue.int(len(found))

    if "sessions" in grains:
        sessions = stale.stale_rows(con, "sessions", built_sessions)
        without_day = {"user_mapping_history": stale.stale_mappings(con), "users": stale.stale_users(con)}
        # Any run over sessions brings these up to date; where no session is wrong, one has to be asked for.
        is_asked_for = not sessions and any(without_day.values())
        days = stale.last_session_day(con) if is_asked_for else sessions
        add(STALE_SESSION_DAYS, "stitched_sessions", sessions, days)
        if is_asked_for:
            metadata |= {f"{table}_stale_rows": MetadataValue.int(rows) for table, rows in without_day.items() if rows}
    if not settings.view_stitching_is_on:
        # Without view stitching nobody will ask; switching it on is a change of rules, and looks at everything.
        stale.forget_pending(con, "page_views")
    if "page_views" in grains:
        views = stale.stale_rows(con, "page_views", built_page_views) if settings.view_stitching_is_on else {}
        add(STALE_PAGE_VIEW_DAYS, "page_views", views, views)
    return metadata


def _add_partition_metadata(
    context: AssetExecutionContext, con: DuckDBPyConnection, window: DayRange, succeeded: Sequence[str]
) -> None:
    for name in succeeded:
        changed = partition_facts.changed_rows(con, name)
        for day, facts in partition_facts.facts_per_day(con, name, window).items():
            context.add_asset_metadata(
                {**facts, "rows_changed": changed.get(day, 0)}, asset_key=name, partition_key=day.isoformat()
            )


def keep_views(con: DuckDBPyConnection, path: Path, settings: Settings) -> list[str]:
    """Create the views when they are not there, or are of another version of the project; returns their names."""
    digest = dbt_models.prepared_digest()
    if schema.views_version(con) == digest:
        return []
    views = [
        node["name"]
        for node in dbt_models.manifest()["nodes"].values()
        if node["resource_type"] == "model" and node["config"]["materialized"] == "view"
    ]
    _build_unasked(path, settings, views)
    schema.set_views_version(con, digest)
    return views


def resolve_persons(con: DuckDBPyConnection, path: Path, settings: Settings) -> None:
    """Resolve the persons of pending ids, if there are any, for a run that does not build ``persons`` anyway."""
    if stale.has_pending_ids(con):
        _build_unasked(path, settings, ["persons"])


def _build_unasked(path: Path, settings: Settings, models: Sequence[str]) -> None:
    """Build models that the run was not asked for and that have no day, so Dagster hears only of what goes wrong."""
    variables = _variables(settings, ModelsConfig(), DayRange(last_day(), last_day()))
    results = dbt_models.run_models(path, models=models, variables=variables, on_event=lambda event: None)
    if messages := [f"{result.unique_id}: {result.message}" for result in results if not result.succeeded]:
        raise Failure("\n".join(messages))


def _clear_changed_days(settings: Settings, window: DayRange) -> None:
    index = LandingIndex(settings.index_path)
    index.clear_changed(settled_by(index.changed_days(), window, settings.start_date, last_day()))


class _Translator(DagsterDbtTranslator):
    """dbt's nodes as assets: one-word keys, groups by folder, daily partitions.

    Partitions are mapped one to one, although a session of D also reads the events of D-1 and D+1: Dagster
    splits a backfill into a run per asset wherever a mapping has an offset, and a range is to be one run.
    Which days a change reaches is `planning.days`' business.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__(DagsterDbtTranslatorSettings(enable_duplicate_source_asset_keys=True))
        self.stitching = settings

    def get_asset_key(self, dbt_resource_props: Mapping[str, Any]) -> AssetKey:
        return AssetKey(dbt_resource_props["name"])

    def get_group_name(self, dbt_resource_props: Mapping[str, Any]) -> str | None:
        return str(dbt_resource_props["fqn"][1])

    def get_owners(self, dbt_resource_props: Mapping[str, Any]) -> Sequence[str] | None:
        return OWNERS

    def get_description(self, dbt_resource_props: Mapping[str, Any]) -> str:
        return str(dbt_resource_props.get("description", ""))

    def get_partitions_def(self, dbt_resource_props: Mapping[str, Any]) -> PartitionsDefinition | None:
        is_table = dbt_resource_props["config"].get("materialized") == "in_place"
        return daily_partitions(self.stitching) if is_table else None
