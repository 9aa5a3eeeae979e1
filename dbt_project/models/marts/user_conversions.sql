{{ config(materialized='view') }}

with events as (
    select
        project_id,
        stitched_user_id,
        event_name,
        occurred_at
    from {{ ref('stitched_events') }}
    where {{ is_of_a_user() }}
),

first_seen as (
    select
        project_id,
        stitched_user_id,
        min(occurred_at) as first_seen_at
    from events
    group by project_id, stitched_user_id
),

conversions as (
    select
        events.project_id,
        events.stitched_user_id,
        events.event_name,
        steps.funnel_position,
        min(events.occurred_at) as converted_at
    from events
    inner join {{ internal_table('conversion_events') }} as steps
        on events.project_id = steps.project_id and events.event_name = steps.event_name
    group by events.project_id, events.stitched_user_id, events.event_name, steps.funnel_position
),

in_order as (
    select
        conversions.*,
        first_seen.first_seen_at,
        lag(conversions.converted_at) over (
            partition by conversions.project_id, conversions.stitched_user_id
            order by conversions.funnel_position
        ) as previous_converted_at
    from conversions
    inner join first_seen
        on
            conversions.project_id = first_seen.project_id
            and conversions.stitched_user_id = first_seen.stitched_user_id
)

select
    project_id,
    stitched_user_id,
    event_name,
    funnel_position,
    first_seen_at,
    converted_at,
    cast({{ microseconds_between('first_seen_at', 'converted_at') }} as double precision)
    / 3600000000.0 as hours_since_first_seen,
    cast({{ microseconds_between('previous_converted_at', 'converted_at') }} as double precision)
    / 86400000000.0 as days_since_previous_conversion
from in_order
