"""Measure a program in a process of its own: CPU seconds, seconds, and peak memory."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from dagster import DagsterInstance

REPOSITORY = Path(__file__).resolve().parent.parent
INSTANCE_CONFIG = REPOSITORY / "dagster_home" / "dagster.yaml"


@contextmanager
def large_scratch() -> Iterator[Path]:
    """A temporary directory below the repository's ``data``, for more than may fit into the system's."""
    data = REPOSITORY / "data"
    data.mkdir(exist_ok=True)
    with TemporaryDirectory(dir=data) as scratch:
        yield Path(scratch)


@dataclass(frozen=True)
class Cost:
    """What a process cost, and what it printed."""

    cpu_seconds: float
    """User and system time of the process and its children."""
    seconds: float
    memory_mb: int
    """The largest resident set."""
    output: str

    def runs(self, job_name: str = "") -> list[dict[str, Any]]:
        """The runs of one job, or of all, in the document of `settle --json`."""
        (document,) = [json.loads(line) for line in self.output.splitlines() if line.startswith('{"is_settled"')]
        return [run for run in document["runs"] if job_name in ("", run["job_name"])]

    def rows_written(self, table: str, job_name: str = "") -> int:
        """Rows of a table that the runs of one job, or of all, wrote or deleted."""
        return sum(run["rows_changed"].get(table, 0) for run in self.runs(job_name))

    def seconds_of(self, job_name: str) -> float:
        """The seconds of all runs of one job."""
        return float(sum(run["seconds"] for run in self.runs(job_name)))

    def figures(self) -> dict[str, float]:
        """The numbers for a result, rounded."""
        return {
            "cpu_seconds": round(self.cpu_seconds, 2),
            "seconds": round(self.seconds, 2),
            "memory_mb": self.memory_mb,
        }


def cost(arguments: Sequence[str], environment: Mapping[str, str]) -> Cost:
    """Run ``python`` with the arguments. Raises RuntimeError with the program's output if it fails."""
    inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    started = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, *arguments],
        env={**inherited, "PYTHONPATH": str(REPOSITORY), **environment},
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(arguments)} ended with {process.returncode}:\n{output[-4000:]}")
    return Cost(usage.ru_utime + usage.ru_stime, time.monotonic() - started, usage.ru_maxrss // 1024, output)


@dataclass(frozen=True)
class Deployment:
    """A landing zone, a warehouse and a Dagster instance below one directory."""

    directory: Path
    settings: Mapping[str, str]

    @classmethod
    def create(cls, directory: Path, **settings: str) -> Deployment:
        home = directory / "dagster_home"
        home.mkdir(parents=True)
        shutil.copy(INSTANCE_CONFIG, home)
        (directory / "landing").mkdir()
        return cls(directory, settings)

    @property
    def landing_dir(self) -> Path:
        return self.directory / "landing"

    @property
    def feed(self) -> Path:
        """The directory of the simulated traffic's files."""
        return self.landing_dir / "snowplow"

    @property
    def duckdb_path(self) -> Path:
        return self.directory / "warehouse.duckdb"

    @property
    def environment(self) -> dict[str, str]:
        return {
            "DAGSTER_HOME": str(self.directory / "dagster_home"),
            "STITCH_LANDING_DIR": str(self.landing_dir),
            "STITCH_DUCKDB_PATH": str(self.duckdb_path),
            **self.settings,
        }

    def instance(self) -> DagsterInstance:
        """The Dagster instance, opened by this process. Its storage is at the environment variable DAGSTER_HOME."""
        os.environ["DAGSTER_HOME"] = self.environment["DAGSTER_HOME"]
        return DagsterInstance.from_config(self.environment["DAGSTER_HOME"])

    def settle(self, *arguments: str) -> Cost:
        """The cost of ``stitch settle``, start-up included."""
        return cost(["-m", "stitch_pipeline", "settle", "--json", *arguments], self.environment)
