{{ config(materialized='table') }}

select
    views.project_id,
    views.event_id,
    views.event_date,
    views.occurred_at,
    views.anonymous_id,
    views.user_id,
    views.page_url,
    views.page_path,
    views.page_title,
    sessions.session_id,
    sessions.stitched_user_id
from {{ target.schema }}.raw_events as views
left join {{ ref('stitched_sessions') }} as sessions
    on
        views.project_id = sessions.project_id
        and views.anonymous_id = sessions.anonymous_id
        and views.occurred_at between sessions.started_at and sessions.ended_at
where views.event_type = 'page'
