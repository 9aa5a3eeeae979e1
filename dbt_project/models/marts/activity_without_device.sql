{{ config(
    materialized='in_place',
    key=['project_id', 'event_date', 'user_id'],
    day='event_date',
    on_change='note_changed_activity',
    tags=['internal'],
) }}

-- depends_on: {{ ref('decisions') }}
-- Events with a user and no device are in no session. A server sends such events, or a client that refuses cookies.
with events as (
    select
        project_id,
        event_date,
        user_id,
        event_id,
        occurred_at,
        {{ place_in_time('occurred_at', 'event_id') }} as place,
        event_type,
        utm_source,
        utm_medium,
        utm_campaign,
        referrer,
        traits
    from {{ source('landing', 'raw_events') }}
    where {{ is_in_window('event_date') }} and anonymous_id is null and user_id is not null
),

activity as (
    select
        project_id,
        event_date,
        user_id,
        min(occurred_at) as first_seen_at,
        max(occurred_at) as last_seen_at,
        count(*) as event_count,
        sum(case when event_type in ('page', 'screen') then 1 else 0 end) as page_view_count,
        {{ first_row_by(['event_id', 'utm_source', 'utm_medium', 'utm_campaign', 'referrer'], 'place') }} as first_event,
        {{ last_known_by('traits', 'place') }} as traits
    from events
    group by project_id, event_date, user_id
)

select
    project_id,
    event_date,
    user_id,
    first_seen_at,
    last_seen_at,
    cast(event_count as bigint) as event_count,
    cast(page_view_count as bigint) as page_view_count,
    {{ field_of('first_event', 'event_id') }} as first_event_id,
    {{ field_of('first_event', 'utm_source') }} as utm_source,
    {{ field_of('first_event', 'utm_medium') }} as utm_medium,
    {{ field_of('first_event', 'utm_campaign') }} as utm_campaign,
    {{ field_of('first_event', 'referrer') }} as referrer,
    traits
from activity
