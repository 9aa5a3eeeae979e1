{{ config(
    materialized='in_place',
    key=['grain', 'day'],
    scope='all',
    tags=['internal'],
    pre_hook="{{ collect_stale_rows() }}",
    post_hook="{{ drain_devices_without_stale_rows() }}",
) }}

{#- Built last in every run. The next re-stitch has to touch these days. -#}
{%- set checked = var('stale_grains') | list + (['mapping', 'users', 'stats'] if 'sessions' in var('stale_grains') else []) -%}
{%- set last_session_day -%}
(select coalesce(max(session_date), {{ day_literal('last_day') }}) from {{ ref('sessions') }} as sessions)
{%- endset -%}

-- depends_on: {{ ref('decisions') }}, {{ ref('identity_map') }}, {{ ref('identifier_links') }}, {{ ref('persons') }}
-- depends_on: {{ ref('user_mapping_history') }}, {{ ref('stitched_sessions') }}, {{ ref('page_views') }}
-- depends_on: {{ ref('users') }}, {{ ref('visitor_stats') }}, {{ ref('activity_without_device') }}
select
    grain,
    day,
    cast(sum(row_count) as bigint) as row_count
from stale_rows
where grain != 'mapping'
group by grain, day
{% if 'sessions' in var('stale_grains') -%}
union all
-- Mappings and users have no day. A re-stitch of any day brings them up to date.
select
    'mapping' as grain,
    {{ last_session_day }} as day,
    cast(sum(row_count) as bigint) as row_count
from stale_rows
where grain = 'mapping'
having count(*) > 0
union all
select
    'users' as grain,
    {{ last_session_day }} as day,
    count(*) as row_count
from (
    select
        pending.project_id,
        pending.stitched_user_id
    from {{ internal_table('pending_users') }} as pending
    where
        exists (
            select 1 from {{ ref('stitched_sessions') }} as sessions
            where
                sessions.project_id = pending.project_id
                and sessions.stitched_user_id = pending.stitched_user_id
        )
    union
    -- By either name: the row of the one is to be written, or that of the other to be deleted.
    select
        pending.project_id,
        pending.stitched_user_id
    from {{ internal_table('pending_users') }} as pending
    inner join {{ people_without_device() }} as people
        on pending.project_id = people.project_id and pending.stitched_user_id = people.stitched_user_id
    union
    select
        pending.project_id,
        pending.stitched_user_id
    from {{ internal_table('pending_users') }} as pending
    inner join {{ ref('activity_without_device') }} as activity
        on pending.project_id = activity.project_id and pending.stitched_user_id = activity.user_id
) as users
having count(*) > 0
union all
select
    'stats' as grain,
    day,
    count(*) as row_count
from {{ internal_table('pending_days') }}
group by day
{%- endif %}
union all
-- Grains that this run does not check keep the counts of their last check.
select
    grain,
    day,
    row_count
from {{ this }}
where {{ "grain not in ('" ~ checked | join("', '") ~ "')" if checked else 'true' }}
