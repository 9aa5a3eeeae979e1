"""Write results: one JSON file per benchmark in ``benchmarks/results``, with the machine that measured them."""

from __future__ import annotations

import json
import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb

RESULTS = Path(__file__).resolve().parent / "results"


def keep(name: str, figures: dict[str, Any]) -> None:
    """Write and print the figures of one benchmark."""
    machine = {
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "python": platform.python_version(),
        "duckdb": duckdb.__version__,
        "measured_on": f"{datetime.now(UTC):%Y-%m-%d}",
    }
    text = json.dumps({"benchmark": name, **machine, **figures}, indent=2)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(text + "\n")
    print(text)


def load_average() -> list[float]:
    """Runnable processes over the last 1, 5 and 15 minutes; above the number of cores, others wanted them too."""
    return [round(average, 1) for average in os.getloadavg()]
