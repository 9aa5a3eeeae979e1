{{ config(materialized='table') }}

select
    project_id,
    stitched_user_id,
    bool_or(stitched_user_id <> anonymous_id) as is_identified,
    min(started_at) as first_seen_at,
    max(ended_at) as last_seen_at,
    count(*) as session_count,
    sum(page_view_count) as page_view_count,
    sum(event_count) as event_count,
    count(distinct anonymous_id) as device_count,
    (array_agg(utm_source order by started_at))[1] as first_touch_source,
    (array_agg(utm_medium order by started_at))[1] as first_touch_medium,
    (array_agg(referrer order by started_at))[1] as first_touch_referrer
from {{ ref('stitched_sessions') }}
group by project_id, stitched_user_id
