"""A first load that is larger than what DuckDB keeps in one piece (a row group, 122,880 rows)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date

import duckdb
from warehouses import Warehouse

DEVICES = 130_000


def test_every_model_sees_all_rows_of_the_ones_before_it(new_warehouse: Callable[..., Warehouse]) -> None:
    warehouse = new_warehouse(memory_limit="600MB")
    feed = warehouse.settings.landing_dir / "snowplow"
    feed.mkdir(parents=True)
    with duckdb.connect() as con:
        # One view per device at noon of the 2nd; every hundredth device logs in a day later.
        con.execute(
            f"""
            copy (
              select 'p' as app_id, 'web' as platform, 'page_view' as event, 'v' || n as event_id,
                timestamp '2026-03-02 12:00:00' as derived_tstamp, 'd' || n as domain_userid, null::varchar as user_id
              from range({DEVICES}) as numbers(n)
              union all
              select 'p', 'web', 'page_view', 'l' || n, timestamp '2026-03-03 12:00:00', 'd' || n, 'u' || n
              from range(0, {DEVICES}, 100) as numbers(n)
            ) to '{feed / "views.parquet"}' (format parquet)
            """
        )
    warehouse.settle()
    logins = DEVICES // 100
    (counted,) = warehouse.query(
        """
        select
          (select count(*) from stitch.raw_events) as events,
          (select count(*) from stitch.sessions) as sessions,
          (select count(*) from stitch.stitched_sessions where stitched_by = 'link after') as stitched_back,
          (select count(*) from stitch.page_views where session_id is not null) as views_in_sessions,
          (select count(*) from stitch.page_views where stitched_by = 'link after') as views_stitched_back,
          (select count(*) from stitch.users) as users,
          (select count(*) from stitch.users where is_identified and session_count = 2) as identified_users
        """
    )
    assert counted == {
        "events": DEVICES + logins,
        "sessions": DEVICES + logins,
        "stitched_back": logins,
        "views_in_sessions": DEVICES + logins,
        "views_stitched_back": logins,
        "users": DEVICES,
        "identified_users": logins,
    }
    assert warehouse.query("select stat_date, visitors, page_views from stitch.visitor_stats order by 1") == [
        {"stat_date": date(2026, 3, 2), "visitors": DEVICES, "page_views": DEVICES},
        {"stat_date": date(2026, 3, 3), "visitors": logins, "page_views": logins},
    ]
