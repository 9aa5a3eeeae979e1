"""RudderStack's events: Segment's specification with a channel and a session id, as JSON and as tables.

https://www.rudderstack.com/docs/event-spec/standard-events/common-fields/ and
https://www.rudderstack.com/docs/destinations/warehouse-destinations/warehouse-schema/
"""

from stitch_pipeline.sources.analytics_js import EVENT_FIELDS, WITHOUT_EVENTS, warehouse_tables
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
        ),
        *warehouse_tables(platform=("channel",)),
    ),
    without_events=WITHOUT_EVENTS,
    load_times=("loaded_at", "uuid_ts", "received_at"),
)
