"""``raw_events`` and ``quarantined_events``: the rows of the landing zone's files.

A run for some days loads the new, changed and vanished files that hold (or held) rows of those days. Files are loaded
whole. If that changes other days, they are marked as changed, and ``landing_sensor`` requests them.
"""

import time
from collections.abc import Iterator
from datetime import date
from itertools import islice
from typing import Any

from dagster import (
    AssetCheckResult,
    AssetCheckSeverity,
    AssetCheckSpec,
    AssetExecutionContext,
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
from stitch_pipeline.orchestration.partitions import daily_partitions, window_of
from stitch_pipeline.orchestration.placement import Placement, key_of, name_of
from stitch_pipeline.orchestration.resource import open_in_run, place_of
from stitch_pipeline.settings import Settings
from stitch_pipeline.stitching import forget, load
from stitch_pipeline.stitching.build import TABLES
from stitch_pipeline.stitching.facts import facts_per_day
from stitch_pipeline.stitching.state import build_under
from stitch_pipeline.warehouse.tables import create_tables, described_tables

WHOLE_ZONE_CHECK = "landing_zone_is_whole"
HELD_BACK_REMEDY = (
    "Their rows are kept. Bring the files back (is a disk not mounted, or STITCH_LANDING_DIR wrong?), or run "
    "`stitch accept-vanished` to remove their rows"
)
_FILES_NAMED = 100


def landing_zone_assets(settings: Settings, placement: Placement) -> AssetsDefinition:
    """Both tables as one multi-asset, with their checks."""
    described = described_tables()
    raw_events, quarantined_events = key_of(settings, "raw_events"), key_of(settings, "quarantined_events")

    def spec(table: str) -> AssetSpec:
        columns = [
            TableColumn(column.name, column.data_type, column.description) for column in described[table].columns
        ]
        return AssetSpec(
            key_of(settings, table),
            description=described[table].description,
            group_name=placement.group_name or "landing",
            owners=list(placement.owners),
            kinds={"duckdb", "python"},
            metadata={"dagster/column_schema": TableSchema(columns), **place_of(settings, table)},
        )

    @multi_asset(
        name=name_of(settings, "landing_zone"),
        specs=[spec("raw_events"), spec("quarantined_events")],
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
    )
    @hides_values(settings)
    def landing_zone(
        context: AssetExecutionContext,
    ) -> Iterator[MaterializeResult[None] | AssetObservation | AssetCheckResult]:
        started = time.monotonic()
        window = window_of(context)
        index = LandingIndex(settings.index_path)
        index.refresh(settings)
        with open_in_run(context, settings, placement) as opened, Parser(settings.memory_limit) as parser:
            open_warehouse = opened.warehouse
            opened.publishes = not _models_follow(context)
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
            for name in ("raw_events", "quarantined_events"):
                for day, facts in facts_per_day(open_warehouse, name, window).items():
                    context.add_asset_metadata(facts, asset_key=key_of(settings, name), partition_key=day.isoformat())
            accounts = load.row_accounts(open_warehouse)
            unbalanced = load.unbalanced_files(open_warehouse)
            repeated = load.repeated_events(open_warehouse, window)
            unreadable = load.unreadable_files(open_warehouse)
        yield MaterializeResult(asset_key=raw_events)
        yield MaterializeResult(asset_key=quarantined_events)
        yield AssetObservation(
            raw_events,
            metadata={
                "files_loaded": loaded.files,
                "rows_read": loaded.rows,
                "days_changed": len(loaded.changed_days),
                "seconds": round(seconds, 3),
            },
        )
        yield AssetCheckResult(
            check_name="no_row_lost",
            asset_key=raw_events,
            passed=not unbalanced,
            metadata={
                **accounts,
                "files": MetadataValue.json([{**file, "days": _texts(file["days"])} for file in unbalanced]),
                "days": MetadataValue.json(sorted({day for file in unbalanced for day in _texts(file["days"])})),
            },
        )
        yield AssetCheckResult(
            check_name="raw_events_has_one_row_per_event",
            asset_key=raw_events,
            passed=not repeated,
            metadata={"repeated": len(repeated), **samples(settings, repeated_ids=repeated)},
        )
        yield AssetCheckResult(
            check_name="every_file_is_readable",
            asset_key=quarantined_events,
            passed=not unreadable,
            severity=AssetCheckSeverity.WARN,
            metadata={
                "unreadable_files": MetadataValue.json(dict(islice(unreadable.items(), _FILES_NAMED))),
                "unreadable_file_count": len(unreadable),
            },
        )
        yield whole_zone_check(settings, index.held_back())

    return landing_zone


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


def _models_follow(context: AssetExecutionContext) -> bool:
    """Whether the run builds models after this step, which then publishes the events together with what they change."""
    return any(key.path[-1] in TABLES for key in context.job_def.asset_layer.selected_asset_keys)


def _texts(days: list[date] | None) -> list[str]:
    return [day.isoformat() for day in days or ()]
