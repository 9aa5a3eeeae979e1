"""Identity stitching: load what landed, stitch it, and say why a row is credited to whom.

Exit codes of every command: 0 for success, 1 for a failure or for something left to do, 2 for a wrong setting or
argument, 130 for Ctrl-C.
"""

from __future__ import annotations

import argparse
import errno
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from stitch_pipeline.cli import (
    accept_vanished,
    completion,
    demo,
    forget,
    preview,
    query,
    rebuild,
    report,
    retry,
    settings,
    settle,
    sources,
    status,
    why,
)
from stitch_pipeline.cli.command import COMPONENT_HELP, EXIT_FAILED, EXIT_INTERRUPTED, EXIT_WRONG_SETTINGS
from stitch_pipeline.deployment import deployment
from stitch_pipeline.landing.index import IndexUnusable
from stitch_pipeline.planning.interruption import interruptible
from stitch_pipeline.settings import SettingsError
from stitch_pipeline.settings.environment import in_force, paths_relative_to
from stitch_pipeline.warehouse.port import WarehouseError

# In the order in which `stitch --help` lists them.
COMMANDS = (
    settle,
    status,
    retry,
    accept_vanished,
    rebuild,
    sources,
    why,
    query,
    report,
    preview,
    forget,
    settings,
    completion,
    demo,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code. Whatever goes wrong is one sentence on standard error."""
    options = parser().parse_args(arguments)
    console = Console(highlight=False, soft_wrap=True, stderr=options.json)
    try:
        with _settings_of(options), interruptible():
            return int(options.run(options, console))
    except SettingsError as error:
        _complain(error)
        return EXIT_WRONG_SETTINGS
    except (IndexUnusable, WarehouseError) as error:
        _complain(error)
        return EXIT_FAILED
    except KeyboardInterrupt:
        _complain("Interrupted. What was committed stays, and the same command goes on from there.")
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # of `stitch … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except Exception as error:
        if _is_of_a_full_disk(error):
            home = os.environ.get("DAGSTER_HOME", "")
            _complain(
                f"Dagster's records in DAGSTER_HOME '{home}' cannot be written, because there is no room left or the "
                "disk fails: free some space there and run the command again. What was committed to the warehouse is "
                "safe."
            )
        elif options.traceback:
            traceback.print_exc()
        else:
            first_line = next(iter(str(error).strip().splitlines()), "")
            _complain(
                f"{type(error).__name__}: {first_line or 'no message'}. This is not expected: run `stitch --traceback "
                f"{options.command} …` to see where it comes from, and report it if it stays."
            )
        return EXIT_FAILED


def parser() -> argparse.ArgumentParser:
    """All commands with their arguments."""
    whole = argparse.ArgumentParser(
        prog="stitch", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    whole.add_argument("--version", action="version", version=f"stitch_pipeline {version('stitch-pipeline')}")
    whole.add_argument("--traceback", action="store_true", help="show where an unexpected error comes from")
    whole.add_argument(
        "--component",
        type=Path,
        metavar="PATH",
        help=COMPONENT_HELP,
    )
    commands = whole.add_subparsers(required=True, metavar="COMMAND", dest="command")
    for command in COMMANDS:
        command.add(commands)
    return whole


@contextmanager
def _settings_of(options: argparse.Namespace) -> Iterator[None]:
    """What ``Settings.load`` returns is set up by a component's YAML, if one is named or the dg project has one."""
    found = deployment(options.component) if options.has_settings else None
    if found is None:
        yield
        return
    with in_force(found.settings), paths_relative_to(found.root):
        yield


def _is_of_a_full_disk(error: BaseException | None) -> bool:
    while error is not None:
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        # SQLite's words, wrapped by SQLAlchemy. The second is about a limit of the process (ulimit -f), for example.
        if full or any(words in str(error) for words in ("database or disk is full", "disk I/O error")):
            return True
        error = error.__cause__ or error.__context__
    return False


def _complain(error: Exception | str) -> None:
    Console(stderr=True, highlight=False, soft_wrap=True).print("[red]error:[/]", escape(str(error)))
