"""What a person does in the Dagster UI, and what the daemon does without one, seen in the warehouse's rows.

Two devices of one project browse on four days. The phone logs in on the last of them, so its history is there
to be stitched from the start; the laptop logs in six days later, when its partitions have long been built.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from dagster_server import (
    DagsterServer,
    chromium,
    dagster_server,
    launch_backfill,
    listening_addresses,
    new_page,
    switch_sensor,
    wait_for,
)
from playwright.sync_api import Page, expect

from stitch_pipeline.warehouse.duckdb import DuckDBEngine
from stitch_pipeline.warehouse.port import WarehouseBusy

pytestmark = pytest.mark.slow

# Recent days, because the UI's dialogs show the last 90 days only unless told otherwise.
START_DATE = datetime.now(UTC).date() - timedelta(days=13)
BROWSING_DAYS = [START_DATE + timedelta(days=n) for n in (1, 2, 3, 4)]
LATE_LOGIN_DAY = START_DATE + timedelta(days=10)
# An event can change what stands one day before it and two days after, so this is all that the first file reaches.
BUILT_RANGE = (START_DATE, START_DATE + timedelta(days=6))

SENSORS = ("landing_sensor", "identify_sensor")
RUNNING_STATUSES = {"STARTING", "STARTED"}
UNFINISHED_STATUSES = {"QUEUED", "NOT_STARTED", "CANCELING", *RUNNING_STATUSES}


def test_the_server_accepts_connections_of_this_machine_only(server: DagsterServer) -> None:
    assert listening_addresses(server) == {"0100007F"}  # 127.0.0.1


def test_a_person_materializes_and_backfills_and_then_the_sensors_stitch_a_late_login(
    server: DagsterServer, page: Page
) -> None:
    # One story, in one test: each chapter stands on the partitions that the one before it left.
    for sensor in SENSORS:
        switch_sensor(server, page, sensor, on=False)  # else they would be faster than the person
    land(server, "browsing.ndjson", browsing())

    materialize_a_range_from_the_asset_graph(server, page)
    execute_the_checks_alone(server, page)
    backfill_page_views_with_config(server, page)
    let_the_sensors_stitch_a_late_login(server, page)


def materialize_a_range_from_the_asset_graph(server: DagsterServer, page: Page) -> None:
    page.goto(f"{server.url}/asset-groups")
    for group in ("landing", "identity", "sessions", "marts"):
        expect(page.get_by_text(group, exact=True).first).to_be_visible()
    page.get_by_role("button", name="Materialize all").click()
    launch_backfill(page, *BUILT_RANGE)
    backfill_id = see_it_complete(server, page)

    runs = [run["tags"] for run in server.runs() if run["tags"].get("dagster/backfill") == backfill_id]
    ranges = [range_of(tags) for tags in runs if "dagster/asset_partition_range_start" in tags]
    assert ranges == [(str(BUILT_RANGE[0]), str(BUILT_RANGE[1]))], "all tables over a range are one run"
    assert rows(server, "select event_date, anonymous_id, count(*)::int from stitch.raw_events group by all") == {
        *((day, "phone", 2) for day in BROWSING_DAYS[:-1]),
        (BROWSING_DAYS[-1], "phone", 3),  # the login among them
        *((day, "laptop", 2) for day in BROWSING_DAYS),
    }
    assert stitched_sessions(server) == {
        *((day, "phone", "u-phone", "link after") for day in BROWSING_DAYS[:-1]),
        (BROWSING_DAYS[-1], "phone", "u-phone", "own"),
        *((day, "laptop", "laptop", "none") for day in BROWSING_DAYS),
    }
    assert rows(server, "select stitched_user_id, is_identified, session_count::int from stitch.users") == {
        ("u-phone", True, 4),
        ("laptop", False, 4),
    }
    assert page_views(server) == {
        (day, device, device, "off") for day in BROWSING_DAYS for device in ("phone", "laptop")
    }, "view stitching is off in this server's settings"


def execute_the_checks_alone(server: DagsterServer, page: Page) -> None:
    repository = {"repositoryName": "__repository__", "repositoryLocationName": "stitch_pipeline"}
    nodes = server.query("{ assetNodes { assetKey { path } assetChecksOrError { ... on AssetChecks { checks { "
                         "name canExecuteIndividually } } } } }")["assetNodes"]  # fmt: skip
    checks = [(node["assetKey"], check) for node in nodes for check in node["assetChecksOrError"].get("checks", ())]
    assert len(checks) > 15
    assert {check["canExecuteIndividually"] for _, check in checks} == {"CAN_EXECUTE"}
    # What the button "Execute all" sends, for the checks of every asset at once.
    selection = [{"assetKey": key, "name": check["name"]} for key, check in checks]
    selector = {**repository, "pipelineName": "__ASSET_JOB", "assetSelection": [], "assetCheckSelection": selection}
    launched = server.query(
        "mutation($execution: ExecutionParams!) { launchPipelineExecution(executionParams: $execution) "
        "{ __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }",
        execution={"selector": selector, "mode": "default", "runConfigData": "{}"},
    )["launchPipelineExecution"]
    assert launched["__typename"] == "LaunchRunSuccess", launched
    run_id = launched["run"]["runId"]
    before = stitched_sessions(server)
    run = wait_for("the end of the checks", lambda: ended(server, run_id), server=server)
    assert run["status"] == "SUCCESS", server.log[-5000:]
    assert "dagster/asset_partition_range_start" not in run["tags"]
    found = server.query(
        "query($run: ID!) { runOrError(runId: $run) { ... on Run { eventConnection { events { "
        "... on AssetCheckEvaluationEvent { evaluation { checkName success } } } } } } }",
        run=run_id,
    )["runOrError"]["eventConnection"]["events"]
    results = {event["evaluation"]["checkName"]: event["evaluation"]["success"] for event in found if event}
    assert results == {check["name"]: True for _, check in checks}
    assert stitched_sessions(server) == before
    page.goto(f"{server.url}/assets/stitched_sessions?view=checks")
    expect(page.get_by_role("button", name="Execute all")).to_be_enabled()
    expect(page.get_by_text("No session of the days occurs twice").first).to_be_visible()


def ended(server: DagsterServer, run_id: str) -> dict[str, Any] | None:
    """The run, once it has."""
    run = next(run for run in server.runs() if run["runId"] == run_id)
    return None if run["status"] in UNFINISHED_STATUSES else run


def backfill_page_views_with_config(server: DagsterServer, page: Page) -> None:
    page.goto(f"{server.url}/assets/page_views")
    page.get_by_role("button", name="Materialize…").click()
    config = (
        "ops:\n"
        "  stitch_models:\n"
        "    config:\n"
        "      view_stitching: true\n"
        "      lookback_days: 1\n"
    )  # fmt: skip
    launch_backfill(page, *BUILT_RANGE, config=config)
    backfill_id = see_it_complete(server, page)

    runs = [run for run in server.runs() if run["tags"].get("dagster/backfill") == backfill_id]
    assert [run["status"] for run in runs] == ["SUCCESS"], "a backfill of one asset is one run, however long the range"
    # Only this run's config explains these: stitched at all, and just one day back from the login.
    assert page_views(server) == {
        *((day, "phone", "phone", "none") for day in BROWSING_DAYS[:2]),
        *((day, "phone", "u-phone", "link after") for day in BROWSING_DAYS[2:]),
        *((day, "laptop", "laptop", "none") for day in BROWSING_DAYS),
    }
    assert stitched_sessions(server) >= {(day, "phone", "u-phone", "link after") for day in BROWSING_DAYS[:2]}, (
        "the config is the run's own: it changes nothing outside the backfill"
    )


def let_the_sensors_stitch_a_late_login(server: DagsterServer, page: Page) -> None:
    for sensor in SENSORS:
        switch_sensor(server, page, sensor, on=True)
    # Whatever the sensors still want to do about the first file is not what is being tested.
    wait_for("sensors at rest", lambda: has_come_to_rest(server), server=server)
    before = {run["runId"] for run in server.runs()}
    views_before = page_views(server)

    land(server, "late_login.ndjson", late_login())

    probes: list[str] = []
    wait_for(
        "the laptop's earlier sessions credited to u-laptop",
        lambda: answers_while_running(server, page, probes) and laptop_is_stitched(server),
        server=server,
    )
    assert probes, "at no moment was a run in progress while the UI was asked for a page"
    wait_for("sensors at rest", lambda: has_come_to_rest(server), server=server)

    assert stitched_sessions(server) == {
        *((day, "phone", "u-phone", "link after") for day in BROWSING_DAYS[:-1]),
        (BROWSING_DAYS[-1], "phone", "u-phone", "own"),
        *((day, "laptop", "u-laptop", "link after") for day in BROWSING_DAYS),
        (LATE_LOGIN_DAY, "laptop", "u-laptop", "own"),
    }
    assert rows(server, "select stitched_user_id, is_identified, session_count::int from stitch.users") == {
        ("u-phone", True, 4),
        ("u-laptop", True, 5),
    }
    assert page_views(server) == views_before, "views are stitched at a pace of their own, and it is off here"

    new = [run for run in server.runs() if run["runId"] not in before]
    assert {run["status"] for run in new} == {"SUCCESS"}
    by_sensor = [(run["tags"].get("dagster/sensor_name"), run["jobName"]) for run in new]
    assert ("landing_sensor", "build_job") in by_sensor
    restitches = [run for run in new if run["jobName"] == "restitch_job"]
    assert [range_of(run["tags"]) for run in restitches] == [(str(BROWSING_DAYS[0]), str(BROWSING_DAYS[-1]))], (
        "one run over exactly the partitions that held a wrong answer"
    )
    assert restitches[0]["tags"]["dagster/sensor_name"] == "identify_sensor"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[DagsterServer]:
    # View stitching off, so that only config can switch it on; and no schedule falls into the test.
    with dagster_server(
        tmp_path,
        start_date=START_DATE.isoformat(),
        view_stitching="off",
        daily_cron="0 0 29 2 *",
        reconcile_cron="0 0 29 2 *",
        restitch_in_build_days="0",  # the sensors stitch
    ) as server:
        yield server


@pytest.fixture
def page() -> Iterator[Page]:
    with chromium() as browser:
        yield new_page(browser)


def see_it_complete(server: DagsterServer, page: Page) -> str:
    """Follow the message that a backfill was created to its page, and watch it there. Gives its id."""
    expect(page.get_by_text("Created backfill")).to_be_visible()
    page.locator("a[href*='/runs/b/']").filter(has_text="View").click()
    page.wait_for_url("**/runs/b/*")
    backfill_id = page.url.split("?")[0].rsplit("/", 1)[-1]
    status = wait_for(f"the end of backfill {backfill_id}", lambda: backfill_status(page), server=server)
    assert status == "Succeeded", server.log[-5000:]
    return backfill_id


def backfill_status(page: Page) -> str | None:
    """The status on a backfill's page, once it has ended."""
    text = page.get_by_text("Status", exact=True).locator("..").inner_text()
    return next((word for word in ("Succeeded", "Failed", "Canceled") if word in text), None)


def browsing() -> list[dict[str, Any]]:
    views = [
        event("page", device, day, f"10:0{minute}", path=path)
        for day in BROWSING_DAYS
        for device in ("phone", "laptop")
        for minute, path in enumerate(("/", "/p/1"))
    ]
    return [*views, event("identify", "phone", BROWSING_DAYS[-1], "10:06", user_id="u-phone")]


def late_login() -> list[dict[str, Any]]:
    return [event("identify", "laptop", LATE_LOGIN_DAY, "18:30", user_id="u-laptop")]


def event(
    event_type: str, device: str, day: date, at: str, *, path: str = "/", user_id: str | None = None
) -> dict[str, Any]:
    """One event as Jitsu writes it."""
    return {
        "messageId": f"{event_type}-{device}-{day}-{at}",
        "projectId": "shop",
        "type": event_type,
        "timestamp": f"{day}T{at}:00.000Z",
        "receivedAt": f"{day}T{at}:01.000Z",
        "anonymousId": device,
        "context": {"page": {"url": f"https://shop.example.com{path}", "path": path}},
        **({"userId": user_id, "traits": {"email": f"{user_id}@mail.example"}} if user_id else {}),
    }


def land(server: DagsterServer, name: str, events: list[dict[str, Any]]) -> None:
    path = server.landing_dir / "jitsu" / name
    path.parent.mkdir(exist_ok=True)
    part = path.with_name(f".{name}.part")  # the sensor must not see half a file
    part.write_text("".join(json.dumps(event) + "\n" for event in events))
    part.rename(path)


def stitched_sessions(server: DagsterServer) -> set[tuple[Any, ...]]:
    return rows(
        server, "select session_date, anonymous_id, stitched_user_id, stitched_by from stitch.stitched_sessions"
    )


def page_views(server: DagsterServer) -> set[tuple[Any, ...]]:
    return rows(server, "select event_date, anonymous_id, stitched_user_id, stitched_by from stitch.page_views")


def laptop_is_stitched(server: DagsterServer) -> bool:
    try:
        found = rows(
            server,
            "select distinct stitched_user_id from stitch.stitched_sessions where anonymous_id = 'laptop'",
            wait_seconds=1,
        )
    except WarehouseBusy:  # a run has it
        return False
    return found == {("u-laptop",)}


def rows(server: DagsterServer, query: str, *, wait_seconds: float = 60) -> set[tuple[Any, ...]]:
    with DuckDBEngine(server.duckdb_path, wait_seconds).open(read_only=True) as warehouse:
        return set(warehouse.rows(query))


def answers_while_running(server: DagsterServer, page: Page, probes: list[str]) -> bool:
    """True always; notes in `probes` each run that was in progress both before and after the UI answered."""

    def in_progress() -> set[str]:
        return {run["runId"] for run in server.runs() if run["status"] in RUNNING_STATUSES}

    if running := in_progress():
        status, _ = server.get("/server_info")
        assert status == 200
        answer = page.goto(f"{server.url}/runs")
        assert answer is not None
        assert answer.status == 200
        expect(page.get_by_text("build_job").first).to_be_visible()
        probes += running & in_progress()
    return True


def has_come_to_rest(server: DagsterServer) -> bool:
    """No run is under way, and since the last one ended both sensors have looked and asked for nothing."""
    runs = server.runs()
    if any(run["status"] in UNFINISHED_STATUSES for run in runs):
        return False
    last_ended = max((run["endTime"] or 0 for run in runs), default=0)
    ticks = [server.last_tick(sensor) for sensor in SENSORS]
    return all(tick and tick["status"] == "SKIPPED" and tick["timestamp"] > last_ended for tick in ticks)


def range_of(tags: dict[str, str]) -> tuple[str, str]:
    return tags["dagster/asset_partition_range_start"], tags["dagster/asset_partition_range_end"]
