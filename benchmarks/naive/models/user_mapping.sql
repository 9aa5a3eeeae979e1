{#- The last user of each device. By `new_files` it is an upsert of what this run has seen, as in Snowplow's packages, so
    an older login that comes late replaces a newer one. By `days` it is built from all events. -#}
{{ config(
    materialized='incremental' if env_var('NAIVE_MODE') == 'new_files' else 'table',
    incremental_strategy='delete+insert',
    unique_key=['project_id', 'anonymous_id'],
) }}

select
    project_id,
    anonymous_id,
    arg_max(user_id, occurred_at) as user_id,
    max(occurred_at) as last_seen_at
from {{ ref('raw_events') }}
where
    user_id is not null
    {%- if is_incremental() %}
    and loaded_by = '{{ invocation_id }}'
    {%- endif %}
group by project_id, anonymous_id
