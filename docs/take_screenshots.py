"""Take the screenshots of `docs/images` from a real Dagster on the demo's data.

    .venv/bin/python docs/take_screenshots.py [--people 300] [--directory DIR]
    .venv/bin/python docs/take_screenshots.py --report data/demo

It simulates the shop of `make demo` up to yesterday (the UI's dialogs show the last 90 days), lets it land in two
parts with the late logins in the second, and settles after each. Needs Chromium, see `tests/e2e/dagster_server.py`.
With `--directory` what was built there is kept, and used as it is the next time. `--report` takes only the pictures
of the report, from what `make demo` left in the directory.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests" / "e2e")]

from dagster_server import (  # noqa: E402
    DagsterServer,
    chromium,
    dagster_server,
    duckdb_path,
    environment,
    fill_in_backfill,
    landing_dir,
    new_page,
    open_config_editor,
    wait_for,
)
from playwright.sync_api import Page, expect  # noqa: E402

from stitch_pipeline.demo.shop import LAST_DAYS, STORY, land, simulate  # noqa: E402
from stitch_pipeline.report import write_person, write_reports  # noqa: E402
from stitch_pipeline.settings import Settings  # noqa: E402
from stitch_pipeline.stitching.person import person_history  # noqa: E402

IMAGES = REPOSITORY / "docs" / "images"
DAYS = 60
SETTLE_MILLISECONDS = 3000  # for what fades and slides in
CONFIG = """\
ops:
  stitch_models:
    config:
      view_stitching: true  # page views too, now
      lookback_days: 14     # for this backfill; 30 by default
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, default=300)
    parser.add_argument("--directory", type=Path, help="where to build the demo; by default a temporary directory")
    parser.add_argument("--report", type=Path, metavar="DEMO", help="the directory of a demo: take the report only")
    options = parser.parse_args()
    if options.report:
        report(options.report.resolve())
        return
    if options.directory:
        take_all(options.directory.resolve(), options.people)
    else:
        with tempfile.TemporaryDirectory(prefix="stitch-screenshots-") as directory:
            take_all(Path(directory), options.people)


def take_all(directory: Path, people: int) -> None:
    marker = directory / "first_day"
    if not marker.exists():
        marker.write_text(build(directory, people).isoformat())
    first_day = date.fromisoformat(marker.read_text())
    IMAGES.mkdir(exist_ok=True)
    with dagster_server(directory, start_date=first_day.isoformat()) as server, chromium() as browser:
        asset_graph(server, new_page(browser, height=900), height=900)
        backfill_config(server, new_page(browser, height=1150), first_day)
        partition_metadata(server, new_page(browser, height=1180), first_day)
        asset_plots(server, new_page(browser, height=1040))
        preview(server, new_page(browser, height=760))
        checks(server, new_page(browser, height=640))
    broken = directory / "broken"
    break_warehouse(broken)
    with dagster_server(broken, **settings_of_broken()) as server, chromium() as browser:
        sensors(server, new_page(browser, height=700))


def build(directory: Path, people: int) -> date:
    """The demo's data, landed and settled in two parts; gives its first day, which is the first partition too."""
    first_day = datetime.now(UTC).date() - timedelta(days=DAYS)
    shop = simulate(people=people, first_day=first_day, days=DAYS)
    late_from = shop.days[-1 - LAST_DAYS]
    home = directory / "dagster_home"
    home.mkdir(parents=True, exist_ok=True)
    shutil.copy(REPOSITORY / "dagster_home" / "dagster.yaml", home)
    landing_dir(directory).mkdir(exist_ok=True)
    duckdb_path(directory).unlink(missing_ok=True)
    for part in ({"through": late_from}, {"after": late_from}):
        land(shop, landing_dir(directory), **part)
        subprocess.run(
            [sys.executable, "-m", "stitch_pipeline", "settle"],
            cwd=REPOSITORY,
            env=environment(directory, start_date=first_day.isoformat()),
            check=True,
        )
    return first_day


def asset_graph(server: DagsterServer, page: Page, height: int) -> None:
    page.goto(f"{server.url}/asset-groups")
    page.get_by_role("button", name="Hide navigation").click()
    # The list of assets beside the graph has an unnamed button that closes it.
    page.get_by_placeholder("Jump to").locator("xpath=following::button[1]").click()
    expect(page.get_by_text("fetching statuses")).to_have_count(0)
    # Expanded and from left to right the graph is twice as high as it is wide.
    for item in ("Change graph to vertical orientation", "Expand all groups"):
        page.mouse.click(150, height - 100, button="right")  # an empty part of the canvas
        page.get_by_role("menuitem", name=item).click()
        page.wait_for_timeout(SETTLE_MILLISECONDS)
    expect(page.get_by_text("visitor_stats").first).to_be_visible()
    page.mouse.dblclick(90, height - 30)  # fits the whole graph into the window
    page.wait_for_timeout(SETTLE_MILLISECONDS)
    page.mouse.move(700, 20, steps=10)  # away from what would be highlighted
    page.wait_for_timeout(SETTLE_MILLISECONDS)
    page.screenshot(path=IMAGES / "asset_graph.png")


def backfill_config(server: DagsterServer, page: Page, first_day: date) -> None:
    page.goto(f"{server.url}/locations/stitch_pipeline/jobs/build_job")
    page.get_by_role("button", name="Materialize all").click()
    last = first_day + timedelta(days=DAYS - 1)
    dialog = fill_in_backfill(page, last - timedelta(days=13), last)
    open_config_editor(page, dialog, CONFIG)
    expect(page.get_by_role("button", name="Save config")).to_be_enabled()
    expect(page.get_by_text("Checking config")).to_be_hidden()
    page.get_by_role("button", name="Save config").click()
    expect(dialog.get_by_text("Config saved")).to_be_visible()
    page.mouse.move(700, 20)
    page.wait_for_timeout(SETTLE_MILLISECONDS)
    page.screenshot(path=IMAGES / "backfill_config.png")


def partition_metadata(server: DagsterServer, page: Page, first_day: date) -> None:
    day = first_day + timedelta(days=DAYS - 8)
    page.goto(f"{server.url}/assets/stitched_sessions?view=partitions&partition={day}")
    expect(page.get_by_text("stitch_rate")).to_be_visible()
    page.wait_for_timeout(SETTLE_MILLISECONDS)
    page.screenshot(path=IMAGES / "partition_metadata.png")


def report(demo: Path) -> None:
    """The report of the demo's shop and the page of the visitor whose story the demo tells."""
    settings = Settings.load(
        env_file="off", project_file=demo / "stitch.toml", landing_dir=landing_dir(demo), duckdb_path=duckdb_path(demo)
    )
    maya = person_history(settings, STORY.project_id, user_id=STORY.user_id)
    with tempfile.TemporaryDirectory(prefix="stitch-report-") as directory, chromium() as browser:
        # The index and the pages are in the order of the projects.
        _, *pages = write_reports(settings, Path(directory))
        (shop,) = [page for page in pages if page.name == f"report-{STORY.project_id}.html"]
        person = Path(directory) / "person.html"
        write_person(maya, person)
        for name, page, width, height, scheme in (
            ("report-desktop", shop, 1440, 1560, "light"),
            ("report-dark", shop, 1440, 1560, "dark"),
            ("report-phone", shop, 390, 1750, "light"),
            ("person", person, 1440, 1240, "light"),
        ):
            context = browser.new_context(
                viewport={"width": width, "height": height},
                color_scheme=scheme,  # type: ignore[arg-type]
                device_scale_factor=1,
                offline=True,
                timezone_id="UTC",
            )
            shown = context.new_page()
            shown.goto(page.as_uri())
            expect(shown.locator("body[data-drawn]")).to_be_visible()
            shown.screenshot(path=IMAGES / f"{name}.png")
            context.close()


def asset_plots(server: DagsterServer, page: Page) -> None:
    page.goto(f"{server.url}/assets/stitched_sessions?view=overview")
    for section in ("Description", "Columns"):  # long, and above the plots
        page.get_by_text(section, exact=True).first.click()
    page.get_by_role("button", name="Plots").click()
    expect(page.get_by_text("visitors_before", exact=True)).to_be_visible()
    page.wait_for_timeout(SETTLE_MILLISECONDS)
    page.screenshot(path=IMAGES / "asset_plots.png")


def preview(server: DagsterServer, page: Page) -> None:
    """The launchpad of `preview_rules_job` as it opens, and what a run of it says."""
    page.goto(f"{server.url}/locations/stitch_pipeline/jobs/preview_rules_job/playground")
    page.locator(".CodeMirror-line").filter(has_text="policy").click()  # shows the fields' descriptions beside
    expect(page.get_by_text("No errors")).to_be_visible()
    page.wait_for_timeout(SETTLE_MILLISECONDS)
    page.screenshot(path=IMAGES / "launchpad.png")

    page.keyboard.press("End")
    for _ in "as_set":
        page.keyboard.press("Backspace")
    page.keyboard.insert_text("device_split")
    expect(page.get_by_text("No errors")).to_be_visible()
    page.wait_for_timeout(SETTLE_MILLISECONDS)
    page.get_by_role("button", name="Launch Run").click()
    page.wait_for_url("**/runs/*")
    run_id = page.url.split("/")[-1].split("?")[0]
    wait_for(
        "the preview",
        lambda: next(run for run in server.runs() if run["runId"] == run_id)["status"] == "SUCCESS",
        seconds=300,
        server=server,
    )
    page.goto(f"{server.url}/assets/stitched_sessions?view=events")
    expect(page.get_by_text("would be credited to").first).to_be_visible()
    page.wait_for_timeout(SETTLE_MILLISECONDS)
    page.screenshot(path=IMAGES / "preview.png")


def checks(server: DagsterServer, page: Page) -> None:
    page.goto(f"{server.url}/assets/stitched_sessions?view=checks")
    expect(page.get_by_text("No session of the days occurs twice").first).to_be_visible()
    page.wait_for_timeout(SETTLE_MILLISECONDS)
    page.screenshot(path=IMAGES / "checks.png")


def break_warehouse(directory: Path) -> None:
    """A deployment of which every run fails, because its warehouse is a text file, with as many runs as make it red."""
    shutil.rmtree(directory, ignore_errors=True)
    home = directory / "dagster_home"
    home.mkdir(parents=True)
    shutil.copy(REPOSITORY / "dagster_home" / "dagster.yaml", home)
    landing_dir(directory).mkdir()
    duckdb_path(directory).write_text("a text file\n" * 1000)
    for _ in range(2):
        subprocess.run(
            [sys.executable, "-m", "stitch_pipeline", "settle"],
            cwd=REPOSITORY,
            env=environment(directory, **settings_of_broken()),
            check=False,
            stdout=subprocess.DEVNULL,
        )


def settings_of_broken() -> dict[str, str]:
    return {"start_date": (datetime.now(UTC).date() - timedelta(days=6)).isoformat(), "sensor_interval_seconds": "15"}


def sensors(server: DagsterServer, page: Page) -> None:
    wait_for(
        "a failed tick",
        lambda: (server.last_tick("recovery_sensor") or {}).get("status") == "FAILURE",
        seconds=120,
        server=server,
    )
    page.goto(f"{server.url}/automation")
    expect(page.get_by_text("recovery_sensor")).to_be_visible()
    page.wait_for_timeout(5 * SETTLE_MILLISECONDS)  # each row asks for its own ticks
    page.screenshot(path=IMAGES / "sensors.png")
    page.goto(f"{server.url}/locations/stitch_pipeline/sensors/recovery_sensor")
    expect(page.get_by_text("Failure").first).to_be_visible()
    page.wait_for_timeout(SETTLE_MILLISECONDS)
    page.screenshot(path=IMAGES / "sensor_that_fails.png")


if __name__ == "__main__":
    main()
