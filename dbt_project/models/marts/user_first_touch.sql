{{ config(materialized='view') }}

with events as (
    select
        *,
        row_number() over (
            partition by project_id, stitched_user_id
            order by occurred_at, event_id
        ) as position
    from {{ ref('stitched_events') }}
    where {{ is_of_a_user() }}
)

select
    project_id,
    stitched_user_id,
    occurred_at as first_seen_at,
    utm_source as first_touch_source,
    utm_medium as first_touch_medium,
    utm_campaign as first_touch_campaign,
    referrer as first_touch_referrer,
    page_path as first_touch_page_path,
    platform as first_touch_platform,
    anonymous_id as first_touch_anonymous_id,
    event_id as first_touch_event_id
from events
where position = 1
