{{ config(materialized='view', tags=['internal']) }}

with subjects as (
    select
        sessions.project_id,
        sessions.session_id,
        sessions.session_date,
        sessions.anonymous_id,
        sessions.user_id,
        sessions.session_date as subject_day,
        sessions.started_at as subject_at,
        sessions.anonymous_id as own_id,
        policies.policy as tried_policy
    from {{ ref('sessions') }} as sessions
    cross join {{ all_policies() }} as policies
    where {{ is_answerable('policies', 'sessions') }}
),

{{ stitch('subjects', switch='settings.stitching and settings.session_stitching', policy='subjects.tried_policy') }}

select
    stitched.project_id,
    stitched.session_id,
    stitched.session_date,
    stitched.anonymous_id,
    stitched.user_id,
    stitched.policy,
    stitched.stitched_user_id,
    stitched.stitched_by,
    coalesce(stored.stitched_user_id, '') != stitched.stitched_user_id as would_change
from stitched
left join {{ ref('stitched_sessions') }} as stored
    on
        stitched.project_id = stored.project_id
        and stitched.session_id = stored.session_id
        and stitched.session_date = stored.session_date
