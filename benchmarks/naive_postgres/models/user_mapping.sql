{{ config(materialized='table') }}

select distinct on (project_id, anonymous_id)
    project_id,
    anonymous_id,
    user_id,
    occurred_at as last_seen_at
from {{ target.schema }}.raw_events
where user_id is not null
order by project_id, anonymous_id, occurred_at desc
