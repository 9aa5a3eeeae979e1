"""``raw_events`` and ``quarantined_events``: the landing zone, loaded.

A run for some days loads the new, changed and vanished files that hold (or held) rows of those days.
Whole files are loaded; days outside the run that change thereby are marked, and ``landing_sensor``
asks for them.
"""

import time
from collections.abc import Iterator

from dagster import (
    AssetCheckResult,
    AssetCheckSeverity,
    AssetCheckSpec,
    AssetExecutionContext,
    AssetsDefinition,
    AssetSpec,
    BackfillPolicy,
    MaterializeResult,
    MetadataValue,
    TableColumn,
    TableSchema,
    multi_asset,
)

from stitch_pipeline.landing.index import IndexedFile, LandingIndex
from stitch_pipeline.landing.zone import found_files, reading_rules
from stitch_pipeline.orchestration.partitions import daily_partitions, window_of
from stitch_pipeline.orchestration.resource import WarehouseResource
from stitch_pipeline.settings import Settings
from stitch_pipeline.stitching import load as loading
from stitch_pipeline.stitching.facts import facts_per_day
from stitch_pipeline.warehouse.tables import create_tables, described_tables

OWNERS = ["team:analytics-engineering"]
POOL = "duckdb"


def landing_zone_assets(settings: Settings) -> AssetsDefinition:
    described = described_tables()

    def spec(table: str) -> AssetSpec:
        columns = [
            TableColumn(column.name, column.data_type, column.description) for column in described[table].columns
        ]
        return AssetSpec(
            table,
            description=described[table].description,
            group_name="landing",
            owners=OWNERS,
            kinds={"duckdb", "python"},
            metadata={"dagster/column_schema": TableSchema(columns)},
        )

    @multi_asset(
        name="landing_zone",
        specs=[spec("raw_events"), spec("quarantined_events")],
        check_specs=[
            AssetCheckSpec(
                "no_row_lost",
                asset="raw_events",
                blocking=True,
                description="Rows of the loaded files = events + duplicates + quarantined rows.",
            ),
            AssetCheckSpec(
                "raw_events_has_one_row_per_event",
                asset="raw_events",
                blocking=True,
                description="Among the run's days no event id stands twice within a project.",
            ),
            AssetCheckSpec(
                "every_file_is_readable",
                asset="quarantined_events",
                description="No file of the landing zone failed to be read as a whole.",
            ),
        ],
        partitions_def=daily_partitions(settings),
        backfill_policy=BackfillPolicy.single_run(),
        pool=POOL,
    )
    def landing_zone(
        context: AssetExecutionContext, warehouse: WarehouseResource
    ) -> Iterator[MaterializeResult[None] | AssetCheckResult]:
        started = time.monotonic()
        window = window_of(context)
        index = LandingIndex(settings.index_path)
        index.refresh(settings)
        with warehouse.open() as w:
            con = w.connection
            create_tables(w)
            index.set_loaded(loading.loaded_files(con))
            pending = [file for file in index.pending() if any(day in window for day in file.touched_days)]
            loaded = loading.load(
                con,
                files_to_load(settings, pending),
                reading_rules(settings),
                before_commit=index.mark_changed,
                report=context.log.info,
            )
            index.set_loaded(loading.loaded_files(con))
            seconds = time.monotonic() - started
            for name in ("raw_events", "quarantined_events"):
                for day, facts in facts_per_day(w, name, window).items():
                    context.add_asset_metadata(facts, asset_key=name, partition_key=day.isoformat())
            accounts = loading.row_accounts(con)
            repeated = loading.repeated_events(con, window)
            unreadable = loading.unreadable_files(con)
        changed = {"files_loaded": loaded.files, "rows_read": loaded.rows, "seconds": round(seconds, 3)}
        yield MaterializeResult(asset_key="raw_events", metadata={**changed, "days_changed": len(loaded.changed_days)})
        yield MaterializeResult(asset_key="quarantined_events", metadata=changed)
        yield AssetCheckResult(
            check_name="no_row_lost",
            asset_key="raw_events",
            passed=accounts["rows_landed"] == accounts["events"] + accounts["duplicates"] + accounts["quarantined"],
            metadata=accounts,
        )
        yield AssetCheckResult(
            check_name="raw_events_has_one_row_per_event",
            asset_key="raw_events",
            passed=not repeated,
            metadata={"repeated_ids": MetadataValue.json(repeated)},
        )
        yield AssetCheckResult(
            check_name="every_file_is_readable",
            asset_key="quarantined_events",
            passed=not unreadable,
            severity=AssetCheckSeverity.WARN,
            metadata={"unreadable_files": MetadataValue.json(unreadable)},
        )

    return landing_zone


def files_to_load(settings: Settings, pending: list[IndexedFile]) -> list[loading.FileToLoad]:
    found = {file.landing_file: file for file in found_files(settings)} if pending else {}
    return [
        loading.FileToLoad(
            landing_file=file.landing_file,
            landed=found[file.landing_file].landed if file.landing_file in found else None,
            version=file.version if file.landing_file in found else None,
            days=file.days,
            row_count=file.row_count,
            bad_row_count=file.bad_row_count,
            bad_row_day=file.bad_row_day,
            problem=file.problem,
        )
        for file in pending
    ]
