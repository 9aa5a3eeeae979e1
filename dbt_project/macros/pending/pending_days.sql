{#
  The queue `pending_days` (day): days with rows of `visitor_stats` to compute again, because sessions of that day were
  written. The model `visitor_stats` reads and drains it; `stale_partitions` counts it.
#}

{# Queue days, given as a query with (day). #}
{% macro add_pending_days(days) -%}
    insert into {{ internal_table('pending_days') }}
    select day from ({{ days }}) as found
    except select day from {{ internal_table('pending_days') }}
{%- endmacro %}

{# Remove the days of the run's window, once their rows are computed. #}
{% macro drain_pending_days() -%}
    delete from {{ internal_table('pending_days') }} where {{ is_in_window('day') }}
{%- endmacro %}

{# The rows of the window's queued days. #}
{% macro rows_of_pending_days(relation, day) -%}
    (
        select * from {{ relation }}
        where {{ is_in_window(day) }} and {{ day }} in (select day from {{ internal_table('pending_days') }})
    )
{%- endmacro %}
