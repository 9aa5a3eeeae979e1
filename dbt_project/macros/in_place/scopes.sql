{# Which rows a run may touch. Model and materialization use the same words, so they cannot disagree. #}

{% macro day_literal(name, day=none) -%}
    cast('{{ (day or var(name)) | replace("'", "''") }}' /* {{ name }} */ as date)
{%- endmacro %}

{# The window in steps of step_days: what a step sorts and joins fits in memory, however long the window is. #}
{% macro steps() %}
    {%- set first = modules.datetime.date.fromisoformat(var('first_day')) -%}
    {%- set last = modules.datetime.date.fromisoformat(var('last_day')) -%}
    {%- set days = (last - first).days + 1 -%}
    {%- set length = var('step_days') | int -%}
    {%- set found = [] -%}
    {%- for start in range(0, days, length) -%}
        {%- set step_first = first + modules.datetime.timedelta(days=start) -%}
        {%- set step_last = first + modules.datetime.timedelta(days=[start + length, days] | min - 1) -%}
        {%- do found.append({'first_day': step_first.isoformat(), 'last_day': step_last.isoformat()}) -%}
    {%- endfor -%}
    {{ return(found) }}
{% endmacro %}

{# A model's SQL for one step instead of the window. #}
{% macro within_step(sql, step) %}
    {%- set parts = namespace(sql=sql) -%}
    {%- for name, day in step.items() -%}
        {%- set parts.sql = parts.sql | replace(day_literal(name), day_literal(name, day)) -%}
    {%- endfor -%}
    {{ return(parts.sql) }}
{% endmacro %}

{# When what this run finds became known. #}
{% macro known_at() -%} cast('{{ var("known_at") | replace("'", "''") }}' as timestamp) {%- endmacro %}

{% macro is_in_window(day) -%}
    {{ day }} between {{ day_literal('first_day') }} and {{ day_literal('last_day') }}
{%- endmacro %}

{# The rows of the window; for a run over changed links only, and where a grain is named, those of the devices whose
   links changed. #}
{% macro rows_in_scope(relation, day, grain=none) -%}
    {%- if var('only_pending') and grain -%} {{ rows_of_pending_devices(relation, grain, is_in_window(day)) }}
    {%- else -%} (select * from {{ relation }} where {{ is_in_window(day) }})
    {%- endif -%}
{%- endmacro %}

{# Written before the subjects of `stitch`, and what they are made from. They are used twice, for those who are asked
   and for the others: it costs less to work out a window's twice than to keep them in between, wide as they are. Those
   of pending devices are few and dear to find. #}
{% macro compute_per_use() -%}
    {{ not_materialized() if not var('only_pending') }}
{%- endmacro %}

{# For `users`, which has no day: the people that the run may have changed (see its pre-hook). All of them where the
   table has no rows yet, because a first build is faster without a list. #}
{% macro is_affected_user(row, id='stitched_user_id') -%}
    {%- if has_rows(this) -%} {{ is_listed(row, id, '(select project_id, stitched_user_id as id from affected_users)') }}
    {%- else -%} true
    {%- endif -%}
{%- endmacro %}

{# Whether a table has any row. #}
{% macro has_rows(relation) %}
    {{ return(execute and run_query('select 1 from ' ~ relation ~ ' limit 1').rows | length > 0) }}
{% endmacro %}

{# Whether a row's id is on a list of (project_id, id). The id by itself first: DuckDB 2.0 reads the other columns only
   where such a condition holds, but all of them for one on two columns or on an expression. #}
{% macro is_listed(row, id, list) -%}
    {{ row }}.{{ id }} in (select listed.id from {{ list }} as listed)
    and ({{ row }}.project_id, {{ row }}.{{ id }}) in (select listed.project_id, listed.id from {{ list }} as listed)
{%- endmacro %}
