{{ config(materialized='view') }}

-- Resolved anew for the pending devices, and compared with what is stored.
with subjects as (
    select
        sessions.project_id,
        sessions.session_id,
        sessions.session_date,
        sessions.anonymous_id,
        sessions.user_id,
        sessions.session_date as subject_day,
        sessions.started_at as subject_at,
        sessions.anonymous_id as own_id
    from {{ rows_of_pending_devices(ref('sessions'), 'sessions', is_not_just_built('session_date')) }} as sessions
),

{{ stitch('subjects', switch='settings.sessions_are_stitched') }}

select
    stitched.project_id,
    stitched.session_id,
    stitched.session_date,
    stitched.anonymous_id,
    stored.stitched_user_id,
    stitched.stitched_user_id as right_user_id
from stitched
-- Looked for by device as well: joined to all there are, the few that are asked for cost much more.
left join {{ rows_of_pending_devices(ref('stitched_sessions'), 'sessions', is_not_just_built('session_date')) }} as stored
    on
        stitched.project_id = stored.project_id
        and stitched.session_id = stored.session_id
        and stitched.session_date = stored.session_date
where
    stitched.stitched_user_id is distinct from stored.stitched_user_id
    or stitched.stitched_by is distinct from stored.stitched_by
    or stitched.linked_at is distinct from stored.linked_at
    or stitched.link_event_id is distinct from stored.link_event_id
