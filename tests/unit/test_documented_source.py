"""The source that docs/sources.md shows how to add reads what it says it reads."""

from __future__ import annotations

import json
import re
import textwrap
from datetime import date, datetime
from pathlib import Path
from typing import Any

from warehouses import REPOSITORY

from stitch_pipeline.landing.landed_file import LandedFile
from stitch_pipeline.landing.parser import Parser
from stitch_pipeline.landing.reading import EventBatch, ReadingRules
from stitch_pipeline.sources import SOURCES

PAGE = (REPOSITORY / "docs" / "sources.md").read_text(encoding="utf-8")


def test_the_documented_source_reads_a_hit(tmp_path: Path) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    names: dict[str, Any] = {}
    exec(textwrap.dedent(example), names)
    hit = {
        "hit": {"id": 7, "at": 1772452800000, "kind": "signin"}
        | {"attributes": [{"name": "size", "value": 3}, {"name": "url", "value": "https://shop.example/login?x=1"}]},
        "visitor": "v",
        "member": {"number": 42},
    }
    path = tmp_path / "a.ndjson"
    path.write_text(json.dumps(hit) + "\n")
    with Parser() as parser:
        file = LandedFile(path, "acme/a.ndjson", names["ACME"], path.stat().st_size, path.stat().st_mtime_ns)
        shape = parser.shape_of(file)
        assert shape.is_recognised
        sql = EventBatch(shape, (file,), ReadingRules(start_date=date(2026, 1, 1))).events_sql
        found = parser.rows(f"select event_id, occurred_at, event_type, anonymous_id, user_id, page_path from ({sql})")
        assert found == [("7", datetime(2026, 3, 2, 12), "identify", "v", "42", "/login")]


def test_every_source_is_in_the_table() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", PAGE, flags=re.MULTILINE)
    assert [name for name in rows if name in SOURCES] == list(SOURCES)
