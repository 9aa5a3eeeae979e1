"""The settings that are documented are the settings that there are."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated

import pytest
from pydantic import Field, SecretStr
from rich.console import Console

from stitch_pipeline.cli.main import main
from stitch_pipeline.cli.settings import all_settings, print_settings
from stitch_pipeline.orchestration.run_config import ModelsConfig, ProposedRules
from stitch_pipeline.settings import Policy, Settings, SettingsError
from stitch_pipeline.settings.rules import UNLIMITED_DAYS

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "settings.md"


def test_the_table_in_the_docs_is_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["settings", "--markdown"]) == 0
    found = re.search(r"<!-- stitch settings --markdown -->\n\n(.*?)\n<!-- end -->", PAGE.read_text("utf-8"), re.DOTALL)
    assert found, "settings.md has no table between the two comments"
    assert found[1] == capsys.readouterr().out


def test_every_setting_has_a_short_description() -> None:
    for setting in all_settings():
        assert 10 < len(setting.description) <= 150, setting.name


def test_the_command_prints_the_values_in_force(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STITCH_LOOKBACK_DAYS", "7")
    (tmp_path / "stitch.toml").write_text("[projects.blog]\nlookback_days = 'unlimited'\nblocked_ids = ['x', 'y']\n")
    assert main(["settings"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "STITCH_LOOKBACK_DAYS = 7; blog: unlimited  (default 30; environment, project, one run, preview)" in lines
    assert "STITCH_MEMORY_LIMIT = not set  (no default; environment)" in lines
    assert "STITCH_INDEX_SECONDS_PER_TICK = 20  (default 20; environment)" in lines
    assert "blocked_ids = blog: x, y  (no default; project)" in lines
    assert main(["settings", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["STITCH_LOOKBACK_DAYS"] == {"value": "7", "default": "30", "projects": {"blog": "unlimited"}}


def test_a_wrong_setting_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("STITCH_LOOKBACK_DAYS", "many")
    assert main(["settings"]) == 2
    assert "STITCH_LOOKBACK_DAYS = 'many'" in capsys.readouterr().err


def test_the_launchpad_has_the_rules_that_may_be_given_for_one_run() -> None:
    fields = ModelsConfig.to_fields_dict()
    assert {"session_stitching", "policy", "lookback_days"} <= fields.keys()
    assert fields["lookback_days"].description == (
        "Days before a login within which anonymous rows are credited, `unlimited`, or a time as `24h` or `30m`. "
        "`as_set`: as the settings say, per project."
    )
    for unlimited in (UNLIMITED_DAYS, "unlimited"):
        config = ModelsConfig.model_validate({"policy": "first", "lookback_days": unlimited})
        assert config.options.exceptions == {"policy": Policy.first, "lookback_days": None}
    config = ModelsConfig.model_validate({"lookback_days": "24 hours"})
    assert config.options.exceptions == {"lookback_days": "24h"}
    for nothing in (None, "", "as_set"):
        assert ModelsConfig.model_validate({"lookback_days": nothing}).options.exceptions == {}
    assert ModelsConfig().options.exceptions == {}
    assert {"policy", "lookback_days", "carry_forward_days", "max_users_per_device"} < ProposedRules.model_fields.keys()


def test_the_launchpad_says_what_is_wrong_with_a_switch() -> None:
    assert ModelsConfig.model_validate({"view_stitching": False}).options.view_stitching is False
    assert ModelsConfig().options.view_stitching is None
    with pytest.raises(SettingsError, match=r"view_stitching = 'maybe': must be true, false or as_set\."):
        _ = ModelsConfig.model_validate({"view_stitching": "maybe"}).options


class SettingsWithSecrets(Settings):
    """As a deployment has them that needs a password."""

    signing_key: Annotated[SecretStr | None, Field(min_length=8)] = None
    """A key that nobody may read."""


def test_a_secret_is_neither_printed_nor_in_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STITCH_SIGNING_KEY", "hunter2-hunter2")
    print_settings(SettingsWithSecrets.load(), Console(highlight=False, soft_wrap=True))
    printed = capsys.readouterr().out
    assert "STITCH_SIGNING_KEY = (secret)  (no default; environment)" in printed
    assert "hunter2" not in printed
    monkeypatch.setenv("STITCH_SIGNING_KEY", "hunter2")
    with pytest.raises(SettingsError) as error:
        SettingsWithSecrets.load()
    assert "STITCH_SIGNING_KEY = (secret): " in str(error.value)
    assert "hunter2" not in str(error.value)
