"""Write the tables of ``docs/comparison.md`` from the results of ``against_rebuild.py``: ``comparison_tables.py``."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from fresh_process import REPOSITORY
from results import RESULTS

PAGE = REPOSITORY / "docs" / "comparison.md"
BEGIN = "<!-- benchmarks/comparison_tables.py -->"
END = "<!-- end -->"
COMPETITORS = {
    "ours": "`stitch settle`",
    "ours_with_page_views": "`stitch settle --view-stitching`",
    "naive_rebuild": "rebuild",
    "naive_incremental": "incremental",
    "naive_in_dagster": "incremental in Dagster",
}
STEPS = {
    "full": "full build",
    "one_more_day": "one more day",
    "nothing_to_do": "nothing to do",
    "ten_days_late": "a day's file, ten days late",
}
WRONG_AFTER = {"one_more_day": "after one more day", "ten_days_late": "in the end"}


def table(result: Mapping[str, Any]) -> str:
    """The heading, caption and table of one size, in Markdown."""
    steps = result["steps"]
    rounds = "one round" if result["rounds"] == 1 else f"medians of {result['rounds']} rounds"
    load = result["load_average"]
    lines = [
        f"### {result['events'] / 1e6:g} million events",
        "",
        f"CPU seconds, {rounds}, {result['measured_on']}. {result['cores']} cores, with a load average of"
        f" {load['before'][1]:.1f} before and {load['after'][1]:.1f} after"
        f"{', DuckDB limited to ' + result['memory_limit'] if result['memory_limit'] else ''}."
        f" In the end there are {steps['ten_days_late']['rows']['stitched_sessions']:,} sessions and"
        f" {steps['ten_days_late']['rows']['page_views']:,} page views.",
        "",
        f"| | {' | '.join(COMPETITORS.values())} |",
        f"| {'--- | ' * (len(COMPETITORS) + 1)}".rstrip(),
    ]
    for step, title in STEPS.items():
        lines.append(_line(title, {name: f"{steps[step]['cpu_seconds'][name]:.1f}" for name in COMPETITORS}))
    for step, moment in WRONG_AFTER.items():
        for table_name in ("sessions", "page_views"):
            wrong = {
                name: f"{sum(count for kind, count in counts.items() if kind.startswith(table_name)):,}"
                for name, counts in steps[step]["wrong_rows"].items()
            }
            lines.append(_line(f"{table_name.replace('_', ' ')} that are wrong {moment}", wrong))
    return "\n".join(lines)


def _line(title: str, cells: Mapping[str, str]) -> str:
    return f"| {title} | {' | '.join(cells.get(name, 'taken as right') for name in COMPETITORS)} |"


def main() -> None:
    results = [json.loads(path.read_text()) for path in RESULTS.glob("against_rebuild_*.json")]
    tables = "\n\n".join(table(result) for result in sorted(results, key=lambda result: result["events"]))
    page = PAGE.read_text()
    between = re.compile(f"{re.escape(BEGIN)}.*{re.escape(END)}", re.DOTALL)
    PAGE.write_text(between.sub(lambda _: f"{BEGIN}\n\n{tables}\n\n{END}", page))


if __name__ == "__main__":
    main()
