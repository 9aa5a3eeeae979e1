{# The macros for which DuckDB lacks the standard form, or runs a form of its own faster. #}

{% macro duckdb__first_row_by(columns, position) -%}
    arg_min(
        struct_pack({% for column in columns %}{{ column }} := {{ column }}{{ ', ' if not loop.last }}{% endfor %}),
        {{ position }}
    )
{%- endmacro %}

{# `arg_max` keeps one value per group; `array_agg` would hold and sort all values. #}
{% macro duckdb__last_known_by(column, position) %}arg_max({{ column }}, {{ position }}){% endmacro %}
{% macro duckdb__first_known_by(column, position) %}arg_min({{ column }}, {{ position }}){% endmacro %}

{# DuckDB 2.0 compares this text several times as fast as a row of two values. #}
{% macro duckdb__place_in_time(time, id) %}concat(100000000000000000 + epoch_us({{ time }}), {{ id }}){% endmacro %}

{% macro duckdb__microseconds_between(start, stop) %}(epoch_us({{ stop }}) - epoch_us({{ start }})){% endmacro %}

{% macro duckdb__join_latest(left, right, keys, left_time, right_time) -%}
    {{ left }}
    asof left join {{ right }}
        on {% for key in keys %}{{ left }}.{{ key }} = {{ right }}.{{ key }}
        and {% endfor %}{{ left }}.{{ left_time }} >= {{ right }}.{{ right_time }}
{%- endmacro %}

{# A client may send a text in place of the object: `try`, because no value may end the query. #}
{% macro duckdb__json_text(document, path) -%}
    try(
        case
            when json_type({{ document }}, {{ path }}) not in ('OBJECT', 'ARRAY', 'NULL')
                then json_extract_string({{ document }}, {{ path }})
        end
    )
{%- endmacro %}

{% macro duckdb__not_materialized() %}not materialized{% endmacro %}

{% macro duckdb__create_temporary(name, query, kind) -%}
    create or replace temporary {{ 'view' if kind == 'view' else 'table' }} {{ name }} as {{ query }}
{%- endmacro %}

{% macro duckdb__rounds_of_contraction() %}{{ return(12) }}{% endmacro %}

{% macro duckdb__hash_of(columns) %}hash({{ columns | join(', ') }}){% endmacro %}

{% macro duckdb__shuffled(number, draw) %}hash({{ number }}, {{ draw }}){% endmacro %}

{% macro duckdb__least_reached(edges) -%}
    with recursive reached (node, component) using key (node) as (
        select a as node, min(least(a, b)) as component from {{ edges }} group by a
        union
        select edges.b as node, min(reached.component) as component
        from reached
        inner join {{ edges }} as edges on reached.node = edges.a
        inner join recurring.reached as known on edges.b = known.node
        where reached.component < known.component
        group by edges.b
    )

    select node, component from reached
{%- endmacro %}

{% macro duckdb__find_nearest_seeds(name, seeds, edges) -%}
    {%- set nearest -%}
    with recursive reached (node, place, keeps_contested) using key (node) as (
        select node, place, keeps_contested from {{ seeds }}
        union
        -- Places are numbered from 1, so 0 can mean two or more seeds.
        select
            edges.b as node,
            case
                when min(reached.place) = max(reached.place) or reached.keeps_contested then min(reached.place)
                else 0
            end as place,
            reached.keeps_contested
        from reached
        inner join {{ edges }} as edges on reached.node = edges.a
        where not exists (select 1 from recurring.reached as known where known.node = edges.b)
        group by edges.b, reached.keeps_contested
    )

    select node, nullif(place, 0) as place from reached
    {%- endset -%}
    {{ graph_step(name, nearest) }}
{%- endmacro %}
