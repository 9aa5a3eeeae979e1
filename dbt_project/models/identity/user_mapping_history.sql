{{ config(
    materialized='in_place',
    key=['project_id', 'anonymous_id', 'valid_from', 'known_since'],
    scope='mapping',
    post_hook="{% if not var('exceptions') %}{{ drain_pending_devices('mapping') }}{% endif %}",
) }}

-- What is known now of the pending devices, beside what was known before: nothing of that is ever taken out.
with {{ device_timelines() }},

known as (
    select *
    from {{ internal_table('user_mapping_history') }} as known
    where {{ is_pending_device('mapping', 'known') }}
),

still_or_no_longer_so as (
    select
        known.project_id,
        known.anonymous_id,
        known.user_id,
        known.stitched_user_id,
        known.stitched_by,
        known.valid_from,
        known.valid_until,
        known.known_since,
        case
            when known.known_until is not null then known.known_until
            when not exists (
                select 1 from timelines
                where {{ is_same_interval('known', 'timelines') }}
            ) then {{ known_at() }}
        end as known_until
    from known
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
        select 1 from known
        where
            known.known_until is null
            and {{ is_same_interval('known', 'timelines') }}
    )
)

select * from still_or_no_longer_so
union all
select * from new
