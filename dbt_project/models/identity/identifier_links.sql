{{ config(
    materialized='in_place',
    key=['project_id', 'event_date', 'id_kind', 'id', 'linked_kind', 'linked_id'],
    day='event_date',
    on_change='note_relinked_identifiers',
) }}

-- depends_on: {{ ref('decisions') }}
with {{ sent_identifiers(is_in_window('events.event_date')) }},

identities as (
    select
        *,
        row_number() over (
            partition by project_id, event_id, id_kind
            order by preference
        ) as position
    from sent_identifiers
    where not is_blocked
),

ends as (
    select
        *,
        'device' as linked_kind,
        anonymous_id as linked_id
    from identities
    where position = 1 and anonymous_id is not null
    union all
    select
        *,
        'user' as linked_kind,
        user_id as linked_id
    from identities
    where position = 1 and user_id is not null
),

previous_ids as (
    select
        events.project_id,
        events.event_id,
        events.event_date,
        events.occurred_at,
        events.anonymous_id,
        events.user_id,
        events.previous_id
    from {{ source('landing', 'raw_events') }} as events
    inner join {{ project_settings() }} as settings on events.project_id = settings.project_id
    where
        {{ is_in_window('events.event_date') }}
        and {{ has_previous_id('events') }}
        and {{ may_link('events') }}
),

-- A previous id ties two ids of one kind. As a device of the user it is a link of identity_map.
same_ids as (
    select
        *,
        'user' as id_kind,
        previous_id as id,
        'user' as linked_kind,
        user_id as linked_id
    from previous_ids
    where user_id is not null
    union all
    select
        *,
        'device' as id_kind,
        previous_id as id,
        'device' as linked_kind,
        anonymous_id as linked_id
    from previous_ids
    where user_id is null and anonymous_id is not null
    union all
    -- Either device is linked with the other: a link decides rows of the device that it is linked with.
    select
        *,
        'device' as id_kind,
        anonymous_id as id,
        'device' as linked_kind,
        previous_id as linked_id
    from previous_ids
    where user_id is null and anonymous_id is not null
),

seen_together as (
    select
        project_id,
        event_id,
        event_date,
        occurred_at,
        id_kind,
        id,
        linked_kind,
        linked_id
    from ends
    union all
    -- As in identity_map: what is left of a forgotten identifier.
    select
        events.project_id,
        events.event_id,
        events.event_date,
        events.occurred_at,
        events.id_kind,
        events.id,
        'device' as linked_kind,
        events.anonymous_id as linked_id
    from {{ internal_table('forgotten_events') }} as events
    inner join {{ project_settings() }} as settings on events.project_id = settings.project_id
    where
        {{ is_in_window('events.event_date') }}
        and events.anonymous_id is not null
        and events.id is not null
        and {{ may_link_forgotten('events') }}
    union all
    select
        project_id,
        event_id,
        event_date,
        occurred_at,
        id_kind,
        id,
        linked_kind,
        linked_id
    from same_ids
),

numbered as (
    select
        *,
        row_number() over (
            partition by project_id, event_date, id_kind, id, linked_kind, linked_id
            order by occurred_at, event_id
        ) as event_number
    from seen_together
)

select
    project_id,
    event_date,
    id_kind,
    id,
    linked_kind,
    linked_id,
    min(occurred_at) as first_seen_at,
    max(occurred_at) as last_seen_at,
    count(*) as event_count,
    {{ first_known_by('event_id', 'event_number') }} as first_event_id
from numbered
group by project_id, event_date, id_kind, id, linked_kind, linked_id
