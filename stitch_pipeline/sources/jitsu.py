"""Jitsu's event JSON, which has the shape of Segment's analytics.js events.

Field names: https://docs.jitsu.com/sending-data/http (``identify`` adds ``userId`` and ``traits``
while ``anonymousId`` stays).
"""

from stitch_pipeline.sources.source import Source

JITSU = Source(
    name="jitsu",
    fields={
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
    },
    default_platform="web",
)
