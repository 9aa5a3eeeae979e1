{{ config(materialized='view', tags=['internal']) }}

with subjects as (
    select
        events.project_id,
        events.event_id,
        events.event_date,
        events.event_type,
        events.occurred_at,
        events.anonymous_id,
        events.user_id,
        events.event_date as subject_day,
        events.occurred_at as subject_at,
        coalesce(events.anonymous_id, events.event_id) as own_id,
        policies.policy as tried_policy
    from {{ source('landing', 'raw_events') }} as events
    cross join {{ all_policies() }} as policies
    where {{ is_answerable('policies', 'events') }}
),

{{ stitch('subjects', policy='subjects.tried_policy') }}

select
    project_id,
    event_id,
    event_date,
    event_type,
    occurred_at,
    anonymous_id,
    user_id,
    policy,
    stitched_user_id,
    stitched_by
from stitched
