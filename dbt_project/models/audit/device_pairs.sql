{{ config(materialized='view') }}

-- Neighbours in the order of a person's sessions, so that nothing is joined with everything.
with neighbours as (
    select
        project_id,
        stitched_user_id,
        anonymous_id,
        started_at,
        platform,
        lag(anonymous_id) over person as previous_anonymous_id,
        lag(ended_at) over person as previous_ended_at,
        lag(platform) over person as previous_platform
    from {{ ref('stitched_sessions') }}
    where {{ is_of_a_user() }}
    window person as (
        partition by project_id, stitched_user_id
        order by started_at, session_id
    )
),

-- One device goes on where the other stopped. A browser stays on its platform.
handovers as (
    select
        neighbours.project_id,
        neighbours.stitched_user_id,
        neighbours.previous_anonymous_id,
        neighbours.anonymous_id,
        greatest({{ microseconds_between('neighbours.previous_ended_at', 'neighbours.started_at') }}, 0) as microseconds
    from neighbours
    inner join {{ project_settings() }} as settings on neighbours.project_id = settings.project_id
    where
        neighbours.previous_anonymous_id != neighbours.anonymous_id
        and neighbours.previous_platform is not distinct from neighbours.platform
        and {{ microseconds_between('neighbours.previous_ended_at', 'neighbours.started_at') }}
        <= settings.same_browser_seconds * cast(1000000 as bigint)
),

listed as (
    select
        project_id,
        anonymous_id
    from handovers
    union
    select
        project_id,
        previous_anonymous_id as anonymous_id
    from handovers
),

devices as (
    select
        sessions.project_id,
        sessions.anonymous_id,
        coalesce(max(same.first_anonymous_id), sessions.anonymous_id) as counted_as,
        min(sessions.started_at) as first_seen_at,
        min(sessions.session_id) as least_session_id,
        max(sessions.ended_at) as last_seen_at,
        sum(sessions.event_count) as event_count,
        count(*) as session_count
    from {{ ref('stitched_sessions') }} as sessions
    inner join listed
        on sessions.project_id = listed.project_id and sessions.anonymous_id = listed.anonymous_id
    left join {{ same_devices() }} as same
        on sessions.project_id = same.project_id and sessions.anonymous_id = same.anonymous_id
    group by sessions.project_id, sessions.anonymous_id
),

addresses as (
    select distinct
        views.project_id,
        views.anonymous_id,
        {{ host_of('views.page_url') }} as host
    from {{ ref('page_views') }} as views
    inner join listed
        on views.project_id = listed.project_id and views.anonymous_id = listed.anonymous_id
    where views.page_url like '%://%'
),

-- A cookie of several hosts is none of a subdomain.
hosts as (
    select
        project_id,
        anonymous_id,
        min(host) as host,
        min({{ site_of('host') }}) as site
    from addresses
    group by project_id, anonymous_id
    having count(*) = 1
),

credited as (
    select
        sessions.project_id,
        sessions.anonymous_id,
        sessions.stitched_user_id,
        count(*) as session_count
    from {{ ref('stitched_sessions') }} as sessions
    inner join listed
        on sessions.project_id = listed.project_id and sessions.anonymous_id = listed.anonymous_id
    group by sessions.project_id, sessions.anonymous_id, sessions.stitched_user_id
),

-- Each pair once, whichever of the two went on. At one instant the sessions decide, and not how an id is written: ids may
-- be hashed.
directed as (
    select
        handovers.project_id,
        handovers.stitched_user_id,
        handovers.microseconds,
        case
            when
                one.first_seen_at < other.first_seen_at
                or (one.first_seen_at = other.first_seen_at and one.least_session_id < other.least_session_id)
                then one.anonymous_id
            else other.anonymous_id
        end as anonymous_id,
        case
            when
                one.first_seen_at < other.first_seen_at
                or (one.first_seen_at = other.first_seen_at and one.least_session_id < other.least_session_id)
                then other.anonymous_id
            else one.anonymous_id
        end as other_anonymous_id
    from handovers
    inner join devices as one
        on handovers.project_id = one.project_id and handovers.previous_anonymous_id = one.anonymous_id
    inner join devices as other
        on handovers.project_id = other.project_id and handovers.anonymous_id = other.anonymous_id
    where one.counted_as != other.counted_as
),

pairs as (
    select
        project_id,
        stitched_user_id,
        anonymous_id,
        other_anonymous_id,
        count(*) as handover_count,
        min(microseconds) as microseconds
    from directed
    group by project_id, stitched_user_id, anonymous_id, other_anonymous_id
),

compared as (
    select
        pairs.project_id,
        pairs.stitched_user_id,
        pairs.anonymous_id,
        pairs.other_anonymous_id,
        case
            when hosts.site = other_hosts.site and hosts.host != other_hosts.host then 'other subdomain'
            when devices.last_seen_at <= others.first_seen_at then 'new id'
        end as reason,
        pairs.handover_count,
        cast(pairs.microseconds as double precision) / 1000000.0 as seconds_between,
        devices.last_seen_at,
        others.first_seen_at as other_first_seen_at,
        devices.event_count,
        others.event_count as other_event_count,
        hosts.host,
        other_hosts.host as other_host,
        devices.session_count + others.session_count
        - credited.session_count - other_credited.session_count as sessions_of_others
    from pairs
    inner join devices on pairs.project_id = devices.project_id and pairs.anonymous_id = devices.anonymous_id
    inner join devices as others
        on pairs.project_id = others.project_id and pairs.other_anonymous_id = others.anonymous_id
    inner join credited
        on
            pairs.project_id = credited.project_id
            and pairs.anonymous_id = credited.anonymous_id
            and pairs.stitched_user_id = credited.stitched_user_id
    inner join credited as other_credited
        on
            pairs.project_id = other_credited.project_id
            and pairs.other_anonymous_id = other_credited.anonymous_id
            and pairs.stitched_user_id = other_credited.stitched_user_id
    left join hosts on pairs.project_id = hosts.project_id and pairs.anonymous_id = hosts.anonymous_id
    left join hosts as other_hosts
        on pairs.project_id = other_hosts.project_id and pairs.other_anonymous_id = other_hosts.anonymous_id
)

select
    project_id,
    stitched_user_id,
    anonymous_id,
    other_anonymous_id,
    reason,
    handover_count,
    seconds_between,
    last_seen_at,
    other_first_seen_at,
    cast(event_count as bigint) as event_count,
    cast(other_event_count as bigint) as other_event_count,
    host,
    other_host,
    sessions_of_others,
    {{ csv_cell('project_id') }} || ',same_device,' || {{ csv_cell('anonymous_id') }} || ','
    || {{ csv_cell('other_anonymous_id') }} || ',' || reason as proposed_decision
from compared
where reason is not null
