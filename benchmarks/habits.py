"""Sixty days in a row, compared with what home-made pipelines usually do after each day.

``python benchmarks/habits.py [EVENTS]``, where EVENTS is the number of events of all days. Every day a file lands and
is settled, late logins and page views included. For comparison, on the same files:

- `rebuild`: everything is built again from all files so far, by the cheapest possible script (``floor.py``). It runs on
  every tenth day and is interpolated in between, because its cost grows evenly.
- `post-hook`: after each day, every row of ``stitched_sessions`` with a mapped device is set to the device's latest
  user, as the usual post-hook does. Only this statement counts, not the build before it. Its seconds are compared with
  those of our re-stitches, which also bring users, mapping and statistics up to date.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import duckdb
from floor import floor_cost
from fresh_process import Deployment, large_scratch
from results import keep
from traffic import FIRST_DAY, Traffic

from stitch_pipeline.planning.sql_text import literal

REBUILD_EVERY_DAYS = 10
POST_HOOK = """
update sessions set stitched_user_id = mapping.user_id
from (
  select project_id, anonymous_id, arg_max(user_id, last_seen_at) as user_id
  from now.stitch.identity_map group by project_id, anonymous_id
) as mapping
where sessions.project_id = mapping.project_id and sessions.anonymous_id = mapping.anonymous_id
"""


def measure(events: int, directory: Path) -> dict[str, Any]:
    traffic = Traffic(events)
    deployment = Deployment.create(directory, STITCH_START_DATE=str(FIRST_DAY))
    ours, ours_rows, ours_seconds = 0.0, 0, 0.0
    hook, hook_rows, hook_seconds = 0.0, 0, 0.0
    rebuild, last_rebuild = 0.0, 0.0
    for number in range(traffic.days):
        with duckdb.connect() as con:
            traffic.write_day(con, number, deployment.feed)
        settled = deployment.settle("--view-stitching")
        ours += settled.cpu_seconds
        ours_rows += settled.rows_written("stitched_sessions", "restitch_job")
        ours_seconds += settled.seconds_of("restitch_job")
        cpu_seconds, seconds, rows = _post_hook(deployment)
        hook += cpu_seconds
        hook_seconds += seconds
        hook_rows += rows
        if (number + 1) % REBUILD_EVERY_DAYS == 0:
            measured = floor_cost(deployment.feed).cpu_seconds
            rebuild += REBUILD_EVERY_DAYS * (last_rebuild + measured) / 2
            last_rebuild = measured
    return {
        "events": events,
        "days": traffic.days,
        "settled_day_by_day": {
            "cpu_seconds": round(ours, 1),
            "last_day_cpu_seconds": round(settled.cpu_seconds, 1),
            "sessions_rewritten": ours_rows,
            "restitch_seconds": round(ours_seconds, 1),
        },
        "rebuilt_every_day": {"cpu_seconds": round(rebuild, 1), "last_day_cpu_seconds": round(last_rebuild, 1)},
        "post_hook": {
            "cpu_seconds": round(hook, 1),
            "seconds": round(hook_seconds, 1),
            "sessions_rewritten": hook_rows,
        },
        "ratios": {
            "rebuild_to_ours_cpu": round(rebuild / ours, 2),
            "rebuild_to_ours_cpu_on_the_last_day": round(last_rebuild / settled.cpu_seconds, 2),
            "post_hook_rows_to_ours": round(hook_rows / max(ours_rows, 1), 1),
            "post_hook_seconds_to_ours": round(hook_seconds / max(ours_seconds, 0.1), 2),
        },
    }


def _post_hook(deployment: Deployment) -> tuple[float, float, int]:
    """CPU seconds and seconds of the statement, and the rows that it writes."""
    with large_scratch() as scratch, duckdb.connect(str(scratch / "copy.duckdb")) as con:
        con.execute(f"attach {literal(str(deployment.duckdb_path))} as now (read_only)")
        con.execute("create table sessions as select * from now.stitch.stitched_sessions")
        started, cpu = time.monotonic(), time.process_time()
        rows = con.execute(POST_HOOK).fetchall()[0][0]
        return time.process_time() - cpu, time.monotonic() - started, rows


def main() -> None:
    events = int(float(sys.argv[1])) if len(sys.argv) > 1 else 3_000_000
    with large_scratch() as scratch:
        keep("habits", measure(events, scratch / "deployment"))


if __name__ == "__main__":
    main()
