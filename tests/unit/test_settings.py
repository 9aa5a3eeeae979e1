"""Settings: where they come from, and one clear sentence for each that is wrong."""

from pathlib import Path

import pytest

from stitch_pipeline.settings import Settings, SettingsError


def project_file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "stitch.toml"
    path.write_text(text)
    return path


def test_the_environment_sets_defaults_and_the_project_file_overrides_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STITCH_LOOKBACK_DAYS", "7")
    monkeypatch.setenv("STITCH_CARRY_FORWARD_DAYS", "null")
    path = project_file(tmp_path, '[projects.shop]\nlookback_days = 90\nblocked_ids = ["test-user"]\n')
    settings = Settings.load(project_file=path)
    assert settings.rules("shop").lookback_days == 90
    assert settings.rules("shop").blocked_ids == ("test-user",)
    assert settings.rules("blog").lookback_days == 7
    assert settings.rules("blog").carry_forward_days is None


def test_an_unlimited_lookback_is_null(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STITCH_LOOKBACK_DAYS", "null")
    assert Settings.load().lookback_days is None


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("STITCH_LOOKBAK_DAYS", "3", "STITCH_LOOKBAK_DAYS is not a setting"),
        ("STITCH_LOOKBACK_DAYS", "soon", "STITCH_LOOKBACK_DAYS = 'soon': input should be a valid integer"),
        ("STITCH_VIEW_STITCHING", "weekly", "STITCH_VIEW_STITCHING = 'weekly': is not a cron expression"),
        ("STITCH_DAILY_CRON", "61 * * * *", "STITCH_DAILY_CRON = '61 \\* \\* \\* \\*': is not a cron expression"),
        ("STITCH_START_DATE", "first of May", "STITCH_START_DATE = 'first of May'"),
        ("STITCH_PROJECT_FILE", "/nowhere/stitch.toml", "which does not exist: create it, or unset the variable"),
        ("STITCH_DUCKDB_PATH", "/tmp/stitch.duckdb", "must not be named after the schema"),
        ("STITCH_MEMORY_LIMIT", "plenty", "STITCH_MEMORY_LIMIT = 'plenty': is not a size such as 4GB"),
    ],
)
def test_a_wrong_variable_is_named_with_its_value(
    variable: str, value: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError, match=message):
        Settings.load()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[projects.shop]\nlookback = 3\n", "projects.shop.lookback is not a setting"),
        ("[projects.shop]\nlookback_days = -1\n", "projects.shop.lookback_days = '-1'"),
        ('[feeds.web]\nproject_id = "shop"\n', "feeds.web needs a source, one of jitsu, segment"),
        (
            '[feeds.web]\nsource = "jitzu"\n',
            "feeds.web.source = 'jitzu': is no source; the sources are: jitsu, segment",
        ),
        ('[feeds.jitsu.fields]\nuserid = "x"\n', "'userid' is no field of an event; these are: event_id, "),
        ('[feeds.jitsu.fields]\nuser_id = "a..b"\n', r"'a..b' is not a path: at '..b' a name"),
        ('[feeds.jitsu]\ntimes = "minutes"\n', "feeds.jitsu.times = 'minutes': input should be 'iso8601'"),
        (
            '[projects.shop]\npolicy = "newest"\n',
            "projects.shop.policy = 'newest': input should be 'latest', 'first', 'device_split', 'next_identify' or",
        ),
        (
            '[projects.shop.identifiers.email]\npaths = "email"\n',
            "projects.shop.identifiers.email.paths = .*: 'email' is no place to look: write traits.<field>",
        ),
        (
            '[projects.shop.identifiers.email]\npaths = "traits.emails[0]"\n',
            r"'traits.emails\[0\]' is no plain path: write names joined by dots",
        ),
        (
            '[projects.shop.identifiers.email]\npaths = "traits.*.email"\n',
            r"'traits.\*.email' is no plain path: write names joined by dots",
        ),
        (
            '[projects.shop.identifiers.device]\npaths = "traits.id"\n',
            "'device' cannot name a kind of identifier: take another word",
        ),
        (
            '[projects.shop.identifiers.email]\npaths = "traits.email"\nnormalise = "upper"\n',
            "projects.shop.identifiers.email.normalise.0 = 'upper': input should be 'trim', 'lower' or 'digits'",
        ),
        (
            '[projects.shop]\nunique_identifiers = ["email"]\n',
            "projects.shop = .*: unique_identifiers names 'email'; the kinds are: user",
        ),
        ("[projects", "is not valid TOML"),
    ],
)
def test_a_wrong_project_file_is_named_with_the_key(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        Settings.load(project_file=project_file(tmp_path, text))


def test_view_stitching_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STITCH_VIEW_STITCHING", "off")
    assert not Settings.load().view_stitching_is_on


def test_the_message_is_one_line_for_each_thing_that_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.load(project_file=project_file(tmp_path, "[projects.a]\nx = 1\ny = 2\n"))
    assert str(caught.value).count("is not a setting") == 2
    assert "\n" not in str(caught.value)
