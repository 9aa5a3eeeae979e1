"""Alerts: what tells people outside Dagster that a run has failed, or that something waits for a person.

Off unless a URL or a command is set.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import urllib.request
from collections.abc import Mapping
from http.client import HTTPException
from typing import Any

from dagster import DefaultSensorStatus, RunFailureSensorContext, SensorDefinition, run_failure_sensor

from stitch_pipeline.landing.index import LandingIndex
from stitch_pipeline.orchestration.jobs import is_own
from stitch_pipeline.orchestration.placement import name_of
from stitch_pipeline.orchestration.run_records import failure_of
from stitch_pipeline.settings import Settings

ALERT_SENSOR = "alert_sensor"
_TIMEOUT_SECONDS = 60


class AlertFailed(Exception):
    """An alert could not be delivered. The message has neither the URL nor the command, which may hold a secret."""


def alert_sensor(settings: Settings) -> SensorDefinition:
    """The sensor that sends an alert for each failed run of these definitions; stopped unless an alert is set."""

    @run_failure_sensor(
        name=name_of(settings, ALERT_SENSOR),
        description="Tell people about a failed run: STITCH_ALERT_URL gets a message, STITCH_ALERT_COMMAND is run.",
        default_status=DefaultSensorStatus.RUNNING if settings.has_alerts else DefaultSensorStatus.STOPPED,
    )
    def alert(context: RunFailureSensorContext) -> None:
        run = context.dagster_run
        if is_own(settings, run):
            error = failure_of(context.instance, run.run_id)
            text = f"{run.job_name} failed: {error} (run {run.run_id})"
            message = {"text": text, "job_name": run.job_name, "run_id": run.run_id, "error": error}
            send(settings, message, about=f"run {run.run_id}")

    return alert


def alert_of_problems(settings: Settings, trigger: str, problems: Mapping[str, str]) -> None:
    """Send an alert for each problem of a trigger that was not there at its last tick (``Wanted.problems``).

    Raises AlertFailed, and tries again at the next tick. A problem is noted after it was sent, so that a tick that is
    killed in between sends it again.
    """
    if not settings.has_alerts:
        return
    index = LandingIndex(settings.index_path)
    reported = index.reported(trigger)
    try:
        for name in sorted(set(problems) - reported):
            error = f"{name}: {problems[name]}"
            send(settings, {"text": f"{trigger}: {error}", "trigger": trigger, "error": error}, about=trigger)
            index.note_reported(trigger, reported := reported | {name})
    finally:
        if not reported <= problems.keys():
            index.note_reported(trigger, reported & problems.keys())


def send(settings: Settings, message: Mapping[str, Any], *, about: str) -> None:
    """Post the message as JSON, and give it to the command on standard input. Raises AlertFailed.

    The field ``text`` alone is what chat tools with incoming webhooks show. ``about`` stands in the error.
    """
    body = json.dumps(message).encode()
    problems = []
    if settings.alert_url is not None:
        try:
            request = urllib.request.Request(
                settings.alert_url.get_secret_value(), data=body, headers={"Content-Type": "application/json"}
            )
            with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS):
                pass
        # The messages of some of these hold a part of the URL.
        except (OSError, ValueError, HTTPException) as error:
            problems.append(f"STITCH_ALERT_URL did not take it ({type(error).__name__})")
    if settings.alert_command is not None:
        try:
            command = shlex.split(settings.alert_command.get_secret_value())
            subprocess.run(command, input=body, check=True, capture_output=True, timeout=_TIMEOUT_SECONDS)
        except subprocess.CalledProcessError as error:
            problems.append(f"STITCH_ALERT_COMMAND ended with {error.returncode}")
        except (OSError, ValueError, subprocess.TimeoutExpired) as error:
            problems.append(f"STITCH_ALERT_COMMAND could not be run ({type(error).__name__})")
    if problems:
        raise AlertFailed(f"The alert about {about} was not delivered: {' and '.join(problems)}.")
