{#
  How the models are kept up to date: NAIVE_MODE is

  - `rebuild`: every model is a table that each run builds from all files;
  - `new_files`: incremental, over the days of the files that this run loaded;
  - `days`: incremental, over the days first_day to last_day, which Dagster passes as variables.
#}
{% macro days_of_run() %}
    {# [first, last], or none for all days. Both are null if no file is new. #}
    {#- Outside the conditions, because dbt looks for dependencies before it knows them. -#}
    {%- set raw_events = ref('raw_events') -%}
    {%- if not execute or not is_incremental() -%}
        {{ return(none) }}
    {%- elif env_var('NAIVE_MODE') == 'days' -%}
        {{ return([var('first_day'), var('last_day')]) }}
    {%- else -%}
        {%- set found = run_query(
            "select cast(min(event_date) as varchar), cast(max(event_date) as varchar) from " ~ raw_events
            ~ " where loaded_by = '" ~ invocation_id ~ "'"
        ) -%}
        {{ return([found.rows[0][0], found.rows[0][1]]) }}
    {%- endif -%}
{% endmacro %}

{# Whether a day is one of the run's, or at most so many days before or after them. #}
{% macro is_day_of_run(column, before=0, after=0) %}
    {%- set days = days_of_run() -%}
    {%- if days is none -%} true
    {%- elif days[0] is none -%} false
    {%- else -%}
        {{ column }} between date '{{ days[0] }}' - {{ before }} and date '{{ days[1] }}' + {{ after }}
    {%- endif -%}
{% endmacro %}

{#
  The usual post-hook: rows of devices with a mapped user get that user, whatever day they are of. Rows that have it
  already are left alone, which the usual post-hook does not do and which makes it cheaper.
#}
{% macro restitch() %}
    {%- if env_var('NAIVE_MODE') != 'rebuild' -%}
        update {{ this }} as stored
        set stitched_user_id = mapping.user_id
        from {{ ref('user_mapping') }} as mapping
        where
            stored.project_id = mapping.project_id
            and stored.anonymous_id = mapping.anonymous_id
            and stored.stitched_user_id is distinct from mapping.user_id
    {%- endif -%}
{% endmacro %}
