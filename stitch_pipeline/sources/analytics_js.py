"""The event specification that Segment, RudderStack and Jitsu share, and the warehouse tables that they write.

Common fields: https://segment.com/docs/connections/spec/common/
Warehouse tables: https://segment.com/docs/connections/storage/warehouses/schema/
"""

from __future__ import annotations

from collections.abc import Mapping

from stitch_pipeline.sources.source import Layout

EVENT_FIELDS: Mapping[str, tuple[str, ...]] = {
    "event_id": ("messageId",),
    "project_id": ("projectId",),
    "occurred_at": ("timestamp", "originalTimestamp"),
    "received_at": ("receivedAt",),
    "event_type": ("type",),
    "event_name": ("event", "name"),
    "platform": ("context.platform",),
    "anonymous_id": ("anonymousId",),
    "user_id": ("userId",),
    "source_session_id": ("context.sessionId",),
    "page_url": ("context.page.url", "properties.url"),
    "page_path": ("context.page.path", "properties.path"),
    "page_title": ("context.page.title", "properties.title"),
    "referrer": ("context.page.referrer", "properties.referrer"),
    "utm_source": ("context.campaign.source",),
    "utm_medium": ("context.campaign.medium",),
    "utm_campaign": ("context.campaign.name",),
    "traits": ("traits", "context.traits"),
    "properties": ("properties",),
}

# `alias` says that `previousId`, a user id or an anonymous id, is the same as the event's user.
# https://segment.com/docs/connections/spec/alias/
EVENT_ALIAS: Mapping[str, tuple[str, ...]] = {"previous_id": ("previousId",)}
TABLE_ALIAS: Mapping[str, tuple[str, ...]] = {"previous_id": ("previous_id",)}
MERGING_TYPES = ("alias",)

EVENT_IDENTIFIERS: Mapping[str, tuple[str, ...]] = {
    "device_id": ("context.device.id",),
    "advertising_id": ("context.device.advertisingId",),
}

TABLE_IDENTIFIERS: Mapping[str, tuple[str, ...]] = {
    "device_id": ("context_device_id",),
    "advertising_id": ("context_device_advertising_id",),
}

TABLE_FIELDS: Mapping[str, tuple[str, ...]] = {
    "event_id": ("id", "message_id"),
    "project_id": ("project_id",),
    "occurred_at": ("timestamp", "original_timestamp"),
    "received_at": ("received_at",),
    "anonymous_id": ("anonymous_id",),
    "user_id": ("user_id",),
    "source_session_id": ("context_session_id",),
    "page_url": ("context_page_url", "url"),
    "page_path": ("context_page_path", "path"),
    "page_title": ("context_page_title", "title"),
    "referrer": ("context_page_referrer", "referrer"),
    "utm_source": ("context_campaign_source",),
    "utm_medium": ("context_campaign_medium",),
    "utm_campaign": ("context_campaign_name",),
    "traits": ("context_traits_*",),
}

# Columns of a table that are not properties or traits of the event.
TABLE_ENVELOPE = (
    *("id", "message_id", "anonymous_id", "user_id", "project_id", "type", "event", "event_text", "name", "channel"),
    *("timestamp", "original_timestamp", "sent_at", "received_at", "loaded_at", "uuid_ts", "context_*"),
    *("write_key", "request_ip", "rudder_id", "_*"),
)

# Tables of users and groups as they are now, which hold no events.
WITHOUT_EVENTS = ("*users*", "*groups*", "*accounts*")


def warehouse_tables(platform: tuple[str, ...] = ()) -> tuple[Layout, ...]:
    """The layouts of the warehouse tables. The type of event in a table follows from the table's name only."""

    def table(name: str, patterns: tuple[str, ...], event_type: str, **fields: tuple[str, ...]) -> Layout:
        return Layout(
            name=f"warehouse table {name}",
            fields={
                **TABLE_FIELDS,
                "event_type": (f"={event_type}",),
                "platform": platform or (("=mobile",) if event_type == "screen" else ()),
                **fields,
            },
            recognised_by=("anonymous_id", "timestamp"),
            file_names=patterns,
            default_platform="web",
            envelope=TABLE_ENVELOPE,
            identifiers=TABLE_IDENTIFIERS,
        )

    return (
        table("pages", ("*pages*",), "page", event_name=("name",), properties=("*",)),
        table("screens", ("*screens*",), "screen", event_name=("name",), page_path=("name",), properties=("*",)),
        table("identifies", ("*identifies*",), "identify", traits=("*", "context_traits_*")),
        Layout(
            name="warehouse table aliases",
            fields={**TABLE_FIELDS, **TABLE_ALIAS, "event_type": ("=alias",), "platform": platform},
            recognised_by=("previous_id", "timestamp"),
            file_names=("*aliases*",),
            default_platform="web",
            identifiers=TABLE_IDENTIFIERS,
        ),
        Layout(
            name="warehouse table tracks, or of one event",
            fields={
                **TABLE_FIELDS,
                "event_type": ("=track",),
                "event_name": ("event_text", "event"),
                "platform": platform,
                "properties": ("*",),
            },
            recognised_by=("event_text", "timestamp"),
            default_platform="web",
            envelope=TABLE_ENVELOPE,
            identifiers=TABLE_IDENTIFIERS,
        ),
    )
