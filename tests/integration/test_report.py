"""The report and the page of a person: the numbers are those of the tables, and no id is where it should not be."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import date, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from dagster import AssetKey, MetadataValue, TableMetadataValue
from engines import IS_POSTGRES, environment, held_by_another_process
from report_story import HOSTILE, IDS, settle_report_story
from warehouses import Warehouse, at, ephemeral_warehouse

from stitch_pipeline.cli.main import main
from stitch_pipeline.definitions import build_defs
from stitch_pipeline.orchestration.jobs import REPORT_JOB
from stitch_pipeline.report import write_figures, write_person, write_reports
from stitch_pipeline.report.pages import page_name
from stitch_pipeline.stitching.build import TABLES as BUILT
from stitch_pipeline.stitching.figures import Day, Deployment, Figures, Guarded, JobState, Project, read_figures
from stitch_pipeline.stitching.person import Answer, PersonHistory, person_history
from stitch_pipeline.warehouse.engine import engine_of

pytestmark = pytest.mark.slow

Stitch = Callable[..., tuple[int, str, str]]
LAPTOP, PHONE, TABLET, ANN, BOB = IDS
READ_AT = datetime(2026, 3, 5, 12)


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warehouse]:
    directory = tmp_path_factory.mktemp("report")
    with ephemeral_warehouse(directory, report_dir=directory / "reports") as warehouse:
        settle_report_story(warehouse)
        yield warehouse


@pytest.fixture(scope="module")
def pages(warehouse: Warehouse, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_reports(warehouse.settings, tmp_path_factory.mktemp("pages") / "of" / "this")


@pytest.fixture
def stitch(warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Stitch:
    """The command: exit code, what it prints, what it complains of."""
    settings = warehouse.settings
    monkeypatch.setenv("DAGSTER_HOME", str(warehouse.directory / "home"))
    for name, value in environment(settings).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("STITCH_LANDING_DIR", str(settings.landing_dir))
    monkeypatch.setenv("STITCH_REPORT_DIR", str(warehouse.directory / "by_hand"))
    monkeypatch.setenv("STITCH_LOCK_WAIT_SECONDS", "0.5")
    monkeypatch.setenv("COLUMNS", "300")

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(arguments)
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


def data_of(page: Path) -> Any:
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(), re.DOTALL)
    return json.loads(data)


class _Elements(HTMLParser):
    """The elements of a page, and its text as a reader sees it."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self._is_text = True
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._is_text = tag not in ("script", "style")
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        self._is_text = True

    def handle_data(self, data: str) -> None:
        if self._is_text and data.strip():
            self.text += " " + " ".join(data.split())


def test_the_numbers_of_a_project_are_those_of_its_story(pages: list[Path]) -> None:
    figures = data_of(pages[2])["figures"]
    assert figures["headline"] == {
        "sessions": 5,
        "credited_before": 2 / 5,
        "stitch_rate": 4 / 5,
        "lift": pytest.approx(2 / 5),
        "visitors_before": 3,
        "visitors_after": 2,
        "devices_per_person": 2.0,
        "median_hours_to_login": 30.0,
    }
    project = figures["project"]
    assert (project["project_id"], project["events"]) == ("shop", 6)
    assert (project["first_event_day"], project["last_event_day"]) == ("2026-03-02", "2026-03-04")
    assert (project["persons"], project["devices_per_person"]) == (1, {"2": 1})
    assert project["time_to_login"] == {"1 to 3 days": 1}
    # The second part gave the laptop's history to its user. The phone's answer was known before.
    assert (project["last_answer"]["devices"], project["last_answer"]["users"]) == (1, 1)
    assert project["restitched"] == {"stitched_sessions": {"2026-03-02": 1}, "page_views": {"2026-03-02": 1}}
    (guard,) = project["guards"]
    assert (guard["guard"], guard["field"], guard["values"], guard["events"]) == ("blocked id", "user_id", 1, 1)
    headlines = _Elements(pages[2].read_text()).text
    for shown in ("80.0 %", "from 40.0 % with an own user", "+40.0 points", "from 3 devices", "−33.3 %", "30.0 h"):
        assert shown in headlines


def test_the_numbers_are_those_of_the_tables(warehouse: Warehouse, pages: list[Path]) -> None:
    for page, project in zip(pages[1:], (HOSTILE, "shop"), strict=True):
        data = data_of(page)
        found = data["figures"]["project"]
        assert found["project_id"] == project
        stats = [row for row in warehouse.rows("visitor_stats") if row["project_id"] == project]
        assert [
            (day["day"], day["sessions"], day["visitors"], day["visitors_unstitched"]) for day in found["days"]
        ] == [
            (str(row["stat_date"]), row["visits"], row["visitors"], row["visitors_unstitched"])
            for row in sorted(stats, key=lambda row: row["stat_date"])
        ]
        sessions = [row for row in warehouse.rows("stitched_sessions") if row["project_id"] == project]
        credited = [row for row in sessions if row["stitched_by"] in ("own", "link before", "link after")]
        assert (found["sessions"], found["sessions_credited"]) == (len(sessions), len(credited))
        assert sum(day["sessions_credited"] for day in found["days"]) == len(credited)
        views = [row for row in warehouse.rows("page_views") if row["project_id"] == project]
        assert found["page_views"] == len(views)
        assert found["page_views_credited"] == len([row for row in views if row["stitched_by"] not in ("none", "off")])
        people = [row for row in warehouse.rows("users") if row["project_id"] == project]
        assert found["visitors"] == len(people)
        assert found["persons"] == len([row for row in people if row["is_identified"]])
        # What the charts draw are the same numbers.
        assert [day["visitors"] for day in data["tables"]["days"]] == [day["visitors"] for day in found["days"]]
        assert {(row["table"], row["day"]): row["rows"] for row in data["tables"]["changed"]} == {
            (table, day): rows for table, per_day in found["restitched"].items() for day, rows in per_day.items()
        }
        assert {row["problem"]: row["rows"] for row in data["tables"]["quarantine"]} == {
            row["problem"].replace("_", " "): row["n"]
            for row in warehouse.query("select problem, count(*) as n from stitch.quarantined_events group by problem")
        }


def test_a_report_holds_no_id_of_a_person_and_no_file(pages: list[Path]) -> None:
    for page in pages:
        # Without the packed library, in which any few letters occur.
        text = re.sub(r'<script type="text/plain" id="vega">.*?</script>', "", page.read_text(), flags=re.DOTALL)
        assert len(text) < 60_000
        for kept_out in (*IDS, "ann-", "bob", "kiosk", "second.ndjson", "broken.ndjson"):
            assert kept_out not in text, page.name


def test_what_comes_from_data_is_text_and_no_markup(pages: list[Path], tmp_path: Path) -> None:
    index, hostile, _ = pages
    for page in (index, hostile):
        elements = _Elements(page.read_text())
        assert HOSTILE in elements.text
        assert "alert(" not in page.read_text().replace("alert(&#39;x&#39;)", "").replace("alert(\\u0027x\\u0027)", "")
    assert re.fullmatch(r"report-script-alert-x-script\.[0-9a-f]{10}\.html", hostile.name)
    # Names of feeds and problems too, which a person chooses or code does.
    bad = '"><img src=x onerror=alert(1)>'
    guarded = Guarded(bad, bad, 1, 1, None, None)
    deployment = Deployment(quarantine=[(bad, bad, 1)], guards=[guarded], stale_days={bad: 1}, jobs=[job(bad)])
    project = Project(bad, events=1, guards=[guarded], days=[Day(date(2026, 3, 1), 1, 1, 1, 1, 1)])
    for page in write_figures(Figures(READ_AT, [project], deployment), tmp_path):
        elements = _Elements(page.read_text())
        assert "img" not in elements.tags
        assert "onerror" not in dict(elements.attributes)
        assert bad in elements.text
    assert data_of(page)["tables"]["quarantine"] == [{"problem": bad, "rows": 1}]


def job(name: str) -> JobState:
    return JobState(name, READ_AT, "failed", 2)


def test_projects_have_pages_of_their_own() -> None:
    names = [page_name(project) for project in ("shop", "Shop", "../shop", "index", "a b", "a-b", "ü", "x" * 300)]
    assert len({name.lower() for name in names}) == len(names)
    assert all(re.fullmatch(r"report-[a-z0-9.-]+\.html", name) and len(name) < 100 for name in names), names
    assert names[0] == "report-shop.html"


def test_a_warehouse_without_events_and_projects_without_sessions_have_pages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ephemeral_warehouse(tmp_path / "new") as empty:
        (index,) = write_reports(empty.settings, tmp_path / "reports")
        assert not engine_of(empty.settings).exists(), "a report creates no warehouse"
        assert not empty.settings.index_path.exists()
    assert "No project has events yet" in index.read_text()
    # Events without a device make no session.
    figures = Figures(READ_AT, [Project("quiet", events=1)], Deployment())
    _, page = write_figures(figures, tmp_path / "quiet")
    text = _Elements(page.read_text()).text
    for said in ("No day has a session", "Nobody has logged in yet", "No guard held anything", "nothing waits"):
        assert said in text
    assert data_of(page)["charts"] == {}
    assert page.stat().st_size < 50_000, "without a chart the page needs no Vega"


def test_three_hundred_projects_have_one_index(tmp_path: Path) -> None:
    days = [Day(date(2026, 3, 1), 2, 1, 2, 2, 1)]
    projects = [Project(f"p{n}", events=9, sessions=2, sessions_credited=n % 3, days=days) for n in range(300)]
    index, *written = write_figures(Figures(READ_AT, projects, Deployment()), tmp_path)
    elements = _Elements(index.read_text())
    links = [value for name, value in elements.attributes if name == "href" and str(value).startswith("report-")]
    assert links == [path.name for path in written] == [f"report-p{n}.html" for n in range(300)]
    assert max(path.stat().st_size for path in written) < 600_000
    assert {path.name for path in tmp_path.iterdir()} == {"index.html", *links}, "no half-written file is left"


def test_the_page_of_a_project_without_rows_is_deleted_and_no_other_file(tmp_path: Path) -> None:
    shop, blog = Project("shop", events=1), Project("Le Blog", events=1)
    _, of_shop, of_blog = write_figures(Figures(READ_AT, [shop, blog], Deployment()), tmp_path)
    somebody_elses = tmp_path / "report-2025.html"
    somebody_elses.write_text("mine")
    write_figures(Figures(READ_AT, [shop], Deployment()), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"index.html", of_shop.name, somebody_elses.name}
    assert of_blog.name not in (tmp_path / "index.html").read_text()


def test_the_asset_writes_the_pages_and_shows_the_numbers(warehouse: Warehouse) -> None:
    warehouse.run(REPORT_JOB, {})
    event = warehouse.instance.get_latest_materialization_event(AssetKey("stitching_report"))
    assert event is not None
    assert event.asset_materialization is not None
    recorded = event.asset_materialization.metadata
    metadata = {name: value.value for name, value in recorded.items()}
    index = warehouse.settings.reports_to / "index.html"
    assert recorded["report"] == MetadataValue.path(index)
    assert (metadata["projects"], metadata["visitors_before"], metadata["visitors_after"]) == (2, 4, 3)
    assert metadata["stitch_rate"] == pytest.approx(5 / 6)
    assert metadata["lift"] == pytest.approx(2 / 6)
    table = recorded["per_project"]
    assert isinstance(table, TableMetadataValue)
    records = [record.data for record in table.records]
    assert [(record["project"], record["sessions"]) for record in records] == [(HOSTILE, 1), ("shop", 5)]
    assert records[1]["page"] == str(warehouse.settings.reports_to / "report-shop.html")
    text = _Elements(index.read_text()).text
    assert re.search(r"build_job \d{4}-\d\d-\d\d \d\d:\d\d succeeded", text)
    assert not [name for name in IDS if name in str(recorded)]
    served = warehouse.settings.model_copy(update={"report_url": "https://reports.example.com/stitching/"})
    linked = build_defs(served).resolve_job_def(REPORT_JOB).execute_in_process(instance=warehouse.instance)
    (materialization,) = linked.asset_materializations_for_node("stitching_report")
    assert materialization.metadata["report"] == MetadataValue.url("https://reports.example.com/stitching/index.html")


def test_the_asset_shows_what_it_reads_and_is_in_no_other_job(warehouse: Warehouse) -> None:
    repository = warehouse.defs.get_repository_def()
    node = repository.asset_graph.get(AssetKey("stitching_report"))
    assert {key.path[-1] for key in node.parent_keys} >= {"stitched_sessions", "users", "visitor_stats", "guard_report"}
    assert node.partitions_def is None
    assert node.pools == {"duckdb"}, "so it never meets a run that writes"
    jobs = {
        found.name
        for found in repository.get_all_jobs()
        if not found.name.startswith("__") and AssetKey("stitching_report") in found.asset_layer.executable_asset_keys
    }
    assert jobs == {REPORT_JOB}
    (schedule,) = [found for found in repository.schedule_defs if found.name == "report_schedule"]
    assert (schedule.job_name, schedule.cron_schedule) == (REPORT_JOB, "30 5 * * *")


def test_a_failing_job_is_counted(warehouse: Warehouse) -> None:
    figures = read_figures(warehouse.settings, "shop", jobs=[job("restitch_job")])
    assert [project.project_id for project in figures.projects] == ["shop"]
    assert figures.deployment.jobs == [job("restitch_job")]
    assert figures.deployment.files == 3
    assert figures.deployment.files_waiting == 0
    assert figures.deployment.last_run_at is not None
    changed = warehouse.query("select model, day, rows_changed from stitch.changed_rows")
    assert {
        (table, day): rows
        for table, per_day in figures.deployment.changed_rows.items()
        for day, rows in per_day.items()
    } == {(row["model"], row["day"]): row["rows_changed"] for row in changed if row["model"] in BUILT}


def test_the_command_writes_all_pages_or_one(stitch: Stitch, warehouse: Warehouse, tmp_path: Path) -> None:
    code, printed, _ = stitch("report")
    directory = warehouse.directory / "by_hand"
    assert (code, printed) == (0, f"wrote {directory / 'index.html'} and 2 pages beside it\n")
    one = tmp_path / "new" / "one.html"
    assert stitch("report", "--project", "shop", "--output", str(one))[:2] == (0, f"wrote {one}\n")
    assert data_of(one)["figures"]["project"]["sessions"] == 5
    assert "All projects" not in one.read_text(), "there is no index beside it"
    code, _, complaint = stitch("report", "--output", str(one))
    assert (code, complaint) == (2, f"error: --output '{one}' is one file: add --project, or name a directory.\n")
    code, _, complaint = stitch("report", "--project", "shoop")
    assert code == 2
    assert complaint.startswith("error: There is no project 'shoop' with events")


def test_a_warehouse_that_is_in_use_is_said_to_be_busy(stitch: Stitch, warehouse: Warehouse) -> None:
    with held_by_another_process(warehouse.settings) as holder:
        code, printed, complaint = stitch("report")
    if IS_POSTGRES:  # where a reader never waits
        assert (code, complaint) == (0, "")
        assert printed.endswith("and 2 pages beside it\n")
    else:
        assert code == 1
        assert f"{holder} and was not released within 0.5 seconds" in complaint


def test_the_page_of_a_person(stitch: Stitch, tmp_path: Path) -> None:
    path = tmp_path / "ann.html"
    code, printed, _ = stitch("why", "--project", "shop", "--user", ANN, "--html", str(path))
    assert (code, printed) == (0, f"wrote {path}\n")
    tables = data_of(path)["tables"]
    assert [(row["device"], row["start"], row["credited"], row["kind"]) for row in tables["sessions"]] == [
        (LAPTOP, "2026-03-02T12:00:00Z", ANN, "credited by a link"),
        (PHONE, "2026-03-02T12:00:00Z", ANN, "credited by a link"),
        (PHONE, "2026-03-03T18:00:00Z", ANN, "own user"),
        (LAPTOP, "2026-03-04T09:00:00Z", ANN, "own user"),
    ]
    assert {(row["device"], row["start"], row["user"]) for row in tables["links"]} == {
        (PHONE, "2026-03-03T18:00:00Z", ANN),
        (LAPTOP, "2026-03-04T09:00:00Z", ANN),
    }
    text = _Elements(path.read_text()).text
    # The page gives the reasons that the terminal prints.
    for device in (LAPTOP, PHONE):
        _, printed, _ = stitch("why", "--project", "shop", "--anonymous-id", device)
        reasons = [line.strip() for line in printed.splitlines() if line.strip().startswith("#1 ")]
        assert reasons
        assert all(reason in text for reason in reasons)
    for policy in ("latest", "first", "device_split", "next_identify"):
        assert policy in text
    assert TABLET not in path.read_text(), "another visitor's device"
    _, printed, _ = stitch("why", "--project", "shop", "--user", ANN)
    assert [line.split(":")[0] for line in printed.splitlines() if ", device " in line] == [
        f"shop, device {LAPTOP}",
        f"shop, device {PHONE}",
    ]


def test_the_page_of_a_device_escapes_its_ids(stitch: Stitch, tmp_path: Path) -> None:
    path = tmp_path / "kiosk.html"
    assert stitch("why", "--project", HOSTILE, "--anonymous-id", "kiosk", "--html", str(path))[0] == 0
    elements = _Elements(path.read_text())
    assert "b" not in elements.tags
    assert {HOSTILE, BOB} <= {value for value in (HOSTILE, BOB) if value in elements.text}
    assert data_of(path)["tables"]["sessions"][0]["credited"] == BOB
    assert "shared_device: kiosk (in a <shop>)" in elements.text
    assert "another" not in elements.text, "a decision about somebody else"
    code, _, complaint = stitch("why", "--project", "shop", "--user", "nobody", "--html", str(path))
    assert code == 2
    assert complaint.startswith("error: Project 'shop' has no user 'nobody', on a device or without one")


def test_a_policy_that_says_something_else_is_marked(warehouse: Warehouse, tmp_path: Path) -> None:
    history = person_history(warehouse.settings, "shop", anonymous_id=LAPTOP, at="2026-03-02")
    (row,) = [row for row in history.devices[0].rows if row.grain == "session"]
    assert row.began_at == at("2026-03-02 12:00")
    assert history.answers[row.row_id]["first"] == Answer(ANN, "link after")
    other = {row.row_id: {**history.answers[row.row_id], "first": Answer("someone else", "link before")}}
    write_person(
        PersonHistory("shop", None, history.devices, 0, other, ["wrong_link: a and b (typo)"]), tmp_path / "page.html"
    )
    page = (tmp_path / "page.html").read_text()
    assert re.findall(r'<span class="differs">([^<]+)</span>', page) == ["marked", "someone else"]
    assert "wrong_link: a and b (typo)" in page


def test_runs_do_not_import_what_draws_the_report() -> None:
    code = (
        "import sys, stitch_pipeline.definitions, stitch_pipeline.orchestration.settle\n"
        "print(sorted({'vl_convert', 'stitch_pipeline.report.pages'} & set(sys.modules)))"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed == "[]\n"
