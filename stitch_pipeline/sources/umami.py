"""Umami's tables, as exported from PostgreSQL or ClickHouse.

Tables: ``prisma/schema.prisma`` in https://github.com/umami-software/umami. A login is not an event there but a row of
``identity_link`` (a visitor id and a distinct id) or, in newer versions, ``session_link`` (a session and a distinct
id); each is read as an identify event. PostgreSQL keeps the ids in ``session``, which is the lookup table: put the
tables of one export into one directory.

A session with a distinct id is one row for all of a person's devices, with the visitor id of the first device. So the
visitor id counts only in sessions without a distinct id. Without any visitor id, the session itself is the device.
"""

from stitch_pipeline.sources.source import Layout, Lookup, Source

UMAMI = Source(
    name="umami",
    documentation="https://github.com/umami-software/umami",
    layouts=(
        Layout(
            name="table identity_link",
            fields={
                "event_id": ("identity_link_id",),
                "project_id": ("website_id",),
                "occurred_at": ("created_at", "linked_at"),
                "received_at": ("created_at",),
                "event_type": ("=identify",),
                "anonymous_id": ("visitor_id",),
                "user_id": ("distinct_id",),
            },
            recognised_by=("website_id", "visitor_id", "distinct_id"),
            file_names=("*identity_link*",),
            event_id_from=("website_id", "visitor_id", "distinct_id"),
            default_platform="web",
        ),
        Layout(
            name="table session_link",
            fields={
                "project_id": ("website_id",),
                "occurred_at": ("created_at",),
                "received_at": ("created_at",),
                "event_type": ("=identify",),
                "anonymous_id": ("lookup:visitor_id", "session_id"),
                "user_id": ("distinct_id",),
            },
            recognised_by=("website_id", "session_id", "distinct_id"),
            file_names=("*session_link*",),
            event_id_from=("website_id", "session_id", "distinct_id"),
            default_platform="web",
        ),
        Layout(
            name="table website_event",
            fields={
                "event_id": ("event_id",),
                "project_id": ("website_id",),
                "occurred_at": ("created_at",),
                "received_at": ("created_at",),
                "event_type": ("event_type",),
                "event_name": ("event_name",),
                "anonymous_id": ("visitor_id", "lookup:visitor_id", "session_id"),
                "user_id": ("distinct_id", "lookup:distinct_id"),
                "source_session_id": ("visit_id",),
                "page_path": ("url_path",),
                "page_title": ("page_title",),
                "referrer": ("referrer_domain",),
                "utm_source": ("utm_source",),
                "utm_medium": ("utm_medium",),
                "utm_campaign": ("utm_campaign",),
            },
            recognised_by=("event_id", "website_id", "session_id", "url_path"),
            event_types={"1": "page"},
            other_event_type="track",
            default_platform="web",
        ),
    ),
    lookup=Lookup(
        file_names=("*session.*", "*sessions.*"),
        key="session_id",
        columns={"visitor_id": "distinct_id", "distinct_id": None},
    ),
    without_events=("*session_data*", "*event_data*", "*website.*", "*websites.*"),
    load_times=("created_at",),
)
