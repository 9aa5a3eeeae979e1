{# Which rows a run may touch. Models and materialization use the same macros, so they cannot disagree. #}

{# The comment within the SQL marks the literal, so that within_step can replace it. #}
{% macro day_literal(name, day=none) -%}
    cast('{{ (day or var(name)) | replace("'", "''") }}' /* {{ name }} */ as date)
{%- endmacro %}

{# The window in steps of step_days: the sorts and joins of a step fit in memory, however long the window is. #}
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

{# A model's SQL with the days of a step in place of the window's. #}
{% macro within_step(sql, step) %}
    {%- set parts = namespace(sql=sql) -%}
    {%- for name, day in step.items() -%}
        {%- set parts.sql = parts.sql | replace(day_literal(name), day_literal(name, day)) -%}
    {%- endfor -%}
    {{ return(parts.sql) }}
{% endmacro %}

{# The time of the run, from which on its findings are known. #}
{% macro known_at() -%} cast('{{ var("known_at") | replace("'", "''") }}' as timestamp) {%- endmacro %}

{% macro is_in_window(day) -%}
    {{ day }} between {{ day_literal('first_day') }} and {{ day_literal('last_day') }}
{%- endmacro %}

{# The rows of the window. With `only_pending` and a grain, only the rows of the grain's pending devices; the grain
   `stats` has pending days instead. #}
{% macro rows_in_scope(relation, day, grain=none) -%}
    {%- if var('only_pending') and grain == 'stats' -%} {{ rows_of_pending_days(relation, day) }}
    {%- elif var('only_pending') and grain -%} {{ rows_of_pending_devices(relation, grain, is_in_window(day)) }}
    {%- else -%} (select * from {{ relation }} where {{ is_in_window(day) }})
    {%- endif -%}
{%- endmacro %}

{# A hint for the subjects of `stitch` and the CTEs that they come from. `stitch` uses subjects twice, for devices with
   links and for the others. Computing the wide rows of a window twice costs less than keeping them in between. The rows
   of pending devices are few and expensive to find, so they are computed once. #}
{% macro compute_per_use() -%}
    {{ not_materialized() if not var('only_pending') }}
{%- endmacro %}

{# The scope of `users`, which has no days: the users that the run may have changed (collect_affected_users). All users
   if the table is empty, because a first build is faster without a list. #}
{% macro is_affected_user(row, id='stitched_user_id') -%}
    {%- if has_rows(this) -%} {{ is_listed(row, id, '(select project_id, stitched_user_id as id from affected_users)') }}
    {%- else -%} true
    {%- endif -%}
{%- endmacro %}

{% macro has_rows(relation) %}{{ return(has_result('select 1 from ' ~ relation ~ ' limit 1')) }}{% endmacro %}

{% macro has_result(query) %}{{ return(execute and run_query(query).rows | length > 0) }}{% endmacro %}

{# Whether the model that is being built is a view, and whether people read it by device. #}
{% macro is_view() %}{{ return(model.config.materialized == 'view') }}{% endmacro %}
{% macro is_read_by_device() %}{{ return(model.config.get('read_by_device')) }}{% endmacro %}

{# Whether a row's id is on a list of (project_id, id). The condition on the id alone comes first: where it is false,
   DuckDB 2.0 does not read the other columns. With a condition on two columns or an expression it reads them all. #}
{% macro is_listed(row, id, list) -%}
    {{ row }}.{{ id }} in (select listed.id from {{ list }} as listed)
    and ({{ row }}.project_id, {{ row }}.{{ id }}) in (select listed.project_id, listed.id from {{ list }} as listed)
{%- endmacro %}
