"""Millimetric's events.

https://docs.millimetric.ai/reference/event-schema: ``$identify`` rows have no event id, because the call takes none, so
the id is built from the row's values. ``session_id`` is a bucket of half an hour and not a session, so it is not used.
"""

from stitch_pipeline.sources.source import Layout, Source

MILLIMETRIC = Source(
    name="millimetric",
    documentation="https://docs.millimetric.ai/reference/event-schema",
    layouts=(
        Layout(
            name="event table",
            fields={
                "event_id": ("event_id",),
                "project_id": ("project_id",),
                "occurred_at": ("timestamp",),
                "received_at": ("received_at",),
                "event_type": ("event_name", "event"),
                "event_name": ("event_name", "event"),
                "anonymous_id": ("anonymous_id",),
                "user_id": ("user_id",),
                "page_url": ("url",),
                "page_path": ("path",),
                "referrer": ("referrer",),
                "utm_source": ("source", "properties.utm_source"),
                "utm_medium": ("medium", "properties.utm_medium"),
                "utm_campaign": ("campaign", "properties.utm_campaign"),
                "traits": ("traits",),
                "properties": ("properties",),
            },
            recognised_by=("anonymous_id", "timestamp", "source", "medium"),
            event_id_from=("project_id", "anonymous_id", "timestamp", "event_name", "event", "user_id"),
            event_types={"$pageview": "page", "$identify": "identify"},
            other_event_type="track",
            default_platform="web",
        ),
    ),
    load_times=("received_at", "timestamp"),
)
