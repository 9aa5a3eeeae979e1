"""Identity stitching as a Dagster code location: files in, stitched sessions, users and views out."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stitch_pipeline.stitching.published import read as read

# Imported when first used: the package itself is imported by every command.
_LAZY = {
    "read": "stitch_pipeline.stitching.published",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)
