"""PostHog's events, as its batch exports write them.

Columns: https://posthog.com/docs/cdp/batch-exports/s3. ``distinct_id`` is the device's id before login and the user's
id after it, so it is a user id only where it differs from the device's. An event of a server-side library has no device
id, so its ``distinct_id`` counts as a device with that id. ``person_id`` is PostHog's own answer at the time and is not
used. The S3 exports do not name the project; set ``project_id`` on the feed if you have several projects.

``$create_alias`` and ``$merge_dangerously`` say that ``alias`` is the same as ``distinct_id``, which is a user id where
a server sends them (https://posthog.com/docs/product-analytics/identify).
"""

from stitch_pipeline.sources.source import Layout, Source

POSTHOG = Source(
    name="posthog",
    documentation="https://posthog.com/docs/cdp/batch-exports/s3",
    layouts=(
        Layout(
            name="batch export",
            fields={
                "event_id": ("uuid",),
                "project_id": ("team_id",),
                "occurred_at": ("timestamp",),
                "received_at": ("created_at",),
                "event_type": ("event",),
                "event_name": ("event",),
                "anonymous_id": ("properties.$anon_distinct_id", "properties.$device_id", "distinct_id"),
                "user_id": ("distinct_id",),
                "source_session_id": ("properties.$session_id",),
                "page_url": ("properties.$current_url",),
                "page_path": ("properties.$pathname", "properties.$screen_name"),
                "page_title": ("properties.title", "properties.$title", "properties.$screen_name"),
                "referrer": ("properties.$referrer",),
                "utm_source": ("properties.utm_source",),
                "utm_medium": ("properties.utm_medium",),
                "utm_campaign": ("properties.utm_campaign",),
                "traits": ("properties.$set", "set", "person_properties"),
                "properties": ("properties",),
            },
            recognised_by=("uuid", "event", "distinct_id", "properties"),
            event_types={
                "$pageview": "page",
                "$screen": "screen",
                "$identify": "identify",
                "$create_alias": "alias",
                "$merge_dangerously": "merge",
            },
            other_event_type="track",
            default_platform="web",
            user_id_may_repeat_anonymous_id=True,
            merging_types=("$create_alias", "$merge_dangerously"),
            fields_when_merging={
                "previous_id": ("properties.alias",),
                "anonymous_id": ("properties.$anon_distinct_id", "properties.$device_id"),
            },
            identifiers={"device_id": ("properties.$device_id",)},
        ),
    ),
    load_times=("inserted_at", "_inserted_at", "created_at", "timestamp"),
)
