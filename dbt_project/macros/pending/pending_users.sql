{#
  The queue `pending_users` (project_id, stitched_user_id): canonical ids with a row of `users` to compute again,
  because their sessions, links, persons or decisions changed. The model `users` reads and drains it; `stale_partitions`
  counts it.
#}

{# Queue canonical ids, given as a query with (project_id, stitched_user_id). #}
{% macro add_pending_users(users) -%}
    insert into {{ internal_table('pending_users') }}
    select project_id, stitched_user_id from ({{ users }}) as found
    except select project_id, stitched_user_id from {{ internal_table('pending_users') }}
{%- endmacro %}

{% macro drain_pending_users() -%}
    delete from {{ internal_table('pending_users') }}
{%- endmacro %}

{# The canonical ids with a row of `users` to compute in this run: those queued and, without `only_pending`, those
   active in the window. #}
{% macro collect_affected_users() %}
    {% if has_rows(this) %}
    {%- set users %}
    with policy_names as (
        select project_id, user_id, person_id from {{ person_names() }} as names
    )

    select project_id, stitched_user_id from {{ internal_table('pending_users') }}
    -- The traits of a user are in the row of its person.
    union
    select pending.project_id, policy_names.person_id
    from {{ internal_table('pending_users') }} as pending
    inner join policy_names
        on pending.project_id = policy_names.project_id and pending.stitched_user_id = policy_names.user_id
    {% if not var('only_pending') -%}
    union
    select project_id, stitched_user_id from {{ ref('stitched_sessions') }} as sessions
    where {{ is_in_window('sessions.session_date') }}
    {%- endif %}
    {%- endset %}
    {{ create_temporary('affected_users', users) }}
    {% endif %}
{% endmacro %}
