"""Clean up after processes that died with a run: mark their runs as failed and free their pool slots.

A run whose process was killed may stay "started" for ever, and the triggers would wait for it for ever:

- Dagster's run monitoring does not know the runs inside ``settle``. So ``settle`` holds a file lock while it runs, and
  a process that gets the lock knows that no ``settle`` is alive.
- With the default launcher, Dagster notices a dead process only as long as the code server that started it is alive.
  The run's events name its process, and a process that is gone, or is younger than this event, is not the run's.

Such a run also keeps its pool slot, and every later run would wait for it. Dagster's daemon frees the slots of ended
runs (``free_slots_after_run_end_seconds``); ``settle`` frees them where there is no daemon.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

from dagster import DagsterEventType, DagsterInstance, DagsterRun, DagsterRunStatus, RunsFilter
from dagster._core.launcher import DefaultRunLauncher
from dagster._core.storage.dagster_run import FINISHED_STATUSES, NOT_FINISHED_STATUSES
from dagster._core.storage.tags import GRPC_INFO_TAG

from stitch_pipeline.orchestration.jobs import is_own
from stitch_pipeline.settings import Settings
from stitch_pipeline.settings.folder import prepare_folder
from stitch_pipeline.warehouse.port import WarehouseBusy

SETTLE_TAG = "stitch/settle"


class AlreadySettling(WarehouseBusy):
    """Another ``settle`` is running on the same warehouse, and did not end in time."""


@contextmanager
def sole_settler(settings: Settings, instance: DagsterInstance) -> Iterator[None]:
    """Hold the lock of ``settle`` for the body, after cleaning up what a killed ``settle`` left.

    Waits ``lock_wait_seconds`` for another ``settle``, then raises AlreadySettling.
    """
    deadline = time.monotonic() + settings.lock_wait_seconds
    while True:
        with _lock(settings) as is_ours:
            if is_ours:
                _fail_unfinished(settings, instance)
                _fail_runs_of_dead_processes(settings, instance)
                _free_slots_of_ended_runs(instance)
                yield
                return
        if time.monotonic() >= deadline:
            raise AlreadySettling(
                f"Another settle is running on '{settings.duckdb_path}' and did not end within "
                f"{settings.lock_wait_seconds:g} seconds: wait for it, or raise STITCH_LOCK_WAIT_SECONDS."
            )
        time.sleep(0.2)


def fail_abandoned_runs(settings: Settings, instance: DagsterInstance) -> None:
    """Mark the unfinished runs of dead processes as failed, so that their work is requested again."""
    _fail_runs_of_dead_processes(settings, instance)
    if not _unfinished(settings, instance):
        return
    with _lock(settings) as is_ours:
        if is_ours:
            _fail_unfinished(settings, instance)


@contextmanager
def _lock(settings: Settings) -> Iterator[bool]:
    prepare_folder(settings.duckdb_path)
    with settings.settle_lock_path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def _unfinished(settings: Settings, instance: DagsterInstance) -> list[DagsterRun]:
    """The unfinished runs inside a ``settle`` of these definitions; there may be others in the same instance."""
    return [run for run in instance.get_runs(filters=_FILTER) if is_own(settings, run)]


def _fail_unfinished(settings: Settings, instance: DagsterInstance) -> None:
    for run in _unfinished(settings, instance):
        instance.report_run_failed(run, "The settle process that ran it has ended.")


def _fail_runs_of_dead_processes(settings: Settings, instance: DagsterInstance) -> None:
    """Mark as failed the own runs that the daemon launched on this machine and whose process is gone."""
    if not isinstance(instance.run_launcher, DefaultRunLauncher):
        return  # other launchers can be asked, and run monitoring does so
    for run in instance.get_runs(filters=RunsFilter(statuses=_LAUNCHED)):
        if not is_own(settings, run):
            continue
        # A code server on another machine starts processes there.
        is_of_this_machine = json.loads(run.tags.get(GRPC_INFO_TAG, "{}")).get("host", "localhost") == "localhost"
        process = _process_of(instance, run) if is_of_this_machine and SETTLE_TAG not in run.tags else None
        if process is not None and not _is_alive(*process):
            instance.report_run_failed(run, f"The process that ran it (pid {process[0]}) has ended.")


def _process_of(instance: DagsterInstance, run: DagsterRun) -> tuple[int, float] | None:
    """The process in which the run executes and when it said so (seconds since the epoch); None if not known."""
    # The first process that is named: later events may name those of single steps, which end before the run.
    for entry in instance.all_logs(run.run_id, of_type=DagsterEventType.ENGINE_EVENT):
        event = entry.dagster_event
        pid = event.engine_event_data.metadata.get("pid") if event else None
        if pid is not None:
            return int(str(pid.value)), entry.timestamp
    return None


def _is_alive(pid: int, since: float) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    # After a restart of the machine or container another process may have the number. `ps` prints whole seconds.
    try:
        asked = ["ps", "-o", "etimes=,stat=", "-p", str(pid)]
        found = subprocess.run(asked, capture_output=True, text=True, check=False)
    except FileNotFoundError:  # no `ps`, as in small containers
        return True
    words = found.stdout.split()
    if len(words) != 2:
        return found.returncode == 0
    age, state = int(words[0]), words[1]
    return not state.startswith("Z") and time.time() - age <= since + 2


def _free_slots_of_ended_runs(instance: DagsterInstance) -> None:
    storage = instance.event_log_storage
    holders = storage.get_concurrency_run_ids() if storage.supports_global_concurrency_limits else ()
    if holders:
        for run in instance.get_runs(filters=RunsFilter(run_ids=list(holders), statuses=FINISHED_STATUSES)):
            storage.free_concurrency_slots_for_run(run.run_id)


_FILTER = RunsFilter(tags={SETTLE_TAG: "true"}, statuses=NOT_FINISHED_STATUSES)
_LAUNCHED = [DagsterRunStatus.STARTING, DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING]
