{#- Always built in full: the post-hook does not say which users have other sessions than before. -#}
{{ config(materialized='table') }}

select
    project_id,
    stitched_user_id,
    bool_or(stitched_user_id <> anonymous_id) as is_identified,
    min(started_at) as first_seen_at,
    max(ended_at) as last_seen_at,
    count(*) as session_count,
    cast(sum(page_view_count) as bigint) as page_view_count,
    cast(sum(event_count) as bigint) as event_count,
    count(distinct anonymous_id) as device_count,
    arg_min_null(utm_source, started_at) as first_touch_source,
    arg_min_null(utm_medium, started_at) as first_touch_medium,
    arg_min_null(referrer, started_at) as first_touch_referrer
from {{ ref('stitched_sessions') }}
group by project_id, stitched_user_id
