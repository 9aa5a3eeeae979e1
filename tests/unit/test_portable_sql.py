"""What models and macros must not use, because one of the engines lacks it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from stitch_pipeline.shipped_files import DBT_PROJECT

SQL = [
    path for path in sorted(DBT_PROJECT.rglob("*.sql")) if "engines" not in path.parts and "target" not in path.parts
]
# Macros that stand for a subquery.
SUBQUERIES = (
    *("shared_devices", "wrong_links", "never_same", "decided_names", "graph_names", "person_names"),
    *(
        "same_devices",
        "people_without_device",
        "names_of_both_kinds",
        "identifiers_in_force",
        "links_in_force",
        "all_policies",
        "decisions_of",
    ),
)


@pytest.mark.parametrize("path", SQL, ids=lambda path: path.stem)
def test_a_subquery_has_a_name(path: Path) -> None:
    """PostgreSQL 15 refuses one without."""
    text = re.sub(r"\{#.*?#\}", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    nameless = re.findall(rf"(?:from|join)\s+\{{\{{\s*(?:{'|'.join(SUBQUERIES)})\([^}}]*\)\s*\}}\}}(?!\s+as\s)", text)
    assert nameless == []


@pytest.mark.parametrize("path", SQL, ids=lambda path: path.stem)
def test_no_model_asks_which_engine_it_runs_on(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert "target.type" not in text
    assert not re.search(r"create or replace temp|group by all|order by all|\bqualify\b|\basof\b", text)
