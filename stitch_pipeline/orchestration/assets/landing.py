"""``raw_events`` and ``quarantined_events``: the rows of the landing zone's files.

A run for some days loads the new, changed and vanished files that hold (or held) rows of those days. Files are loaded
whole. If that changes other days, they are marked as changed, and ``landing_sensor`` requests them. A run of checks
alone has no partition: it loads nothing, and checks what is stored.
"""

import time
from collections.abc import Iterable, Iterator
from datetime import date
from itertools import islice
from typing import Any

from dagster import (
    AssetCheckResult,
    AssetCheckSeverity,
    AssetCheckSpec,
    AssetExecutionContext,
    AssetMaterialization,
    AssetObservation,
    AssetsDefinition,
    AssetSpec,
    BackfillPolicy,
    MaterializeResult,
    MetadataValue,
    TableColumn,
    TableSchema,
    multi_asset,
)

from stitch_pipeline.landing.index import LandingIndex, Vanished
from stitch_pipeline.landing.parser import Parser
from stitch_pipeline.landing.zone import landed_files, reading_rules
from stitch_pipeline.orchestration.exposure import hides_values, samples
from stitch_pipeline.orchestration.freshness import TABLES_WITH_FRESHNESS, freshness_policy
from stitch_pipeline.orchestration.partitions import daily_partitions, last_day, window_of
from stitch_pipeline.orchestration.placement import Placement, key_of, name_of
from stitch_pipeline.orchestration.resource import open_in_run, place_of
from stitch_pipeline.planning.days import DayRange
from stitch_pipeline.settings import Settings
from stitch_pipeline.stitching import forget, load
from stitch_pipeline.stitching.build import TABLES
from stitch_pipeline.stitching.facts import facts_per_day
from stitch_pipeline.stitching.state import build_under
from stitch_pipeline.warehouse.engine import engine_of
from stitch_pipeline.warehouse.port import Warehouse
from stitch_pipeline.warehouse.tables import create_tables, described_tables

WHOLE_ZONE_CHECK = "landing_zone_is_whole"
HELD_BACK_REMEDY = (
    "Their rows are kept. Bring the files back (is a disk not mounted, or STITCH_LANDING_DIR wrong?), or run "
    "`stitch accept-vanished` to remove their rows"
)
_FILES_NAMED = 100
_TABLES = ("raw_events", "quarantined_events")


def landing_zone_assets(settings: Settings, placement: Placement) -> AssetsDefinition:
    """Both tables as one multi-asset, with their checks."""
    described = described_tables()
    raw_events, quarantined_events = key_of(settings, "raw_events"), key_of(settings, "quarantined_events")

    def spec(table: str) -> AssetSpec:
        columns = [
            TableColumn(column.name, column.data_type, column.description, tags=dict.fromkeys(column.tags, ""))
            for column in described[table].columns
        ]
        return AssetSpec(
            key_of(settings, table),
            description=described[table].description,
            group_name=placement.group_name or "landing",
            owners=list(placement.owners),
            kinds={engine_of(settings).dbt_target, "python"},
            tags=dict.fromkeys(described[table].tags, ""),
            freshness_policy=freshness_policy(settings) if table in TABLES_WITH_FRESHNESS else None,
            metadata={"dagster/column_schema": TableSchema(columns), **place_of(settings, table)},
        )

    @multi_asset(
        name=name_of(settings, "landing_zone"),
        specs=[spec(table) for table in _TABLES],
        check_specs=[
            AssetCheckSpec(
                "no_row_lost",
                asset=raw_events,
                # It names the files and days: what is wrong with one file does not hold up the days of the others.
                description="Rows of each loaded file = its events + duplicates + quarantined + forgotten rows.",
            ),
            AssetCheckSpec(
                "raw_events_has_one_row_per_event",
                asset=raw_events,
                blocking=True,
                description="Among the run's days no event id occurs twice within a project.",
            ),
            AssetCheckSpec(
                WHOLE_ZONE_CHECK,
                asset=raw_events,
                description="No more of the known files vanished at once than STITCH_MAX_VANISHED_SHARE allows.",
            ),
            AssetCheckSpec(
                "every_file_is_readable",
                asset=quarantined_events,
                description="No file of the landing zone failed to be read as a whole.",
            ),
        ],
        partitions_def=daily_partitions(settings),
        backfill_policy=BackfillPolicy.single_run(),
        required_resource_keys={placement.warehouse_key(settings)},
        pool=placement.pool_name(settings),
        can_subset=True,  # else the UI runs no check without loading
    )
    @hides_values(settings)
    def landing_zone(
        context: AssetExecutionContext,
    ) -> Iterator[MaterializeResult[None] | AssetMaterialization | AssetObservation | AssetCheckResult]:
        started = time.monotonic()
        for sentence in settings.hashing.sentences:
            context.log.warning(sentence)
        index = LandingIndex(settings.index_path)
        index.refresh(settings)
        if not context.selected_asset_keys:
            with open_in_run(context, settings, placement) as opened:
                opened.publishes = False
                create_tables(opened.warehouse)
                every_day = DayRange(settings.start_date, last_day())
                checks = _checks(settings, opened.warehouse, every_day)
            yield from _selected(context, [*checks, whole_zone_check(settings, index.held_back())])
            return
        window = window_of(context)
        with open_in_run(context, settings, placement) as opened, Parser(settings.memory_limit) as parser:
            open_warehouse = opened.warehouse
            opened.publishes = not _models_follow(context, settings)
            create_tables(open_warehouse)
            build_under(open_warehouse, settings.building_rules)
            # Devices that it queues are not looked at here.
            opened.continues &= not forget.follow(open_warehouse, settings)
            index.set_loaded(load.loaded_files(open_warehouse))
            pending = [file for file in index.pending() if any(day in window for day in file.touched_days)]
            loaded = load.load(
                open_warehouse,
                parser,
                pending,
                landed_files(settings) if pending else {},
                reading_rules(settings),
                report=context.log.info,
            )
            seconds = time.monotonic() - started
            numbers = {key_of(settings, table): facts_per_day(open_warehouse, table, window) for table in _TABLES}
            checks = _checks(settings, open_warehouse, window)
        for key, per_day in numbers.items():
            for day, facts in per_day.items():
                if key in context.selected_asset_keys:
                    context.add_asset_metadata(facts, asset_key=key, partition_key=day.isoformat())
                else:  # both are loaded, whichever a person selects
                    yield AssetMaterialization(key, partition=day.isoformat(), metadata=facts)
        yield from (MaterializeResult(asset_key=key) for key in numbers if key in context.selected_asset_keys)
        yield AssetObservation(
            raw_events,
            metadata={
                "files_loaded": loaded.files,
                "rows_read": loaded.rows,
                "days_changed": len(loaded.changed_days),
                "seconds": round(seconds, 3),
            },
        )
        yield from _selected(context, [*checks, whole_zone_check(settings, index.held_back())])

    return landing_zone


def _selected(context: AssetExecutionContext, results: Iterable[AssetCheckResult]) -> Iterator[AssetCheckResult]:
    names = {key.name for key in context.selected_asset_check_keys}
    return (result for result in results if result.check_name in names)


def _checks(settings: Settings, warehouse: Warehouse, window: DayRange) -> list[AssetCheckResult]:
    """The results of the checks of what is stored. Only one of them looks at the days of the window and no others."""
    unbalanced = load.unbalanced_files(warehouse)
    repeated = load.repeated_events(warehouse, window)
    unreadable = load.unreadable_files(warehouse)
    return [
        AssetCheckResult(
            check_name="no_row_lost",
            asset_key=key_of(settings, "raw_events"),
            passed=not unbalanced,
            metadata={
                **load.row_accounts(warehouse),
                "files": MetadataValue.json([{**file, "days": _texts(file["days"])} for file in unbalanced]),
                "days": MetadataValue.json(sorted({day for file in unbalanced for day in _texts(file["days"])})),
            },
        ),
        AssetCheckResult(
            check_name="raw_events_has_one_row_per_event",
            asset_key=key_of(settings, "raw_events"),
            passed=not repeated,
            metadata={"repeated": len(repeated), **samples(settings, repeated_ids=repeated)},
        ),
        AssetCheckResult(
            check_name="every_file_is_readable",
            asset_key=key_of(settings, "quarantined_events"),
            passed=not unreadable,
            severity=AssetCheckSeverity.WARN,
            metadata={
                "unreadable_files": MetadataValue.json(dict(islice(unreadable.items(), _FILES_NAMED))),
                "unreadable_file_count": len(unreadable),
            },
        ),
    ]


def whole_zone_check(settings: Settings, vanished: Vanished | None) -> AssetCheckResult:
    """The result of the check that no more files vanished at once than may. Sensors report it too."""
    metadata: dict[str, Any] = {}
    if vanished:
        metadata = {"files_gone": vanished.count, "files_known": vanished.known, "to_do": HELD_BACK_REMEDY}
    return AssetCheckResult(
        check_name=WHOLE_ZONE_CHECK,
        asset_key=key_of(settings, "raw_events"),
        passed=vanished is None,
        metadata=metadata,
    )


def _models_follow(context: AssetExecutionContext, settings: Settings) -> bool:
    """Whether the run builds models after this step, which then publishes the events together with what they change."""
    # By the whole key, because assets of others in the run may end in the same word.
    models = {key_of(settings, table) for table in TABLES}
    return not models.isdisjoint(context.job_def.asset_layer.selected_asset_keys)


def _texts(days: list[date] | None) -> list[str]:
    return [day.isoformat() for day in days or ()]
