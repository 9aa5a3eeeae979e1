"""A real Dagster, webserver and daemon, on a directory of its own; and a browser that looks at it.

Shared by the end-to-end tests and `docs/take_screenshots.py`. It starts what `make dev` starts.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, TypeVar

from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

REPOSITORY = Path(__file__).resolve().parent.parent.parent
# No test says how fast something is: these only end what will never come, on the slowest machine.
PATIENCE_SECONDS = 600
UI_PATIENCE_MS = 120_000
CHROMIUM = Path("/usr/bin/chromium")
# Nothing that Chromium does on its own: no sandbox in a container, no GPU, no request of its own.
CHROMIUM_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

Found = TypeVar("Found")


@dataclass(frozen=True)
class DagsterServer:
    """`dagster dev` on `directory`, which holds its DAGSTER_HOME, landing zone, warehouse and log."""

    directory: Path
    port: int
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def landing_dir(self) -> Path:
        return landing_dir(self.directory)

    @property
    def duckdb_path(self) -> Path:
        return duckdb_path(self.directory)

    @property
    def log(self) -> str:
        return (self.directory / "dagster.log").read_text(errors="replace")

    def get(self, path: str) -> tuple[int, bytes]:
        with urllib.request.urlopen(self.url + path, timeout=20) as answer:
            return answer.status, answer.read()

    def query(self, graphql: str, **variables: Any) -> Any:
        """The data of a GraphQL query: what the UI itself asks."""
        request = urllib.request.Request(
            f"{self.url}/graphql",
            data=json.dumps({"query": graphql, "variables": variables}).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            body = json.load(answer)
        if body.get("errors"):
            raise RuntimeError(f"GraphQL: {body['errors']}")
        return body["data"]

    def runs(self) -> list[dict[str, Any]]:
        """All runs, oldest first, each with `runId`, `jobName`, `status` and `tags` as a dict."""
        found = self.query(
            "{ runsOrError { ... on Runs { results { "
            "runId jobName status creationTime endTime tags { key value } } } } }"
        )["runsOrError"]["results"]
        runs = [{**run, "tags": {tag["key"]: tag["value"] for tag in run["tags"]}} for run in found]
        return sorted(runs, key=lambda run: run["creationTime"])

    def last_tick(self, sensor: str) -> dict[str, Any] | None:
        """The newest tick of a sensor that has ended: `timestamp` and `status`."""
        ticks = self.query(
            'query($sensor: String!) { sensorOrError(sensorSelector: {repositoryName: "__repository__", '
            'repositoryLocationName: "stitch_pipeline", sensorName: $sensor}) '
            "{ ... on Sensor { sensorState { ticks(limit: 2) { timestamp status } } } } }",
            sensor=sensor,
        )["sensorOrError"]["sensorState"]["ticks"]
        return next((tick for tick in ticks if tick["status"] != "STARTED"), None)


def landing_dir(directory: Path) -> Path:
    return directory / "landing"


def duckdb_path(directory: Path) -> Path:
    return directory / "warehouse.duckdb"


def wait_for(wanted: str, look: Callable[[], Found | None], *, every: float = 0.5, server: DagsterServer) -> Found:
    """The first truthy thing that `look` gives. Fails after `PATIENCE_SECONDS`, or at once if the server has ended."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (found := look()):
        if server.process.poll() is not None:
            raise AssertionError(f"dagster dev has ended while waiting for {wanted}:\n{server.log[-5000:]}")
        if time.monotonic() > deadline:
            raise AssertionError(
                f"Not within {PATIENCE_SECONDS} seconds: {wanted}. The server's log ends:\n{server.log[-5000:]}"
            )
        time.sleep(every)
    return found


def listening_addresses(server: DagsterServer) -> set[str]:
    """The addresses at which processes of the server accept TCP connections, as /proc writes them: in hexadecimal."""
    sockets = set()
    for descriptor in Path("/proc").glob("[0-9]*/fd/*"):
        # Processes and descriptors come and go.
        with suppress(OSError):
            if os.getpgid(int(descriptor.parts[2])) == server.process.pid:
                sockets.add(os.readlink(descriptor))
    lines = [
        line.split() for table in ("tcp", "tcp6") for line in Path("/proc/net", table).read_text().splitlines()[1:]
    ]
    listens = "0A"
    return {line[1].split(":")[0] for line in lines if line[3] == listens and f"socket:[{line[9]}]" in sockets}


@contextmanager
def dagster_server(
    directory: Path,
    *,
    location: tuple[str, str] = ("-w", "workspace.yaml"),
    **settings: str,
) -> Iterator[DagsterServer]:
    """Webserver and daemon, up and with the code location loaded. `settings` are `STITCH_…` variables.

    `location` is how `dagster dev` is told what to load; by default the project.
    """
    home = directory / "dagster_home"
    home.mkdir(parents=True, exist_ok=True)
    shutil.copy(REPOSITORY / "dagster_home" / "dagster.yaml", home)
    landing_dir(directory).mkdir(exist_ok=True)
    command = [sys.executable, "-m", "dagster", "dev", *location, "-h", "127.0.0.1"]
    with served(directory, command, environment(directory, **settings)) as server:
        yield server


@contextmanager
def served(
    directory: Path,
    command: Sequence[str] | str,
    env: dict[str, str],
    *,
    cwd: Path = REPOSITORY,
) -> Iterator[DagsterServer]:
    """The server that a command starts, up and with the code location loaded; a `str` is for a shell.

    The command gets a free port as its last argument.
    """
    port = free_port()
    shell = isinstance(command, str)
    # A process group of its own, because `dagster dev` in the background may ignore SIGTERM.
    with (directory / "dagster.log").open("ab") as log:
        process = subprocess.Popen(
            f"{command} -p {port}" if shell else [*command, "-p", str(port)],
            shell=shell,
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    server = DagsterServer(directory, port, process)
    try:
        wait_for("the code location", lambda: _is_loaded(server), server=server)
        yield server
    finally:
        end_group(process)


def environment(directory: Path, **settings: str) -> dict[str, str]:
    """The environment of the server: nothing of `STITCH_…` or `DAGSTER_…` leaks in from the caller's."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        # Without its bytecode cache every process that Dagster starts would compile everything again.
        if not name.startswith(("STITCH_", "DAGSTER_")) and name != "PYTHONDONTWRITEBYTECODE"
    }
    return {
        **inherited,
        "DAGSTER_HOME": str(directory / "dagster_home"),
        "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
        "STITCH_ENV_FILE": "off",
        "STITCH_LANDING_DIR": str(landing_dir(directory)),
        "STITCH_DUCKDB_PATH": str(duckdb_path(directory)),
        **{f"STITCH_{name.upper()}": value for name, value in settings.items()},
    }


@contextmanager
def chromium() -> Iterator[Browser]:
    if not CHROMIUM.exists():
        raise AssertionError(
            f"There is no Chromium at {CHROMIUM}: install it with `apt-get install chromium` (see .ci/run)."
        )
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=CHROMIUM_ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


def new_page(browser: Browser, *, width: int = 1600, height: int = 1000) -> Page:
    page = browser.new_page(viewport={"width": width, "height": height}, timezone_id="UTC")
    page.set_default_timeout(UI_PATIENCE_MS)
    expect.set_options(timeout=UI_PATIENCE_MS)
    return page


def switch_sensor(server: DagsterServer, page: Page, sensor: str, *, on: bool) -> None:
    page.goto(f"{server.url}/locations/stitch_pipeline/sensors/{sensor}")
    switch = page.locator("label[class*=formatSwitch]")
    switch.wait_for()
    if switch.locator("input").is_checked() != on:
        switch.click()
    expect(switch.locator("input")).to_be_checked(checked=on)


def launch_backfill(page: Page, first: date, last: date, *, config: str | None = None) -> None:
    """Fill in the dialog that is open, and launch."""
    dialog = fill_in_backfill(page, first, last)
    if config:
        open_config_editor(page, dialog, config)
        page.get_by_role("button", name="Save config").click()
    dialog.get_by_role("button", name="Launch backfill").click()


def fill_in_backfill(page: Page, first: date, last: date) -> Locator:
    dialog = page.get_by_role("dialog").filter(has_text="Partition selection")
    selection = dialog.locator("input[type=text]").first
    selection.fill(f"[{first}...{last}]")
    selection.press("Tab")
    expect(dialog.get_by_text(f"{(last - first).days + 1} partitions", exact=True)).to_be_visible()
    return dialog


def open_config_editor(page: Page, dialog: Locator, config: str) -> None:
    dialog.get_by_text("Config", exact=True).click()
    dialog.get_by_role("button", name="Add config").click()
    page.locator(".CodeMirror.cm-s-config-editor").click()
    # As one insertion: typed key by key, the editor would indent and complete on its own.
    page.keyboard.insert_text(config)
    expect(page.get_by_text("No errors")).to_be_visible()


def _is_loaded(server: DagsterServer) -> bool:
    try:
        locations = server.query(
            "{ workspaceOrError { ... on Workspace { locationEntries { name loadStatus "
            "locationOrLoadError { __typename ... on PythonError { message } } } } } }"
        )["workspaceOrError"]["locationEntries"]
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False
    for location in locations:
        if location["locationOrLoadError"] and location["locationOrLoadError"]["__typename"] == "PythonError":
            raise AssertionError(f"{location['name']} does not load: {location['locationOrLoadError']['message']}")
    return bool(locations) and all(location["loadStatus"] == "LOADED" for location in locations)


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def end_group(process: subprocess.Popen[bytes]) -> None:
    """End a process and its whole group, politely at first."""
    for end in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, end)
        except ProcessLookupError:
            return
        deadline = time.monotonic() + 15
        while time.monotonic() < deadline:
            process.poll()  # else the leader stays a zombie, and its group with it
            try:
                os.killpg(process.pid, 0)
            except ProcessLookupError:
                return
            time.sleep(0.2)
