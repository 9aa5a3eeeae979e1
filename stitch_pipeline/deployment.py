"""Which deployment a command or a notebook is about: a component of the dg project that it is in, or the settings'.

Belongs here: that choice, and ``stitch_pipeline.read``, which makes it too. Does not: loading a component
(``component.py``) or reading files (``stitching.published``).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from stitch_pipeline.settings import Settings, SettingsError
from stitch_pipeline.settings.dg_project import DgProject, dg_project_around
from stitch_pipeline.settings.environment import names_a_warehouse
from stitch_pipeline.startup import large_imports

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True)
class Deployment:
    """The settings of a component, and the root of its dg project."""

    settings: Settings
    root: Path


def deployment(component: Path | None) -> Deployment | None:
    """The named component of the dg project around the working directory, or the only one; None if there is none.

    A warehouse named by the environment, ``.env`` or ``stitch.toml`` comes before a component that has one of its own.
    Raises SettingsError if the component does not load, or if there are several and none is named.
    """
    directory = Path.cwd()
    project = dg_project_around(directory)
    if component is None:
        component = _only_component(project) if project is not None and project.components else None
        if component is None:
            return None
    with large_imports():
        from stitch_pipeline.component import component_at

    return Deployment(component_at(component, directory).settings, project.root if project else directory)


def _only_component(project: DgProject) -> Path | None:
    found = project.components
    if names_a_warehouse():
        found = tuple(one for one in found if not one.names_a_warehouse)
    if len(found) > 1:
        raise SettingsError(
            f"The dg project '{project.root}' has {len(found)} components of identity stitching ({project.listed}): "
            f"say which one, for instance `stitch --component {found[0].path.as_posix()} …`, or component="
            f"'{found[0].path.as_posix()}' in Python."
        )
    return found[0].path if found else None


def read(
    table: str,
    *,
    since: date | str | None = None,
    until: date | str | None = None,
    columns: Collection[str] | None = None,
    directory: str | PathLike[str] | None = None,
    component: str | PathLike[str] | None = None,
) -> DataFrame:
    """The rows of a published table or view as a pandas DataFrame.

    ``since`` and ``until`` are UTC days, both included, as ``date`` or text like ``2025-01-31``. Of a table by day only
    the files of these days are read. ``columns`` are those to read; by default all. The copy is in ``directory``, or
    where the settings say: those of ``component``, or of the one component of the dg project that the working directory
    is in, or ``STITCH_PUBLISHED_DIR``, …. A PostgreSQL database has no copy and is read itself.

    Raises NotPublished if there is no such table, column or copy, and SettingsError if a setting is wrong or if the dg
    project has several components and none is named.
    """
    from stitch_pipeline.stitching.published import published_directory, read_copy, read_database

    if directory is None:
        found = deployment(None if component is None else Path(component))
        settings = found.settings if found else Settings.load()
        if settings.warehouse is not None:
            return read_database(settings, table, since=since, until=until, columns=columns)
        directory = published_directory(settings)
    return read_copy(Path(directory), table, since=since, until=until, columns=columns)
