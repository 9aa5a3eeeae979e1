{{ config(materialized='view') }}

select
    project_id,
    anonymous_id,
    user_id,
    person_id as stitched_user_id,
    min(first_seen_at) as first_seen_at,
    max(last_seen_at) as last_seen_at,
    cast(sum(event_count) as bigint) as event_count
from {{ links_in_force() }} as links
where not {{ is_forgotten('links.user_id') }}
group by project_id, anonymous_id, user_id, person_id
