"""A failed run tells people: what is posted, what a command gets, and what nobody must see."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from dagster import (
    AssetKey,
    DagsterInstance,
    DefaultSensorStatus,
    JobDefinition,
    build_run_status_sensor_context,
    job,
    op,
)
from dagster_shared.record import copy
from pydantic import SecretStr

from stitch_pipeline.orchestration.alerts import AlertFailed, alert_of_problems, alert_sensor, send
from stitch_pipeline.settings import Settings

MESSAGE = {"text": "build_job failed: no room (run 1)", "job_name": "build_job", "run_id": "1", "error": "no room"}


@pytest.fixture
def webhook() -> Iterator[tuple[str, list[Any]]]:
    """A URL, and what was posted there."""
    posted: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(500 if self.path == "/broken" else 200)
            self.end_headers()

        def log_message(self, *arguments: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/secret-token", posted
        server.shutdown()


def failing_job(name: str) -> JobDefinition:
    @op
    def fails() -> None:
        raise RuntimeError("the disk is full")

    @job(name=name)
    def of_name() -> None:
        fails()

    return of_name


def evaluate(settings: Settings, job_name: str, *assets: AssetKey) -> None:
    """Run a job of that name, which fails, and show the run to the sensor as the daemon does.

    ``assets`` are those that the run was launched for.
    """
    with DagsterInstance.ephemeral() as instance:
        sensor = alert_sensor(settings)
        failed = failing_job(job_name).execute_in_process(instance=instance, raise_on_error=False)
        (event,) = [event for event in failed.all_events if event.event_type_value == "PIPELINE_FAILURE"]
        sensor(
            build_run_status_sensor_context(
                sensor_name=sensor.name,
                dagster_run=copy(failed.dagster_run, asset_selection=frozenset(assets)),
                dagster_event=event,
                dagster_instance=instance,
            ).for_run_failure()
        )


def test_a_failed_run_is_posted(webhook: tuple[str, list[Any]]) -> None:
    url, posted = webhook
    evaluate(Settings(alert_url=url), "build_job")
    (message,) = posted
    assert message["job_name"] == "build_job"
    assert message["error"] == "RuntimeError: the disk is full"
    assert message["text"] == f"build_job failed: RuntimeError: the disk is full (run {message['run_id']})"


def test_a_failed_run_of_somebody_else_is_not_posted(webhook: tuple[str, list[Any]]) -> None:
    url, posted = webhook
    evaluate(Settings(alert_url=url), "nightly_export")
    assert posted == []


def test_a_failed_run_of_assets_that_the_ui_launched_is_posted(webhook: tuple[str, list[Any]]) -> None:
    url, posted = webhook
    settings = Settings(alert_url=url, key_prefix="shop")
    for key in (["users"], ["shop", "users"]):
        evaluate(settings, "__ASSET_JOB", AssetKey(key))
    assert [message["job_name"] for message in posted] == ["__ASSET_JOB"]


def test_the_command_gets_the_message(tmp_path: Path) -> None:
    script = f"import sys; open({str(tmp_path / 'got')!r}, 'w').write(sys.stdin.read())"
    evaluate(Settings(alert_command=f'{sys.executable} -c "{script}"'), "build_job")
    assert json.loads((tmp_path / "got").read_text())["error"] == "RuntimeError: the disk is full"


def test_what_is_not_delivered_fails_the_tick_and_shows_no_secret(webhook: tuple[str, list[Any]]) -> None:
    url, posted = webhook
    broken = url.replace("secret-token", "broken")
    with pytest.raises(AlertFailed) as failed:
        send(Settings(alert_url=broken, alert_command="false secret-argument"), MESSAGE, about="run 1")
    assert str(failed.value) == (
        "The alert about run 1 was not delivered: STITCH_ALERT_URL did not take it (HTTPError) and "
        "STITCH_ALERT_COMMAND ended with 1."
    )
    assert posted == [MESSAGE]
    with pytest.raises(AlertFailed, match=r"did not take it \(ValueError\) and STITCH_ALERT_COMMAND could not be run"):
        send(Settings(alert_url="no url", alert_command="/no/such/program"), MESSAGE, about="run 1")
    with pytest.raises(AlertFailed, match=r"did not take it \(InvalidURL\)\.$"):
        send(Settings(alert_url="http://127.0.0.1/secret token"), MESSAGE, about="run 1")


def test_what_keeps_a_trigger_from_its_work_is_posted_once(webhook: tuple[str, list[Any]], tmp_path: Path) -> None:
    url, posted = webhook
    settings = Settings(alert_url=url, duckdb_path=tmp_path / "warehouse.duckdb")
    for problems in (
        {"web": "down"},
        {"web": "down for a minute"},
        {"crm": "no rights", "web": "down"},
        {"crm": "no rights"},
        {},
        {"web": "down again"},
    ):
        alert_of_problems(settings, "feeds_sensor", problems)
    assert posted == [
        {"text": f"feeds_sensor: {error}", "trigger": "feeds_sensor", "error": error}
        for error in ("web: down", "crm: no rights", "web: down again")
    ]


def test_a_problem_that_was_not_delivered_is_sent_at_the_next_tick(
    webhook: tuple[str, list[Any]], tmp_path: Path
) -> None:
    url, posted = webhook
    settings = Settings(alert_url=url.replace("secret-token", "broken"), duckdb_path=tmp_path / "warehouse.duckdb")
    for _ in range(2):
        with pytest.raises(AlertFailed, match=r"^The alert about feeds_sensor was not delivered"):
            alert_of_problems(settings, "feeds_sensor", {"web": "down"})
    alert_of_problems(settings.model_copy(update={"alert_url": SecretStr(url)}), "feeds_sensor", {"web": "down"})
    assert [message["error"] for message in posted] == ["web: down"] * 3


def test_it_is_off_unless_set() -> None:
    assert not Settings(alert_url="", alert_command=" ").has_alerts
    assert alert_sensor(Settings()).default_status == DefaultSensorStatus.STOPPED
    assert alert_sensor(Settings(alert_command="true")).default_status == DefaultSensorStatus.RUNNING
