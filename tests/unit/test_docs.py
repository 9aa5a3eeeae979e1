"""What the docs repeat from elsewhere is what stands there."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

from stitch_pipeline.settings import Policy, Settings
from stitch_pipeline.settings.decisions import DecisionKind

DOCS = Path(__file__).resolve().parent.parent.parent / "docs"


def test_the_columns_in_the_docs_are_those_of_the_models() -> None:
    page = (DOCS / "tables.md").read_text("utf-8")
    assert runpy.run_path(str(DOCS / "write_reference.py"))["with_reference"](page) == page
    assert "### stitched_sessions" in page
    assert "stale_partitions" not in page


def test_the_examples_are_what_the_settings_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, copied in (("stitch.toml", "stitch.toml"), ("overrides.csv", "overrides.csv"), ("env.example", ".env")):
        (tmp_path / copied).write_text((DOCS / "examples" / name).read_text("utf-8"), "utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("STITCH_ENV_FILE", raising=False)
    settings = Settings.load()
    assert settings.duckdb_path == Path("/var/lib/stitch/warehouse.duckdb")
    assert settings.view_stitching == "0 4 * * *"
    assert settings.alert_url is not None
    assert (settings.rules("shop").policy, settings.rules("shop").lookback_days) == (Policy.device_split, 60)
    assert (settings.rules("app").policy, set(settings.rules("app").identifiers)) == (Policy.graph, {"email"})
    assert settings.feed("tills").source == "custom"
    assert {decision.kind for decision in settings.decisions} == set(DecisionKind)


def test_every_rule_of_another_tool_has_a_scenario() -> None:
    page = (DOCS / "other-tools.md").read_text("utf-8")
    (table,) = re.findall(r"\| tool \| .*? \| scenario \|\n\| --- .*\n((?:\|.*\n)+)", page)
    named = [re.findall(r"`([a-z0-9_]+)`", line.split("|")[-2]) for line in table.splitlines()]
    assert all(named)
    scenarios = {path.stem for path in (DOCS.parent / "tests" / "conformance" / "scenarios").glob("*.yaml")}
    assert {name for names in named for name in names} <= scenarios
