"""Snowplow's canonical event table (``atomic.events``), as Parquet, CSV or NDJSON.

Column names: https://docs.snowplow.io/docs/fundamentals/canonical-event/. ``derived_tstamp`` orders
events, because it is the device's clock corrected by the collector's. On the web the device is
``domain_userid``; a mobile tracker sends it in the client-session context.
"""

from stitch_pipeline.sources.source import Source

_CLIENT_SESSION = "contexts_com_snowplowanalytics_snowplow_client_session_1[0]"
_SCREEN_VIEW = "unstruct_event_com_snowplowanalytics_mobile_screen_view_1"

SNOWPLOW = Source(
    name="snowplow",
    fields={
        "event_id": ("event_id",),
        "project_id": ("app_id",),
        "occurred_at": ("derived_tstamp", "collector_tstamp"),
        "received_at": ("collector_tstamp",),
        "event_type": ("event",),
        "event_name": ("se_action", "event_name"),
        "platform": ("platform",),
        "anonymous_id": ("domain_userid", f"{_CLIENT_SESSION}.userId", f"{_CLIENT_SESSION}.user_id"),
        "user_id": ("user_id",),
        "source_session_id": (
            "domain_sessionid",
            f"{_CLIENT_SESSION}.sessionId",
            f"{_CLIENT_SESSION}.session_id",
        ),
        "page_url": ("page_url",),
        "page_path": ("page_urlpath", f"{_SCREEN_VIEW}.name"),
        "page_title": ("page_title", f"{_SCREEN_VIEW}.name"),
        "referrer": ("page_referrer",),
        "utm_source": ("mkt_source",),
        "utm_medium": ("mkt_medium",),
        "utm_campaign": ("mkt_campaign",),
        "properties": ("unstruct_event",),
    },
    event_types={
        "page_view": "page",
        "unstruct/screen_view": "screen",
        "unstruct/identify": "identify",
        "unstruct": "track",
        "struct": "track",
    },
    platforms={"mob": "mobile"},
)
