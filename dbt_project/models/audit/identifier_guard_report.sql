{{ config(materialized='view') }}

-- Apart from guard_report, because it searches the JSON of every event.
with {{ sent_identifiers('true') }}

select
    project_id,
    'blocked id' as guard,
    id_kind as field,
    id as found,
    count(*) as event_count,
    min(occurred_at) as first_seen_at,
    max(occurred_at) as last_seen_at
from sent_identifiers
where is_blocked
group by project_id, id_kind, id
