"""Segment's events: the JSON that it writes to buckets, and its warehouse tables.

``analytics_js`` has their fields, which RudderStack and Jitsu share.

https://segment.com/docs/connections/storage/catalog/aws-s3/ and
https://segment.com/docs/connections/storage/warehouses/schema/
"""

from stitch_pipeline.sources.analytics_js import (
    EVENT_ALIAS,
    EVENT_FIELDS,
    EVENT_IDENTIFIERS,
    MERGING_TYPES,
    WITHOUT_EVENTS,
    warehouse_tables,
)
from stitch_pipeline.sources.source import Layout, Source

SEGMENT = Source(
    name="segment",
    documentation="https://segment.com/docs/connections/spec/common/",
    layouts=(
        Layout(
            name="event JSON",
            fields=EVENT_FIELDS,
            recognised_by=("messageId", "type"),
            default_platform="web",
            merging_types=MERGING_TYPES,
            fields_when_merging=EVENT_ALIAS,
            identifiers={
                **EVENT_IDENTIFIERS,
                "cross_domain_id": ("context.externalIds[type=cross_domain_id].id",),
                "ga_client_id": ("context.externalIds[type=ga_client_id].id",),
            },
        ),
        *warehouse_tables(),
    ),
    without_events=WITHOUT_EVENTS,
    load_times=("loaded_at", "uuid_ts", "received_at"),
)
