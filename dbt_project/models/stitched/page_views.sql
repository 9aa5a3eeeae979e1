{#- Page views are stitched at a pace of their own. If view stitching is off, in general or for this run, each row keeps
    the stitched user of the last view stitch, and a new row is credited to its own device. -#}

{{ config(
    materialized='in_place',
    has_exceptions=true,
    key=['project_id', 'event_id'],
    day='event_date',
    scope='page_views',
    on_change='note_unstitched_views',
) }}

with {% if var('restitch_only') -%}
views as {{ compute_per_use() }} (
    select
        project_id,
        event_id,
        event_date,
        occurred_at,
        anonymous_id,
        user_id,
        session_id,
        page_url,
        page_path,
        page_title
    from {{ rows_in_scope(this, 'event_date', 'page_views') }} as views
),
{%- else -%}
events as {{ compute_per_use() }} (
    select
        project_id,
        event_id,
        event_date,
        occurred_at,
        anonymous_id,
        user_id,
        coalesce(source_session_id, '') as stream_session_id,
        page_url,
        page_path,
        page_title
    from {{ rows_in_scope(source('landing', 'raw_events'), 'event_date', 'page_views') }} as events
    where event_type in ('page', 'screen')
),

-- A session runs past one midnight at most.
sessions_past_midnight as (
    select
        project_id,
        anonymous_id,
        coalesce(source_session_id, '') as stream_session_id,
        session_id,
        started_at,
        ended_at,
        cast(ended_at as date) as event_date
    from {{ ref('sessions') }}
    where
        session_date between {{ days_later(day_literal('first_day'), -1) }} and {{ day_literal('last_day') }}
        and cast(ended_at as date) > session_date
),

-- The day before may still have to be built, and its sessions may reach further than they should: into this one's.
next_starts as (
    select
        earlier.project_id,
        earlier.session_id,
        min(later.started_at) as started_at
    from sessions_past_midnight as earlier
    inner join {{ ref('sessions') }} as later
        on
            earlier.project_id = later.project_id
            and earlier.anonymous_id = later.anonymous_id
            and earlier.stream_session_id = coalesce(later.source_session_id, '')
            and earlier.event_date = later.session_date
    where later.session_date between {{ day_literal('first_day') }} and {{ days_later(day_literal('last_day'), 1) }}
    group by earlier.project_id, earlier.session_id
),

sessions_by_day as (
    select
        project_id,
        anonymous_id,
        coalesce(source_session_id, '') as stream_session_id,
        session_id,
        session_date as event_date,
        started_at,
        ended_at,
        cast(null as timestamp) as next_started_at
    from {{ ref('sessions') }}
    where session_date between {{ day_literal('first_day') }} and {{ day_literal('last_day') }}
    union all
    select
        earlier.project_id,
        earlier.anonymous_id,
        earlier.stream_session_id,
        earlier.session_id,
        earlier.event_date,
        earlier.started_at,
        earlier.ended_at,
        next_starts.started_at as next_started_at
    from sessions_past_midnight as earlier
    left join next_starts
        on
            earlier.project_id = next_starts.project_id
            and earlier.session_id = next_starts.session_id
),

views as {{ compute_per_use() }} (
    select
        events.project_id,
        events.event_id,
        events.event_date,
        events.occurred_at,
        events.anonymous_id,
        events.user_id,
        sessions.session_id,
        events.page_url,
        events.page_path,
        events.page_title
    from events
    left join sessions_by_day as sessions
        on
            events.project_id = sessions.project_id
            and events.anonymous_id = sessions.anonymous_id
            and events.stream_session_id = sessions.stream_session_id
            and events.event_date = sessions.event_date
            and events.occurred_at between sessions.started_at and sessions.ended_at
            and (sessions.next_started_at is null or events.occurred_at < sessions.next_started_at)
),
{%- endif %}

{% if var('view_stitching') -%}
subjects as {{ compute_per_use() }} (
    select
        views.*,
        views.event_date as subject_day,
        views.occurred_at as subject_at,
        coalesce(views.anonymous_id, views.event_id) as own_id
    from views
),

{{ stitch('subjects') }}
{%- else -%}
stitched as (
    select
        views.*,
        coalesce(stored.stitched_user_id, views.anonymous_id, views.user_id, views.event_id) as stitched_user_id,
        coalesce(stored.stitched_by, {{ rule_without_stitching('views') }}) as stitched_by
    from views
    left join {{ this }} as stored
        on
            views.project_id = stored.project_id
            and views.event_id = stored.event_id
            and views.event_date = stored.event_date
            -- The answer for another device does not count.
            and views.anonymous_id = stored.anonymous_id
)
{%- endif %}

select
    project_id,
    event_id,
    event_date,
    occurred_at,
    anonymous_id,
    user_id,
    session_id,
    page_url,
    page_path,
    page_title,
    stitched_user_id,
    stitched_by
from stitched
