{{ config(
    materialized='table' if env_var('NAIVE_MODE') == 'rebuild' else 'incremental',
    incremental_strategy='delete+insert',
    unique_key='event_date',
    post_hook='{{ restitch() }}',
) }}

with views as (
    select
        project_id,
        event_id,
        event_date,
        occurred_at,
        anonymous_id,
        user_id,
        page_url,
        page_path,
        page_title
    from {{ ref('raw_events') }}
    where event_type = 'page' and {{ is_day_of_run('event_date', before=1) }}
),

sessions as (
    select * from {{ ref('stitched_sessions') }}
    where {{ is_day_of_run('session_date', before=2) }}
)

select
    views.*,
    sessions.session_id,
    sessions.stitched_user_id
from views
asof left join sessions
    on
        views.project_id = sessions.project_id
        and views.anonymous_id = sessions.anonymous_id
        and views.occurred_at >= sessions.started_at
