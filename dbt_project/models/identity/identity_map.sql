{{ config(
    materialized='in_place',
    key=['project_id', 'event_date', 'anonymous_id', 'first_seen_at'],
    day='event_date',
    on_change='note_relinked_devices',
) }}

-- depends_on: {{ ref('decisions') }}
with identified_events as (
    select
        events.project_id,
        events.event_date,
        events.anonymous_id,
        events.user_id,
        events.occurred_at,
        events.event_id,
        events.traits
    from {{ source('landing', 'raw_events') }} as events
    inner join {{ project_settings() }} as settings
        on events.project_id = settings.project_id
    where
        {{ is_in_window('events.event_date') }}
        and events.anonymous_id is not null
        and events.user_id is not null
        and {{ may_link('events') }}
    union all
    -- The previous id may be a device, and is then the user's.
    select
        events.project_id,
        events.event_date,
        events.previous_id as anonymous_id,
        events.user_id,
        events.occurred_at,
        events.event_id,
        events.traits
    from {{ source('landing', 'raw_events') }} as events
    inner join {{ project_settings() }} as settings
        on events.project_id = settings.project_id
    where
        {{ is_in_window('events.event_date') }}
        and {{ has_previous_id('events') }}
        and events.previous_id is distinct from events.anonymous_id
        and events.user_id is not null
        and {{ may_link('events') }}
    union all
    -- A forgotten user's links stay, without the user: they keep the rows around them from passing to another user.
    select
        events.project_id,
        events.event_date,
        events.anonymous_id,
        events.user_id,
        events.occurred_at,
        events.event_id,
        cast(null as varchar) as traits
    from {{ internal_table('forgotten_events') }} as events
    inner join {{ project_settings() }} as settings
        on events.project_id = settings.project_id
    where
        {{ is_in_window('events.event_date') }}
        and events.anonymous_id is not null
        and events.user_id is not null
        and {{ may_link_forgotten('events') }}
),

-- A device has one user at any instant: of events at the same time, the one with the greatest event id counts.
instants as (
    select
        *,
        last_value(user_id) over (
            partition by project_id, anonymous_id, occurred_at
            order by event_id
            rows between unbounded preceding and unbounded following
        ) as user_of_instant
    from identified_events
),

ordered as (
    select
        *,
        row_number() over device_day as position,
        lag(user_id) over device_day as previous_user_id
    from instants
    where user_id = user_of_instant
    window device_day as (
        partition by project_id, anonymous_id, event_date
        order by occurred_at, event_id
    )
),

numbered as (
    select
        *,
        sum(case when user_id = previous_user_id then 0 else 1 end) over (
            partition by project_id, anonymous_id, event_date
            order by position
        ) as link_number
    from ordered
),

links as (
    select
        project_id,
        event_date,
        anonymous_id,
        user_id,
        min(occurred_at) as first_seen_at,
        max(occurred_at) as last_seen_at,
        count(*) as event_count,
        {{ first_known_by('event_id', 'position') }} as first_event_id,
        {{ last_known_by('traits', 'position') }} as traits
    from numbered
    group by project_id, event_date, anonymous_id, user_id, link_number
)

select * from links
