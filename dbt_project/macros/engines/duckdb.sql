{# What differs between SQL dialects, one dispatched macro each. #}

{# A struct of the columns on the row with the smallest `position`. Here and below, rows without a position do not
   count. #}
{% macro first_row_by(columns, position) %}{{ return(adapter.dispatch('first_row_by')(columns, position)) }}{% endmacro %}
{% macro duckdb__first_row_by(columns, position) -%}
    arg_min(
        struct_pack({% for column in columns %}{{ column }} := {{ column }}{{ ', ' if not loop.last }}{% endfor %}), {{ position }}
    )
{%- endmacro %}

{# The non-null value of `column` on the row with the largest `position`. #}
{% macro last_known_by(column, position) %}{{ return(adapter.dispatch('last_known_by')(column, position)) }}{% endmacro %}
{% macro duckdb__last_known_by(column, position) %}arg_max({{ column }}, {{ position }}){% endmacro %}

{# The non-null value of `column` on the row with the smallest `position`. #}
{% macro first_known_by(column, position) %}{{ return(adapter.dispatch('first_known_by')(column, position)) }}{% endmacro %}
{% macro duckdb__first_known_by(column, position) %}arg_min({{ column }}, {{ position }}){% endmacro %}

{# What may stand around a value without being part of it. #}
{% macro white_space() %}{{ return(adapter.dispatch('white_space')()) }}{% endmacro %}
{% macro duckdb__white_space() %}E' \t\r\n'{% endmacro %}

{# Orders rows by time, and those at one instant by id. Text, of as many digits before every id: DuckDB 2.0 compares
   it several times as fast as a row of two values. #}
{% macro place_in_time(time, id) %}{{ return(adapter.dispatch('place_in_time')(time, id)) }}{% endmacro %}
{% macro duckdb__place_in_time(time, id) %}concat(100000000000000000 + epoch_us({{ time }}), {{ id }}){% endmacro %}

{# A whole number, so that sums do not depend on the order of the rows. #}
{% macro microseconds_between(start, stop) %}{{ return(adapter.dispatch('microseconds_between')(start, stop)) }}{% endmacro %}
{% macro duckdb__microseconds_between(start, stop) %}(epoch_us({{ stop }}) - epoch_us({{ start }})){% endmacro %}

{% macro minutes(count) %}{{ return(adapter.dispatch('minutes')(count)) }}{% endmacro %}
{% macro duckdb__minutes(count) %}interval '{{ count | int }} minutes'{% endmacro %}

{% macro days_later(day, count) %}{{ return(adapter.dispatch('days_later')(day, count)) }}{% endmacro %}
{% macro duckdb__days_later(day, count) %}({{ day }} + {{ count }}){% endmacro %}

{# `left` joined with the latest row of `right` whose `right_time` is not after `left_time`. #}
{% macro join_latest(left, right, keys, left_time, right_time) %}{{ return(adapter.dispatch('join_latest')(left, right, keys, left_time, right_time)) }}{% endmacro %}
{% macro duckdb__join_latest(left, right, keys, left_time, right_time) -%}
    {{ left }}
    asof left join {{ right }}
        on {% for key in keys %}{{ left }}.{{ key }} = {{ right }}.{{ key }}
        and {% endfor %}{{ left }}.{{ left_time }} >= {{ right }}.{{ right_time }}
{%- endmacro %}

{# The text at a path within JSON text; null where there is none, and for an object or a list. #}
{% macro json_text(document, path) %}{{ return(adapter.dispatch('json_text')(document, path)) }}{% endmacro %}
{% macro duckdb__json_text(document, path) -%}
    case
        when json_type({{ document }}, {{ path }}) not in ('OBJECT', 'ARRAY', 'NULL')
            then json_extract_string({{ document }}, {{ path }})
    end
{%- endmacro %}

{# The day that whoever asks has set for the session, or `otherwise`. #}
{% macro session_day(name, otherwise) %}{{ return(adapter.dispatch('session_day')(name, otherwise)) }}{% endmacro %}
{% macro duckdb__session_day(name, otherwise) %}coalesce(cast(getvariable('{{ name }}') as date), cast('{{ otherwise }}' as date)){% endmacro %}

{# Written before a CTE that is used more than once and that each use shall work out by itself. #}
{% macro worked_out_anew() %}{{ return(adapter.dispatch('worked_out_anew')()) }}{% endmacro %}
{% macro duckdb__worked_out_anew() %}not materialized{% endmacro %}

{# A number that is the same for the same values, and hardly ever for others. #}
{% macro hash_of(columns) %}{{ return(adapter.dispatch('hash_of')(columns)) }}{% endmacro %}
{% macro duckdb__hash_of(columns) %}hash({{ columns | join(', ') }}){% endmacro %}

{% macro digits_of(text) %}{{ return(adapter.dispatch('digits_of')(text)) }}{% endmacro %}
{% macro duckdb__digits_of(text) %}regexp_replace({{ text }}, '[^0-9]', '', 'g'){% endmacro %}

{# Where a number stands in an order that looks drawn by lot, another one for each `draw`. #}
{% macro shuffled(number, draw) %}{{ return(adapter.dispatch('shuffled')(number, draw)) }}{% endmacro %}
{% macro duckdb__shuffled(number, draw) %}hash({{ number }}, {{ draw }}){% endmacro %}

{# The components of a graph whose edges (a, b) are given in both directions, by walking through it: as many steps
   as the longest way is long. #}
{% macro least_reached(edges) %}{{ return(adapter.dispatch('least_reached')(edges)) }}{% endmacro %}
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

{# The seed that is nearest to each node that can be reached from one; null where two are equally near. From all
   seeds at once, one edge further per step: who is reached first is nearest, and beyond two it is two. #}
{% macro nearest_seeds(seeds, edges) %}{{ return(adapter.dispatch('nearest_seeds')(seeds, edges)) }}{% endmacro %}
{% macro duckdb__nearest_seeds(seeds, edges) -%}
    with recursive reached (node, seed) using key (node) as (
        select node, node as seed from {{ seeds }}
        union
        -- Nodes are numbered from 1, so 0 stands for two seeds or more.
        select edges.b as node, case when min(reached.seed) = max(reached.seed) then min(reached.seed) else 0 end as seed
        from reached
        inner join {{ edges }} as edges on reached.node = edges.a
        where not exists (select 1 from recurring.reached as known where known.node = edges.b)
        group by edges.b
    )
    select node, nullif(seed, 0) as seed from reached
{%- endmacro %}
