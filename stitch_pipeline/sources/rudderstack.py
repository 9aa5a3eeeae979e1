"""RudderStack's events: Segment's specification with a channel and a session id, as JSON and as tables.

``merge`` names further ids of the user by type, so these are identifiers and no previous id.

https://www.rudderstack.com/docs/event-spec/standard-events/common-fields/,
https://www.rudderstack.com/docs/event-spec/standard-events/merge/ and
https://www.rudderstack.com/docs/destinations/warehouse-destinations/warehouse-schema/
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

RUDDERSTACK = Source(
    name="rudderstack",
    documentation="https://www.rudderstack.com/docs/event-spec/standard-events/common-fields/",
    layouts=(
        Layout(
            name="event JSON",
            fields={**EVENT_FIELDS, "platform": ("context.platform", "channel")},
            recognised_by=("messageId", "type"),
            default_platform="web",
            merging_types=MERGING_TYPES,
            fields_when_merging=EVENT_ALIAS,
            identifiers={
                "device_id": (*EVENT_IDENTIFIERS["device_id"], "mergeProperties[type=device_id].value"),
                "advertising_id": EVENT_IDENTIFIERS["advertising_id"],
                "email": ("mergeProperties[type=email].value",),
                "mobile": ("mergeProperties[type=mobile].value",),
                "phone": ("mergeProperties[type=phone].value",),
            },
        ),
        *warehouse_tables(platform=("channel",)),
    ),
    without_events=WITHOUT_EVENTS,
    load_times=("loaded_at", "uuid_ts", "received_at"),
)
