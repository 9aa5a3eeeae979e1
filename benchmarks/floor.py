"""The least work that any solution must do: read the files, sort by device and time, write the output rows once.

``floor_cost`` measures ``python floor.py DIRECTORY DATABASE MEMORY_LIMIT``: the same engine on the same files, with as
many rows and columns in every table. It leaves out what the product adds: judging events, finding duplicates, ties,
midnights, windows, shared devices, interruption, updates, and any report.
"""

import sys
import tempfile
from pathlib import Path

import duckdb
from fresh_process import Cost, cost

RAW_EVENTS = """
create table raw_events as
select
  'snowplow' as source, event_id, app_id as project_id, derived_tstamp as occurred_at,
  collector_tstamp as received_at, derived_tstamp::date as event_date,
  case event when 'page_view' then 'page' else 'track' end as event_type, null::varchar as event_name, platform,
  domain_userid as anonymous_id, user_id, null::varchar as source_session_id, page_url, page_urlpath as page_path,
  page_title, page_referrer as referrer, mkt_source as utm_source, mkt_medium as utm_medium,
  null::varchar as utm_campaign, null::varchar as traits, null::varchar as properties, filename as landing_file,
  null::varchar as blocked_anonymous_id, null::varchar as blocked_user_id
from read_parquet(?, filename = true)
"""
IDENTITY_MAP = """
create table identity_map as
select
  project_id, event_date, anonymous_id, user_id, min(occurred_at) as first_seen_at, max(occurred_at) as last_seen_at,
  count(*) as event_count, min(event_id) as first_event_id, null::varchar as traits
from raw_events
where user_id is not null
group by project_id, event_date, anonymous_id, user_id
"""
# Sorted once, with few columns; then each session start takes its device's events up to the next start.
SPANS = """
create temporary table spans as
select
  anonymous_id, occurred_at as started_at, event_date,
  coalesce(lead(occurred_at) over (partition by anonymous_id order by occurred_at), 'infinity') as until_at
from (
  select
    anonymous_id, occurred_at, event_date,
    lag(occurred_at) over (partition by anonymous_id order by occurred_at) as previous_at
  from raw_events
)
where previous_at is null or occurred_at - previous_at >= interval 30 minutes
"""
EVENTS_OF_SPANS = """
raw_events as e
inner join (
  select *, event_date as day from spans
  union all
  select *, event_date + 1 as day from spans where until_at > event_date + 1
) as s
  on e.anonymous_id = s.anonymous_id and e.event_date = s.day
  and e.occurred_at >= s.started_at and e.occurred_at < s.until_at
"""
MAPPING = """
create temporary table mapping as
select project_id, anonymous_id, arg_max(user_id, last_seen_at) as mapped_user_id
from identity_map group by project_id, anonymous_id
"""
SESSIONS = f"""
create table sessions as
select
  any_value(project_id) as project_id, md5(arg_min(event_id, occurred_at)) as session_id,
  any_value(s.event_date) as session_date, e.anonymous_id, arg_max(user_id, occurred_at) as user_id, s.started_at,
  max(occurred_at) as ended_at, count(*) as event_count, count(*) filter (event_type = 'page') as page_view_count,
  arg_min(page_path, occurred_at) filter (event_type = 'page') as first_page_path,
  arg_max(page_path, occurred_at) filter (event_type = 'page') as last_page_path,
  arg_min_null(referrer, occurred_at) as referrer, arg_min_null(utm_source, occurred_at) as utm_source,
  arg_min_null(utm_medium, occurred_at) as utm_medium, arg_min_null(utm_campaign, occurred_at) as utm_campaign,
  arg_min_null(platform, occurred_at) as platform, null::varchar as source_session_id
from {EVENTS_OF_SPANS}
group by e.anonymous_id, s.started_at
"""
STITCHED_SESSIONS = """
create table stitched_sessions as
select
  sessions.*, coalesce(mapped_user_id, anonymous_id) as stitched_user_id,
  case when mapped_user_id is null then 'none' else 'link' end as stitched_by,
  null::timestamp as linked_at, null::varchar as link_event_id
from sessions left join mapping using (project_id, anonymous_id)
"""
PAGE_VIEWS = """
create table page_views as
select
  e.project_id, e.event_id, e.event_date, e.occurred_at, e.anonymous_id, e.user_id, s.session_id, e.page_url,
  e.page_path, e.page_title, s.stitched_user_id, s.stitched_by
from raw_events as e
left join (
  select *, session_date as day from stitched_sessions
  union all
  select *, ended_at::date as day from stitched_sessions where ended_at::date > session_date
) as s
  on e.anonymous_id = s.anonymous_id and e.event_date = s.day and e.occurred_at between s.started_at and s.ended_at
where event_type = 'page'
"""
USERS = """
create table users as
select
  project_id, stitched_user_id, bool_or(stitched_by = 'link') as is_identified, min(started_at) as first_seen_at,
  max(ended_at) as last_seen_at, null::timestamp as identified_at, count(*) as session_count,
  sum(page_view_count)::bigint as page_view_count, sum(event_count)::bigint as event_count,
  count(distinct anonymous_id) as device_count, arg_min_null(utm_source, started_at) as first_touch_source,
  arg_min_null(utm_medium, started_at) as first_touch_medium, arg_min_null(utm_campaign, started_at) as
  first_touch_campaign, arg_min_null(referrer, started_at) as first_touch_referrer, null::varchar as traits
from stitched_sessions
group by project_id, stitched_user_id
"""
VISITOR_STATS = """
create table visitor_stats as
select
  project_id, session_date as stat_date, sum(page_view_count)::bigint as page_views, count(*) as visits,
  count(distinct stitched_user_id) as visitors, count(distinct anonymous_id) as visitors_unstitched,
  count(*) filter (page_view_count = 1) as bounces, sum(epoch(ended_at - started_at)) as total_time_seconds
from stitched_sessions
group by project_id, session_date
"""


def floor_cost(feed: Path, memory_limit: str = "") -> Cost:
    """The cost of the floor on the files of a feed. Its temporary database is on the same disk."""
    with tempfile.TemporaryDirectory(dir=feed.parent.parent) as scratch:
        return cost([__file__, str(feed), f"{scratch}/floor.duckdb", memory_limit], {})


def main() -> None:
    directory, database, memory_limit = sys.argv[1:]
    con = duckdb.connect(database, config={"memory_limit": memory_limit} if memory_limit else {})
    con.execute(RAW_EVENTS, [f"{directory}/*.parquet"])
    for query in (IDENTITY_MAP, SPANS, MAPPING, SESSIONS, STITCHED_SESSIONS, PAGE_VIEWS, USERS, VISITOR_STATS):
        con.execute(query)
    con.close()


if __name__ == "__main__":
    main()
