{{ config(materialized='view') }}

-- A device resolves to whoever its last activity is credited to.
with devices as (
    select
        project_id,
        anonymous_id,
        max(ended_at) as last_seen_at
    from {{ ref('sessions') }}
    group by project_id, anonymous_id
),

subjects as (
    select
        devices.*,
        cast(null as varchar) as user_id,
        cast(devices.last_seen_at as date) as subject_day,
        devices.last_seen_at as subject_at,
        devices.anonymous_id as own_id
    from devices
),

{{ stitch('subjects') }}

select
    project_id,
    anonymous_id,
    case when stitched_by in ('own', 'link before', 'link after') then stitched_user_id end as user_id,
    stitched_user_id,
    stitched_by,
    linked_at,
    link_event_id,
    last_seen_at
from stitched
