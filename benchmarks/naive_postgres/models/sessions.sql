{#- The events are in the table `naive.raw_events`, where a loader put them. Every model is built from all of them. -#}
{{ config(materialized='table') }}

with with_previous as (
    select
        *,
        lag(occurred_at) over (partition by project_id, anonymous_id order by occurred_at) as previous_at
    from {{ target.schema }}.raw_events
),

numbered as (
    select
        *,
        sum(case when occurred_at - previous_at < interval '30 minutes' then 0 else 1 end) over (
            partition by project_id, anonymous_id
            order by occurred_at
            rows unbounded preceding
        ) as session_number
    from with_previous
)

select
    project_id,
    anonymous_id,
    (array_agg(user_id order by occurred_at desc) filter (where user_id is not null))[1] as user_id,
    md5((array_agg(event_id order by occurred_at))[1]) as session_id,
    cast(min(occurred_at) as date) as session_date,
    min(occurred_at) as started_at,
    max(occurred_at) as ended_at,
    count(*) as event_count,
    count(*) filter (where event_type = 'page') as page_view_count,
    (array_agg(page_path order by occurred_at) filter (where event_type = 'page'))[1] as first_page_path,
    (array_agg(page_path order by occurred_at desc) filter (where event_type = 'page'))[1] as last_page_path,
    (array_agg(referrer order by occurred_at))[1] as referrer,
    (array_agg(utm_source order by occurred_at))[1] as utm_source,
    (array_agg(utm_medium order by occurred_at))[1] as utm_medium,
    (array_agg(platform order by occurred_at))[1] as platform
from numbered
group by project_id, anonymous_id, session_number
