"""The event formats that can be read: one module each, and each module is data.

Belongs here: which field of a tracker's event fills which canonical field. Does not: how files are found (``landing``)
or how rows are stored (``warehouse``).
"""

from stitch_pipeline.sources.custom import CUSTOM
from stitch_pipeline.sources.ga4 import GA4
from stitch_pipeline.sources.jitsu import JITSU
from stitch_pipeline.sources.millimetric import MILLIMETRIC
from stitch_pipeline.sources.posthog import POSTHOG
from stitch_pipeline.sources.rudderstack import RUDDERSTACK
from stitch_pipeline.sources.segment import SEGMENT
from stitch_pipeline.sources.snowplow import SNOWPLOW
from stitch_pipeline.sources.source import Layout, Source
from stitch_pipeline.sources.umami import UMAMI

SOURCES: dict[str, Source] = {
    source.name: source for source in (JITSU, SEGMENT, RUDDERSTACK, SNOWPLOW, MILLIMETRIC, UMAMI, GA4, POSTHOG, CUSTOM)
}

__all__ = ["SOURCES", "Layout", "Source"]
