{{ config(
    materialized='in_place',
    key=['project_id', 'stitched_user_id'],
    scope='users',
    pre_hook="{{ collect_affected_users() }}",
    post_hook="{{ drain_pending_users() }}",
) }}

with without_device as (
    select * from {{ people_without_device() }} as people
    where {{ is_affected_user('people') }}
),

seen as (
    select
        sessions.project_id,
        sessions.stitched_user_id,
        case when {{ is_of_a_user('sessions.stitched_by') }} then 1 else 0 end as is_of_user,
        sessions.started_at,
        sessions.ended_at,
        sessions.session_id,
        coalesce(same.first_anonymous_id, sessions.anonymous_id) as anonymous_id,
        sessions.page_view_count,
        sessions.event_count,
        sessions.utm_source,
        sessions.utm_medium,
        sessions.utm_campaign,
        sessions.referrer,
        {{ place_in_time('sessions.started_at', 'sessions.session_id') }} as place
    from {{ ref('stitched_sessions') }} as sessions
    left join {{ same_devices() }} as same
        on sessions.project_id = same.project_id and sessions.anonymous_id = same.anonymous_id
    where {{ is_affected_user('sessions') }}
    union all
    select
        project_id,
        stitched_user_id,
        1 as is_of_user,
        first_seen_at as started_at,
        last_seen_at as ended_at,
        null as session_id,
        null as anonymous_id,
        page_view_count,
        event_count,
        utm_source,
        utm_medium,
        utm_campaign,
        referrer,
        -- After every session, whose places are digits: a server knows no campaign.
        'x' || {{ place_in_time('first_seen_at', 'first_event_id') }} as place
    from without_device
),

activity as (
    select
        project_id,
        stitched_user_id,
        max(is_of_user) = 1 as is_identified,
        min(started_at) as first_seen_at,
        max(ended_at) as last_seen_at,
        count(session_id) as session_count,
        cast(sum(page_view_count) as bigint) as page_view_count,
        cast(sum(event_count) as bigint) as event_count,
        count(distinct anonymous_id) as device_count,
        {{ first_row_by(['utm_source', 'utm_medium', 'utm_campaign', 'referrer'], 'place') }} as first_touch
    from seen
    group by project_id, stitched_user_id
),

named as (
    select
        project_id,
        person_id,
        first_seen_at,
        last_seen_at,
        first_event_id,
        traits
    from {{ links_in_force() }} as links
    where {{ is_affected_user('links', 'person_id') }}
    union all
    select
        project_id,
        stitched_user_id as person_id,
        first_seen_at,
        last_seen_at,
        first_event_id,
        traits
    from without_device
),

ordered as (
    select
        *,
        row_number() over (
            partition by project_id, person_id
            order by last_seen_at, first_event_id
        ) as position
    from named
),

identities as (
    select
        project_id,
        person_id,
        min(first_seen_at) as identified_at,
        {{ last_known_by('traits', 'position') }} as traits
    from ordered
    group by project_id, person_id
)

select
    activity.project_id,
    activity.stitched_user_id,
    activity.is_identified,
    activity.first_seen_at,
    activity.last_seen_at,
    case when activity.is_identified then identities.identified_at end as identified_at,
    activity.session_count,
    activity.page_view_count,
    activity.event_count,
    activity.device_count,
    {{ field_of('activity.first_touch', 'utm_source') }} as first_touch_source,
    {{ field_of('activity.first_touch', 'utm_medium') }} as first_touch_medium,
    {{ field_of('activity.first_touch', 'utm_campaign') }} as first_touch_campaign,
    {{ field_of('activity.first_touch', 'referrer') }} as first_touch_referrer,
    case when activity.is_identified then identities.traits end as traits
from activity
left join identities
    on
        activity.project_id = identities.project_id
        and activity.stitched_user_id = identities.person_id
