"""The naive models as partitioned assets of Dagster, as a team would write them by hand from Dagster's documentation.

``python in_dagster.py`` does what a sensor and its run would do: it finds the files that it has not seen, and builds
the days from the first to the last of them in one run. Without a new file there is no run. Its project is the directory
that this file is in.
"""

import json
import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from dagster import (
    AssetExecutionContext,
    BackfillPolicy,
    DagsterInstance,
    DailyPartitionsDefinition,
    Definitions,
    define_asset_job,
    in_process_executor,
)
from dagster_dbt import DbtCliResource, DbtProject, dbt_assets

PROJECT = DbtProject(Path(__file__).resolve().parent)
SEEN = PROJECT.project_dir / "seen.json"


@dbt_assets(
    manifest=PROJECT.manifest_path,
    partitions_def=DailyPartitionsDefinition(start_date=os.environ["NAIVE_FIRST_DAY"]),
    backfill_policy=BackfillPolicy.single_run(),
)
def naive_models(context: AssetExecutionContext, dbt: DbtCliResource) -> Iterator[Any]:
    window = context.partition_time_window
    days = {"first_day": f"{window.start:%Y-%m-%d}", "last_day": f"{window.end - timedelta(days=1):%Y-%m-%d}"}
    yield from dbt.cli(["run", "--vars", json.dumps(days)], context=context).stream()


defs = Definitions(
    assets=[naive_models],
    jobs=[define_asset_job("naive_job", selection=[naive_models])],
    resources={"dbt": DbtCliResource(project_dir=PROJECT)},
    executor=in_process_executor,
)


def main() -> None:
    seen = json.loads(SEEN.read_text()) if SEEN.exists() else []
    files = sorted(path.stem for path in Path(os.environ["NAIVE_FILES"]).glob("*.parquet"))
    if new := [day for day in files if day not in seen]:
        with DagsterInstance.get() as instance:
            defs.resolve_job_def("naive_job").execute_in_process(
                instance=instance,
                tags={
                    "dagster/asset_partition_range_start": new[0],
                    "dagster/asset_partition_range_end": new[-1],
                },
            )
    SEEN.write_text(json.dumps(files))


if __name__ == "__main__":
    main()
