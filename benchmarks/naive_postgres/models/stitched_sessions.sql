{{ config(materialized='table') }}

select
    sessions.*,
    coalesce(mapping.user_id, sessions.anonymous_id) as stitched_user_id
from {{ ref('sessions') }} as sessions
left join {{ ref('user_mapping') }} as mapping
    on
        sessions.project_id = mapping.project_id
        and sessions.anonymous_id = mapping.anonymous_id
