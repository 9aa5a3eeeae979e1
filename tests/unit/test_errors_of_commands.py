"""What goes wrong with a command is one sentence on standard error, with what to do, and an exit code."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from stitch_pipeline.cli import main as cli
from stitch_pipeline.cli.command import Commands, add_command


@pytest.fixture(autouse=True)
def deployment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("STITCH_ENV_FILE")
    monkeypatch.setenv("DAGSTER_HOME", "")
    return tmp_path


def said(capsys: pytest.CaptureFixture[str]) -> str:
    """The sentence of the error; nothing else was printed."""
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: ")
    assert printed.err.count("\n") == 1
    return printed.err.removeprefix("error: ").rstrip()


def test_files_of_settings_that_cannot_be_read(deployment: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (deployment / ".env").mkdir()
    assert cli.main(["settings"]) == 2
    assert said(capsys).startswith("'.env' cannot be read (")
    (deployment / ".env").rmdir()
    (deployment / "stitch.toml").mkdir()
    assert cli.main(["settings", "--json"]) == 2
    assert said(capsys) == "stitch.toml cannot be read (Is a directory): make it a readable file."
    (deployment / "stitch.toml").rmdir()
    (deployment / "stitch.toml").write_bytes(b"\xff")
    assert cli.main(["settings"]) == 2
    assert said(capsys).startswith("stitch.toml is not valid TOML: ")


def test_a_dagster_home_that_cannot_be_used(
    deployment: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = deployment / "home"
    home.write_text("")
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    assert cli.main(["status"]) == 2
    assert (
        said(capsys) == f"DAGSTER_HOME '{home}' cannot be used (File exists): set it to a directory that you may write."
    )
    home.unlink()
    home.mkdir()
    (home / "dagster.yaml").write_text("storrage: 1\n")
    assert cli.main(["status"]) == 2
    assert said(capsys).startswith(f"'{home / 'dagster.yaml'}' is not a configuration that Dagster accepts (")


def test_without_a_warehouse_there_is_nothing_to_explain(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["why", "--project", "shop", "--anonymous-id", "a", "--json"]) == 1
    assert said(capsys).startswith("There is no warehouse at")


def test_an_unexpected_error_is_a_sentence_unless_one_asks_for_more(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    errors: list[BaseException] = [LookupError("first line\nsecond line"), KeyboardInterrupt()]

    def run(options: argparse.Namespace, console: Console) -> int:
        raise errors[0]

    def add(commands: Commands) -> None:
        add_command(commands, "break", run, "raise an error")

    monkeypatch.setattr(cli, "COMMANDS", (SimpleNamespace(add=add),))
    assert cli.main(["break"]) == 1
    assert said(capsys).startswith("LookupError: first line. This is not expected: run `stitch --traceback break …`")
    assert cli.main(["--traceback", "break"]) == 1
    assert "Traceback" in capsys.readouterr().err
    errors.pop(0)
    assert cli.main(["break"]) == 130
    assert said(capsys).startswith("Interrupted. What was committed stays")


def test_a_reader_that_goes_away_is_no_error() -> None:
    program = f"{sys.executable} -m stitch_pipeline settings | head -1 >/dev/null"
    ended = subprocess.run(program, shell=True, env=os.environ, text=True, capture_output=True, check=True)
    assert ended.stderr == ""
