"""Google Analytics 4's BigQuery export, as JSON or Parquet.

Schema: https://support.google.com/analytics/answer/7029846. Times are microseconds. There is no event id, and several
events of one page load have the same time, so the id is built from all fields that distinguish them. ``traffic_source``
is the user's first source and not the event's, so it is not used. Without consent there is no ``user_pseudo_id``: those
events are kept and never stitched. ``login`` and ``sign_up`` become links if they carry a ``user_id``, like any event.
The streams of a property are one project, so that web and app share their users; set ``project_id`` on the feed if you
have several properties.
"""

from stitch_pipeline.sources.source import Layout, Source


def _parameter(name: str) -> tuple[str, ...]:
    value = f"event_params[key={name}].value"
    return (f"{value}.string_value", f"{value}.int_value")


GA4 = Source(
    name="ga4",
    documentation="https://support.google.com/analytics/answer/7029846",
    layouts=(
        Layout(
            name="BigQuery export",
            fields={
                "occurred_at": ("event_timestamp",),
                "event_type": ("event_name",),
                "event_name": ("event_name",),
                "platform": ("platform",),
                "anonymous_id": ("user_pseudo_id",),
                "user_id": ("user_id",),
                "source_session_id": _parameter("ga_session_id"),
                "page_url": _parameter("page_location"),
                "page_path": _parameter("firebase_screen"),
                "page_title": _parameter("page_title"),
                "referrer": _parameter("page_referrer"),
                "utm_source": ("collected_traffic_source.manual_source", *_parameter("source")),
                "utm_medium": ("collected_traffic_source.manual_medium", *_parameter("medium")),
                "utm_campaign": ("collected_traffic_source.manual_campaign_name", *_parameter("campaign")),
                "traits": ("user_properties",),
                "properties": ("event_params",),
            },
            recognised_by=("event_timestamp", "event_name", "user_pseudo_id", "event_params"),
            event_id_from=(
                *("stream_id", "user_pseudo_id", "event_timestamp", "event_name", "event_bundle_sequence_id"),
                *("batch_page_id", "batch_ordering_id", "batch_event_index"),
            ),
            times="microseconds",
            event_types={"page_view": "page", "screen_view": "screen"},
            other_event_type="track",
            platforms={"ios": "mobile", "android": "mobile"},
            default_platform="web",
            identifiers={
                "advertising_id": ("device.advertising_id",),
                "vendor_id": ("device.vendor_id",),
            },
        ),
    ),
    load_times=("event_timestamp",),
)
