"""30,000 projects in one feed load and settle within a small memory limit, with settings of their own or without."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from warehouses import Warehouse

PROJECTS = 30_000


def events(project: int) -> Iterator[dict[str, Any]]:
    """The same ids in every project: two devices on three days, and a login of one on the last day."""
    for day in (1, 2, 3):
        for device in ("d1", "d2"):
            user = {"userId": "u1"} if (day, device) == (3, "d1") else {}
            yield {
                "messageId": f"{day}{device}",
                "projectId": f"p{project}",
                "timestamp": f"2026-03-0{day}T12:00:00Z",
                "type": "page",
                "anonymousId": device,
                "traits": {"email": "a@example.com"} if user else None,
                **user,
            }


def settings_of(project: int) -> str:
    """Every project blocks an id, a third of them the user, and a third of them resolves persons."""
    own = f'[projects.p{project}]\nlookback_days = {1 + project % 30}\nblocked_ids = ["b{project}", "x{project % 3}"]\n'
    own = own.replace('"x1"', '"u1"')
    return own + (
        f'policy = "graph"\n[projects.p{project}.identifiers.email]\npaths = ["traits.email"]\n' * (project % 3 == 2)
    )


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("has_own_settings", [False, True])
def test_30_000_projects_settle_within_a_gigabyte(
    new_warehouse: Callable[..., Warehouse], has_own_settings: bool
) -> None:
    warehouse = new_warehouse(memory_limit="1GB")
    if has_own_settings:
        warehouse.write_stitch_toml("".join(map(settings_of, range(PROJECTS))))
    warehouse.land("jitsu/a.ndjson", (event for project in range(PROJECTS) for event in events(project)))
    started = time.process_time()
    warehouse.settle()
    late = {"messageId": "late", "timestamp": "2026-03-03T13:00:00Z", "type": "identify", "anonymousId": "d2"}
    warehouse.land("jitsu/b.ndjson", ({**late, "projectId": f"p{n}", "userId": "u2"} for n in range(0, PROJECTS, 3)))
    warehouse.settle()
    seconds = time.process_time() - started

    found = warehouse.query(
        """
        select
          cast(substr(project_id, 2) as integer) % 3 as kind, anonymous_id, session_date, stitched_user_id,
          count(distinct project_id) as projects
        from stitch.stitched_sessions where cast(substr(project_id, 2) as integer) % 30 >= 3 group by 1, 2, 3, 4
        """
    )
    answers = {(r["kind"], r["anonymous_id"], r["session_date"].day): r["stitched_user_id"] for r in found}
    blocks = {1} if has_own_settings else set()
    assert len(answers) == len(found)
    assert answers == {
        (kind, device, day): "u1"
        if device == "d1" and kind not in blocks
        else ("u2" if device == "d2" and kind == 0 else device)
        for kind in range(3)
        for device in ("d1", "d2")
        for day in (1, 2, 3)
    }
    assert {row["projects"] for row in found} == {PROJECTS // 30 * 9}
    # Measured: 18 CPU seconds without settings and 50 with. A step that takes a time per pair of projects takes hours.
    assert seconds < 300
    # The process itself takes some 500 MB.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 2_000_000
