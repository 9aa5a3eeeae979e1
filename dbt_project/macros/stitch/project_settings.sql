{#
  The rules of each project, as the models read them.

  A run may have exceptions (variable `exceptions`, by the name of the rule): they apply to the rows that this run
  writes, and to nothing else. They are compiled into the SQL of its tables and are stored nowhere, so no view and no
  later run sees them. Internal models check stored rows by the rules as they are set.
#}
{% macro project_settings() -%}
    {%- set exceptions = var('exceptions') -%}
    {%- if execute and exceptions and model.config.materialized == 'in_place' and 'internal' not in model.tags -%}
    (
        select
            {%- for column in adapter.get_columns_in_relation(this.incorporate(path={'identifier': 'project_settings'})) %}
            {% if column.name in exceptions -%} {{ literal(exceptions[column.name]) }} as {% endif -%}
            {{ column.name }} {{- ',' if not loop.last }}
            {%- endfor %}
        from {{ internal_table('project_settings') }} as settings
    )
    {%- else -%} {{ internal_table('project_settings') }}
    {%- endif -%}
{%- endmacro %}

{% macro literal(value) -%}
    {%- if value is string -%} '{{ value | replace("'", "''") }}'
    {%- else -%} {{ value | lower }}
    {%- endif -%}
{%- endmacro %}
