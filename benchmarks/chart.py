"""Draw ``docs/images/scale.svg`` from the results of ``scale.py``: CPU seconds of each step by the number of events."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
from results import RESULTS

STEPS = {
    "full_build": "full build",
    "floor": "the floor: read, sort, write once",
    "one_more_day": "one more day",
    "late_logins": "1,000 late logins",
    "late_page_views": "their page views",
    "nothing_to_do": "nothing to do",
}


def main() -> None:
    measured = sorted(
        (json.loads(path.read_text()) for path in RESULTS.glob("scale_*.json")), key=lambda m: m["events"]
    )
    matplotlib.rcParams["svg.hashsalt"] = "scale"  # the same figures give the same file
    figure, axes = plt.subplots(figsize=(9, 4.5))
    events = [result["events"] / 1e6 for result in measured]
    for step, label in STEPS.items():
        axes.plot(events, [result[step]["cpu_seconds"] for result in measured], marker="o", label=label)
    axes.set(xscale="log", yscale="log", xlabel="million events, 60 days", ylabel="CPU seconds, start-up included")
    axes.set_xticks(events, [f"{number:.0f}" for number in events])
    axes.set_xticks([], minor=True)
    axes.grid(which="both", alpha=0.2)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    figure.tight_layout()
    figure.savefig(Path(__file__).resolve().parent.parent / "docs" / "images" / "scale.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
