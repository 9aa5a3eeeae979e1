"""``make bench``: every benchmark in turn. With sizes in millions as arguments, ``scale.py`` runs at those.

The scale benchmark at 100 million events needs some 40 GB of disk and hours: ``benchmarks/run.py 3 10 30 100``.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).resolve().parent
# What DuckDB may hold at most, by millions of events; the process needs some 500 MB beside it.
MEMORY_LIMITS = {3: "", 10: "2500MB", 30: "3GB"}
MOST_MEMORY = "6GB"
LOGIN_PERCENTS = (5, 30)


def main() -> None:
    sizes = [int(size) for size in sys.argv[1:]] or [3, 10, 30]
    programs = [
        ["launch.py"],
        ["orchestration.py"],
        ["loading.py"],
        *(["scale.py", str(size * 1_000_000), MEMORY_LIMITS.get(size, MOST_MEMORY)] for size in sizes),
        *(["scale.py", "3000000", MEMORY_LIMITS[3], str(login_percent)] for login_percent in LOGIN_PERCENTS),
        ["habits.py"],
        ["graph.py"],
        ["latency.py"],
        ["chart.py"],
    ]
    for program in programs:
        print(f"\n── {' '.join(program)}", flush=True)
        subprocess.run([sys.executable, str(BENCHMARKS / program[0]), *program[1:]], check=True)


if __name__ == "__main__":
    main()
