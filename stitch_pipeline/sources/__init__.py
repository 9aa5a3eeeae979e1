"""The event formats that can be read: one module each, and each module is data.

What belongs here: which field of a tracker's event plays which canonical role. What does not: how
files are found (``landing``) or how rows are stored (``warehouse``).
"""

from stitch_pipeline.sources.jitsu import JITSU
from stitch_pipeline.sources.snowplow import SNOWPLOW
from stitch_pipeline.sources.source import Source

SOURCES: dict[str, Source] = {source.name: source for source in (JITSU, SNOWPLOW)}

__all__ = ["SOURCES", "Source"]
