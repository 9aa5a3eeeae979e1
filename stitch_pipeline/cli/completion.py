"""``stitch completion SHELL``: the script with which a shell completes commands, options and paths."""

from __future__ import annotations

import argparse

from rich.console import Console

from stitch_pipeline.cli.command import EXIT_OK, Commands, add_command, print_json

_SHELLS = ("bash", "zsh", "tcsh")


def add(commands: Commands) -> None:
    completion = add_command(commands, "completion", run, "print the completion script of a shell", has_settings=False)
    completion.add_argument("shell", choices=_SHELLS)


def run(options: argparse.Namespace, console: Console) -> int:
    import shtab

    from stitch_pipeline.cli.main import parser

    script = shtab.complete(parser(), shell=options.shell)
    if options.json:
        print_json({"shell": options.shell, "script": script})
    else:
        print(script)
    return EXIT_OK
