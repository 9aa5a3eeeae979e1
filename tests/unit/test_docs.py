"""What the docs repeat from elsewhere is what stands there."""

from __future__ import annotations

import runpy
from pathlib import Path

DOCS = Path(__file__).resolve().parent.parent.parent / "docs"


def test_the_columns_in_the_docs_are_those_of_the_models() -> None:
    page = (DOCS / "tables.md").read_text("utf-8")
    assert runpy.run_path(str(DOCS / "write_reference.py"))["with_reference"](page) == page
    assert "### stitched_sessions" in page
    assert "stale_partitions" not in page
