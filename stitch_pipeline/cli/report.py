"""``stitch report``: the pages, written for somebody at a terminal."""

from __future__ import annotations

import argparse
import webbrowser
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from stitch_pipeline.cli.command import EXIT_OK, Commands, add_command, completes_paths, dagster_instance, print_json
from stitch_pipeline.settings import Settings, SettingsError


def add(commands: Commands) -> None:
    report = add_command(commands, "report", run, "write a page per project that shows what stitching did")
    report.add_argument("--project", metavar="P", help="the project_id; by default every project, and an index")
    completes_paths(
        report.add_argument(
            "--output",
            type=Path,
            metavar="PATH",
            help="a directory, or with --project an HTML file (default STITCH_REPORT_DIR)",
        )
    )
    report.add_argument("--open", action="store_true", help="open the page in a browser")


def run(options: argparse.Namespace, console: Console) -> int:
    from stitch_pipeline.orchestration.jobs import JOBS
    from stitch_pipeline.orchestration.placement import names_of
    from stitch_pipeline.orchestration.run_records import job_states
    from stitch_pipeline.report import write_report, write_reports

    settings = Settings.load()
    place = (options.output or settings.reports_to).resolve()
    if options.project is None and place.suffix in (".html", ".htm"):
        raise SettingsError(f"--output '{options.output}' is one file: add --project, or name a directory.")
    with dagster_instance() as instance:
        jobs = job_states(instance, names_of(settings, JOBS))
    if options.project is not None:
        first, pages = write_report(settings, options.project, place, jobs), []
        beside = ""
    else:
        first, *pages = write_reports(settings, place, jobs)
        beside = f" and {len(pages):,} page{'s' * (len(pages) != 1)} beside it"
    if options.json:
        print_json({"written": [first, *pages]})
    else:
        console.print(f"wrote [bold]{escape(str(first))}[/]{beside}")
    if options.open:
        webbrowser.open(first.as_uri())
    return EXIT_OK
