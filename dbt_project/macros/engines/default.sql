{#
  What differs between SQL dialects, one dispatched macro each. `default__` is standard SQL, or what PostgreSQL and
  DuckDB have in common. Where an engine needs another form, its own file has it. A macro without a `default__` has no
  form that several engines share: if an engine's file lacks it, dbt refuses to compile and names the macro.
#}

{# A struct of the columns on the row with the smallest `position`. As below, rows without a position are ignored. #}
{% macro first_row_by(columns, position) %}{{ return(adapter.dispatch('first_row_by')(columns, position)) }}{% endmacro %}

{# A field of such a struct. #}
{% macro field_of(struct, field) %}{{ return(adapter.dispatch('field_of')(struct, field)) }}{% endmacro %}
{% macro default__field_of(struct, field) %}{{ struct }}.{{ field }}{% endmacro %}

{# The non-null value of `column` on the row with the largest `position`. #}
{% macro last_known_by(column, position) %}{{ return(adapter.dispatch('last_known_by')(column, position)) }}{% endmacro %}
{% macro default__last_known_by(column, position) -%}
    (array_agg({{ column }} order by {{ position }} desc) filter (where {{ column }} is not null and {{ position }} is not null))[1]
{%- endmacro %}

{# The non-null value of `column` on the row with the smallest `position`. #}
{% macro first_known_by(column, position) %}{{ return(adapter.dispatch('first_known_by')(column, position)) }}{% endmacro %}
{% macro default__first_known_by(column, position) -%}
    (array_agg({{ column }} order by {{ position }}) filter (where {{ column }} is not null and {{ position }} is not null))[1]
{%- endmacro %}

{# The same where column and position are both texts, which an engine may do without sorting. #}
{% macro last_text_by(column, position) %}{{ return(adapter.dispatch('last_text_by')(column, position)) }}{% endmacro %}
{% macro default__last_text_by(column, position) %}{{ last_known_by(column, position) }}{% endmacro %}

{% macro first_text_by(column, position) %}{{ return(adapter.dispatch('first_text_by')(column, position)) }}{% endmacro %}
{% macro default__first_text_by(column, position) %}{{ first_known_by(column, position) }}{% endmacro %}

{# The characters to trim from both ends of a value. #}
{% macro white_space() %}{{ return(adapter.dispatch('white_space')()) }}{% endmacro %}
{% macro default__white_space() %}E' \t\r\n'{% endmacro %}

{# Text that sorts by time, and within one instant by id: the time takes the same number of digits in every row. #}
{% macro place_in_time(time, id) %}{{ return(adapter.dispatch('place_in_time')(time, id)) }}{% endmacro %}
{% macro default__place_in_time(time, id) -%}
    concat(100000000000000000 + cast(extract(epoch from {{ time }}) * 1000000 as bigint), {{ id }})
{%- endmacro %}

{# A whole number, so that sums do not depend on the order of the rows. #}
{% macro microseconds_between(start, stop) %}{{ return(adapter.dispatch('microseconds_between')(start, stop)) }}{% endmacro %}
{% macro default__microseconds_between(start, stop) -%}
    cast((extract(epoch from {{ stop }}) - extract(epoch from {{ start }})) * 1000000 as bigint)
{%- endmacro %}

{% macro minutes(count) %}{{ return(adapter.dispatch('minutes')(count)) }}{% endmacro %}
{% macro default__minutes(count) %}interval '{{ count | int }}' minute{% endmacro %}

{% macro days_later(day, count) %}{{ return(adapter.dispatch('days_later')(day, count)) }}{% endmacro %}
{% macro default__days_later(day, count) %}({{ day }} + {{ count }}){% endmacro %}

{# Whether a regular expression matches the whole text. #}
{% macro matches(text, pattern) %}{{ return(adapter.dispatch('matches')(text, pattern)) }}{% endmacro %}
{% macro default__matches(text, pattern) %}({{ text }} ~ ('^(?:' || {{ pattern }} || ')$')){% endmacro %}

{% macro minutes_later(time, count) %}{{ return(adapter.dispatch('minutes_later')(time, count)) }}{% endmacro %}
{% macro default__minutes_later(time, count) %}({{ time }} + {{ count }} * interval '1 minute'){% endmacro %}

{# `left` joined with the latest row of `right` whose `right_time` is not after `left_time`. #}
{% macro join_latest(left, right, keys, left_time, right_time) %}{{ return(adapter.dispatch('join_latest')(left, right, keys, left_time, right_time)) }}{% endmacro %}
{% macro default__join_latest(left, right, keys, left_time, right_time) -%}
    {{ left }}
    left join (
        select
            *,
            lead({{ right_time }}) over (partition by {{ keys | join(', ') }} order by {{ right_time }}) as valid_until
        from {{ right }}
    ) as {{ right }}
        on {% for key in keys %}{{ left }}.{{ key }} = {{ right }}.{{ key }}
        and {% endfor %}{{ left }}.{{ left_time }} >= {{ right }}.{{ right_time }}
        and ({{ right }}.valid_until is null or {{ left }}.{{ left_time }} < {{ right }}.valid_until)
{%- endmacro %}

{# The value at a path of a JSON text, as text; null for a missing value, an object or a list. #}
{% macro json_text(document, path) %}{{ return(adapter.dispatch('json_text')(document, path)) }}{% endmacro %}

{# A hint for a CTE that is used more than once: compute it at each use. Nothing where the engine has no such hint. #}
{% macro not_materialized() %}{{ return(adapter.dispatch('not_materialized')()) }}{% endmacro %}
{% macro default__not_materialized() %}{% endmacro %}

{# The relation, or those of its rows that have an id of the list (project_id, id) in the column: what an engine finds
   sooner than by reading the relation. The rows still have to be checked (`is_listed`). #}
{% macro rows_with_ids(relation, column, list) %}{{ return(adapter.dispatch('rows_with_ids')(relation, column, list)) }}{% endmacro %}
{% macro default__rows_with_ids(relation, column, list) %}{{ relation }}{% endmacro %}

{# A number, equal for equal values. Other values can have the same number, but rarely do. #}
{% macro hash_of(columns) %}{{ return(adapter.dispatch('hash_of')(columns)) }}{% endmacro %}

{% macro digits_of(text) %}{{ return(adapter.dispatch('digits_of')(text)) }}{% endmacro %}
{% macro default__digits_of(text) %}regexp_replace({{ text }}, '[^0-9]', '', 'g'){% endmacro %}

{# Lower case of every alphabet. #}
{% macro lower_of(text) %}{{ return(adapter.dispatch('lower_of')(text)) }}{% endmacro %}
{% macro default__lower_of(text) %}lower({{ text }}){% endmacro %}

{# The position of a number in a pseudo-random order. Each `draw` gives another order. #}
{% macro shuffled(number, draw) %}{{ return(adapter.dispatch('shuffled')(number, draw)) }}{% endmacro %}

{# The statements that store a query, or with the kind `view` its text, under a name, in place of what has that name. The
   query may read what it replaces. #}
{% macro create_temporary(name, query, kind='table') %}{{ return(adapter.dispatch('create_temporary')(name, query, kind)) }}{% endmacro %}

{# Let the planner know what a temporary table holds that was filled after its creation. #}
{% macro collect_statistics(name) %}{{ return(adapter.dispatch('collect_statistics')(name)) }}{% endmacro %}
{% macro default__collect_statistics(name) %}{% endmacro %}

{# The components of a graph with edges (a, b) in both directions: a query for (node, component). #}
{% macro least_reached(edges) %}{{ return(adapter.dispatch('least_reached')(edges)) }}{% endmacro %}
{# It joins nothing, so it serves an engine that contracts graphs until no edge is left. #}
{% macro default__least_reached(edges) %}select a as node, a as component from {{ edges }}{% endmacro %}

{# For how many rounds a graph is contracted before the rest is walked. #}
{% macro rounds_of_contraction() %}{{ return(adapter.dispatch('rounds_of_contraction')()) }}{% endmacro %}
{% macro default__rounds_of_contraction() %}{{ return(200) }}{% endmacro %}

{# Creates the temporary table `name`: the place of the nearest seed of each node that a seed can reach. If two are equally
   near, that is null, or the lesser place if the seeds keep what is contested.
   The search starts from all seeds at once and goes one edge further per step. The first seed to reach a node is the
   nearest. A node that is reached through one with two nearest seeds has two as well. #}
{% macro find_nearest_seeds(name, seeds, edges) %}{{ return(adapter.dispatch('find_nearest_seeds')(name, seeds, edges)) }}{% endmacro %}
{% macro default__find_nearest_seeds(name, seeds, edges) -%}
    {#- Places are numbered from 1, so 0 can mean two or more seeds. -#}
    {{ graph_step(name, 'select node, place, keeps_contested from ' ~ seeds) }}
    {{ graph_step('person_frontier', 'select node, place, keeps_contested from ' ~ name) }}
    {%- set search = namespace(goes_on=true) -%}
    {%- for step in range(10000) if search.goes_on -%}
        {%- set further -%}
            select
                edges.b as node,
                case
                    when min(frontier.place) = max(frontier.place) or frontier.keeps_contested then min(frontier.place)
                    else 0
                end as place,
                frontier.keeps_contested
            from person_frontier as frontier
            inner join {{ edges }} as edges on frontier.node = edges.a
            where not exists (select 1 from {{ name }} as known where known.node = edges.b)
            group by edges.b, frontier.keeps_contested
        {%- endset -%}
        {{ graph_step('person_frontier', further) }}
        {%- do run_query('insert into ' ~ name ~ ' select node, place, keeps_contested from person_frontier') -%}
        {%- set search.goes_on = has_rows('person_frontier') -%}
    {%- endfor -%}
    {{ drop_steps(['person_frontier']) }}
    {{ graph_step(name, 'select node, nullif(place, 0) as place from ' ~ name) }}
{%- endmacro %}
