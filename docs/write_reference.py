"""Write the reference of columns into tables.md, from the models' YAML.

.venv/bin/python docs/write_reference.py
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).resolve().parent.parent
MODELS = REPOSITORY / "dbt_project" / "models"
PAGE = REPOSITORY / "docs" / "tables.md"
BEGIN, END = "<!-- python docs/write_reference.py -->", "<!-- end -->"


def with_reference(page: str) -> str:
    """The page, with the reference between its two comments."""
    block = f"{BEGIN}\n\n{chr(10).join(reference())}\n{END}"
    return re.sub(f"{re.escape(BEGIN)}.*{re.escape(END)}", lambda _: block, page, flags=re.DOTALL)


def reference() -> Iterator[str]:
    """Lines of Markdown: a section per table or view that people query, with its columns."""
    for path in sorted(MODELS.rglob("*.yml")):
        document = yaml.safe_load(path.read_text("utf-8"))
        tables = [table for source in document.get("sources", ()) for table in source["tables"]]
        for table in (*tables, *document.get("models", ())):
            if table.get("columns") and not _is_internal(path):
                yield from _section(table)


def _is_internal(documentation: Path) -> bool:
    model = documentation.with_suffix(".sql")
    return model.exists() and "tags=['internal']" in model.read_text("utf-8")


def _section(table: dict[str, Any]) -> Iterator[str]:
    yield from (f"### {table['name']}", "", _one_line(table.get("description", "")), "")
    yield from ("| column | type | meaning |", "| --- | --- | --- |")
    for column in table["columns"]:
        meaning = _one_line(column.get("description", "")).replace("|", "\\|")
        yield f"| `{column['name']}` | {column.get('data_type', '')} | {meaning} |"
    yield ""


def _one_line(text: str) -> str:
    return " ".join(text.split())


if __name__ == "__main__":
    PAGE.write_text(with_reference(PAGE.read_text("utf-8")), "utf-8")
