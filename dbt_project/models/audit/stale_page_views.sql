{{ config(materialized='view') }}

with subjects as (
    select
        views.project_id,
        views.event_id,
        views.event_date,
        views.anonymous_id,
        views.user_id,
        views.stitched_user_id as stored_user_id,
        views.stitched_by as stored_by,
        views.event_date as subject_day,
        views.occurred_at as subject_at,
        coalesce(views.anonymous_id, views.event_id) as own_id
    from {{ rows_of_pending_devices(ref('page_views'), 'page_views', is_not_just_built('event_date')) }} as views
),

{{ stitch('subjects') }}

select
    project_id,
    event_id,
    event_date,
    anonymous_id,
    stored_user_id as stitched_user_id,
    stitched_user_id as right_user_id
from stitched
where
    stitched_user_id is distinct from stored_user_id
    or stitched_by is distinct from stored_by
