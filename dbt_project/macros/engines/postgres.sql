{# The macros for which PostgreSQL lacks the standard form, or needs one of its own. #}

{# A field of an anonymous record cannot be named, so the struct is a JSON object. #}
{% macro postgres__first_row_by(columns, position) -%}
    (
        array_agg(
            jsonb_build_object({% for column in columns %}'{{ column }}', {{ column }}{{ ', ' if not loop.last }}{% endfor %})
            order by {{ position }}
        ) filter (where {{ position }} is not null)
    )[1]
{%- endmacro %}
{% macro postgres__field_of(struct, field) %}({{ struct }} ->> '{{ field }}'){% endmacro %}

{# Functions of the schema (`stitch_pipeline/warehouse/postgres.py`): PostgreSQL ends a query over a text that is no JSON, and
   lower-cases no letters but those of English in the collation of ids. #}
{% macro postgres__json_text(document, path) %}{{ target.schema }}.json_text({{ document }}, {{ path }}){% endmacro %}

{% macro postgres__lower_of(text) %}{{ target.schema }}.lower_text({{ text }}){% endmacro %}

{% macro postgres__hash_of(columns) %}hash_record_extended(row({{ columns | join(', ') }}), 0){% endmacro %}

{% macro postgres__shuffled(number, draw) %}hashint8extended({{ number }}, {{ draw }}){% endmacro %}

{# There is no `create or replace` for a temporary table, and the query may read the one that it replaces. #}
{% macro postgres__create_temporary(name, query, kind) -%}
    {%- if kind == 'view' -%} create or replace temporary view {{ name }} as {{ query }}
    {%- else -%}
        create temporary table {{ name }}__next as {{ query }};
        drop table if exists pg_temp.{{ name }};
        alter table {{ name }}__next rename to {{ name }};
        analyze {{ name }}
    {%- endif -%}
{%- endmacro %}

{# The planner takes a table without statistics for a few pages, whatever it holds. #}
{% macro postgres__collect_statistics(name) %}{% do run_query('analyze ' ~ name) %}{% endmacro %}
