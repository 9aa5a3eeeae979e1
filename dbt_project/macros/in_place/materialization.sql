{#
  A table whose rows within the run's scope are made equal to the model's, by writing only the rows
  that differ. All that is written is one transaction: killed at any moment, the table is as before or as
  after. Before it, what it needs is prepared by the hooks. Python creates the table from the columns that the
  model's YAML describes (`warehouse/tables.py`), and rows are written by the names of these columns.

  dbt's own incremental strategies leave stale rows when a day becomes empty, and rewrite every row of
  a day to change one.

  config:
    key        columns that identify a row
    day        column that holds the partition's day; none for a table that has none
    scope      which stored rows a run may touch: those of its window (default), 'all', 'users', 'persons', or those of
               a grain's pending devices
    on_change  macro run within the transaction, with the names of two relations: rows added, rows gone
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
    {#- Few rows among many are dear to find: found once. A window's rows lie together, and may be all there are. -#}
    {%- set is_sought = scope not in ('window', 'all', 'persons') and (var('only_pending') or not day) -%}
    {%- set key_columns = key | join(', ') -%}
    {%- set columns = model['columns'] | join(', ') -%}
    {#- Internal tables are not described in YAML; theirs are in the order of the query. -#}
    {%- set rows = ' (' ~ columns ~ ') select ' ~ columns ~ ' from (' ~ sql ~ ') as computed' if columns else ' ' ~ sql -%}
    {%- set stored = model['name'] ~ '__stored' if is_sought else found -%}
    {#- Without a day a model is of no window. -#}
    {%- set model_steps = steps() if day else [{}] -%}

    {#- In a transaction of their own: DuckDB 2.0.0 shows no rows of a table that is made from an empty result, in
        the transaction that makes it or after it, once more than 122,880 are inserted in that transaction. -#}
    {% call statement('begin_preparation', auto_begin=True) %} select 1 {% endcall %}
    {{ run_hooks(pre_hooks, inside_transaction=True) }}
    {%- set all_stored = target ~ ' as old' ~ (' where ' ~ is_in_window('old.' ~ day) if day) -%}
    {%- set is_new = run_query('select 1 from ' ~ all_stored ~ ' limit 1').rows | length == 0 -%}
    {% if not is_new %}
        {% do run_query('create or replace temporary table ' ~ new ~ ' as select * from ' ~ target ~ ' limit 0') %}
    {% endif %}
    {% do adapter.commit() %}
    {% call statement('begin_transaction', auto_begin=True) %} select 1 {% endcall %}

    {% if is_new %}
        {#- Nothing to compare with, so nothing is written twice. -#}
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
        {% if is_sought %}
            {% do run_query('create or replace temporary table ' ~ stored ~ ' as select * from ' ~ found ~ ' as found') %}
        {% endif %}
        {% do run_query(
            'create or replace temporary table ' ~ gone ~ ' as select * from ' ~ stored ~ ' as stored'
            ~ ' except select * from ' ~ new
        ) %}
        {% do run_query(
            'create or replace temporary table ' ~ added ~ ' as select * from ' ~ new
            ~ ' except select * from ' ~ stored ~ ' as stored'
        ) %}
        {% call statement('delete_gone') %}
            delete from {{ target }} as old
            where
                {{ is_in_window('old.' ~ day) ~ ' and ' if day -}}
                exists (
                    select 1 from {{ gone }} as gone
                    -- The day too: while a row moves to another day its key may stand on both.
                    where {% for column in key + ([day] if day else []) -%}
                        {{ 'and ' if not loop.first }}gone.{{ column }} = old.{{ column }} {% endfor %}
                )
        {% endcall %}
        {% call statement('main') %}
            insert into {{ target }} select * from {{ added }}
        {% endcall %}
    {% endif %}

    {% if on_change %}
        {% for statement_sql in context[on_change](added, gone) %}
            {% do run_query(statement_sql) %}
        {% endfor %}
    {% endif %}
    {% do run_query("delete from " ~ pipeline_table('changed_rows') ~ " where model = '" ~ model['name'] ~ "'") %}
    {% call statement('count_changes') %}
        insert into {{ pipeline_table('changed_rows') }}
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
    {{ run_hooks(post_hooks, inside_transaction=True) }}
    {% do adapter.commit() %}

    {{ return({'relations': [target]}) }}
{% endmaterialization %}
