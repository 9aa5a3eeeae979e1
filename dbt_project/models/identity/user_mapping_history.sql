{{ config(
    materialized='in_place',
    key=['project_id', 'anonymous_id', 'valid_from', 'known_since'],
    scope='mapping',
    post_hook="{{ drain_pending_devices('mapping') }}",
) }}

-- The intervals of pending devices as known now, and those known before. Intervals are ended and never removed.
with {{ device_timelines() }},

stored as (
    select *
    from {{ internal_table('user_mapping_history') }} as stored
    where {{ is_pending_device('mapping', 'stored') }}
),

kept_or_ended as (
    select
        stored.project_id,
        stored.anonymous_id,
        stored.user_id,
        stored.stitched_user_id,
        stored.stitched_by,
        stored.valid_from,
        stored.valid_until,
        stored.known_since,
        case
            when stored.known_until is not null then stored.known_until
            when not exists (
                select 1 from timelines
                where {{ is_same_interval('stored', 'timelines') }}
            ) then {{ known_at() }}
        end as known_until
    from stored
),

new as (
    select
        timelines.project_id,
        timelines.anonymous_id,
        timelines.user_id,
        timelines.stitched_user_id,
        timelines.stitched_by,
        timelines.valid_from,
        timelines.valid_until,
        {{ known_at() }} as known_since,
        cast(null as timestamp) as known_until
    from timelines
    where not exists (
        select 1 from stored
        where
            stored.known_until is null
            and {{ is_same_interval('stored', 'timelines') }}
    )
)

select * from kept_or_ended
union all
select * from new
