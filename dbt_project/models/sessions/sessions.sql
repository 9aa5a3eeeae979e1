{{ config(
    materialized='in_place',
    key=['project_id', 'session_id'],
    day='session_date',
) }}

{#- Sessions are cut from streams. A stream is the events of a device or, where the tracker sends session ids, the
    events of a device with one session id. -#}
{%- set timeout = minutes(var('session_timeout_minutes')) -%}
{%- set half_a_day = minutes(12 * 60) -%}

{#- Sorting is expensive, so only the columns on which the cuts depend are sorted. The other columns are joined to the
    sessions. Events at one instant are never separated, so their order does not matter here. -#}
with devices_at_edges as (
    select distinct
        project_id,
        anonymous_id
    from {{ source('landing', 'raw_events') }}
    where
        anonymous_id is not null
        and {{ is_in_window('event_date') }}
        and (
            occurred_at < cast({{ day_literal('first_day') }} as timestamp) + {{ timeout }}
            or occurred_at >= cast({{ days_later(day_literal('last_day'), 1) }} as timestamp) - {{ timeout }}
        )
),

-- A session that the tracker numbers can cross a midnight with silence around it, but only between a stream that has
-- events in the second half of one day and one that has events in the first half of the next (`continued_midnights`).
streams_at_edges as (
    select distinct
        project_id,
        anonymous_id,
        source_session_id
    from {{ source('landing', 'raw_events') }}
    where
        anonymous_id is not null
        and source_session_id is not null
        and (
            (
                event_date = {{ day_literal('first_day') }}
                and occurred_at < cast({{ day_literal('first_day') }} as timestamp) + {{ half_a_day }}
            )
            or (
                event_date = {{ day_literal('last_day') }}
                and occurred_at > cast({{ day_literal('last_day') }} as timestamp) + {{ half_a_day }}
            )
        )
),

-- On the days next to the window, only what is active at its edges: other sessions cannot cross them.
instants as (
    select
        project_id,
        anonymous_id,
        coalesce(source_session_id, '') as stream_session_id,
        occurred_at
    from {{ source('landing', 'raw_events') }}
    where anonymous_id is not null and {{ is_in_window('event_date') }}
    union all
    select
        project_id,
        anonymous_id,
        coalesce(source_session_id, '') as stream_session_id,
        occurred_at
    from {{ source('landing', 'raw_events') }}
    where
        (
            event_date = {{ days_later(day_literal('first_day'), -1) }}
            or event_date = {{ days_later(day_literal('last_day'), 1) }}
        )
        and (
            (project_id, anonymous_id) in (
                select
                    project_id,
                    anonymous_id
                from devices_at_edges
            )
            or (project_id, anonymous_id, source_session_id) in (
                select
                    project_id,
                    anonymous_id,
                    source_session_id
                from streams_at_edges
            )
        )
),

ordered as (
    select
        *,
        lag(occurred_at) over (
            partition by anonymous_id, stream_session_id, project_id
            order by occurred_at
        ) as previous_at
    from instants
),

gaps as (
    select
        *,
        cast(occurred_at as date) as event_date,
        cast(previous_at as date) as previous_date,
        stream_session_id = '' as lacks_source_session,
        previous_at is null as is_first_of_stream,
        occurred_at - previous_at >= {{ timeout }} as is_after_gap,
        cast(occurred_at as date) > cast(previous_at as date) as is_after_midnight
    from ordered
),

silent_midnights as (
    select
        project_id,
        anonymous_id,
        stream_session_id,
        event_date
    from gaps
    where
        is_after_midnight
        and is_after_gap
        and not lacks_source_session
        and previous_date = {{ days_later('event_date', -1) }}
),

-- How far a stream's events on a day are from its two midnights.
distances as (
    select
        gaps.project_id,
        gaps.anonymous_id,
        gaps.stream_session_id,
        gaps.event_date,
        min(gaps.occurred_at) - cast(gaps.event_date as timestamp) as after_midnight,
        cast({{ days_later('gaps.event_date', 1) }} as timestamp) - max(gaps.occurred_at) as before_midnight
    from gaps
    where
        exists (
            select 1 from silent_midnights as silent
            where
                silent.project_id = gaps.project_id
                and silent.anonymous_id = gaps.anonymous_id
                and silent.stream_session_id = gaps.stream_session_id
        )
    group by gaps.project_id, gaps.anonymous_id, gaps.stream_session_id, gaps.event_date
),

-- Within a day silence does not end a session that the tracker numbers. Over midnight it does not either if on both days
-- the stream is nearer to this midnight than to the day's other one. So no session runs past two midnights, and a
-- partition depends on its two neighbours and nothing else.
continued_midnights as (
    select
        silent.project_id,
        silent.anonymous_id,
        silent.stream_session_id,
        silent.event_date
    from silent_midnights as silent
    inner join distances as own
        on
            silent.project_id = own.project_id
            and silent.anonymous_id = own.anonymous_id
            and silent.stream_session_id = own.stream_session_id
            and silent.event_date = own.event_date
    inner join distances as previous
        on
            silent.project_id = previous.project_id
            and silent.anonymous_id = previous.anonymous_id
            and silent.stream_session_id = previous.stream_session_id
            and {{ days_later('silent.event_date', -1) }} = previous.event_date
    where
        own.after_midnight < own.before_midnight
        and previous.before_midnight < previous.after_midnight
),

-- Days that a stream may enter without a cut.
crossings as (
    select
        project_id,
        anonymous_id,
        stream_session_id,
        event_date
    from gaps
    where is_after_midnight and not is_after_gap
    union all
    select
        project_id,
        anonymous_id,
        stream_session_id,
        event_date
    from continued_midnights
),

-- A day is full if activity reaches from one midnight to the other without a gap. Only the day's own events decide
-- this, so a partition depends on its two neighbours and nothing else.
full_days as (
    select
        gaps.project_id,
        gaps.anonymous_id,
        gaps.stream_session_id,
        gaps.event_date
    from gaps
    where
        exists (
            select 1 from crossings
            where
                crossings.project_id = gaps.project_id
                and crossings.anonymous_id = gaps.anonymous_id
                and crossings.stream_session_id = gaps.stream_session_id
        )
    group by gaps.project_id, gaps.anonymous_id, gaps.stream_session_id, gaps.event_date
    having
        min(gaps.occurred_at) - cast(gaps.event_date as timestamp) < {{ timeout }}
        and cast({{ days_later('gaps.event_date', 1) }} as timestamp) - max(gaps.occurred_at) < {{ timeout }}
        and sum(case when gaps.lacks_source_session and gaps.is_after_gap and not gaps.is_after_midnight then 1 else 0 end) = 0
),

-- Days that a stream enters without a cut: a full day is cut at both midnights.
uncut_crossings as (
    select
        project_id,
        anonymous_id,
        stream_session_id,
        event_date
    from crossings
    where
        not exists (
            select 1 from full_days
            where
                full_days.project_id = crossings.project_id
                and full_days.anonymous_id = crossings.anonymous_id
                and full_days.stream_session_id = crossings.stream_session_id
                and full_days.event_date
                between {{ days_later('crossings.event_date', -1) }} and crossings.event_date
        )
),

starts as (
    select
        project_id,
        anonymous_id,
        stream_session_id,
        occurred_at as started_at,
        event_date as session_date
    from gaps
    where is_first_of_stream or (is_after_gap and lacks_source_session and not is_after_midnight)
    union all
    select
        gaps.project_id,
        gaps.anonymous_id,
        gaps.stream_session_id,
        gaps.occurred_at as started_at,
        gaps.event_date as session_date
    from gaps
    where
        gaps.is_after_midnight
        and not exists (
            select 1 from uncut_crossings
            where
                uncut_crossings.project_id = gaps.project_id
                and uncut_crossings.anonymous_id = gaps.anonymous_id
                and uncut_crossings.stream_session_id = gaps.stream_session_id
                and uncut_crossings.event_date = gaps.event_date
        )
),

session_intervals as (
    select
        *,
        lead(started_at) over (
            partition by anonymous_id, stream_session_id, project_id
            order by started_at
        ) as next_started_at
    from starts
),

-- One row per day on which a session can have events: it runs past one midnight at most.
session_intervals_by_day as (
    select
        *,
        session_date as event_date
    from session_intervals
    where {{ is_in_window('session_date') }}
    union all
    select
        intervals.*,
        crossings.event_date
    from session_intervals as intervals
    inner join uncut_crossings as crossings
        on
            intervals.project_id = crossings.project_id
            and intervals.anonymous_id = crossings.anonymous_id
            and intervals.stream_session_id = crossings.stream_session_id
            and {{ days_later('intervals.session_date', 1) }} = crossings.event_date
    where {{ is_in_window('intervals.session_date') }}
),

events as (
    select
        events.project_id,
        events.anonymous_id,
        events.source_session_id,
        intervals.started_at,
        intervals.session_date,
        events.occurred_at,
        -- A session's first event is the one with the least id among those at its start.
        case when events.occurred_at = intervals.started_at then events.event_id end as start_event_id,
        {{ place_in_time('events.occurred_at', 'events.event_id') }} as place,
        case
            when events.event_type in ('page', 'screen')
                then {{ place_in_time('events.occurred_at', 'events.event_id') }}
        end as view_place,
        events.user_id,
        events.page_path,
        events.referrer,
        events.utm_source,
        events.utm_medium,
        events.utm_campaign,
        events.platform
    from {{ source('landing', 'raw_events') }} as events
    inner join session_intervals_by_day as intervals
        on
            events.project_id = intervals.project_id
            and events.anonymous_id = intervals.anonymous_id
            and coalesce(events.source_session_id, '') = intervals.stream_session_id
            and events.event_date = intervals.event_date
            and events.occurred_at >= intervals.started_at
            and (intervals.next_started_at is null or events.occurred_at < intervals.next_started_at)
    where
        events.anonymous_id is not null
        and events.event_date between {{ day_literal('first_day') }} and {{ days_later(day_literal('last_day'), 1) }}
),

sessions as (
    select
        project_id,
        anonymous_id,
        source_session_id,
        session_date,
        started_at,
        {{ last_text_by('user_id', 'place') }} as user_id,
        max(occurred_at) as ended_at,
        count(*) as event_count,
        count(view_place) as page_view_count,
        {{ first_text_by('page_path', 'view_place') }} as first_page_path,
        {{ last_text_by('page_path', 'view_place') }} as last_page_path,
        {{ first_row_by(
            ['start_event_id', 'referrer', 'utm_source', 'utm_medium', 'utm_campaign', 'platform'], 'start_event_id'
        ) }} as first_event
    from events
    group by project_id, anonymous_id, source_session_id, session_date, started_at
)

select
    project_id,
    md5({{ field_of('first_event', 'start_event_id') }}) as session_id,
    session_date,
    anonymous_id,
    user_id,
    started_at,
    ended_at,
    cast(event_count as bigint) as event_count,
    cast(page_view_count as bigint) as page_view_count,
    first_page_path,
    last_page_path,
    {{ field_of('first_event', 'referrer') }} as referrer,
    {{ field_of('first_event', 'utm_source') }} as utm_source,
    {{ field_of('first_event', 'utm_medium') }} as utm_medium,
    {{ field_of('first_event', 'utm_campaign') }} as utm_campaign,
    {{ field_of('first_event', 'platform') }} as platform,
    source_session_id
from sessions
