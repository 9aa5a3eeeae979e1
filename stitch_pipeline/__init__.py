"""Identity stitching in Dagster: files in, stitched sessions, users and views out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stitch_pipeline.component import IdentityStitching as IdentityStitching
    from stitch_pipeline.deployment import read as read

# Imported when first used, because every command imports the package. `dg` looks for components among the names here.
_LAZY = {
    "IdentityStitching": "stitch_pipeline.component",
    "read": "stitch_pipeline.deployment",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
