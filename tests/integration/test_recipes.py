"""Every query of docs/recipes.md, and the notebook, run on the data that the demo leaves, and find something."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import nbformat
import pytest
from engines import of_duckdb
from nbclient import NotebookClient

pytestmark = [pytest.mark.slow, of_duckdb("the recipes are written for it")]

REPOSITORY = Path(__file__).resolve().parents[2]
RECIPES = REPOSITORY / "docs" / "recipes.md"


def queries(document: str) -> list[tuple[str, str]]:
    """(section, query) of each block of SQL in a Markdown document."""
    found, section = [], ""
    for match in re.finditer(r"^## ([^\n]+)$|^```sql\n(.*?)^```$", document, re.MULTILINE | re.DOTALL):
        if match[1]:
            section = match[1]
        else:
            found.append((section, match[2]))
    return found


@pytest.fixture(scope="module")
def demo_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("recipes") / "demo"
    subprocess.run(
        [sys.executable, "-m", "stitch_pipeline", "demo", "--people", "120", "--directory", str(directory)],
        cwd=REPOSITORY,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return directory


@pytest.fixture
def demo(demo_directory: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(str(demo_directory / "warehouse.duckdb"), read_only=True) as con:
        yield con


def rows(con: duckdb.DuckDBPyConnection, query: str) -> list[dict[str, Any]]:
    found = con.execute(query)
    names = [column[0] for column in found.description or ()]
    return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


def test_the_notebook_runs(demo_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    for name in [name for name in os.environ if name.startswith("STITCH_")]:
        monkeypatch.delenv(name)
    notebook = nbformat.read(  # type: ignore[no-untyped-call]
        REPOSITORY / "docs" / "explore.ipynb", as_version=4
    )
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(demo_directory)}}).execute()
    shown = [
        output["data"]["text/plain"]
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if "data" in output
    ]
    assert len(shown) == 5
    assert "visitors_unstitched" in shown[0]
    assert "maya-laptop" in shown[3]
    assert "maya-phone" in shown[3]


def test_every_recipe_gives_rows(demo: duckdb.DuckDBPyConnection) -> None:
    recipes = queries(RECIPES.read_text("utf-8"))
    assert len(recipes) >= 15
    assert {section for section, query in recipes if not rows(demo, query)} == {"Which devices are one browser?"}


def test_the_recipes_agree_with_each_other(demo: duckdb.DuckDBPyConnection) -> None:
    by_section: dict[str, list[list[dict[str, Any]]]] = {}
    for section, query in queries(RECIPES.read_text("utf-8")):
        by_section.setdefault(section, []).append(rows(demo, query))
    daily, monthly = by_section["How many visitors are there really?"]
    assert sum(day["people"] for day in daily) < sum(day["devices"] for day in daily)
    assert sum(month["people"] for month in monthly) < sum(day["people"] for day in daily)
    assert all(
        day["percent_logged_in"] <= day["percent_credited"]
        for day in by_section["What share of sessions is credited to a user?"][0]
    )
    devices, platforms = by_section["Who uses several devices?"]
    assert {row["devices"] for row in devices} > {1}
    assert any(row["began_on"] != row["converted_on"] for row in platforms)
    people = by_section["Which campaigns bring people who convert?"][0]
    (shop,) = [row for row in by_section["Several projects in one query"][0] if row["project_id"] == "shop"]
    assert 0 < sum(row["converted"] for row in people) <= sum(row["people"] for row in people) < shop["people"]
