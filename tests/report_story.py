"""A small history that has everything that the report shows, settled in two parts so that the second re-stitches.

Project ``shop``: Ann browses on a laptop and a phone, logs in on the phone a day and six hours later, and on the laptop
in the second part. A tablet stays anonymous and sends a blocked user id. The other project's name is HTML.
"""

from __future__ import annotations

from typing import Any

from warehouses import Row, Warehouse, page_view

HOSTILE = "<script>alert('x')</script>"
IDS = ("laptop-51c7", "phone-88e2", "tablet-0b4d", "ann-7731", "<b>bob</b>-19")


def page(event_id: str, time: str, device: str, **fields: Any) -> Row:
    return page_view(event_id, time, anonymous_id=device, **fields)


def settle_report_story(warehouse: Warehouse) -> None:
    laptop, phone, tablet, ann, bob = IDS
    warehouse.write_overrides(
        [f"{HOSTILE},shared_device,kiosk,,in a <shop>", f"{HOSTILE},shared_device,another,,not asked for"]
    )
    warehouse.land_events(
        "jitsu/first.ndjson",
        [
            page("e1", "2026-03-02 12:00", laptop),
            page("e2", "2026-03-02 12:00", phone),
            page("e3", "2026-03-03 18:00", phone, event_type="identify", user_id=ann),
            page("e4", "2026-03-03 18:01", phone, user_id=ann),
        ],
    )
    warehouse.settle()
    warehouse.land_events(
        "jitsu/second.ndjson",
        [
            page("e5", "2026-03-04 09:00", laptop, user_id=ann),
            page("e6", "2026-03-04 10:00", tablet, user_id="null"),
            page("h1", "2026-03-04 10:00", "kiosk", user_id=bob, project_id=HOSTILE),
        ],
    )
    warehouse.land("jitsu/broken.ndjson", ["{", '{"no": "id"}'])
    warehouse.settle()
