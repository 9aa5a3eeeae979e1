{# The macros for which PostgreSQL lacks the standard form, or runs a form of its own faster. #}

{# The least of some lists is found in one pass, where an ordered aggregate sorts all rows. A field of an anonymous record
   cannot be named, so the struct is a JSON object. #}
{% macro postgres__first_row_by(columns, position) -%}
    jsonb_object(
        array[{% for column in columns %}'{{ column }}'{{ ', ' if not loop.last }}{% endfor %}],
        (
            min(array[{{ position }}{% for column in columns %}, {{ column }}{% endfor %}])
            filter (where {{ position }} is not null)
        )[2:]
    )
{%- endmacro %}
{% macro postgres__field_of(struct, field) %}({{ struct }} ->> '{{ field }}'){% endmacro %}

{% macro postgres__last_text_by(column, position) -%}
    (max(array[{{ position }}, {{ column }}]) filter (where {{ column }} is not null and {{ position }} is not null))[2]
{%- endmacro %}
{% macro postgres__first_text_by(column, position) -%}
    (min(array[{{ position }}, {{ column }}]) filter (where {{ column }} is not null and {{ position }} is not null))[2]
{%- endmacro %}

{# `extract` computes in decimals, which takes more than twice as long as floats. In a float the seconds of a day are exact to
   a microsecond, and so are those of a century. #}
{% macro postgres__place_in_time(time, id) -%}
    concat(
        100000000000000000 + (cast({{ time }} as date) - date '1970-01-01') * 86400000000
        + cast(date_part('epoch', cast({{ time }} as time)) * 1000000 as bigint),
        {{ id }}
    )
{%- endmacro %}
{% macro postgres__microseconds_between(start, stop) -%}
    cast(date_part('epoch', {{ stop }} - {{ start }}) * 1000000 as bigint)
{%- endmacro %}

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

{# By the index of the column, if there is one (`PostgresWarehouse.index_rows`) and the ids are few: a list is looked up
   there, and a subquery is joined with all rows. It is a query of its own, or other conditions may be tried first,
   and the whole list be searched for each row that meets them. A view is for any number of ids. #}
{% macro postgres__rows_with_ids(relation, column, list) -%}
    {%- set is_worth_it -%}
        select 1 from pg_indexes
        where
            schemaname = '{{ relation.schema }}'
            and indexname = '{{ relation.identifier }}_by_{{ column }}'
            and (select count(*) from {{ list }} as listed) < 20000
    {%- endset -%}
    {%- if is_view() or not has_result(is_worth_it) -%} {{ relation }}
    {%- else -%}
    (
        with indexed as materialized (
            select * from {{ relation }}
            where {{ column }} = any(array(select listed.id from {{ list }} as listed))
        )

        select * from indexed
    )
    {%- endif -%}
{%- endmacro %}

{# A view that people read by device computes each part of its query at each use. PostgreSQL otherwise computes a part that is
   used twice for all devices, and then picks the one from the result. To read all rows then takes up to twice as long. #}
{% macro postgres__create_view_as(relation, sql) -%}
    {{ 'create view ' ~ relation ~ ' as ' ~ (computed_at_each_use(sql) if is_read_by_device() else sql) }}
{%- endmacro %}
{% macro computed_at_each_use(sql) %}
    {{ return(modules.re.sub('(?m)^( *(?:with )?\\w+ as) \\($', '\\1 not materialized (', sql)) }}
{% endmacro %}
