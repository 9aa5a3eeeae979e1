"""The dg project around a directory, and its components of identity stitching, by their files.

Belongs here: what the files' text says, because every command looks. Does not: loading a component (``component.py``).
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_TYPE = r"stitch_pipeline(\.component)?\.IdentityStitching"
_IN_YAML = re.compile(rf"""^type:\s*["']?{_TYPE}["']?\s*(#.*)?$""", re.MULTILINE)
_WAREHOUSE = re.compile(r"^\s+duckdb_path:(?!.*STITCH_DUCKDB_PATH)", re.MULTILINE)


@dataclass(frozen=True)
class FoundComponent:
    """A component that a file of the project describes."""

    path: Path
    """Below the directory of definitions, as ``--component`` takes it."""
    names_a_warehouse: bool
    """Whether it has a warehouse of its own, and not the one that the environment or ``stitch.toml`` names."""


@dataclass(frozen=True)
class DgProject:
    """A dg project."""

    root: Path
    components: tuple[FoundComponent, ...]
    """Those of type ``stitch_pipeline.IdentityStitching``, sorted by path."""

    @property
    def listed(self) -> str:
        """The paths of the components."""
        return ", ".join(dict.fromkeys(found.path.as_posix() for found in self.components))


def dg_project_around(directory: Path) -> DgProject | None:
    """The project of the directory or of its nearest parent that has one; None if there is none."""
    for folder in (directory, *directory.parents):
        if (config := _config_of(folder)) is not None:
            project = config.get("project", {})
            name = project.get("defs_module") or f"{project.get('root_module')}.defs"
            if config.get("directory_type") != "project" or not isinstance(name, str):
                return None  # a workspace of several projects
            source = folder / "src" if (folder / "src").is_dir() else folder
            found = _components_below(source.joinpath(*name.split(".")))
            return DgProject(folder, tuple(sorted(found, key=lambda one: one.path)))
    return None


def _config_of(folder: Path) -> dict[str, Any] | None:
    """What `dg` reads in this folder. A `dg.toml` comes before the `pyproject.toml` beside it."""
    for path in (folder / "dg.toml", folder / "pyproject.toml"):
        try:
            found = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
            continue
        config = found if path.name == "dg.toml" else found.get("tool", {}).get("dg")
        if config is not None:
            return config
    return None


def _components_below(defs: Path) -> Iterator[FoundComponent]:
    for directory, folders, files in os.walk(defs):
        folders[:] = [name for name in folders if name != "__pycache__" and not name.startswith(".")]
        folder = Path(directory)
        yaml = next((name for name in ("defs.yaml", "defs.yml", "component.yaml") if name in files), None)
        if yaml is not None:
            for document in re.split(r"^---.*$", _text_of(folder / yaml), flags=re.MULTILINE):
                if _IN_YAML.search(document):
                    yield FoundComponent(folder.relative_to(defs), bool(_WAREHOUSE.search(document)))
        for name in files:
            text = _text_of(folder / name) if name.endswith(".py") else ""
            if "component_instance" in text and "IdentityStitching(" in text:
                yield FoundComponent((folder / name).relative_to(defs), "duckdb_path" in text)


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""  # `dg check` says what is wrong with it
