{# What differs between SQL dialects, one dispatched macro each. #}

{# The value of `column` on the row with the smallest `position`, null included. Here and below, rows without a
   position do not count. #}
{% macro first_value_by(column, position) %}{{ return(adapter.dispatch('first_value_by')(column, position)) }}{% endmacro %}
{% macro duckdb__first_value_by(column, position) %}arg_min_null({{ column }}, {{ position }}){% endmacro %}

{# The non-null value of `column` on the row with the largest `position`. #}
{% macro last_known_by(column, position) %}{{ return(adapter.dispatch('last_known_by')(column, position)) }}{% endmacro %}
{% macro duckdb__last_known_by(column, position) %}arg_max({{ column }}, {{ position }}){% endmacro %}

{# The non-null value of `column` on the row with the smallest `position`. #}
{% macro first_known_by(column, position) %}{{ return(adapter.dispatch('first_known_by')(column, position)) }}{% endmacro %}
{% macro duckdb__first_known_by(column, position) %}arg_min({{ column }}, {{ position }}){% endmacro %}

{# Orders events by time, and those at one instant by id. #}
{% macro place_in_time(occurred_at, event_id) %}{{ return(adapter.dispatch('place_in_time')(occurred_at, event_id)) }}{% endmacro %}
{% macro duckdb__place_in_time(occurred_at, event_id) %}row({{ occurred_at }}, {{ event_id }}){% endmacro %}

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

{# The UTC time that stands between the first pair of double quotes in a text; null if it is none. #}
{% macro quoted_time(text) %}{{ return(adapter.dispatch('quoted_time')(text)) }}{% endmacro %}
{% macro duckdb__quoted_time(text) %}cast(try_cast(regexp_extract({{ text }}, '"([^"]*)"', 1) as timestamptz) at time zone 'UTC' as timestamp){% endmacro %}
