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

from stitch_pipeline.landing.index import LandingIndex
from stitch_pipeline.landing.parser import Parser
from stitch_pipeline.landing.zone import landed_files, reading_rules
from stitch_pipeline.orchestration.partitions import daily_partitions, window_of
from stitch_pipeline.settings import Settings
from stitch_pipeline.stitching import load as loading
from stitch_pipeline.stitching import partition_facts
from stitch_pipeline.warehouse.duckdb import DuckDBWarehouse
from stitch_pipeline.warehouse.duckdb_old import WarehouseResource
from stitch_pipeline.warehouse.tables import create_tables

OWNERS = ["team:analytics-engineering"]
POOL = "duckdb"

_RAW_EVENT_COLUMNS = {
    "source": "The format that the event was read as, for instance jitsu.",
    "event_id": "The tracker's id of the event; unique within a project.",
    "project_id": "The tenant: site, app or workspace. Nothing ever joins across projects.",
    "occurred_at": "When it happened on the device, as far as the tracker knows (UTC).",
    "received_at": "When the tracker's server received it (UTC); null if the source does not say.",
    "event_date": "The UTC day of occurred_at: the partition.",
    "event_type": "page, screen, identify, track, or another type as the tracker names it.",
    "event_name": "What was tracked, for instance signup.",
    "platform": "web, mobile, or another platform as the tracker names it.",
    "anonymous_id": "The device: cookie, visitor id or client id. Null if none was sent or it is blocked.",
    "user_id": "The customer's own identifier of the person. Null if none was sent or it is blocked.",
    "source_session_id": "The tracker's own session id, if it sends one.",
    "page_url": "The full address of the page.",
    "page_path": "The path of the page or the name of the screen.",
    "page_title": "The title of the page or screen.",
    "referrer": "The address that the visitor came from.",
    "utm_source": "Campaign source.",
    "utm_medium": "Campaign medium.",
    "utm_campaign": "Campaign name.",
    "traits": "What the event says about the person, as JSON text.",
    "properties": "What the event says about itself, as JSON text.",
    "landing_file": "The file that the event came in, relative to the landing directory.",
    "blocked_anonymous_id": "What was sent as anonymous id and is no identity, for instance undefined.",
    "blocked_user_id": "What was sent as user id and is no identity, for instance null.",
}
_QUARANTINED_COLUMNS = {
    "quarantine_date": "The first event day of the file, or the day it was written if it has none: the partition.",
    "landing_file": "The file, relative to the landing directory.",
    "line": "The row's place in the file, from 1; null if the whole file cannot be read.",
    "field": "The field or fields that are wrong or missing.",
    "problem": "Why the row cannot be an event, as a code (landing/problems.py lists them).",
    "occurred_at": "When the event happened, where its time could be read (UTC).",
    "reason": "Why the row cannot be an event, for a person.",
    "remedy": "What would make it one.",
    "raw_row": "The row as it was sent.",
}


def landing_zone_assets(settings: Settings) -> AssetsDefinition:
    def spec(name: str, description: str, columns: dict[str, str]) -> AssetSpec:
        schema = TableSchema([TableColumn(column, description=text) for column, text in columns.items()])
        return AssetSpec(
            name,
            description=description,
            group_name="landing",
            owners=OWNERS,
            kinds={"duckdb", "python"},
            metadata={"dagster/column_schema": schema},
        )

    @multi_asset(
        name="landing_zone",
        specs=[
            spec(
                "raw_events",
                "One row per event of the landing zone, whenever it arrived; of events sent twice the first received.",
                _RAW_EVENT_COLUMNS,
            ),
            spec(
                "quarantined_events",
                "One row per row of the landing zone that cannot be an event, with file, line, reason and remedy.",
                _QUARANTINED_COLUMNS,
            ),
        ],
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
        with warehouse.get_connection() as con, Parser(settings.memory_limit) as parser:
            create_tables(con)
            stored = DuckDBWarehouse(con)
            index.set_loaded(loading.loaded_files(stored))
            pending = [file for file in index.pending() if any(day in window for day in file.touched_days)]
            loaded = loading.load(
                stored,
                parser,
                pending,
                landed_files(settings) if pending else {},
                reading_rules(settings),
                before_commit=index.mark_changed,
                report=context.log.info,
            )
            index.set_loaded(loading.loaded_files(stored))
            seconds = time.monotonic() - started
            for name in ("raw_events", "quarantined_events"):
                for day, facts in partition_facts.facts_per_day(con, name, window).items():
                    context.add_asset_metadata(facts, asset_key=name, partition_key=day.isoformat())
            accounts = loading.row_accounts(stored)
            repeated = loading.repeated_events(stored, window)
            unreadable = loading.unreadable_files(stored)
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
