{{ config(materialized='view', read_by_device=true) }}

with subjects as (
    select
        events.*,
        events.event_date as subject_day,
        events.occurred_at as subject_at,
        coalesce(events.anonymous_id, events.event_id) as own_id
    from {{ source('landing', 'raw_events') }} as events
),

{{ stitch('subjects') }},

links as (
    select
        project_id,
        person_id,
        traits,
        row_number() over (
            partition by project_id, person_id
            order by last_seen_at, first_event_id
        ) as position
    from (
        select
            project_id,
            person_id,
            traits,
            last_seen_at,
            first_event_id
        from {{ links_in_force() }} as links
        union all
        select
            project_id,
            stitched_user_id as person_id,
            traits,
            last_seen_at,
            first_event_id
        from {{ people_without_device() }} as people
    ) as named
),

latest_traits as (
    select
        project_id,
        person_id,
        {{ last_known_by('traits', 'position') }} as traits
    from links
    group by project_id, person_id
)

select
    stitched.project_id,
    stitched.event_id,
    stitched.source,
    stitched.event_date,
    stitched.occurred_at,
    stitched.received_at,
    stitched.event_type,
    stitched.event_name,
    stitched.platform,
    stitched.anonymous_id,
    stitched.user_id,
    stitched.source_session_id,
    stitched.page_url,
    stitched.page_path,
    stitched.page_title,
    stitched.referrer,
    stitched.utm_source,
    stitched.utm_medium,
    stitched.utm_campaign,
    stitched.properties,
    stitched.landing_file,
    stitched.stitched_user_id,
    stitched.stitched_by,
    stitched.linked_at,
    stitched.link_event_id,
    case when {{ is_of_a_user('stitched.stitched_by') }} then latest_traits.traits end as traits
from stitched
left join latest_traits
    on
        stitched.project_id = latest_traits.project_id
        and stitched.stitched_user_id = latest_traits.person_id
