"""Clean up after processes that were killed: mark their runs as failed and free their pool slots.

Such a run would stay "started" for ever, and the triggers would wait for it for ever. ``settle`` holds a file lock
while it runs, so a process that gets the lock knows that no ``settle`` is alive. A run that a daemon launched is looked
after by the code server that started its process. If that server has ended as well, nobody but a look at the process
can tell.

Such a run also keeps its pool slot, and every later run would wait for it. Dagster's daemon frees the slots of ended
runs (``free_slots_after_run_end_seconds``); ``settle`` frees them where there is no daemon.
"""

from __future__ import annotations

import fcntl
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dagster import DagsterEventType, DagsterInstance, DagsterRunStatus, RunsFilter, TextMetadataValue
from dagster._core.storage.dagster_run import FINISHED_STATUSES, NOT_FINISHED_STATUSES
from dagster._core.storage.tags import GRPC_INFO_TAG

from stitch_pipeline.settings import Settings
from stitch_pipeline.settings.folder import prepare_folder

SETTLE_TAG = "stitch/settle"


class AlreadySettling(Exception):
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
                _fail_unfinished(instance)
                _fail_dead_workers(instance)
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
    _fail_dead_workers(instance)
    if not _unfinished(instance):
        return
    with _lock(settings) as is_ours:
        if is_ours:
            _fail_unfinished(instance)


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


def _unfinished(instance: DagsterInstance) -> bool:
    return bool(instance.get_runs(filters=_FILTER, limit=1))


def _fail_unfinished(instance: DagsterInstance) -> None:
    for run in instance.get_runs(filters=_FILTER):
        instance.report_run_failed(run, "The settle process that ran it has ended.")


def _fail_dead_workers(instance: DagsterInstance) -> None:
    """Mark runs as failed that a code server of this machine started in a process that has ended since."""
    # The command line needs an exception of this module, and not all that jobs need.
    from stitch_pipeline.orchestration.jobs import JOBS

    for run in instance.get_runs(filters=RunsFilter(statuses=_LAUNCHED)):
        launched_by = json.loads(run.tags.get(GRPC_INFO_TAG, "{}"))
        if run.job_name not in JOBS or launched_by.get("host") != "localhost":
            continue
        process = _process_of(instance, run.run_id)
        if process is not None and not _may_be_alive(process):
            instance.report_run_failed(run, f"Its process ({process}) has ended.")


def _may_be_alive(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return not Path("/proc/self").exists()  # a system without /proc does not say
    # In a container whose first process collects no others, a dead process stays a zombie.
    return state != "Z"


def _process_of(instance: DagsterInstance, run_id: str) -> int | None:
    """The process that executes the run, from the first event that names it."""
    for entry in instance.all_logs(run_id, of_type=DagsterEventType.ENGINE_EVENT):
        named = entry.dagster_event.engine_event_data.metadata.get("pid") if entry.dagster_event else None
        if isinstance(named, TextMetadataValue) and named.value:
            return int(named.value)
    return None


def _free_slots_of_ended_runs(instance: DagsterInstance) -> None:
    storage = instance.event_log_storage
    holders = storage.get_concurrency_run_ids() if storage.supports_global_concurrency_limits else ()
    if holders:
        for run in instance.get_runs(filters=RunsFilter(run_ids=list(holders), statuses=FINISHED_STATUSES)):
            storage.free_concurrency_slots_for_run(run.run_id)


_FILTER = RunsFilter(tags={SETTLE_TAG: "true"}, statuses=NOT_FINISHED_STATUSES)
_LAUNCHED = [DagsterRunStatus.STARTING, DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING]
