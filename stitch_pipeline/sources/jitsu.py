"""Jitsu's events: as the client sends them, and as Jitsu writes them by default, in snake case.

Event: https://docs.jitsu.com/sending-data/http (``identify`` adds ``userId`` and ``traits``, and ``anonymousId``
stays). Warehouses and buckets, by default with the layout ``segment-single-table``, names in snake case and properties
at the root: https://docs.jitsu.com/features/schema
"""

from stitch_pipeline.sources.analytics_js import EVENT_FIELDS, TABLE_ENVELOPE, TABLE_FIELDS, warehouse_tables
from stitch_pipeline.sources.source import Layout, Source

JITSU = Source(
    name="jitsu",
    documentation="https://docs.jitsu.com/features/schema",
    layouts=(
        Layout(name="event JSON", fields=EVENT_FIELDS, recognised_by=("messageId", "type"), default_platform="web"),
        *warehouse_tables()[:3],
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
        ),
    ),
    load_times=("loaded_at", "received_at"),
)
