"""``stitching_report``: a page per project that shows what stitching did. A job of its own writes it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from dagster import AssetExecutionContext, AssetsDefinition, MaterializeResult, MetadataValue, TableRecord, asset

from stitch_pipeline.orchestration.exposure import hides_values
from stitch_pipeline.orchestration.jobs import JOBS, REPORT
from stitch_pipeline.orchestration.placement import Placement, key_of, names_of
from stitch_pipeline.orchestration.run_records import job_states
from stitch_pipeline.report import write_figures
from stitch_pipeline.settings import Settings
from stitch_pipeline.stitching.figures import Figures, headline, read_figures

_READ = ("stitched_sessions", "page_views", "users", "visitor_stats", "user_mapping_history", "guard_report")
_PROJECTS_SHOWN = 100


def report_asset(settings: Settings, placement: Placement) -> AssetsDefinition:
    """The asset. It reads the warehouse in turn with the runs that write it, and writes HTML files only."""

    @asset(
        key=key_of(settings, REPORT),
        deps=[key_of(settings, name) for name in ("quarantined_events", *_READ)],
        group_name=placement.group_name or "metrics",
        owners=placement.owners,
        kinds={"html"},
        pool=placement.pool_name(settings),
        description=(
            "One self-contained HTML page per project, and an index of them: visitors before and after stitching, "
            "stitch rate and its lift, devices per person, time to login, what changed last, quarantine, guards and "
            "health. Numbers only, no id of a person."
        ),
    )
    @hides_values(settings)
    def stitching_report(context: AssetExecutionContext) -> MaterializeResult[None]:
        figures = read_figures(settings, jobs=job_states(context.instance, names_of(settings, JOBS)))
        paths = write_figures(figures, settings.reports_to)
        return MaterializeResult(metadata=_metadata(figures, paths, settings.report_url))

    return stitching_report


def _metadata(figures: Figures, paths: Sequence[Path], served_at: str | None) -> Mapping[str, Any]:
    """The headline numbers over all projects, the file of the index, and the numbers and file of each project."""
    projects = figures.projects
    sessions = sum(project.sessions for project in projects)
    index, *pages = (f"{served_at.rstrip('/')}/{quote(path.name)}" if served_at else str(path) for path in paths)
    rows = [
        TableRecord(
            {
                "project": project.project_id,
                **{name: _shown(value) for name, value in headline(project).items()},
                "page": page,
            }
        )
        for project, page in zip(projects, pages, strict=True)
    ]
    return {
        "stitch_rate": sum(project.sessions_credited for project in projects) / sessions if sessions else 0.0,
        "lift": sum(project.sessions_credited - project.sessions_with_own_user for project in projects) / sessions
        if sessions
        else 0.0,
        "visitors_before": sum(project.visitors_unstitched for project in projects),
        "visitors_after": sum(project.visitors for project in projects),
        "projects": len(projects),
        # Browsers follow no link from Dagster's page to a file, so without an address the UI shows the path.
        "report": MetadataValue.url(index) if served_at else MetadataValue.path(index),
        **({"per_project": MetadataValue.table(rows[:_PROJECTS_SHOWN])} if rows else {}),
    }


def _shown(value: float | None) -> float | str:
    return "" if value is None else round(value, 4)
