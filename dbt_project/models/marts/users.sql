{{ config(
    materialized='in_place',
    key=['project_id', 'stitched_user_id'],
    scope='users',
    pre_hook="{{ collect_affected_users() }}",
    post_hook="delete from {{ pipeline_table('pending_users') }}",
) }}

with sessions as (
    select *
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
        count(distinct anonymous_id) as device_count
    from sessions
    group by project_id, stitched_user_id
),

-- Found by their time: numbering all sessions of everybody, to keep the first, costs more than all the rest.
first_sessions as (
    select
        sessions.project_id,
        sessions.stitched_user_id,
        sessions.utm_source,
        sessions.utm_medium,
        sessions.utm_campaign,
        sessions.referrer,
        row_number() over (
            partition by sessions.project_id, sessions.stitched_user_id
            order by sessions.session_id
        ) as position
    from sessions
    inner join activity
        on
            sessions.project_id = activity.project_id
            and sessions.stitched_user_id = activity.stitched_user_id
            and sessions.started_at = activity.first_seen_at
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
    first_sessions.utm_source as first_touch_source,
    first_sessions.utm_medium as first_touch_medium,
    first_sessions.utm_campaign as first_touch_campaign,
    first_sessions.referrer as first_touch_referrer,
    case when activity.is_identified then identities.traits end as traits
from activity
inner join first_sessions
    on
        activity.project_id = first_sessions.project_id
        and activity.stitched_user_id = first_sessions.stitched_user_id
        and first_sessions.position = 1
left join identities
    on
        activity.project_id = identities.project_id
        and activity.stitched_user_id = identities.person_id
