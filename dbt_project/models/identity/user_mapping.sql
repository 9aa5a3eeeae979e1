{{ config(materialized='view', read_by_device=true) }}

-- A device resolves to the stitched user of its last activity. The user of its last session counts as the own user.
with ordered as (
    select
        project_id,
        anonymous_id,
        user_id,
        ended_at,
        row_number() over (
            partition by project_id, anonymous_id
            order by ended_at desc, started_at desc, session_id desc
        ) as position
    from {{ ref('sessions') }}
),

subjects as (
    select
        project_id,
        anonymous_id,
        user_id,
        ended_at as last_seen_at,
        cast(ended_at as date) as subject_day,
        ended_at as subject_at,
        anonymous_id as own_id
    from ordered
    where position = 1
),

{{ stitch('subjects') }}

select
    project_id,
    anonymous_id,
    case when {{ is_of_a_user() }} then stitched_user_id end as user_id,
    stitched_user_id,
    stitched_by,
    linked_at,
    link_event_id,
    last_seen_at
from stitched
