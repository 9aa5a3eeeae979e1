{{ config(
    materialized='in_place',
    key=['project_id', 'session_id'],
    day='session_date',
) }}

{#- A stream is what one session is cut from: a device's events, or, where the tracker numbers its sessions,
    the device's events of one such number. -#}
{%- set stream = "project_id, anonymous_id, coalesce(source_session_id, '')" -%}
{%- set timeout = minutes(var('session_timeout_minutes')) -%}

with events as (
    select
        project_id,
        anonymous_id,
        source_session_id,
        event_id,
        occurred_at,
        event_date,
        user_id,
        event_type,
        page_path,
        referrer,
        utm_source,
        utm_medium,
        utm_campaign,
        platform
    from {{ source('landing', 'raw_events') }}
    where
        anonymous_id is not null
        and event_date between {{ days_later(day_literal('first_day'), -1) }}
        and {{ days_later(day_literal('last_day'), 1) }}
),

ordered as (
    select
        *,
        row_number() over stream_in_time as position,
        lag(occurred_at) over stream_in_time as previous_at,
        lag(event_date) over stream_in_time as previous_date
    from events
    window stream_in_time as (
        partition by {{ stream }}
        order by occurred_at, event_id
    )
),

gaps as (
    select
        *,
        previous_at is null as is_first_of_stream,
        occurred_at - previous_at >= {{ timeout }} as is_after_gap,
        event_date > previous_date as is_after_midnight
    from ordered
),

-- Streams that go on over a midnight; only these can fill a whole day.
crossings as (
    select distinct
        project_id,
        anonymous_id,
        coalesce(source_session_id, '') as stream_session_id
    from gaps
    where is_after_midnight and not is_after_gap
),

-- A day is full if activity reaches from one midnight to the other. It is told from the day's own events,
-- so that a partition depends on its neighbours and nothing else.
full_days as (
    select
        gaps.project_id,
        gaps.anonymous_id,
        crossings.stream_session_id,
        gaps.event_date
    from gaps
    inner join crossings
        on
            gaps.project_id = crossings.project_id
            and gaps.anonymous_id = crossings.anonymous_id
            and coalesce(gaps.source_session_id, '') = crossings.stream_session_id
    group by gaps.project_id, gaps.anonymous_id, crossings.stream_session_id, gaps.event_date
    having
        min(gaps.occurred_at) - cast(gaps.event_date as timestamp) < {{ timeout }}
        and cast({{ days_later('gaps.event_date', 1) }} as timestamp) - max(gaps.occurred_at) < {{ timeout }}
        and sum(
            case
                when gaps.source_session_id is null and gaps.is_after_gap and not gaps.is_after_midnight then 1
                else 0
            end
        ) = 0
),

-- The first events of the days at whose beginning a session is cut, although it has not fallen silent.
cuts as (
    select distinct
        gaps.project_id,
        gaps.event_id
    from gaps
    inner join full_days
        on
            gaps.project_id = full_days.project_id
            and gaps.anonymous_id = full_days.anonymous_id
            and coalesce(gaps.source_session_id, '') = full_days.stream_session_id
            and (gaps.event_date = full_days.event_date or gaps.previous_date = full_days.event_date)
    where gaps.is_after_midnight and not gaps.is_after_gap
),

starts as (
    select
        gaps.*,
        case
            when gaps.is_first_of_stream or cuts.event_id is not null then 1
            when gaps.is_after_gap and (gaps.source_session_id is null or gaps.is_after_midnight) then 1
            else 0
        end as is_start
    from gaps
    left join cuts on gaps.project_id = cuts.project_id and gaps.event_id = cuts.event_id
),

numbered as (
    select
        *,
        sum(is_start) over (partition by {{ stream }} order by position) as session_number
    from starts
),

sessions as (
    select
        project_id,
        anonymous_id,
        source_session_id,
        md5({{ first_known_by('event_id', 'position') }}) as session_id,
        cast(min(occurred_at) as date) as session_date,
        {{ last_known_by('user_id', 'position') }} as user_id,
        min(occurred_at) as started_at,
        max(occurred_at) as ended_at,
        count(*) as event_count,
        sum(case when event_type in ('page', 'screen') then 1 else 0 end) as page_view_count,
        {{ first_known_by("case when event_type in ('page', 'screen') then page_path end", 'position') }} as first_page_path,
        {{ last_known_by("case when event_type in ('page', 'screen') then page_path end", 'position') }} as last_page_path,
        {{ first_value_by('referrer', 'position') }} as referrer,
        {{ first_value_by('utm_source', 'position') }} as utm_source,
        {{ first_value_by('utm_medium', 'position') }} as utm_medium,
        {{ first_value_by('utm_campaign', 'position') }} as utm_campaign,
        {{ first_value_by('platform', 'position') }} as platform
    from numbered
    group by project_id, anonymous_id, source_session_id, session_number
)

select
    project_id,
    session_id,
    session_date,
    anonymous_id,
    user_id,
    started_at,
    ended_at,
    cast(event_count as bigint) as event_count,
    cast(page_view_count as bigint) as page_view_count,
    first_page_path,
    last_page_path,
    referrer,
    utm_source,
    utm_medium,
    utm_campaign,
    platform,
    source_session_id
from sessions
where {{ is_in_window('session_date') }}
