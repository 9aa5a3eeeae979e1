"""The assets that dbt builds: identity map, sessions, stitched sessions, users, page views, stats, views.

The definitions come from dbt's manifest. A run is one call of dbt in this process, with the warehouse opened once
around it (``stitching.build``). The run's numbers, and the partitions that are stale now, go into the event log as one
observation (``run_records``). A run of checks alone has no partition: it tests what is stored.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import Any

from dagster import (
    AssetCheckResult,
    AssetExecutionContext,
    AssetKey,
    AssetMaterialization,
    AssetObservation,
    AssetsDefinition,
    AssetSpec,
    BackfillPolicy,
    Failure,
    Output,
    PartitionsDefinition,
)
from dagster_dbt import DagsterDbtTranslator, DagsterDbtTranslatorSettings, DbtProject, dbt_assets
from dagster_dbt.core.dbt_cli_event import DbtCoreCliEventMessage

from stitch_pipeline.orchestration.exposure import hides_values, shown
from stitch_pipeline.orchestration.freshness import TABLES_WITH_FRESHNESS, freshness_policy
from stitch_pipeline.orchestration.partitions import daily_partitions, last_day, window_of
from stitch_pipeline.orchestration.placement import Placement, key_of, name_of
from stitch_pipeline.orchestration.resource import open_in_run, place_of
from stitch_pipeline.orchestration.run_config import ModelsConfig
from stitch_pipeline.orchestration.run_records import run_record
from stitch_pipeline.planning.days import DayRange, settled_by
from stitch_pipeline.settings import Settings, SettingsError
from stitch_pipeline.stitching.build import TABLES, Built, build, build_views, run_tests
from stitch_pipeline.stitching.facts import numbers_of_partitions
from stitch_pipeline.stitching.state import changed_days, clear_changed_days
from stitch_pipeline.warehouse import dbt_project
from stitch_pipeline.warehouse.engine import engine_of

Events = Iterator[Output[None] | AssetCheckResult | AssetObservation | AssetMaterialization]


def model_assets(settings: Settings, placement: Placement) -> list[AssetsDefinition]:
    """The models that are tables, by day, and the models that are views, without partitions."""
    manifest = dbt_project.assets_manifest(engine_of(settings).dbt_target)
    translator = _Translator(settings, placement)

    @dbt_assets(
        name=name_of(settings, "stitch_models"),
        manifest=manifest,
        select="config.materialized:in_place",
        dagster_dbt_translator=translator,
        backfill_policy=BackfillPolicy.single_run(),
        partitions_def=daily_partitions(settings),
        required_resource_keys={placement.warehouse_key(settings)},
        pool=placement.pool_name(settings),
    )
    @hides_values(settings)
    def stitch_models(context: AssetExecutionContext, config: ModelsConfig) -> Events:
        models = _selected(context)
        events = _DbtEvents(context, translator, settings)
        if not models:
            tests = [key.name for key in context.selected_asset_check_keys]
            with open_in_run(context, settings, placement) as opened:
                opened.publishes = False
                run_tests(opened.engine, opened.warehouse, settings, tests, events.add)
            yield from events.checks
            return
        window = window_of(context)
        with open_in_run(context, settings, placement) as opened:
            try:
                built = build(opened.engine, opened.warehouse, settings, window, models, config.options, events.add)
            except SettingsError as error:
                raise Failure(str(error), allow_retries=False) from None
            numbers = numbers_of_partitions(opened.warehouse, window, built.changed)
            if set(built.succeeded) == set(TABLES) and not built.failures:
                marked = changed_days(opened.warehouse)
                settled = settled_by(marked, window, settings.start_date, last_day())
                clear_changed_days(opened.warehouse, settled)
                opened.followed_rules = settings.all_crediting_rules
            opened.continues &= not built.failures  # what failed models have changed is not known
            opened.looked_at = built.stale.checked if built.stale else ()
        yield run_record(settings, built.changed, built.seconds, built.stale)
        yield from _outputs(context, settings, window, built, numbers)
        yield from events.checks
        yield from (AssetMaterialization(key_of(settings, name)) for name in built.views)
        if built.failures:
            raise Failure("\n".join(shown(settings, failure) for failure in built.failures))

    @dbt_assets(
        name=name_of(settings, "stitch_views"),
        manifest=manifest,
        select="config.materialized:view",
        dagster_dbt_translator=translator,
        required_resource_keys={placement.warehouse_key(settings)},
        pool=placement.pool_name(settings),
    )
    @hides_values(settings)
    def stitch_views(context: AssetExecutionContext) -> Events:
        views = _selected(context)
        events = _DbtEvents(context, translator, settings)
        with open_in_run(context, settings, placement) as opened:
            created, failures = build_views(opened.engine, opened.warehouse, settings, views, events.add)
        if failures:
            raise Failure("\n".join(shown(settings, failure) for failure in failures))
        # Dagster refuses an asset before those that it depends on.
        yield from (_output(settings, name) for name in created)

    return [stitch_models, stitch_views]


def _selected(context: AssetExecutionContext) -> list[str]:
    return [key.path[-1] for key in context.selected_asset_keys]


def _output(settings: Settings, name: str) -> Output[None]:
    # Dagster names the output of an asset after its key.
    return Output(None, output_name=key_of(settings, name).to_python_identifier())


def _outputs(
    context: AssetExecutionContext,
    settings: Settings,
    window: DayRange,
    built: Built,
    numbers: Mapping[str, Mapping[date, Mapping[str, Any]]],
) -> Iterator[Output[None] | AssetMaterialization]:
    """The partitions of the window, and those of other days of which the run re-stitched rows."""
    for table, per_day in numbers.items():
        for day, metadata in per_day.items():
            if day in window:
                context.add_asset_metadata(metadata, asset_key=key_of(settings, table), partition_key=day.isoformat())
            else:
                yield AssetMaterialization(key_of(settings, table), partition=day.isoformat(), metadata=metadata)
    yield from (_output(settings, name) for name in built.succeeded)


class _DbtEvents:
    """Logs each of dbt's results as it comes, and collects those of tests as asset checks."""

    def __init__(self, context: AssetExecutionContext, translator: DagsterDbtTranslator, settings: Settings) -> None:
        self._context = context
        self._settings = settings
        self._translator = translator
        self._checks: dict[tuple[AssetKey | None, str | None], AssetCheckResult] = {}

    @property
    def checks(self) -> Sequence[AssetCheckResult]:
        """The results of dbt's tests, one for each."""
        return list(self._checks.values())

    def add(self, event: dbt_project.DbtEvent) -> None:
        info = event["info"]
        log = self._context.log.error if info["level"] == "error" else self._context.log.info
        log(shown(self._settings, info["msg"]) if info["level"] == "error" else info["msg"])
        if info["name"] == "LogTestResult" and self._is_selected(event):
            message = DbtCoreCliEventMessage(raw_event=dict(event), event_history_metadata={})
            for found in message.to_default_asset_events(
                manifest=dbt_project.assets_manifest(), context=self._context, dagster_dbt_translator=self._translator
            ):
                if isinstance(found, AssetCheckResult):
                    # A re-stitch within the build runs tests again. One that failed before or after it has failed.
                    before = self._checks.get((found.asset_key, found.check_name))
                    if before is None or before.passed:
                        self._checks[found.asset_key, found.check_name] = found

    def _is_selected(self, event: dbt_project.DbtEvent) -> bool:
        """A run also builds ``persons`` where it needs it, and dbt then runs the tests of that model."""
        test = dbt_project.assets_manifest()["nodes"][event["data"]["node_info"]["unique_id"]]
        return test["name"] in {key.name for key in self._context.selected_asset_check_keys}


class _Translator(DagsterDbtTranslator):
    """dbt's nodes as assets: keys of one word after the prefix, groups by folder, daily partitions.

    Partitions are mapped one to one, although a session of D also reads the events of D-1 and D+1. Dagster would split
    a backfill into a run per asset if a mapping had an offset, and a range must be one run. ``planning.days`` computes
    which days a change reaches.
    """

    def __init__(self, settings: Settings, placement: Placement) -> None:
        super().__init__(DagsterDbtTranslatorSettings(enable_duplicate_source_asset_keys=True))
        self.stitching = settings
        self.placement = placement

    def get_asset_spec(self, manifest: Mapping[str, Any], unique_id: str, project: DbtProject | None) -> AssetSpec:
        spec = super().get_asset_spec(manifest, unique_id, project)
        name = self.get_resource_props(manifest, unique_id)["name"]
        if name in TABLES_WITH_FRESHNESS and spec.freshness_policy is None:
            return spec.replace_attributes(freshness_policy=freshness_policy(self.stitching))
        return spec

    def get_asset_key(self, dbt_resource_props: Mapping[str, Any]) -> AssetKey:
        return key_of(self.stitching, dbt_resource_props["name"])

    def get_group_name(self, dbt_resource_props: Mapping[str, Any]) -> str | None:
        return self.placement.group_name or str(dbt_resource_props["fqn"][1])

    def get_owners(self, dbt_resource_props: Mapping[str, Any]) -> Sequence[str] | None:
        return list(self.placement.owners)

    def get_description(self, dbt_resource_props: Mapping[str, Any]) -> str:
        return str(dbt_resource_props.get("description", ""))

    def get_metadata(self, dbt_resource_props: Mapping[str, Any]) -> Mapping[str, Any]:
        # The manifest was parsed without a warehouse, so its own location does not exist.
        return {**super().get_metadata(dbt_resource_props), **place_of(self.stitching, dbt_resource_props["name"])}

    def get_partitions_def(self, dbt_resource_props: Mapping[str, Any]) -> PartitionsDefinition | None:
        is_table = dbt_resource_props["config"].get("materialized") == "in_place"
        return daily_partitions(self.stitching) if is_table else None
