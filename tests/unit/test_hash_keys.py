"""The keys of hashed ids: named in ``stitch.toml``, kept in the environment, shown nowhere."""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path

import pytest

from stitch_pipeline.settings import Settings, SettingsError
from stitch_pipeline.settings.decisions import Decision, DecisionKind
from stitch_pipeline.settings.environment import paths_relative_to
from stitch_pipeline.settings.hashing import Hashing, hashed, hashed_decisions
from stitch_pipeline.settings.rules import ProjectSettings

KEY = "0123456789abcdef" * 4
TOML = '[projects."a shop"]\nhash_key = "SHOP_KEY"\n'


def settings_of(directory: Path, toml: str = TOML) -> Settings:
    (directory / "stitch.toml").write_text(toml)
    env_file = directory / ".env"
    return Settings.load(project_file=directory / "stitch.toml", env_file=str(env_file) if env_file.exists() else "off")


def test_a_hash_is_that_of_hmac_and_keeps_projects_apart() -> None:
    wanted = hmac.new(bytes.fromhex(KEY), "6:a shopänn".encode(), hashlib.sha256).hexdigest()
    assert hashed(bytes.fromhex(KEY), "a shop", "änn") == f"hashed:{wanted[:32]}"
    hashing = Hashing({"a": bytes.fromhex(KEY), "b": bytes.fromhex(KEY)})
    assert hashing.stored("a", "ann") != hashing.stored("b", "ann")
    assert hashing.stored("c", "ann") == "ann"
    assert hashing.stored("a", hashing.stored("a", "ann")) == hashing.stored("a", "ann")
    assert hashing.stored("a", "forgotten:1") == "forgotten:1"


def test_a_key_comes_from_the_environment_or_else_from_the_env_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert settings_of(tmp_path).hashing == Hashing({}, {"a shop": "SHOP_KEY"})
    (tmp_path / ".env").write_text(f"SHOP_KEY={KEY}\n")
    settings = settings_of(tmp_path)
    assert settings.hashing.keys == {"a shop": bytes.fromhex(KEY)}
    monkeypatch.setenv("SHOP_KEY", "ff" * 32)
    assert settings.hashing.keys == {"a shop": b"\xff" * 32}
    shown = f"{settings!r} {settings.hashing!r} {settings.model_dump()}"
    assert KEY not in shown
    assert "ff" * 32 not in shown
    assert repr(b"\xff" * 32) not in shown


def test_a_key_of_a_component_comes_from_the_env_file_of_its_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("STITCH_ENV_FILE", raising=False)
    (tmp_path / ".env").write_text(f"SHOP_KEY={KEY}\n")
    (tmp_path / "stitch.toml").write_text(TOML)
    with paths_relative_to(tmp_path):
        settings = Settings.load()
    assert settings.hashing.keys == {"a shop": bytes.fromhex(KEY)}, "also when the code location runs elsewhere"


@pytest.mark.parametrize("value", [KEY, KEY.upper(), "shop key", "STITCH_SHOP_KEY", "shop_key"])
def test_what_names_no_variable_is_refused_and_not_shown(value: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as raised:
        settings_of(tmp_path, TOML.replace("SHOP_KEY", value))
    assert "hash_key = (secret): is " in str(raised.value)
    assert value not in str(raised.value)


def test_what_is_no_key_is_refused_and_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_KEY", "tooshort")
    with pytest.raises(SettingsError, match="SHOP_KEY does not hold a key: it is 64 hexadecimal digits") as raised:
        settings_of(tmp_path)
    assert "tooshort" not in str(raised.value)


def test_two_kinds_with_one_path_must_read_it_alike(tmp_path: Path) -> None:
    kinds = '[projects."a shop".identifiers]\nemail = {paths = "traits.login", normalise = "lower"}\n'
    settings_of(tmp_path, TOML + kinds + 'login = {paths = "traits.login", normalise = "lower"}\n')
    with pytest.raises(SettingsError, match=r"traits\.login is read in two ways"):
        settings_of(tmp_path, TOML + kinds + 'login = {paths = "traits.login"}\n')
    login = 'login = {paths = "traits.login", normalise = "lower", blocked = "0+"}\n'
    with pytest.raises(SettingsError, match=r"traits\.login is read in two ways"):
        settings_of(tmp_path, TOML + kinds + login)


def test_decisions_name_what_tables_hold() -> None:
    projects = {"a": ProjectSettings.model_validate({"hash_key": "A", "identifiers": {"email": {"paths": "traits.e"}}})}
    hashing = Hashing({"a": bytes.fromhex(KEY)}, {"gone": "GONE"})
    lines = [
        Decision("a", DecisionKind.same_person, "ann", hashing.stored("a", "bob"), "she said so"),
        Decision("a", DecisionKind.wrong_link, "laptop", "email:x@example.com", ""),
        Decision("a", DecisionKind.wrong_link, "laptop", "device:phone", ""),
        Decision("a", DecisionKind.same_device, "laptop", "phone", ""),
        Decision("a", DecisionKind.wrong_link, "laptop", "login:x", ""),
        Decision("a", DecisionKind.shared_device, "laptop", "", ""),
        Decision("gone", DecisionKind.shared_device, "laptop", "", ""),
        Decision("plain", DecisionKind.shared_device, "laptop", "", "a kiosk"),
    ]
    found = hashed_decisions(lines, hashing, projects)
    ann, bob, laptop = (hashing.stored("a", one) for one in ("ann", "bob", "laptop"))
    assert [(one.id, one.other_id, one.reason) for one in found] == [
        (ann, bob, ""),
        (laptop, f"email:{hashing.stored('a', 'x@example.com')}", ""),
        (laptop, f"device:{hashing.stored('a', 'phone')}", ""),
        (laptop, hashing.stored("a", "phone"), ""),
        (laptop, hashing.stored("a", "login:x"), ""),
        (laptop, "", ""),
        ("laptop", "", "a kiosk"),
    ]
