{# Work that a change of rows makes for others, noted in the transaction that makes the change. #}

{# Links changed: the rows of their devices may be somebody else's now, their users' traits may differ. #}
{% macro note_relinked_devices(added, gone) %}
    {% set statements = [] %}
    {% for grain in ['sessions', 'page_views', 'mapping'] %}
        {% do statements.append(
            "insert into " ~ pipeline_table('pending_devices')
            ~ " select '" ~ grain ~ "', project_id, anonymous_id from (select project_id, anonymous_id from " ~ added ~ " as added"
            ~ " union select project_id, anonymous_id from " ~ gone ~ " as gone) as changed"
            ~ " except select grain, project_id, anonymous_id from " ~ pipeline_table('pending_devices')
        ) %}
    {% endfor %}
    {% do statements.append(
        "insert into " ~ pipeline_table('pending_users')
        ~ " select changed.project_id, coalesce(names.person_id, changed.user_id) from ("
        ~ " select project_id, user_id from " ~ added ~ " as added"
        ~ " union select project_id, user_id from " ~ gone ~ " as gone) as changed left join " ~ person_names()
        ~ " as names on changed.project_id = names.project_id and changed.user_id = names.user_id"
        ~ " except select project_id, stitched_user_id from " ~ pipeline_table('pending_users')
    ) %}
    {{ return(statements) }}
{% endmacro %}

{# Sessions changed hands or content: whoever had them and whoever has them now needs a new row. #}
{% macro note_changed_users(added, gone) %}
    {{ return([
        "insert into " ~ pipeline_table('pending_users')
        ~ " select project_id, stitched_user_id from " ~ added ~ " as added"
        ~ " union select project_id, stitched_user_id from " ~ gone ~ " as gone"
        ~ " except select project_id, stitched_user_id from " ~ pipeline_table('pending_users')
    ]) }}
{% endmacro %}

{# Views written without stitching: the next view stitch must look at their devices, and at those without a
   device whose user's person goes by another id. #}
{% macro note_unstitched_views(added, gone) %}
    {% if var('view_stitching') %}{{ return([]) }}{% endif %}
    {{ return([
        "insert into " ~ pipeline_table('pending_devices')
        ~ " select 'page_views', project_id, coalesce(anonymous_id, '') from " ~ added ~ " as added"
        ~ " where anonymous_id is not null or exists (select 1 from " ~ person_names()
        ~ " as names where names.project_id = added.project_id and names.user_id = added.user_id)"
        ~ " except select grain, project_id, anonymous_id from " ~ pipeline_table('pending_devices')
    ]) }}
{% endmacro %}

{# Everybody whose row of `users` the run may have changed: who is noted, and, unless the run is about
   changed links only, who was active in the window. #}
{% macro collect_affected_users() %}
    create or replace temporary table affected_users as
    select project_id, stitched_user_id from {{ pipeline_table('pending_users') }}
    {% if not var('only_pending') -%}
    union
    select project_id, stitched_user_id from {{ ref('stitched_sessions') }} as sessions
    where {{ is_in_window('sessions.session_date') }}
    {%- endif %}
{% endmacro %}
