{#
  Stored rows that hold a wrong answer. Devices in the queue `pending_devices` are stitched again and compared with what
  is stored. The views stale_sessions and stale_page_views list the rows, for previews; the model stale_partitions
  counts them by day at the end of a run, for the sensors. `condition` leaves out rows that need no check.
#}

{% macro stale_sessions(condition='true') -%}
with subjects as (
    select
        sessions.project_id,
        sessions.session_id,
        sessions.session_date,
        sessions.anonymous_id,
        sessions.user_id,
        sessions.session_date as subject_day,
        sessions.started_at as subject_at,
        sessions.anonymous_id as own_id
    from {{ rows_of_pending_devices(ref('sessions'), 'sessions', condition) }} as sessions
),

{{ stitch('subjects', switch='settings.stitching and settings.session_stitching') }}

select
    stitched.project_id,
    stitched.session_id,
    stitched.session_date,
    stitched.anonymous_id,
    stored.stitched_user_id,
    stitched.stitched_user_id as right_user_id
from stitched
-- Filtered by device as well: these rows are few, and a join with all stored rows costs much more.
left join {{ rows_of_pending_devices(ref('stitched_sessions'), 'sessions', condition) }} as stored
    on
        stitched.project_id = stored.project_id
        and stitched.session_id = stored.session_id
        and stitched.session_date = stored.session_date
where
    stitched.stitched_user_id is distinct from stored.stitched_user_id
    or stitched.stitched_by is distinct from stored.stitched_by
    or stitched.linked_at is distinct from stored.linked_at
    or stitched.link_event_id is distinct from stored.link_event_id
{%- endmacro %}

{% macro stale_page_views(condition='true') -%}
with subjects as (
    select
        views.project_id,
        views.event_id,
        views.event_date,
        views.anonymous_id,
        views.user_id,
        views.stitched_user_id as stored_user_id,
        views.stitched_by as stored_by,
        views.event_date as subject_day,
        views.occurred_at as subject_at,
        coalesce(views.anonymous_id, views.event_id) as own_id
    from {{ rows_of_pending_devices(ref('page_views'), 'page_views', condition) }} as views
),

{{ stitch('subjects') }}

select
    project_id,
    event_id,
    event_date,
    anonymous_id,
    stored_user_id as stitched_user_id,
    stitched_user_id as right_user_id
from stitched
where
    stitched_user_id is distinct from stored_user_id
    or stitched_by is distinct from stored_by
{%- endmacro %}

{# Intervals of user_mapping_history that should begin or end. #}
{% macro stale_user_mappings() -%}
with {{ device_timelines() }},

stored as (
    select *
    from {{ ref('user_mapping_history') }} as stored
    where
        stored.known_until is null
        and {{ is_pending_device('mapping', 'stored') }}
)

select
    project_id,
    anonymous_id
from timelines
where
    not exists (
        select 1 from stored
        where {{ is_same_interval('stored', 'timelines') }}
    )
union all
select
    project_id,
    anonymous_id
from stored
where
    not exists (
        select 1 from timelines
        where {{ is_same_interval('stored', 'timelines') }}
    )
{%- endmacro %}

{# The pre-hook of stale_partitions: the number of stale rows by device and day, as the temporary table stale_rows. Days
   that this run has just built, or that no changed link reaches, are left out, by a condition in the inner query: DuckDB
   2.0 does not push a condition down into a CTE that is used more than once. #}
{% macro collect_stale_rows() %}
    {% if execute %}
    {%- set rows_by_day %}
    select grain, project_id, anonymous_id, day, count(*) as row_count
    from (
        select
            cast(null as varchar) as grain,
            cast(null as varchar) as project_id,
            cast(null as varchar) as anonymous_id,
            cast(null as date) as day
        where 1 = 0
        {%- for grain, day, rows in [
            ('sessions', 'session_date', 'stale_sessions'), ('page_views', 'event_date', 'stale_page_views')
        ] if grain in var('stale_grains') and grain not in var('never_stale') and has_pending_devices(grain) %}
        union all
        select '{{ grain }}' as grain, project_id, coalesce(anonymous_id, '') as anonymous_id, {{ day }} as day
        from ({{ context[rows](may_be_stale(grain, day)) }}) as {{ rows }}
        {%- endfor %}
        {%- if 'sessions' in var('stale_grains') and has_pending_devices('mapping') %}
        union all
        select 'mapping' as grain, project_id, anonymous_id, cast(null as date) as day
        from ({{ stale_user_mappings() }}) as stale_user_mappings
        {%- endif %}
    ) as found
    group by grain, project_id, anonymous_id, day
    {%- endset %}
    {{ create_temporary('stale_rows', rows_by_day) }}
    {% endif %}
{% endmacro %}

{% macro may_be_stale(grain, day) -%}
    {%- set first_day = first_day_reached(grain) -%}
    {%- if first_day -%} {{ day }} >= cast('{{ first_day }}' as date) {%- else -%} true {%- endif -%}
    {%- if grain in var('just_built') %} and not ({{ is_in_window(day) }}) {%- endif -%}
{%- endmacro %}

{# The post-hook: remove devices without a stale row from the queue. #}
{% macro drain_devices_without_stale_rows() %}
    {%- set grains = var('stale_grains') + (['mapping'] if 'sessions' in var('stale_grains') else []) -%}
    {%- for grain in grains -%} {{ drain_pending_devices(grain, keep='stale_rows') }}; {%- endfor -%}
{% endmacro %}
