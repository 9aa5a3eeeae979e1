"""Simulated traffic of any size, the same for the same seed: one Parquet file of Snowplow's columns per day.

Few devices come every day, and many come once. A share of the devices belongs to people who log in, each on their own
day and in the middle of a session. Before that they are anonymous, and some log in only after the last day. People have
one or more devices; one device in a thousand is shared by many people.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import duckdb

from stitch_pipeline.planning.sql_text import literal

EVENTS_PER_SESSION = 6
EVENTS_PER_DEVICE = 25
FIRST_DAY = date(2026, 1, 1)
_SEED = 20260101


@dataclass(frozen=True)
class Traffic:
    """``events`` over ``days`` days; ``login_percent`` of the devices log in sooner or later."""

    events: int
    days: int = 60
    login_percent: int = 15
    first_day: date = FIRST_DAY

    @property
    def devices(self) -> int:
        return max(self.events // EVENTS_PER_DEVICE, 100)

    def day(self, number: int) -> date:
        """The day of that number, from 0; numbers from ``days`` on are days that come later."""
        return self.first_day + timedelta(days=number)

    def write(self, directory: Path) -> None:
        """Write the files of all days."""
        with duckdb.connect() as con:
            for number in range(self.days):
                self.write_day(con, number, directory)

    def write_day(self, con: duckdb.DuckDBPyConnection, number: int, directory: Path) -> Path:
        """Write one day's file and return its path."""
        path = directory / f"{self.day(number)}.parquet"
        directory.mkdir(parents=True, exist_ok=True)
        con.execute(f"copy ({self._day_sql(number)}) to {literal(str(path))} (format parquet, compression zstd)")
        return path

    def _day_sql(self, number: int) -> str:
        sessions = max(self.events // self.days // EVENTS_PER_SESSION, 1)
        people = max(self.devices * self.login_percent // 160, 1)

        def random(name: str, of: str) -> str:
            """SQL for a number from 0 up to 1 that depends only on ``name``, ``of`` and the seed."""
            return f"(hash({of}, '{name}', {_SEED}) / 18446744073709551616.0)"

        return f"""
with sessions as (
  select
    {number} * {sessions} + i as session_number,
    -- Cubed: the density of visits falls with the device's number, as in real traffic.
    least((power({random("device", f"{number} * {sessions} + i")}, 3) * {self.devices})::bigint, {self.devices} - 1)
      as device_number,
    -- Two summed: visits are most frequent at noon.
    timestamp '{self.day(number)}' + to_microseconds(cast(
      ({random("hour", f"{number} * {sessions} + i")} + {random("minute", f"{number} * {sessions} + i")})
      / 2 * 84600000000 as bigint)) as started_at,
    1 + floor(-ln(1 - {random("length", f"{number} * {sessions} + i")}) * {EVENTS_PER_SESSION - 0.5})::bigint as length
  from range({sessions}) as numbers(i)
),
visits as (
  select
    *,
    hash(device_number, 'logs in', {_SEED}) % 100 < {self.login_percent} as logs_in,
    (hash(device_number, 'login day', {_SEED}) % {self.days * 4 // 3})::integer as login_day,
    hash(session_number, 'is logged in', {_SEED}) % 100 < 70 as is_logged_in,
    case
      when device_number % 1000 = 7 then hash(session_number, 'guest', {_SEED}) % 40
      else hash(device_number, 'person', {_SEED}) % {people}
    end as person
  from sessions
),
events as (
  select
    *,
    started_at + to_microseconds(k * 45000000 + (hash(session_number, k, 'pause') % 30000000)::bigint) as occurred_at,
    logs_in and (login_day < {number} and is_logged_in or login_day = {number} and (k >= 2 or length <= 2))
      as is_identified
  from visits, unnest(range(length)) as steps(k)
)
select
  'shop' as app_id,
  case when device_number % 3 = 0 then 'mob' else 'web' end as platform,
  occurred_at + interval 1 second as collector_tstamp,
  occurred_at as derived_tstamp,
  case when hash(session_number, k, 'kind') % 10 < 7 then 'page_view' else 'struct' end as event,
  printf('%08x-%04x-4%03x-8000-%012x', session_number % 4294967296, k, hash(session_number) % 4096, session_number)
    as event_id,
  case when is_identified then 'user-' || person end as user_id,
  printf('%08x-aaaa-4%03x-8000-%012x', hash(device_number) % 4294967296, device_number % 4096, device_number)
    as domain_userid,
  'https://shop.example.com/product/' || (hash(session_number, k) % 5000) as page_url,
  '/product/' || (hash(session_number, k) % 5000) as page_urlpath,
  'Product ' || (hash(session_number, k) % 5000) as page_title,
  case when k = 0 and session_number % 3 = 0 then 'https://www.google.com/' end as page_referrer,
  case when k = 0 and session_number % 5 = 0 then 'google' end as mkt_source,
  case when k = 0 and session_number % 5 = 0 then 'cpc' end as mkt_medium
from events
order by occurred_at
"""
