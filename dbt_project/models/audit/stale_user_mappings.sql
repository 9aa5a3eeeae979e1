{{ config(materialized='view') }}

-- Resolved anew for the pending devices, and compared with what is known: what is to begin, and what is to end.
with {{ device_timelines() }},

known as (
    select *
    from {{ ref('user_mapping_history') }} as known
    where
        known.known_until is null
        and {{ is_pending_device('mapping', 'known') }}
)

select
    project_id,
    anonymous_id
from timelines
where
    not exists (
        select 1 from known
        where {{ is_same_span('known', 'timelines') }}
    )
union all
select
    project_id,
    anonymous_id
from known
where
    not exists (
        select 1 from timelines
        where {{ is_same_span('known', 'timelines') }}
    )
