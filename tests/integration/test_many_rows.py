"""More rows at once than DuckDB keeps in one piece (a row group, 122,880 rows): loaded, built again, and changed."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date

import duckdb
import pytest
from warehouses import Row, Warehouse

DEVICES = 130_000


def land(warehouse: Warehouse, landing_file: str, page_path: str) -> None:
    """One view per device at noon of the 2nd; every hundredth device logs in a day later."""
    path = warehouse.settings.landing_dir / landing_file
    path.parent.mkdir(parents=True, exist_ok=True)
    with duckdb.connect() as con:
        con.execute(
            f"""
            copy (
              select 'p' as app_id, 'web' as platform, 'page_view' as event, 'v' || n as event_id,
                timestamp '2026-03-02 12:00:00' as derived_tstamp, 'd' || n as domain_userid,
                null::varchar as user_id, '{page_path}' as page_urlpath
              from range({DEVICES}) as numbers(n)
              union all
              select 'p', 'web', 'page_view', 'l' || n, timestamp '2026-03-03 12:00:00', 'd' || n, 'u' || n, '/'
              from range(0, {DEVICES}, 100) as numbers(n)
            ) to '{path}' (format parquet)
            """
        )


def counts(warehouse: Warehouse) -> Row:
    (counted,) = warehouse.query(
        """
        select
          (select count(*) from stitch.raw_events) as events,
          (select count(*) from stitch.duplicate_events) as duplicates,
          (select count(*) from stitch.sessions) as sessions,
          (select count(*) from stitch.stitched_sessions where stitched_by = 'link after') as stitched_back,
          (select count(*) from stitch.page_views where session_id is not null) as views_in_sessions,
          (select count(*) from stitch.page_views where stitched_by = 'link after') as views_stitched_back,
          (select count(*) from stitch.users) as users,
          (select count(*) from stitch.users where is_identified and session_count = 2) as identified_users
        """
    )
    return counted


@pytest.mark.slow
def test_every_statement_sees_all_rows_of_the_ones_before_it(new_warehouse: Callable[..., Warehouse]) -> None:
    warehouse = new_warehouse(memory_limit="600MB")
    land(warehouse, "snowplow/views.parquet", page_path="/")
    land(warehouse, "snowplow/views_again.parquet", page_path="/")
    warehouse.settle()
    logins = DEVICES // 100
    expected = {
        "events": DEVICES + logins,
        "duplicates": DEVICES + logins,
        "sessions": DEVICES + logins,
        "stitched_back": logins,
        "views_in_sessions": DEVICES + logins,
        "views_stitched_back": logins,
        "users": DEVICES,
        "identified_users": logins,
    }
    assert counts(warehouse) == expected
    assert warehouse.query("select stat_date, visitors, page_views from stitch.visitor_stats order by 1") == [
        {"stat_date": date(2026, 3, 2), "visitors": DEVICES, "page_views": DEVICES},
        {"stat_date": date(2026, 3, 3), "visitors": logins, "page_views": logins},
    ]

    assert not any(warehouse.build(date(2026, 3, 1), date(2026, 3, 4)).values())
    assert counts(warehouse) == expected

    # Both copies, because of an event that was received twice at one time the first by file name stays.
    land(warehouse, "snowplow/views.parquet", page_path="/new")
    land(warehouse, "snowplow/views_again.parquet", page_path="/new")
    changed = [run.rows_changed for run in warehouse.settle().runs]
    assert [(rows["sessions"], rows["page_views"]) for rows in changed] == [(DEVICES, DEVICES)]
    assert counts(warehouse) == expected
    assert warehouse.query(
        "select first_page_path, count(*) as sessions from stitch.sessions group by 1 order by 1"
    ) == [
        {"first_page_path": "/", "sessions": logins},
        {"first_page_path": "/new", "sessions": DEVICES},
    ]
