{#
  The rules of each project, as the models read them.

  A run may have exceptions (variable `exceptions`, by the name of the rule). They apply to the rows that this run writes
  into the models with the config `has_exceptions`, and to nothing else. They are compiled into the SQL of these tables and
  are stored nowhere, so no view and no later run sees them. Links, queues, histories and the search for stale rows follow
  the rules as they are set.
#}
{% macro project_settings() -%}
    {%- set exceptions = var('exceptions') -%}
    {%- if execute and exceptions and config.get('has_exceptions') -%}
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
    {#- Which rules have no value: a window is counted in days or in minutes. PostgreSQL takes a bare null for a text. -#}
    {%- elif value is none -%} cast(null as integer)
    {%- else -%} {{ value | lower }}
    {%- endif -%}
{%- endmacro %}
