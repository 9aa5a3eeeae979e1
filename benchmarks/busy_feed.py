"""A busy feed with the real daemon: do runs keep up, and what does Dagster's own record of them take?

``python benchmarks/busy_feed.py [--minutes M] [--files-per-minute N]`` lets N small files land per minute.
``python benchmarks/busy_feed.py --burst N`` lets N such files land at once.

Before that a warehouse is settled that holds sixty days of traffic. Each file holds three page views of each of three
new devices on the last three days. Every fifth file also holds the login of a device that was anonymous until then. A
file is written aside and renamed, so it lands as a whole. The lag of a file is the time, in seconds, from its landing
until the index says that the warehouse holds it; the index is read every two seconds.

`runs_ahead` of a run is the number of runs that had been requested before it and had not ended when it was requested.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
from dagster import DagsterInstance, DagsterRunStatus
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES
from fresh_process import REPOSITORY, Deployment
from results import keep, load_average
from traffic import FIRST_DAY, Traffic

from stitch_pipeline.landing.index import LandingIndex

sys.path.insert(0, str(REPOSITORY / "tests" / "e2e"))
from dagster_server import DagsterServer, dagster_server

DAYS_BACK = 3
LOGIN_EVERY = 5
SAMPLE_SECONDS = 2
_JOURNALS, _JOURNAL = ("-wal", "-shm", "-journal"), "SQLite's journals"
WAITING = (DagsterRunStatus.QUEUED, DagsterRunStatus.NOT_STARTED, DagsterRunStatus.STARTING)

# A part of a process's command line, and what the process is.
_PROCESSES = {
    "dagster_webserver": "webserver",
    "dagster._daemon": "daemon",
    "code-server start": "code server's parent",
    "api grpc": "code server",
    "spawn_main": "run",
}


class Feed:
    """Writes small files of new devices, and logins of ``anonymous`` devices, into the deployment's feed."""

    def __init__(self, deployment: Deployment, traffic: Traffic, anonymous: Sequence[str]) -> None:
        self._feed = deployment.feed
        self._aside = deployment.directory / "aside"
        self._aside.mkdir()
        self._traffic = traffic
        self._anonymous = anonymous
        self.landed_at: dict[str, float] = {}
        """Unix time by name of the file, as the index names it."""

    def prepare(self, number: int) -> Path:
        events = [self._page_view(number, device, step) for device in range(3) for step in range(3)]
        if number % LOGIN_EVERY == 0:
            events.append(self._login(number))
        path = self._aside / f"live-{number}.ndjson"
        path.write_text("".join(json.dumps(event) + "\n" for event in events))
        return path

    def land(self, path: Path) -> None:
        path.rename(self._feed / path.name)
        self.landed_at[f"{self._feed.name}/{path.name}"] = time.time()

    def _page_view(self, number: int, device: int, step: int) -> dict[str, str]:
        day = self._traffic.days - 1 - number % DAYS_BACK
        at = datetime.fromisoformat(f"{self._traffic.day(day)}T08:00:00")
        at += timedelta(seconds=number % 30000 + device * 600 + step * 40)
        return {
            "app_id": "shop",
            "platform": "web",
            "event": "page_view",
            "event_id": f"live-{number}-{device}-{step}",
            "derived_tstamp": f"{at.isoformat()}Z",
            "domain_userid": f"live-{number}-{device}",
            "page_url": f"https://shop.example.com/product/{number % 5000}",
        }

    def _login(self, number: int) -> dict[str, str]:
        login = number // LOGIN_EVERY
        return {
            "app_id": "shop",
            "platform": "web",
            "event": "struct",
            "event_id": f"login-{number}",
            "derived_tstamp": f"{self._traffic.day(self._traffic.days - 1)}T23:00:00Z",
            "domain_userid": self._anonymous[login % len(self._anonymous)],
            "user_id": f"late-{login}",
        }


@dataclass
class Watch:
    """Samples the index, the runs and the server's processes until ``all_loaded`` of the feed's files."""

    deployment: Deployment
    instance: DagsterInstance
    server: DagsterServer
    feed: Feed
    loaded_at: dict[str, float] = field(default_factory=dict)
    unfinished: list[Counter[DagsterRunStatus]] = field(default_factory=list)
    memory_mb: Counter[str] = field(default_factory=Counter)
    """The largest resident set of a process, by what it does."""
    loads: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._index = LandingIndex(self.deployment.duckdb_path.with_suffix(".landing.sqlite"))

    @property
    def all_loaded(self) -> bool:
        return len(self.loaded_at) == len(self.feed.landed_at)

    def sample(self) -> None:
        files = self._index.files()
        now = time.time()
        for name in self.feed.landed_at.keys() - self.loaded_at.keys():
            file = files.get(name)
            if file and file.version is not None and not file.is_pending:
                self.loaded_at[name] = now
        self.unfinished.append(self._unfinished())
        self.loads.append(os.getloadavg()[0])
        for process, megabytes in _memory(self.server.process.pid):
            self.memory_mb[process] = max(self.memory_mb[process], megabytes)

    def _unfinished(self) -> Counter[DagsterRunStatus]:
        runs = self.instance.get_run_records(limit=50)
        return Counter(run.dagster_run.status for run in runs if run.dagster_run.status in NOT_FINISHED_STATUSES)

    def until(self, deadline: float, *, all_loaded: bool) -> None:
        """Sample until the deadline (monotonic), or until all files are loaded and no run is unfinished."""
        while time.monotonic() < deadline:
            time.sleep(SAMPLE_SECONDS)
            self.sample()
            if all_loaded and self.all_loaded and not self.unfinished[-1]:
                return

    def figures(self) -> dict[str, Any]:
        return {
            "waiting_runs_max": max(sum(counts[status] for status in WAITING) for counts in self.unfinished),
            "started_runs_max": max(counts[DagsterRunStatus.STARTED] for counts in self.unfinished),
            "memory_mb": dict(self.memory_mb),
            "load_average_median": round(statistics.median(self.loads), 1),
            "load_average_max": round(max(self.loads), 1),
        }


def _memory(group: int) -> Iterator[tuple[str, int]]:
    """What each process of the group does, and its largest resident set so far in MB."""
    for directory in Path("/proc").glob("[0-9]*"):
        # Processes come and go.
        with suppress(OSError):
            if os.getpgid(int(directory.name)) != group:
                continue
            command = (directory / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            status = (directory / "status").read_text()
            peak = next((line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")), None)
            if peak:
                yield next((name for part, name in _PROCESSES.items() if part in command), "other"), int(peak) // 1024


def measure(
    directory: Path, *, events: int, minutes: float, files_per_minute: int, burst: int, limit_minutes: float
) -> dict[str, Any]:
    traffic = Traffic(events)
    deployment = Deployment.create(directory, STITCH_START_DATE=str(FIRST_DAY))
    traffic.write(deployment.feed)
    deployment.settle()
    feed = Feed(deployment, traffic, _anonymous_devices(deployment, traffic))
    with dagster_server(directory, start_date=str(FIRST_DAY)) as server, deployment.instance() as instance:
        watch = Watch(deployment, instance, server, feed)
        time.sleep(10)  # the first ticks
        before, started_at, first = _size(deployment), time.time(), time.monotonic()
        ticks_before = _ticks(instance)
        known = {record.dagster_run.run_id for record in instance.get_run_records()}
        if burst:
            for path in [feed.prepare(number) for number in range(burst)]:
                feed.land(path)
            landing_seconds = time.time() - started_at
            watch.until(first + limit_minutes * 60, all_loaded=True)
        else:
            writer = threading.Thread(target=_land_steadily, args=(feed, minutes, files_per_minute))
            writer.start()
            watch.until(first + minutes * 60, all_loaded=False)
            writer.join()
            landing_seconds = time.time() - started_at
            watch.until(first + limit_minutes * 60, all_loaded=True)
        seconds = time.time() - started_at
        ticks = _ticks(instance) - ticks_before
        records = [record for record in instance.get_run_records() if record.dagster_run.run_id not in known]
    after = _size(deployment)
    files, grown = len(feed.landed_at), sum(after.values()) - sum(before.values())
    grown -= after[_JOURNAL] - before[_JOURNAL]
    return {
        "events_before": events,
        "files": files,
        "files_with_a_login": -(-files // LOGIN_EVERY),
        "landing_seconds": round(landing_seconds, 1),
        "seconds": round(seconds, 1),
        "files_not_loaded": files - len(watch.loaded_at),
        "seconds_until_all_loaded": round(max(watch.loaded_at.values()) - started_at, 1) if watch.all_loaded else None,
        "runs": _runs(records, files, seconds),
        "lag_seconds": _lags(feed.landed_at, watch.loaded_at),
        **watch.figures(),
        "load_average_at_end": load_average(),
        "ticks": dict(ticks),
        "dagster_home_bytes": {
            "grown": grown,
            "per_run": grown // max(len(records), 1),
            "per_file": grown // files,
            "grown_by_file": {name: after[name] - before.get(name, 0) for name in sorted(after)},
        },
        "run_records": [_timing(record, started_at) for record in sorted(records, key=lambda r: r.create_timestamp)],
    }


def _land_steadily(feed: Feed, minutes: float, files_per_minute: int) -> None:
    first = time.monotonic()
    for number in range(int(minutes * files_per_minute)):
        time.sleep(max(0.0, first + number * 60 / files_per_minute - time.monotonic()))
        feed.land(feed.prepare(number))


def _anonymous_devices(deployment: Deployment, traffic: Traffic) -> list[str]:
    """Devices without a login that were seen within the lookback."""
    with duckdb.connect(str(deployment.duckdb_path), read_only=True) as con:
        rows = con.execute(
            "select anonymous_id from stitch.stitched_sessions group by anonymous_id "
            "having bool_and(stitched_by = 'none') and max(session_date) >= $day order by hash(anonymous_id)",
            {"day": traffic.day(traffic.days - 25)},
        ).fetchall()
    return [row[0] for row in rows]


def _size(deployment: Deployment) -> Counter[str]:
    """Bytes of the files of DAGSTER_HOME, by what they are. SQLite's journals go when the last connection closes."""
    home = deployment.directory / "dagster_home"
    sizes: Counter[str] = Counter()
    for path in home.rglob("*"):
        # The journals of SQLite come and go.
        with suppress(FileNotFoundError):
            if path.is_file():
                sizes[_kind(path.relative_to(home))] += path.stat().st_size
    return sizes


def _kind(path: Path) -> str:
    if path.name.endswith(_JOURNALS):
        return _JOURNAL
    if path.parts[0] == "storage":
        return "storage/<run_id>"
    if path.parts[:2] == ("history", "runs") and path.name != "index.db":
        return "history/runs/<run_id>.db"
    return str(path)


def _ticks(instance: DagsterInstance) -> Counter[str]:
    """The number of ticks that are recorded, by the name of the sensor or schedule."""
    ticks: Counter[str] = Counter()
    for state in instance.all_instigator_state():
        found = instance.get_ticks(state.instigator_origin_id, state.selector_id)
        for tick in found:
            ticks[f"{state.instigator_name} {tick.status.value.lower()}"] += 1
    return ticks


def _runs(records: Sequence[Any], files: int, seconds: float) -> dict[str, Any]:
    spans = [(record.create_timestamp.timestamp(), record.end_time or float("inf")) for record in records]
    ahead = [sum(other < created < ended for other, ended in spans) for created, _ in spans]
    builds = [record for record in records if record.dagster_run.job_name == "build_job"]
    return {
        "total": len(records),
        "by_job": dict(Counter(record.dagster_run.job_name for record in records)),
        "by_status": dict(Counter(record.dagster_run.status.value for record in records)),
        "per_minute": round(len(records) * 60 / seconds, 2),
        "files_per_build": round(files / max(len(builds), 1), 1),
        "runs_ahead_max": max(ahead, default=0),
        "runs_with_more_than_two_ahead": sum(number > 2 for number in ahead),
    }


def _lags(landed_at: dict[str, float], loaded_at: dict[str, float]) -> dict[str, Any]:
    by_landing = [
        loaded_at[name] - at for name, at in sorted(landed_at.items(), key=lambda x: x[1]) if name in loaded_at
    ]
    if len(by_landing) < 4:
        return {}
    half = len(by_landing) // 2
    return {
        "median": round(statistics.median(by_landing), 1),
        "p95": round(statistics.quantiles(by_landing, n=20)[-1], 1),
        "max": round(max(by_landing), 1),
        "median_first_half": round(statistics.median(by_landing[:half]), 1),
        "median_second_half": round(statistics.median(by_landing[half:]), 1),
    }


def _timing(record: Any, zero: float) -> dict[str, Any]:
    """When a run was requested, started and ended, in seconds since the first file landed."""
    tags = record.dagster_run.tags
    first, last = (tags.get(f"dagster/asset_partition_range_{end}", "") for end in ("start", "end"))

    def since(at: float | None) -> float | None:
        return None if at is None else round(at - zero, 1)

    return {
        "job": record.dagster_run.job_name,
        "days": f"{first}..{last}",
        "status": record.dagster_run.status.value,
        "requested": since(record.create_timestamp.timestamp()),
        "started": since(record.start_time),
        "ended": since(record.end_time),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--files-per-minute", type=int, default=50)
    parser.add_argument("--burst", type=int, default=0, help="so many files at once instead")
    parser.add_argument("--events", type=float, default=300_000, help="events in the warehouse before")
    parser.add_argument("--limit-minutes", type=float, default=10, help="when to stop waiting for files to be loaded")
    options = parser.parse_args()
    # So that `timeout` ends the server too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended from outside"))
    with tempfile.TemporaryDirectory() as scratch:
        figures = measure(
            Path(scratch) / "deployment",
            events=int(options.events),
            minutes=options.minutes,
            files_per_minute=options.files_per_minute,
            burst=options.burst,
            limit_minutes=options.limit_minutes,
        )
        keep("busy_feed_burst" if options.burst else "busy_feed", figures)


if __name__ == "__main__":
    main()
