{{ config(
    materialized='in_place',
    key=['project_id', 'stat_date'],
    day='stat_date',
    scope='stats',
    post_hook="{{ drain_pending_days() }}",
) }}

{#- Most deployments count nobody without a device. They do not read such activity. -#}
{%- set counts_people = execute and has_rows(internal_table('project_settings') ~ ' where count_people_without_devices') -%}

-- depends_on: {{ ref('activity_without_device') }}
with visits as (
    select
        project_id,
        session_date as stat_date,
        count(*) as visits,
        count(distinct stitched_user_id) as visitors,
        count(distinct anonymous_id) as visitors_unstitched,
        cast(sum(case when page_view_count = 1 then 1 else 0 end) as bigint) as bounces,
        cast(sum({{ microseconds_between('started_at', 'ended_at') }}) as double precision) / 1000000.0 as total_time_seconds
    from {{ rows_in_scope(ref('stitched_sessions'), 'session_date', 'stats') }} as sessions
    group by project_id, session_date
),

views as (
    select
        project_id,
        event_date as stat_date,
        count(*) as page_views
    from {{ rows_in_scope(ref('page_views'), 'event_date', 'stats') }} as views
    group by project_id, event_date
)
{%- if counts_people %},

-- People who are in no session of the day.
people as (
    select
        people.project_id,
        people.event_date as stat_date,
        count(distinct people.stitched_user_id) as visitors
    from {{ rows_in_scope(people_without_device() ~ ' as people', 'event_date', 'stats') }} as people
    inner join {{ project_settings() }} as settings on people.project_id = settings.project_id
    where
        settings.count_people_without_devices
        and not exists (
            select 1 from {{ rows_in_scope(ref('stitched_sessions'), 'session_date', 'stats') }} as sessions
            where
                sessions.project_id = people.project_id
                and sessions.session_date = people.event_date
                and sessions.stitched_user_id = people.stitched_user_id
        )
    group by people.project_id, people.event_date
)
{%- endif %}

select
    coalesce(visits.project_id, views.project_id{{ ', people.project_id' if counts_people }}) as project_id,
    coalesce(visits.stat_date, views.stat_date{{ ', people.stat_date' if counts_people }}) as stat_date,
    coalesce(views.page_views, 0) as page_views,
    coalesce(visits.visits, 0) as visits,
    coalesce(visits.visitors, 0){{ ' + coalesce(people.visitors, 0)' if counts_people }} as visitors,
    coalesce(visits.visitors_unstitched, 0) as visitors_unstitched,
    coalesce(visits.bounces, 0) as bounces,
    coalesce(visits.total_time_seconds, 0) as total_time_seconds
from visits
full outer join views
    on visits.project_id = views.project_id and visits.stat_date = views.stat_date
{%- if counts_people %}
full outer join people
    on
        coalesce(visits.project_id, views.project_id) = people.project_id
        and coalesce(visits.stat_date, views.stat_date) = people.stat_date
{%- endif %}
