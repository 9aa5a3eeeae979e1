"""``make bench``: every benchmark in turn. With sizes in millions as arguments, ``scale.py`` runs at those.

The scale benchmark at 100 million events needs some 40 GB of disk and hours: ``benchmarks/run.py 3 10 30 100``.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).resolve().parent
# DuckDB's memory limit, by millions of events; the process needs some 500 MB more.
MEMORY_LIMITS = {1: "", 3: "", 10: "2500MB", 30: "3GB"}
MOST_MEMORY = "6GB"
LOGIN_PERCENTS = (5, 30)
ROUNDS = 3
# In millions: with more, a single round takes half an hour.
MOST_EVENTS_FOR_ROUNDS = 30


def _scale_options(size: int) -> list[str]:
    rounds = ROUNDS if size <= MOST_EVENTS_FOR_ROUNDS else 1
    return [f"--memory-limit={MEMORY_LIMITS.get(size, MOST_MEMORY)}", f"--rounds={rounds}"]


def main() -> None:
    sizes = [int(size) for size in sys.argv[1:]] or [3, 10, 30]
    programs = [
        ["launch.py"],
        ["orchestration.py"],
        ["loading.py"],
        *(["scale.py", str(size * 1_000_000), *_scale_options(size)] for size in sizes),
        *(["scale.py", "3000000", *_scale_options(3), f"--login-percent={percent}"] for percent in LOGIN_PERCENTS),
        ["habits.py", "30000000"],
        *(
            ["against_rebuild.py", str(size * 1_000_000), *_scale_options(size)]
            for size in sorted({1, *sizes})
            if size <= MOST_EVENTS_FOR_ROUNDS
        ),
        ["comparison_tables.py"],
        ["graph.py"],
        ["policies.py"],
        ["publishing.py"],
        ["postgres.py"],
        ["postgres_growth.py"],
        ["table_feed.py"],
        ["latency.py"],
        ["busy_feed.py"],
        ["busy_feed.py", "--burst=5000"],
        ["chart.py"],
    ]
    for program in programs:
        print(f"\n── {' '.join(program)}", flush=True)
        subprocess.run([sys.executable, str(BENCHMARKS / program[0]), *program[1:]], check=True)


if __name__ == "__main__":
    main()
