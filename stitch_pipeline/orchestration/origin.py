"""Where a run comes from: the code location and repository under which the UI lists it.

The job pages and the timeline of the UI list the runs of a repository of a code location. Dagster notes it when the
webserver or the daemon creates a run, and ``execute_in_process`` has no parameter for it. It calls
``DagsterInstance.create_run_for_job``, which has. The classes of origins are private, and only this file imports them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from dagster import DagsterInstance
from dagster._core.code_pointer import CodePointer
from dagster._core.definitions.repository_definition import SINGLETON_REPOSITORY_NAME
from dagster._core.origin import JobPythonOrigin, RepositoryPythonOrigin, get_python_environment_entry_point
from dagster._core.remote_origin import (
    ManagedGrpcPythonEnvCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin

_MODULE = "stitch_pipeline.definitions"
_ATTRIBUTE = "defs"


@contextmanager
def runs_of_job(instance: DagsterInstance, job_name: str, code_location: str) -> Iterator[None]:
    """A run that is created in the body belongs to the job in the code location of this name."""
    create = instance.create_run_for_job
    instance.create_run_for_job = partial(  # type: ignore[method-assign]
        create,
        remote_job_origin=_remote_origin(job_name, code_location),
        job_code_origin=_code_origin(job_name),
    )
    try:
        yield
    finally:
        instance.create_run_for_job = create  # type: ignore[method-assign]


def _remote_origin(job_name: str, code_location: str) -> RemoteJobOrigin:
    target = LoadableTargetOrigin(executable_path=sys.executable, module_name=_MODULE)
    location = ManagedGrpcPythonEnvCodeLocationOrigin(target, location_name=code_location)
    return RemoteJobOrigin(RemoteRepositoryOrigin(location, SINGLETON_REPOSITORY_NAME), job_name)


def _code_origin(job_name: str) -> JobPythonOrigin:
    repository = RepositoryPythonOrigin(
        executable_path=sys.executable,
        code_pointer=CodePointer.from_module(_MODULE, _ATTRIBUTE, working_directory=None),
        entry_point=get_python_environment_entry_point(sys.executable),
    )
    return JobPythonOrigin(job_name, repository)
