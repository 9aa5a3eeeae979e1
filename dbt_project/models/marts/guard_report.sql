{{ config(materialized='view') }}

-- Ids that are no identity: the event stayed, the id was treated as absent.
with blocked_ids as (
    select
        project_id,
        'blocked id' as guard,
        'anonymous_id' as field,
        blocked_anonymous_id as found,
        occurred_at
    from {{ source('landing', 'raw_events') }}
    where blocked_anonymous_id is not null
    union all
    select
        project_id,
        'blocked id' as guard,
        'user_id' as field,
        blocked_user_id as found,
        occurred_at
    from {{ source('landing', 'raw_events') }}
    where blocked_user_id is not null
),

-- A device can be shared within some window only if it has too many users over all time.
crowded_devices as (
    select
        links.project_id,
        links.anonymous_id
    from {{ ref('identity_map') }} as links
    inner join {{ pipeline_table('project_settings') }} as settings on links.project_id = settings.project_id
    group by links.project_id, links.anonymous_id, settings.max_users_per_device
    having count(distinct links.user_id) > settings.max_users_per_device
    union
    select
        project_id,
        id as anonymous_id
    from {{ ref('persons') }}
    where id_kind = 'device' and person_id is null
),

subjects as (
    select
        events.project_id,
        events.anonymous_id,
        events.user_id,
        events.event_date as subject_day,
        events.occurred_at as subject_at,
        events.anonymous_id as own_id
    from {{ source('landing', 'raw_events') }} as events
    inner join crowded_devices
        on
            events.project_id = crowded_devices.project_id
            and events.anonymous_id = crowded_devices.anonymous_id
),

{{ stitch('subjects') }},

shared_devices as (
    select
        project_id,
        'shared device' as guard,
        'anonymous_id' as field,
        anonymous_id as found,
        subject_at as occurred_at
    from stitched
    where stitched_by = 'shared device'
),

-- Where only identify events link: users who were never identified on the device that named them.
unlinked_users as (
    select
        events.project_id,
        'does not link' as guard,
        'user_id' as field,
        events.user_id as found,
        events.occurred_at
    from {{ source('landing', 'raw_events') }} as events
    inner join {{ pipeline_table('project_settings') }} as settings on events.project_id = settings.project_id
    where
        settings.links_on_identify_only
        and events.anonymous_id is not null
        and events.user_id is not null
        and not exists (
            select 1 from {{ ref('identity_map') }} as links
            where
                links.project_id = events.project_id
                and links.anonymous_id = events.anonymous_id
                and links.user_id = events.user_id
        )
),

-- Rows that never became events do not say which project they are of; the file says where to look.
bad_times as (
    select
        cast(null as varchar) as project_id,
        case
            when reason like 'the event time % is before the start date %' then 'before start date'
            else 'in the future'
        end as guard,
        'landing_file' as field,
        landing_file as found,
        {{ quoted_time('reason') }} as occurred_at
    from {{ pipeline_table('quarantined_events') }}
    where
        reason like 'the event time % is before the start date %'
        or reason like 'the event time % is more than one day after the event arrived'
),

guarded as (
    select * from blocked_ids
    union all
    select * from shared_devices
    union all
    select * from unlinked_users
    union all
    select * from bad_times
)

select
    project_id,
    guard,
    field,
    found,
    count(*) as event_count,
    min(occurred_at) as first_seen_at,
    max(occurred_at) as last_seen_at
from guarded
group by project_id, guard, field, found
