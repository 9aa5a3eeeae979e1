{{ config(
    materialized='in_place',
    key=['project_id', 'stitched_user_id'],
    scope='users',
    pre_hook="{{ collect_affected_users() }}",
    post_hook="{{ drain_pending_users() }}",
) }}

with sessions as (
    select
        *,
        {{ place_in_time('started_at', 'session_id') }} as place
    from {{ ref('stitched_sessions') }} as sessions
    where {{ is_affected_user('sessions') }}
),

activity as (
    select
        project_id,
        stitched_user_id,
        max(case when {{ is_of_a_user() }} then 1 else 0 end) = 1 as is_identified,
        min(started_at) as first_seen_at,
        max(ended_at) as last_seen_at,
        count(*) as session_count,
        cast(sum(page_view_count) as bigint) as page_view_count,
        cast(sum(event_count) as bigint) as event_count,
        count(distinct anonymous_id) as device_count,
        {{ first_row_by(['utm_source', 'utm_medium', 'utm_campaign', 'referrer'], 'place') }} as first_touch
    from sessions
    group by project_id, stitched_user_id
),

links as (
    select
        links.project_id,
        links.person_id,
        links.first_seen_at,
        links.traits,
        row_number() over (
            partition by links.project_id, links.person_id
            order by links.last_seen_at, links.first_event_id
        ) as position
    from {{ links_in_force() }} as links
    where {{ is_affected_user('links', 'person_id') }}
),

identities as (
    select
        project_id,
        person_id,
        min(first_seen_at) as identified_at,
        {{ last_known_by('traits', 'position') }} as traits
    from links
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
