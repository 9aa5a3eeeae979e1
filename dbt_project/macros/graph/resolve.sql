{#
  Policy `graph`: which ids are one person. Users, devices and further identifiers are the nodes of a graph, links are
  its edges, and a connected component is one person, except that

  - a hub ties nothing together and has no person: a device or identifier with more than max_users_per_device users (or
    values of another kind, or for a device other devices) over all time, a user id that is the previous one of more
    users than that, and what has more neighbours than a limit of its kind says (limits). A user stays a person alone.
  - decisions (overrides.csv) count: wrong links are left out, shared devices are hubs, and two users who are never the
    same are cut apart like two values of a unique kind.
  - a component with several values of a unique kind, or more than a person may have, is cut (unique_identifiers and
    limits, one kind after the other). Each id goes to the nearest value. An id that is equally near to two goes to the
    one that was seen first, or (contested_ids) ties nothing together and has no person, unless it is a user, who stays a
    person alone.
  - a person of several users with more than max_ids_per_person ids is cut as if `user` were unique.

  A person is named after its earliest user, or without one after its earliest identifier, as `email:ann@example.com`.
  At one instant the id of the event decides, and not how an id is written. The result depends on links and settings
  only, not on the order in which events arrive.

  Each step is one query over the tables of earlier steps. So memory holds one step at a time, also with tens of
  millions of links:

    1. The links that count become edges between numbered ids.                                       evidence.sql
    2. Hubs are left out. A device with one neighbour that is none, as most have, is put aside and
       takes its neighbour's person; what remains is the graph.                                      evidence.sql
    3. Connected components: contracted by a constant factor per round, then walked.                 components.sql
    4. Cells: components, cut where they hold too much.                                              cuts.sql
    5. Each cell gets the name of one of its ids, each id the name of its cell.                      names.sql

  `scope` is a table of the ids to resolve (project_id, id_kind, id): whole components, and hubs. `none` means all ids.
  Creates the temporary view `resolved_persons`.
#}
{% macro resolve_persons(scope) %}
    {{ graph_step('person_settings', person_settings()) }}
    {#- Without a scope this is the largest step, and it is text: computing it twice costs less than storing it. -#}
    {{ graph_step('person_evidence', person_evidence(scope), 'table' if scope else 'view') }}
    {{ graph_step('person_ids', person_ids(scope)) }}
    {{ graph_step('person_starts', person_starts()) }}
    {{ graph_step('person_edges', person_edges()) }}
    {{ drop_steps(['person_starts']) }}

    {{ graph_step('person_hubs', person_hubs()) }}
    {{ graph_step('person_ties', person_ties(scope)) }}
    {{ drop_steps(['person_edges']) }}
    {{ graph_step('person_leaf_devices', person_leaf_devices()) }}
    {{ graph_step('person_leaves', person_leaves()) }}
    {{ graph_step('person_core', person_core()) }}
    {{ graph_step('person_graph', person_graph()) }}
    {{ drop_steps(['person_ties', 'person_core']) }}
    {{ graph_step('person_nodes', person_nodes()) }}

    {{ find_components('person_components', 'person_graph') }}

    {{ graph_step('person_tied', person_tied()) }}
    {{ graph_step('person_first_events', person_first_events()) }}
    {{ graph_step('person_places', person_places()) }}
    {{ drop_steps(['person_tied', 'person_first_events']) }}
    {{ graph_step('person_cells', person_cells()) }}
    {{ drop_steps(['person_components']) }}
    {{ cut_cells() }}
    {{ drop_steps(['person_graph']) }}

    {{ graph_step('person_named_cells', person_named_cells()) }}
    {{ graph_step('person_answers', person_answers()) }}
    {{ drop_steps([
        'person_named_cells', 'person_cells', 'person_places', 'person_nodes', 'person_hubs', 'person_leaves'
    ]) }}
    {{ graph_step('resolved_persons', resolved_persons(), 'view') }}
{% endmacro %}

{#
  The pre-hook of `persons`: find the ids to resolve and resolve them. Each step is a transaction of its own, because
  DuckDB keeps the memory of a dropped table until the end of the transaction.
#}
{% macro prepare_persons() %}
    {%- if execute and has_pending_ids() -%}
        {%- set scope = none if is_everything_pending() else 'unresolved_ids' -%}
        {%- if scope -%} {{ graph_step(scope, unresolved_ids()) }} {%- endif -%}
        {%- do adapter.commit() -%}
        {{ resolve_persons(scope) }}
        {% call statement('begin_again', auto_begin=True) %} select 1 {% endcall %}
    {%- endif -%}
{% endmacro %}

{# Store the result of a query, or for a view the query itself, under a name. -#}
{% macro graph_step(name, query, kind='table') -%}
    {%- do run_query(create_temporary(name, query, kind)) -%}
{%- endmacro %}

{# Free the memory of steps that no later step reads. -#}
{% macro drop_steps(names) -%}
    {%- for name in names -%} {%- do run_query('drop table ' ~ name) -%} {%- endfor -%}
{%- endmacro %}
