"""The Makefile's commands, as make would run them."""

from __future__ import annotations

import subprocess

import pytest
from warehouses import REPOSITORY


@pytest.mark.parametrize("target", ["dev", "demo-ui"])
def test_the_ui_is_served_to_this_machine_only(target: str) -> None:
    printed = subprocess.run(
        ["make", "--dry-run", "--assume-old=.venv/.ready", target],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    (command,) = [line for line in printed.stdout.splitlines() if "dagster dev" in line]
    # Said in the command, because a variable in the environment would change the default.
    assert command.endswith("--host 127.0.0.1")
