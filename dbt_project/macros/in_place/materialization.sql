{#
  Makes the stored rows within the run's scope equal to the model's rows, and writes only the rows that differ. One
  transaction holds everything that is written: a run killed at any moment leaves the table as before or as after.
  Pre-hooks prepare what the model needs in an earlier transaction. Python creates the table from the columns in the
  model's YAML (`stitch_pipeline/warehouse/tables.py`), and rows are written by the names of these columns.

  dbt's own incremental strategies leave stale rows when a day becomes empty, and rewrite every row of a day to change
  one.

  config:
    key        columns that identify a row
    day        column with the partition's day; none for a table without days
    scope      the stored rows that a run may touch: those of its window (default), 'all', 'users', 'persons', or those
               of a grain's pending devices ('stats': pending days)
    on_change  macro that gets the names of two relations, the rows added and the rows gone, and returns statements to
               run in the same transaction
#}
{% materialization in_place, default %}
    {%- set key = config.require('key') -%}
    {%- set day = config.get('day') -%}
    {%- set scope = config.get('scope', 'window') -%}
    {%- set on_change = config.get('on_change') -%}
    {%- set target = this.incorporate(type='table') -%}
    {%- set new = model['name'] ~ '__new' -%}
    {%- set added = model['name'] ~ '__added' -%}
    {%- set gone = model['name'] ~ '__gone' -%}

    {%- set found -%}
        {%- if day -%} {{ rows_in_scope(target, day, none if scope == 'window' else scope) }}
        {%- else -%}
        (
            select * from {{ target }} as old
            where
                {% if scope == 'all' -%} true
                {%- elif scope == 'users' -%} {{ is_affected_user('old') }}
                {%- elif scope == 'persons' -%} {{ is_unresolved('old') }}
                {%- else -%} {{ is_pending_device(scope, 'old') }}
                {%- endif %}
        )
        {%- endif -%}
    {%- endset -%}
    {#- Finding a few rows in a large table is expensive, so do it once and keep them. The rows of a window lie together
        and may be the whole table: they are not copied. -#}
    {%- set is_copied = scope not in ('window', 'all', 'persons') and (var('only_pending') or not day) -%}
    {%- set key_columns = key | join(', ') -%}
    {%- set columns = model['columns'] | join(', ') -%}
    {#- Internal models have no columns in YAML: their tables have the columns in the order of the query. -#}
    {%- set rows = ' (' ~ columns ~ ') select ' ~ columns ~ ' from (' ~ sql ~ ') as computed' if columns else ' ' ~ sql -%}
    {%- set stored = model['name'] ~ '__stored' if is_copied else found -%}
    {#- A model without days has no window, so it is built in one step. -#}
    {%- set model_steps = steps() if day else [{}] -%}

    {#- A transaction of its own. In DuckDB 2.0.0 a table that is created from an empty result shows no rows, in the
        creating transaction and after it, once that transaction inserts more than 122,880 rows. -#}
    {% call statement('begin_preparation', auto_begin=True) %} select 1 {% endcall %}
    {{ run_hooks(pre_hooks, inside_transaction=True) }}
    {%- set all_stored = target ~ ' as old' ~ (' where ' ~ is_in_window('old.' ~ day) if day) -%}
    {%- set is_new = run_query('select 1 from ' ~ all_stored ~ ' limit 1').rows | length == 0 -%}
    {% if not is_new %}
        {% do run_query(create_temporary(new, 'select * from ' ~ target ~ ' limit 0')) %}
    {% endif %}
    {% do adapter.commit() %}
    {% call statement('begin_transaction', auto_begin=True) %} select 1 {% endcall %}

    {% if is_new %}
        {#- There is nothing to compare with, so rows go straight into the table. -#}
        {%- set added = found -%}
        {%- set gone = '(select * from ' ~ target ~ ' limit 0)' -%}
        {% for step in model_steps %}
            {% call statement('main') %}
                insert into {{ target }} {{ within_step(rows, step) }}
            {% endcall %}
        {% endfor %}
    {% else %}
        {% for step in model_steps %}
            {% do run_query('insert into ' ~ new ~ within_step(rows, step)) %}
        {% endfor %}
        {% if is_copied %}
            {% do run_query(create_temporary(stored, 'select * from ' ~ found ~ ' as found')) %}
        {% endif %}
        {{ collect_statistics(new) }}
        {% do run_query(create_temporary(
            gone, 'select * from ' ~ stored ~ ' as stored except select * from ' ~ new
        )) %}
        {% do run_query(create_temporary(
            added, 'select * from ' ~ new ~ ' except select * from ' ~ stored ~ ' as stored'
        )) %}
        {% call statement('delete_gone') %}
            delete from {{ target }} as old
            where
                {{ is_in_window('old.' ~ day) ~ ' and ' if day -}}
                exists (
                    select 1 from {{ gone }} as gone
                    -- The day too: a row that moves to another day may be stored on both days for a while.
                    where {% for column in key + ([day] if day else []) -%}
                        {{ 'and ' if not loop.first }}gone.{{ column }} = old.{{ column }} {% endfor %}
                )
        {% endcall %}
        {% call statement('main') %}
            insert into {{ target }} select * from {{ added }} as added
        {% endcall %}
    {% endif %}

    {% if on_change %}
        {% for statement_sql in context[on_change](added, gone) %}
            {% do run_query(statement_sql) %}
        {% endfor %}
    {% endif %}
    {% do run_query("delete from " ~ internal_table('changed_rows') ~ " where model = '" ~ model['name'] ~ "'") %}
    {% call statement('count_changes') %}
        insert into {{ internal_table('changed_rows') }}
        select '{{ model['name'] }}' as model, changed_day, count(*) as rows_changed
        from (
            {% if is_new -%}
            select {{ day or 'cast(null as date)' }} as changed_day from {{ added }} as added
            {%- else -%}
            select {{ key_columns }}, {{ day or 'cast(null as date)' }} as changed_day from {{ added }} as added
            union
            select {{ key_columns }}, {{ day or 'cast(null as date)' }} as changed_day from {{ gone }} as gone
            {%- endif %}
        ) as changes
        group by changed_day
    {% endcall %}
    {#- The queue of what is to be published (`stitch_pipeline/stitching/publish.py`). -#}
    {% do run_query(
        "insert into " ~ internal_table('unpublished') ~ " select model, day from " ~ internal_table('changed_rows')
        ~ " where model = '" ~ model['name'] ~ "' except select table_name, day from " ~ internal_table('unpublished')
    ) %}
    {{ run_hooks(post_hooks, inside_transaction=True) }}
    {% do adapter.commit() %}

    {{ return({'relations': [target]}) }}
{% endmaterialization %}
