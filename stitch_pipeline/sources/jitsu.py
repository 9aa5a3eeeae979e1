"""Jitsu's events: as the client sends them, and as Jitsu writes them by default, in snake case.

Event: https://docs.jitsu.com/sending-data/http (``identify`` adds ``userId`` and ``traits``, and ``anonymousId``
stays). Warehouses and buckets, by default with the layout ``segment-single-table``, names in snake case and properties
at the root: https://docs.jitsu.com/features/schema
"""

from stitch_pipeline.sources.analytics_js import (
    EVENT_ALIAS,
    EVENT_FIELDS,
    EVENT_IDENTIFIERS,
    MERGING_TYPES,
    TABLE_ALIAS,
    TABLE_ENVELOPE,
    TABLE_FIELDS,
    TABLE_IDENTIFIERS,
    warehouse_tables,
)
from stitch_pipeline.sources.source import Layout, Source

JITSU = Source(
    name="jitsu",
    documentation="https://docs.jitsu.com/features/schema",
    layouts=(
        Layout(
            name="event JSON",
            fields=EVENT_FIELDS,
            recognised_by=("messageId", "type"),
            default_platform="web",
            merging_types=MERGING_TYPES,
            fields_when_merging=EVENT_ALIAS,
            identifiers=EVENT_IDENTIFIERS,
        ),
        *warehouse_tables()[:4],
        Layout(
            name="single table, nested",
            fields={
                **{column: paths for column, paths in EVENT_FIELDS.items() if column != "properties"},
                "event_id": ("message_id",),
                "project_id": ("project_id",),
                "occurred_at": ("timestamp", "original_timestamp"),
                "received_at": ("received_at",),
                "anonymous_id": ("anonymous_id",),
                "user_id": ("user_id",),
                "source_session_id": ("context.session_id",),
                "page_url": ("context.page.url", "url"),
                "page_path": ("context.page.path", "path"),
                "page_title": ("context.page.title", "title"),
                "referrer": ("context.page.referrer", "referrer"),
                "traits": ("context.traits", "traits"),
                "properties": ("*",),
            },
            recognised_by=("message_id", "type", "context"),
            default_platform="web",
            envelope=(*TABLE_ENVELOPE, "context", "traits"),
            merging_types=MERGING_TYPES,
            fields_when_merging=TABLE_ALIAS,
            identifiers={
                "device_id": ("context.device.id",),
                "advertising_id": ("context.device.advertising_id",),
            },
        ),
        Layout(
            name="single table",
            fields={
                **TABLE_FIELDS,
                "event_type": ("type",),
                "event_name": ("event", "name"),
                "properties": ("*",),
            },
            recognised_by=("message_id", "type"),
            default_platform="web",
            envelope=TABLE_ENVELOPE,
            merging_types=MERGING_TYPES,
            fields_when_merging=TABLE_ALIAS,
            identifiers=TABLE_IDENTIFIERS,
        ),
    ),
    load_times=("loaded_at", "received_at"),
)
