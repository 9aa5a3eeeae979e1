{#
  Step 3 of resolve.sql: the connected components of a graph whose edges (a, b) are given in both directions, as the
  table `name` of (node, component). (Bögeholz, Brand and Todor, "In-database connected component analysis", 2019.)

    1. Every node joins the least of itself and its neighbours, in an order that is drawn anew for each round.
    2. Nodes that joined the same node become one. This leaves less than half of a chain or of a dense group.
    3. Repeat until no edges are left, or for `rounds_of_contraction`. The rest is walked (least_reached).
    4. Go back: the component of a node is that of the node it joined.

  The orders drawn affect the running time, not the components.
#}
{% macro find_components(name, edges) %}
    {%- set rounds = rounds_of_contraction() -%}
    {%- set contraction = namespace(rounds=0, edges=edges) -%}
    {%- for round in range(1, rounds + 1) -%}
        {%- if has_rows(contraction.edges) -%}
            {{ graph_step('person_joins_' ~ round, joins(contraction.edges, round)) }}
            {{ graph_step('person_halves', half_contracted(contraction.edges, round)) }}
            {{ graph_step('person_contracted', contracted(round)) }}
            {{ drop_steps(['person_halves']) }}
            {%- set contraction.rounds = round -%}
            {%- set contraction.edges = 'person_contracted' -%}
        {%- endif -%}
    {%- endfor -%}
    {{ graph_step(name, least_reached(contraction.edges)) }}
    {%- for round in range(contraction.rounds, 0, -1) -%}
        {{ graph_step(name, uncontracted(name, round)) }}
        {{ drop_steps(['person_joins_' ~ round]) }}
    {%- endfor -%}
{% endmacro %}

{% macro joins(edges, round) %}
    select
        a as node,
        case
            when {{ shuffled('a', round) }} < min({{ shuffled('b', round) }}) then a
            else {{ first_known_by('b', shuffled('b', round)) }}
        end as joined
    from {{ edges }}
    group by a
{% endmacro %}

{% macro half_contracted(edges, round) %}
    select distinct
        joins.joined as a,
        edges.b
    from {{ edges }} as edges
    inner join person_joins_{{ round }} as joins on edges.a = joins.node
{% endmacro %}

{% macro contracted(round) %}
    select distinct
        halves.a,
        joins.joined as b
    from person_halves as halves
    inner join person_joins_{{ round }} as joins on halves.b = joins.node
    where halves.a != joins.joined
{% endmacro %}

{% macro uncontracted(components, round) %}
    select
        joins.node,
        coalesce(components.component, joins.joined) as component
    from person_joins_{{ round }} as joins
    left join {{ components }} as components on joins.joined = components.node
{% endmacro %}
