"""What the published copy costs: the same build with publishing on and off, in turn.

``python benchmarks/publishing.py [EVENTS [ROUNDS]]``. A full build of all days, then one more day with everything
brought up to date, each in a process of its own. Medians of the rounds, and of the differences within a round.
"""

from __future__ import annotations

import statistics
import sys
from pathlib import Path
from typing import Any

import duckdb
from fresh_process import Cost, Deployment, large_scratch
from results import keep, load_average
from traffic import FIRST_DAY, Traffic

STEPS = ("full_build", "one_more_day")


def settle(traffic: Traffic, directory: Path, landed: Path, *, publishes: bool) -> tuple[dict[str, Cost], Path]:
    """The cost of each step, and the published directory."""
    off = {} if publishes else {"STITCH_PUBLISHED_DIR": "off"}
    deployment = Deployment.create(directory, STITCH_START_DATE=str(FIRST_DAY), **off)
    deployment.feed.mkdir()
    for path in sorted(landed.glob("*.parquet"))[: traffic.days]:
        (deployment.feed / path.name).hardlink_to(path)
    costs = {"full_build": deployment.settle("--view-stitching")}
    last = landed / f"{traffic.day(traffic.days)}.parquet"
    (deployment.feed / last.name).hardlink_to(last)
    costs["one_more_day"] = deployment.settle("--view-stitching")
    return costs, deployment.duckdb_path.with_suffix(".published")


def measure(events: int, rounds: int, scratch: Path) -> dict[str, Any]:
    traffic = Traffic(events)
    landed = scratch / "landed"
    traffic.write(landed)
    with duckdb.connect() as con:
        traffic.write_day(con, traffic.days, landed)
    spent: dict[str, dict[bool, list[float]]] = {step: {False: [], True: []} for step in STEPS}
    published: Path | None = None
    loads = [load_average()]
    for number in range(rounds):
        for publishes in (True, False) if number % 2 else (False, True):
            costs, directory = settle(traffic, scratch / f"{number}-{publishes}", landed, publishes=publishes)
            for step in STEPS:
                spent[step][publishes].append(costs[step].cpu_seconds)
            if publishes:
                published = directory
        loads.append(load_average())
    assert published is not None
    files = [path for path in published.rglob("*") if path.is_file()]
    steps = {}
    for step, measured in spent.items():
        off, on = statistics.median(measured[False]), statistics.median(measured[True])
        difference = statistics.median(b - a for a, b in zip(measured[False], measured[True], strict=True))
        steps[step] = {
            "cpu_seconds_off": round(off, 2),
            "cpu_seconds_on": round(on, 2),
            "difference_cpu_seconds": round(difference, 2),
            "share_of_the_build": round(difference / off, 3),
        }
    return {
        "events": events,
        "days": traffic.days,
        "rounds": rounds,
        **steps,
        "published": {"files": len(files), "mb": round(sum(path.stat().st_size for path in files) / 1e6, 1)},
        "load_averages": loads,
    }


def main() -> None:
    events = int(float(sys.argv[1])) if len(sys.argv) > 1 else 1_000_000
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    with large_scratch() as scratch:
        keep("publishing", measure(events, rounds, scratch))


if __name__ == "__main__":
    main()
