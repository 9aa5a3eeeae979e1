"""What every command shares: how it is declared, its exit codes, ``--json``, and Dagster's instance.

A command is one module with ``add(commands)``, named in ``main.COMMANDS``. It imports what is large when it runs.
"""

from __future__ import annotations

import argparse
import errno
import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from stitch_pipeline.settings import Settings, SettingsError
from stitch_pipeline.settings.environment import base_dir
from stitch_pipeline.shipped_files import DAGSTER_YAML
from stitch_pipeline.startup import large_imports

if TYPE_CHECKING:
    from dagster import DagsterInstance, Definitions

EXIT_OK, EXIT_FAILED, EXIT_WRONG_SETTINGS, EXIT_INTERRUPTED = 0, 1, 2, 130

COMPONENT_HELP = (
    "take the settings from this component of the dg project around the current directory, such as identity; by "
    "default the only one there is, unless STITCH_DUCKDB_PATH or stitch.toml names a warehouse"
)
Commands = Any
"""What ``ArgumentParser.add_subparsers`` returns; argparse has no public name for it."""
Run = Callable[[argparse.Namespace, Console], int]


def add_command(
    commands: Commands,
    name: str,
    run: Run,
    help: str,  # noqa: A002
    *,
    has_settings: bool = True,
) -> argparse.ArgumentParser:
    """Declare a command. ``run`` returns its exit code; with ``--json`` it prints one JSON document and nothing else.

    What a command prints for people goes to the console that it is given. With ``--json`` that is standard error.
    A command without settings does not look for a component.
    """
    parser: argparse.ArgumentParser = commands.add_parser(name, help=help, description=help)
    parser.add_argument("--json", action="store_true", help="print one JSON document; all else goes to standard error")
    # Suppressed, or the default would replace what stands before the command.
    parser.add_argument(
        "--component", type=Path, metavar="PATH", default=argparse.SUPPRESS, help="as before the command"
    )
    parser.set_defaults(run=run, has_settings=has_settings)
    return parser


def print_json(value: Any) -> None:
    """Print a dataclass, or a dict of them, as one line; see ``as_json``."""
    print(as_json(value))


def as_json(value: Any) -> str:
    """A dataclass, or a dict of them, as JSON. Dates and times are ISO 8601, paths are text."""
    return json.dumps(value, default=_plain)


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return value.isoformat() if isinstance(value, date) else str(value)  # a datetime is a date


def positive(text: str) -> int:
    """The type of an argument that is a whole number from 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number of at least 1")
    return int(text)


def completes_paths(argument: argparse.Action) -> None:
    """A shell completes the argument with the names of files and directories."""
    argument.complete = {"bash": "_shtab_compgen_files", "zsh": "_files", "tcsh": "f"}  # type: ignore[attr-defined]


def definitions(settings: Settings) -> Definitions:
    """All definitions. They need dbt, so they are loaded when there is something to run."""
    with large_imports():
        from stitch_pipeline.definitions import build_defs
    return build_defs(settings)


def dagster_home() -> Path:
    """DAGSTER_HOME, by default ``dagster_home`` in the current directory, or in the root of the component's project."""
    return Path(os.environ.get("DAGSTER_HOME") or base_dir() / "dagster_home").resolve()


@contextmanager
def dagster_instance() -> Iterator[DagsterInstance]:
    """The instance of ``dagster_home``. The default one gets the configuration for one writer at a time.

    Without a home, Dagster keeps its records in a temporary directory and loses them. Raises SettingsError if the
    directory cannot be used.
    """
    with large_imports():
        from dagster import DagsterError, DagsterInstance

    is_own = not os.environ.get("DAGSTER_HOME")
    home = dagster_home()
    os.environ["DAGSTER_HOME"] = str(home)
    try:
        home.mkdir(parents=True, exist_ok=True)
        lock = (home / ".stitch.lock").open("a")
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise SettingsError(
            f"DAGSTER_HOME '{home}' cannot be used ({error.strerror}): set it to a directory that you may write."
        ) from None
    # Dagster creates its tables when it first needs them, and fails if another process creates them at the same time.
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if is_own and not (home / DAGSTER_YAML.name).exists():
            shutil.copy(DAGSTER_YAML, home)
        try:
            with large_imports():  # of the instance's storage
                instance = DagsterInstance.get()
        except DagsterError as error:
            first_line = str(error).strip().splitlines()[0]
            raise SettingsError(
                f"'{home / DAGSTER_YAML.name}' is not a configuration that Dagster accepts ({first_line}): correct it."
            ) from None
        instance.get_runs(limit=1)
        instance.all_asset_keys()
        instance.all_instigator_state()
    with instance:
        yield instance
