{# Step 4 of resolve.sql: cells. A cell is a whole component at first and is cut where it holds too much. #}

{# `label_node` is the component's first id, also after a cut: later runs find the ids to resolve again by it. #}
{% macro person_cells() %}
    select
        components.node,
        components.component as cell,
        labels.label_node
    from person_components as components
    inner join (
        select
            members.component,
            {{ first_known_by('members.node', 'places.place') }} as label_node
        from person_components as members
        inner join person_places as places on members.node = places.node
        group by members.component
    ) as labels on components.component = labels.component
{% endmacro %}

{# Cut by decisions first, then by each unique kind, then by size. #}
{% macro cut_cells() %}
    {{ graph_step('person_never_same', person_never_same()) }}
    {%- if has_rows('person_never_same') -%}
        {{ graph_step('person_never_same_halves', person_never_same_halves()) }}
        {{ graph_step('person_parted', person_parted()) }}
        {{ cut('select distinct cell from person_parted', parted_users()) }}
    {%- endif -%}
    {%- set unique_kinds = run_query('select coalesce(max(cut), 0) from ' ~ internal_table('unique_identifiers')) -%}
    {%- for position in range(1, unique_kinds.rows[0][0] | int + 1) -%}
        {{ cut(cells_with_too_many(position), ids_of_unique_kind(position)) }}
    {%- endfor -%}
    {{ cut(too_large_cells(), "select node from person_nodes where id_kind = 'user'") }}
{% endmacro %}

{# The pairs with both persons in the graph. Names are canonical ids by decision, as in the evidence. #}
{% macro person_never_same() %}
    select
        ones.node,
        others.node as other_node
    from {{ never_same() }} as pairs
    inner join person_nodes as ones
        on pairs.project_id = ones.project_id and ones.id_kind = 'user' and pairs.person_id = ones.id
    inner join person_nodes as others
        on pairs.project_id = others.project_id and others.id_kind = 'user' and pairs.other_person_id = others.id
{% endmacro %}

{% macro person_never_same_halves() %}
    select
        pairs.node,
        pairs.other_node,
        cells.cell
    from person_never_same as pairs
    inner join person_cells as cells on pairs.node = cells.node
{% endmacro %}

{# Only pairs within one cell: a pair that is not connected must not cut off ids of others. #}
{% macro person_parted() %}
    select
        halves.node,
        halves.other_node,
        halves.cell
    from person_never_same_halves as halves
    inner join person_cells as cells on halves.other_node = cells.node and halves.cell = cells.cell
{% endmacro %}

{% macro parted_users() %}
    select node from person_parted
    union
    select other_node as node from person_parted
{% endmacro %}

{% macro ids_of_unique_kind(position) %}
    select nodes.node
    from person_nodes as nodes
    inner join {{ internal_table('unique_identifiers') }} as kinds
        on nodes.project_id = kinds.project_id and nodes.id_kind = kinds.id_kind and kinds.cut = {{ position }}
{% endmacro %}

{% macro cells_with_too_many(position) %}
    select cells.cell
    from person_cells as cells
    inner join person_nodes as nodes on cells.node = nodes.node
    inner join {{ internal_table('unique_identifiers') }} as kinds
        on nodes.project_id = kinds.project_id and nodes.id_kind = kinds.id_kind and kinds.cut = {{ position }}
    group by cells.cell
    having count(*) > max(kinds.max_values)
{% endmacro %}

{% macro too_large_cells() %}
    select cells.cell
    from person_cells as cells
    inner join person_nodes as nodes on cells.node = nodes.node
    inner join person_settings on nodes.project_id = person_settings.project_id
    group by cells.cell
    having
        sum(nodes.id_count) > max(person_settings.max_ids_per_person)
        and sum(case when nodes.id_kind = 'user' then 1 else 0 end) > 1
{% endmacro %}

{#
  Cut the given cells, each of which holds several of the given seeds. Every node goes to the cell of the nearest seed. If
  two are equally near, it goes to none, or to that of the seed that was seen first (contested_ids). A new cell has the
  number of its seed.
#}
{% macro cut(cells, seeds) %}
    {{ graph_step('person_crowded', person_crowded(cells)) }}
    {%- if has_rows('person_crowded') -%}
        {{ graph_step('person_crowded_seeds', person_crowded_seeds(seeds)) }}
        {{ graph_step('person_crowded_halves', person_crowded_halves()) }}
        {{ graph_step('person_crowded_edges', person_crowded_edges()) }}
        {{ find_nearest_seeds('person_nearest', 'person_crowded_seeds', 'person_crowded_edges') }}
        {{ graph_step('person_cells', person_cut_cells()) }}
        {{ drop_steps(['person_crowded_seeds', 'person_crowded_halves', 'person_crowded_edges', 'person_nearest']) }}
    {%- endif -%}
    {{ drop_steps(['person_crowded']) }}
{% endmacro %}

{% macro person_crowded(cells) %}
    select
        cells.node,
        cells.cell
    from person_cells as cells
    inner join ({{ cells }}) as crowds on cells.cell = crowds.cell
{% endmacro %}

{% macro person_crowded_seeds(seeds) %}
    select
        seeds.node,
        places.place,
        person_settings.contested_ids = 'first' as keeps_contested
    from ({{ seeds }}) as seeds
    inner join person_crowded as crowded on seeds.node = crowded.node
    inner join person_nodes as nodes on seeds.node = nodes.node
    inner join person_places as places on seeds.node = places.node
    inner join person_settings on nodes.project_id = person_settings.project_id
{% endmacro %}

{% macro person_crowded_halves() %}
    select
        edges.a,
        edges.b,
        crowded.cell
    from person_graph as edges
    inner join person_crowded as crowded on edges.a = crowded.node
{% endmacro %}

{% macro person_crowded_edges() %}
    select
        halves.a,
        halves.b
    from person_crowded_halves as halves
    inner join person_crowded as crowded on halves.b = crowded.node and halves.cell = crowded.cell
{% endmacro %}

{% macro person_cut_cells() %}
    select
        cells.node,
        case when crowded.node is null then cells.cell else seeds.node end as cell,
        cells.label_node
    from person_cells as cells
    left join person_crowded as crowded on cells.node = crowded.node
    left join person_nearest as nearest on cells.node = nearest.node
    left join person_crowded_seeds as seeds on nearest.place = seeds.place
{% endmacro %}
