"""The folder of the warehouse, which also holds the index of the landing zone and the lock of ``settle``."""

from __future__ import annotations

import os
from pathlib import Path

from stitch_pipeline.settings.errors import SettingsError

_ELSEWHERE = "set STITCH_DUCKDB_PATH to a place you may write"


def prepare_folder(path: Path) -> None:
    """Make it possible to write a file at ``path``: its folder is created if it is missing.

    Raises SettingsError if the path is a directory, or if its folder cannot be created or written.
    """
    folder = path.parent
    if path.is_dir():
        raise SettingsError(
            f"'{path}' is a directory, and has to be a file: set STITCH_DUCKDB_PATH to the path of a file, such as "
            f"'{path / 'warehouse.duckdb'}'."
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(
            f"The warehouse's directory '{folder}' cannot be created ({error.strerror}): {_ELSEWHERE}."
        ) from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise SettingsError(
            f"The warehouse's directory '{folder}' cannot be written (read-only, or not yours): make it writable, or "
            f"{_ELSEWHERE}."
        )
