"""Settings: where they come from, and one clear sentence for each that is wrong."""

import re
from pathlib import Path

import duckdb
import pytest

from stitch_pipeline.settings import ProjectSettings, Settings, SettingsError
from stitch_pipeline.settings.environment import paths_relative_to
from stitch_pipeline.settings.rules import as_stored

A_WINDOW = r"must be a number of days \(0 to 36500\), hours as 24h, minutes as 30m, or unlimited"


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
    ("written", "held", "stored"),
    [
        ("24h", "24h", (None, 1440)),
        ("24 hours", "24h", (None, 1440)),
        ("1hour", "1h", (None, 60)),
        ("30m", "30m", (None, 30)),
        ("90 minutes", "90m", (None, 90)),
        ("0h", "0h", (None, 0)),
        ("0", 0, (0, None)),
        ("36500", None, (36500, None)),
        ("unlimited", None, (36500, None)),
        ("876000h", "876000h", (None, 52_560_000)),
    ],
)
def test_a_window_is_counted_in_days_or_by_the_clock(
    written: str, held: int | str | None, stored: tuple[int | None, int | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STITCH_LOOKBACK_DAYS", written)
    rules = Settings.load().rules("shop")
    assert rules.lookback_days == held
    assert as_stored("lookback_days", held) == dict(zip(("lookback_days", "lookback_minutes"), stored, strict=True))


@pytest.mark.parametrize("written", ["1.5", "-1h", "24 h ours", "1d", "36501", "876001h", "true", "٣x"])
def test_other_windows_are_refused(written: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STITCH_CARRY_FORWARD_DAYS", written)
    with pytest.raises(SettingsError, match=A_WINDOW):
        Settings.load()


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        (
            "STITCH_LOOKBAK_DAYS",
            "3",
            r"^The environment variable STITCH_LOOKBAK_DAYS is not a setting: did you mean STITCH_LOOKBACK_DAYS\?$",
        ),
        ("STITCH_XYZZY", "3", "STITCH_XYZZY is not a setting: `stitch settings --markdown` lists the settings.$"),
        ("STITCH_LOOKBACK_DAYS", "soon", rf"STITCH_LOOKBACK_DAYS = 'soon': {A_WINDOW}"),
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


EMAIL = '[projects.shop.identifiers.email]\npaths = "traits.email"\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "[projects.shop]\nlookback = 3\n",
            r"stitch.toml: projects.shop.lookback is not a setting: did you mean lookback_days\?",
        ),
        ('[feeds.jitsu]\nprojectid = "x"\n', r"feeds.jitsu.projectid is not a setting: did you mean project_id\?"),
        (
            '[projects.shop.identifiers.email]\npath = "traits.email"\n',
            r"projects.shop.identifiers.email.path is not a setting: did you mean paths\?",
        ),
        ("start_dat = 2026-01-01\n", r"stitch.toml: start_dat is not a setting: did you mean start_date\?$"),
        ("[project.shop]\npolicy = 'first'\n", r"stitch.toml: project is not a setting: did you mean projects\?$"),
        ("lookback_days = -1\n", rf"stitch.toml: lookback_days = '-1': {A_WINDOW}"),
        ('start_date = "May"\n', r"stitch.toml: start_date = 'May': "),
        ('project_file = "x"\n', "project_file cannot be set here: set STITCH_PROJECT_FILE in the environment"),
        ('forget_key = "x"\n', "forget_key cannot be set here: set STITCH_FORGET_KEY in the environment"),
        ("[projects.shop]\nlookback_days = -1\n", "projects.shop.lookback_days = '-1'"),
        ('[feeds.web]\nproject_id = "shop"\n', "feeds.web needs a source, one of jitsu, segment"),
        (
            '[feeds.web]\nsource = "jitzu"\n',
            "feeds.web.source = 'jitzu': is no source; the sources are: jitsu, segment",
        ),
        (
            '[feeds.jitsu.fields]\nuserid = "x"\n',
            "'userid' is no field of an event; did you mean user_id. these are: event_id, ",
        ),
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
            "projects.shop: unique_identifiers names 'email'; the kinds are: user",
        ),
        *(
            (f"[projects.shop.limits]\n{limits}\n" + EMAIL, message)
            for limits, message in (
                ("phone.user = 1", "limits names 'phone'; the kinds are: device, user, email"),
                ("device.user = 1", "limits.device.user is no limit of its own: set max_users_per_device"),
                ("device.per_person = 1", r"limits.device names 'per_person'; it can limit: email\.$"),
                ("user.user = 1", r"limits.user names 'user'; it can limit: device, email, per_person\.$"),
                ("email.phone = 1", r"limits.email names 'phone'; it can limit: device, user, per_person\.$"),
                ("email.user = 0", "projects.shop.limits.email.user = '0': input should be greater than or equal to 1"),
            )
        ),
        (
            '[projects.shop]\nunique_identifiers = "user"\n[projects.shop.limits.user]\nper_person = 2\n',
            "limits.user.per_person = 2, but unique_identifiers names 'user'",
        ),
        *(
            (
                f"[projects.shop]\nblocked_patterns = '{pattern}'\n",
                re.escape(f"'{pattern}' has {found}, which engines read in different ways or not at all: avoid it"),
            )
            for pattern, found in (
                (r"\btest", r"\b"),
                (r"(a)\1", r"\1"),
                ("(?=a)a", "(?="),
                ("a++", "++"),
                ("a{,3}", "{,"),
                ("[[:alpha:]]+", "[:"),
            )
        ),
        ("[projects.shop]\nblocked_patterns = '('\n", r"'\(' is no regular expression: "),
        ("[projects", "is not valid TOML"),
    ],
)
def test_a_wrong_project_file_is_named_with_the_key(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        Settings.load(project_file=project_file(tmp_path, text))


@pytest.mark.parametrize("pattern", ["^[0-]+$", r"test\.\w+@[^@\s]+", "(?:a|b){2,3}[*+?{]+", r"\d{4}-\S+?"])
def test_what_every_engine_reads_alike_is_a_pattern(pattern: str) -> None:
    assert ProjectSettings(blocked_patterns=(pattern,)).blocked_patterns == (pattern,)
    assert duckdb.execute("select regexp_full_match('x', $pattern)", {"pattern": pattern}).fetchall() == [(False,)]


def test_view_stitching_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STITCH_VIEW_STITCHING", "off")
    assert not Settings.load().view_stitching_is_on


def test_the_message_is_one_line_for_each_thing_that_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.load(project_file=project_file(tmp_path, "[projects.a]\nx = 1\ny = 2\n"))
    assert str(caught.value).count("is not a setting") == 2
    assert "\n" not in str(caught.value)


@pytest.fixture
def deployment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current directory whose .env counts, which the other tests switch off."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("STITCH_ENV_FILE")
    return tmp_path


def test_the_environment_comes_before_the_env_file_and_that_before_the_project_file(
    deployment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lookback_days() -> int | str | None:
        return Settings.load().lookback_days

    assert lookback_days() == 30
    project_file(deployment, "lookback_days = 4\n")
    assert lookback_days() == 4
    (deployment / ".env").write_text("# ours\nSTITCH_LOOKBACK_DAYS=3\nexport DAGSTER_HOME='/elsewhere'\n")
    assert lookback_days() == 3
    monkeypatch.setenv("STITCH_LOOKBACK_DAYS", "2")
    assert lookback_days() == 2
    assert Settings.load(lookback_days=1).lookback_days == 1
    # The files were followed, not copied into the environment of the processes that this one starts.
    monkeypatch.delenv("STITCH_LOOKBACK_DAYS")
    (deployment / ".env").unlink()
    assert lookback_days() == 4


def test_paths_in_the_project_file_are_relative_to_it_and_others_to_the_current_directory(
    deployment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = deployment / "shop"
    shop.mkdir()
    project_file(shop, 'landing_dir = "landing"\nstart_date = 2026-02-03\noverrides_file = "/etc/overrides.csv"\n')
    (shop / "overrides.csv").write_text("project_id,decision,id,other_id,reason\n")
    monkeypatch.setenv("STITCH_PROJECT_FILE", "shop/stitch.toml")
    monkeypatch.setenv("STITCH_OVERRIDES_FILE", "shop/overrides.csv")
    (deployment / ".env").write_text("STITCH_DUCKDB_PATH=w.duckdb\n")
    settings = Settings.load()
    assert settings.landing_dir == shop / "landing"
    assert settings.duckdb_path == deployment / "w.duckdb"
    assert settings.overrides_file == shop / "overrides.csv"
    assert str(settings.start_date) == "2026-02-03"


def test_the_published_directory_is_a_path_like_the_others_or_off(deployment: Path) -> None:
    shop = deployment / "shop"
    shop.mkdir()
    path = project_file(shop, 'published_dir = "off"\n')
    assert Settings.load(project_file=path).publishes_to is None
    project_file(shop, 'published_dir = "copy"\n')
    assert Settings.load(project_file=path).publishes_to == shop / "copy"
    # As a component loads its YAML, from whatever directory Dagster was started in.
    with paths_relative_to(shop):
        assert Settings.load(published_dir="data/copy").publishes_to == shop / "data" / "copy"
        assert Settings.load(published_dir="off").publishes_to is None


def test_the_project_file_sets_a_default_that_a_project_overrides(deployment: Path) -> None:
    project_file(deployment, 'policy = "first"\nlookback_days = "unlimited"\n[projects.shop]\nlookback_days = 9\n')
    rules = Settings.load().rules("shop")
    assert (rules.policy, rules.lookback_days) == ("first", 9)
    assert Settings.load().rules("blog").lookback_days is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "STITCH_LOOKBAK_DAYS=3\n",
            r"^\.env: STITCH_LOOKBAK_DAYS is not a setting: did you mean STITCH_LOOKBACK_DAYS\?$",
        ),
        ("STITCH_LOOKBACK_DAYS=soon\n", rf"^\.env: STITCH_LOOKBACK_DAYS = 'soon': {A_WINDOW}"),
        ("STITCH_FORGET_KEY=\nSTITCH_START_DATE=May\n", r"^\.env: STITCH_START_DATE = 'May': "),
        ("STITCH_PROJECT_FILE=no.toml\n", "STITCH_PROJECT_FILE names 'no.toml', which does not exist"),
    ],
)
def test_a_wrong_line_of_the_env_file_is_named(deployment: Path, text: str, message: str) -> None:
    (deployment / ".env").write_text(text)
    with pytest.raises(SettingsError, match=message):
        Settings.load()


def test_another_env_file_can_be_named_and_must_exist(deployment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (deployment / ".env").write_text("STITCH_LOOKBACK_DAYS=3\n")
    (deployment / "other").write_text("STITCH_LOOKBACK_DAYS=4\n")
    monkeypatch.setenv("STITCH_ENV_FILE", "other")
    assert Settings.load().lookback_days == 4
    monkeypatch.setenv("STITCH_ENV_FILE", "off")
    assert Settings.load().lookback_days == 30
    monkeypatch.setenv("STITCH_ENV_FILE", "nothing")
    with pytest.raises(SettingsError, match="STITCH_ENV_FILE names 'nothing', which does not exist"):
        Settings.load()


def test_a_secret_in_the_env_file_is_in_no_error(deployment: Path) -> None:
    (deployment / ".env").write_text("STITCH_FORGET_KEY=hunter2\nSTITCH_LOOKBACK_DAYS=hm\n")
    with pytest.raises(SettingsError) as caught:
        Settings.load()
    assert "hunter2" not in str(caught.value)
