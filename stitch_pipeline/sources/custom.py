"""Events of no built-in format: the feed's table in ``stitch.toml`` says which field is what.

The names below are only what is assumed where the feed says nothing.
"""

from stitch_pipeline.sources.source import CANONICAL_FIELDS, Layout, Source

CUSTOM = Source(
    name="custom",
    documentation="docs/sources.md",
    layouts=(Layout(name="as the feed says", fields={column: (column,) for column in CANONICAL_FIELDS}),),
)
