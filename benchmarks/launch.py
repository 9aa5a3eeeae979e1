"""CPU seconds to import the code location, beyond the import of Dagster and dagster-dbt.

``python benchmarks/launch.py``. Medians of fresh processes in turn, with the dbt project parsed and the bytecode
compiled. For comparison it measures a lower bound: one ``@dbt_assets`` of the same dbt project around a function that
does nothing.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

from fresh_process import Deployment, cost
from results import keep

from stitch_pipeline.warehouse.dbt_project import prepare_manifest

REPEATS = 7
MANIFEST = prepare_manifest()
PROGRAMS = {
    "dagster_and_dagster_dbt": "import dagster, dagster_dbt",
    "one_dbt_assets": f"""
import dagster, dagster_dbt, pathlib

@dagster_dbt.dbt_assets(manifest=pathlib.Path({str(MANIFEST)!r}))
def models(context):
    yield
""",
    "code_location": "import stitch_pipeline.definitions",
}


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        environment = Deployment.create(Path(scratch) / "deployment").environment
        measured: dict[str, list[float]] = {name: [] for name in PROGRAMS}
        for number in range(REPEATS + 1):
            for name, program in PROGRAMS.items():
                seconds = cost(["-c", program], environment).cpu_seconds
                if number:  # the first round compiles
                    measured[name].append(seconds)
    medians = {name: round(statistics.median(seconds), 2) for name, seconds in measured.items()}
    bare, *others = PROGRAMS
    beyond = {name: round(medians[name] - medians[bare], 2) for name in others}
    keep("launch", {"cpu_seconds": medians, "beyond_cpu_seconds": beyond})


if __name__ == "__main__":
    main()
