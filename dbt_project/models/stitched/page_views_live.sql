{{ config(materialized='view') }}

with subjects as (
    select
        views.project_id,
        views.event_id,
        views.event_date,
        views.occurred_at,
        views.anonymous_id,
        views.user_id,
        views.session_id,
        views.page_url,
        views.page_path,
        views.page_title,
        views.event_date as subject_day,
        views.occurred_at as subject_at,
        coalesce(views.anonymous_id, views.event_id) as own_id
    from {{ ref('page_views') }} as views
),

{{ stitch('subjects') }}

select
    project_id,
    event_id,
    event_date,
    occurred_at,
    anonymous_id,
    user_id,
    session_id,
    page_url,
    page_path,
    page_title,
    stitched_user_id,
    stitched_by
from stitched
