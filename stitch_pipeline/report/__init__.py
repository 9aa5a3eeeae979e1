"""Pages to look at: the report of each project, and the page of one person.

Belongs here: rendering figures as self-contained HTML. Does not: finding the figures (``stitching.figures``,
``stitching.person``), or when a page is written (``orchestration``, ``cli``). The libraries that render are imported
when a page is written, because other runs should not pay for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from stitch_pipeline.settings import Settings
from stitch_pipeline.stitching.figures import Figures, JobState, read_figures

if TYPE_CHECKING:
    from stitch_pipeline.stitching.person import PersonHistory


def write_reports(settings: Settings, directory: Path, jobs: Sequence[JobState] = ()) -> list[Path]:
    """Write the report of every project, and an index of them, into the directory; the index is first.

    ``jobs`` are shown with the health of the deployment. Raises as ``read_figures`` does: WarehouseBusy, for instance,
    while a run has the warehouse.
    """
    return write_figures(read_figures(settings, jobs=jobs), directory)


def write_figures(figures: Figures, directory: Path) -> list[Path]:
    """Write the pages of figures that were read, the index first. Each file is replaced as a whole.

    A page to which the index before linked and this one does not is deleted: its project has no rows any more.
    """
    from stitch_pipeline.report.pages import index_page, page_name, pages_of_index, project_page, write_page

    index = directory / "index.html"
    names = {project.project_id: page_name(project.project_id) for project in figures.projects}
    pages = [directory / names[project.project_id] for project in figures.projects]
    for project, path in zip(figures.projects, pages, strict=True):
        write_page(path, project_page(project, figures, index=index.name))
    # The index comes after the pages and before what is deleted, so that it never links to a page that is not there.
    gone = pages_of_index(index) - set(names.values())
    write_page(index, index_page(figures, names))
    for name in gone:
        (directory / name).unlink(missing_ok=True)
    return [index, *pages]


def write_report(settings: Settings, project_id: str, place: Path, jobs: Sequence[JobState] = ()) -> Path:
    """Write the report of one project, without an index: to ``place``, or into it if it is a directory.

    Raises as ``read_figures`` does.
    """
    figures = read_figures(settings, project_id, jobs)
    from stitch_pipeline.report.pages import page_name, project_page, write_page

    path = place if place.suffix in (".html", ".htm") else place / page_name(project_id)
    (project,) = figures.projects
    write_page(path, project_page(project, figures))
    return path


def write_person(history: PersonHistory, path: Path) -> None:
    """Write the page of a user or a device. It shows ids."""
    from stitch_pipeline.report.pages import person_page, write_page

    write_page(path, person_page(history, datetime.now(UTC).replace(tzinfo=None)))
