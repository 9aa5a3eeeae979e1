"""Events without a built-in format: the feed's table in ``stitch.toml`` maps the fields.

The names below are the defaults for fields that the feed does not map.
"""

from stitch_pipeline.sources.source import CANONICAL_FIELDS, Layout, Source

CUSTOM = Source(
    name="custom",
    documentation="docs/sources.md",
    layouts=(Layout(name="as the feed says", fields={column: (column,) for column in CANONICAL_FIELDS}),),
)
