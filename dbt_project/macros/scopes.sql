{# Which rows a run may touch. Model and materialization use the same words, so they cannot disagree. #}

{# When what this run finds became known. #}
{% macro known_at() -%} cast('{{ var("known_at") | replace("'", "''") }}' as timestamp) {%- endmacro %}

{% macro day_literal(name) %}cast('{{ var(name) | replace("'", "''") }}' as date){% endmacro %}

{% macro is_in_window(day) -%}
    {{ day }} between {{ day_literal('first_day') }} and {{ day_literal('last_day') }}
{%- endmacro %}

{# The rows of the window; for a run over changed links only, those of the devices whose links changed. Rows
   without a device are pending as those of the device ''. The mapping of a device has no day. #}
{% macro is_in_scope(day, grain=none, row=none) -%}
    {%- if grain != 'mapping' -%} {{ is_in_window(day) }} {%- endif -%}
    {%- if grain == 'mapping' or (var('only_pending') and grain) %}
    {{ 'and ' if grain != 'mapping' }}exists (
        select 1 from {{ pipeline_table('pending_devices') }} as pending
        where
            pending.grain = '{{ grain }}'
            and pending.project_id = {{ row }}.project_id
            and pending.anonymous_id = coalesce({{ row }}.anonymous_id, '')
    )
    {%- endif %}
{%- endmacro %}

{# For `users`, which has no day: the people whom the run may have changed (see its pre-hook). #}
{% macro is_affected_user(row) -%}
    exists (
        select 1 from affected_users as affected
        where
            affected.project_id = {{ row }}.project_id
            and affected.stitched_user_id = {{ row }}.stitched_user_id
    )
{%- endmacro %}
