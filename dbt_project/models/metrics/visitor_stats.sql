{{ config(
    materialized='in_place',
    key=['project_id', 'stat_date'],
    day='stat_date',
    scope='stats',
    post_hook="{{ drain_pending_days() }}",
) }}

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

select
    coalesce(visits.project_id, views.project_id) as project_id,
    coalesce(visits.stat_date, views.stat_date) as stat_date,
    coalesce(views.page_views, 0) as page_views,
    coalesce(visits.visits, 0) as visits,
    coalesce(visits.visitors, 0) as visitors,
    coalesce(visits.visitors_unstitched, 0) as visitors_unstitched,
    coalesce(visits.bounces, 0) as bounces,
    coalesce(visits.total_time_seconds, 0) as total_time_seconds
from visits
full outer join views
    on visits.project_id = views.project_id and visits.stat_date = views.stat_date
