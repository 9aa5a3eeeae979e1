{{ config(
    materialized='table' if env_var('NAIVE_MODE') == 'rebuild' else 'incremental',
    incremental_strategy='delete+insert',
    unique_key='session_date',
    post_hook='{{ restitch() }}',
) }}

select
    sessions.*,
    coalesce(mapping.user_id, sessions.anonymous_id) as stitched_user_id
from {{ ref('sessions') }} as sessions
left join {{ ref('user_mapping') }} as mapping
    on
        sessions.project_id = mapping.project_id
        and sessions.anonymous_id = mapping.anonymous_id
where {{ is_day_of_run('sessions.session_date', before=1) }}
