"""What importing the code location costs beyond importing Dagster and dagster-dbt, in CPU seconds.

``python benchmarks/launch.py``. Fresh processes in turn, medians; the parsed dbt project and bytecode are there.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

from fresh_process import Deployment, cost
from results import keep

REPEATS = 7
PROGRAMS = {
    "dagster_and_dagster_dbt": "import dagster, dagster_dbt",
    "code_location": "import stitch_pipeline.definitions",
}


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        environment = Deployment.create(Path(scratch) / "deployment").environment
        measured: dict[str, list[float]] = {name: [] for name in PROGRAMS}
        for number in range(REPEATS + 1):
            for name, program in PROGRAMS.items():
                seconds = cost(["-c", program], environment).cpu_seconds
                if number:  # the first round compiles and parses
                    measured[name].append(seconds)
    medians = {name: round(statistics.median(seconds), 2) for name, seconds in measured.items()}
    beyond = round(medians["code_location"] - medians["dagster_and_dagster_dbt"], 2)
    keep("launch", {"cpu_seconds": medians, "beyond_cpu_seconds": beyond})


if __name__ == "__main__":
    main()
