"""The completion scripts, as a shell runs them."""

from __future__ import annotations

import argparse
import subprocess
from collections.abc import Iterator

import pytest

from stitch_pipeline.cli.main import COMMANDS, main, parser

ASKED = """
source /dev/stdin
COMP_WORDS=({words}) COMP_CWORD={position} COMP_TYPE=9
_shtab_stitch 2>/dev/null
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


def completed(script: str, *words: str) -> set[str]:
    program = ASKED.format(words=" ".join(repr(word) for word in words), position=len(words) - 1)
    return set(
        subprocess.run(
            ["bash", "-c", program], input=script, text=True, capture_output=True, timeout=30, check=True
        ).stdout.split()
    )


def test_bash_completes_commands_options_and_choices(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "bash"]) == 0
    script = capsys.readouterr().out
    assert completed(script, "stitch", "se") == {"settle", "settings"}
    assert completed(script, "stitch", "settle", "--v") == {"--view-stitching"}
    assert completed(script, "stitch", "sources", "") == {"check"}
    assert completed(script, "stitch", "preview", "--policy", "d") == {"device_split"}


@pytest.mark.parametrize("shell", ["zsh", "tcsh"])
def test_other_shells_have_a_script_with_every_command(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    for command in COMMANDS:
        assert command.__name__.rpartition(".")[2].replace("_", "-") in script


def test_every_command_has_json() -> None:
    def commands(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
        """The parsers of the commands that do something."""
        below = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
        for action in below:
            for command in action.choices.values():
                yield from commands(command)
        if not below:
            yield parser

    found = list(commands(parser()))
    assert len(found) >= len(COMMANDS)
    for command in found:
        assert "--json" in command._option_string_actions, command.prog
