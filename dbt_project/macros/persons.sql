{#
  Policy `graph`: who is the same person. Users, devices and further identifiers are the nodes of a graph; each
  link is an edge; what hangs together is one person, unless

  - an id is a hub: a device or identifier with more than max_users_per_device users (or values of another
    kind), over all time. It ties nothing together and is nobody's.
  - people have decided so (overrides.csv): links that are wrong are left out, devices that are shared are hubs, and
    two who are never the same are cut apart like two values of a unique kind.
  - more than one value of a kind that is unique hangs together (unique_identifiers, one kind after the other).
    Then every id goes to the value that is nearest to it; an id between two that are equally near is contested:
    it ties nothing together and is nobody's, and only a user stays a person of its own.
  - it is too big to be believed (max_ids_per_person): cut as if `user` were unique.

  A person is named after its earliest user, or without one after its earliest identifier, as
  `email:ann@example.com`. All of it is a function of links and settings, whatever came when.

  `scope` names a table of the ids to resolve (project_id, id_kind, id): whole components, beside hubs.
  Without it everything is resolved. Gives the CTEs up to `resolved_persons`.

  Size is met thus: a device with one neighbour, as most have, is put aside and takes its neighbour's answer, so that
  only ids that can tie others together are looked at; and what hangs together is contracted by a constant factor per
  round, however long its chains are, before it is walked through (Bögeholz, Brand and Todor, "In-database
  connected component analysis", 2019).
#}
{% macro resolve_persons(settings_condition='true', scope=none) %}
person_settings as (
    select
        project_id,
        max_users_per_device,
        max_ids_per_person
    from {{ pipeline_table('project_settings') }}
    where {{ settings_condition }}
),

person_evidence as (
    {{ person_evidence() }}
),

-- An edge goes from a device or identifier, which may be a hub, to what it ties together.
person_edges as materialized (
    select
        evidence.project_id,
        evidence.id_kind,
        evidence.id,
        evidence.other_kind,
        evidence.other_id,
        min(evidence.first_seen_at) as first_seen_at
    from (
        {%- if scope %}
        select * from person_evidence as evidence where {{ is_among(scope, 'evidence', 'id_kind', 'id') }}
        union all
        select * from person_evidence as evidence where {{ is_among(scope, 'evidence', 'other_kind', 'other_id') }}
        {%- else %}
        select * from person_evidence
        {%- endif %}
    ) as evidence
    inner join person_settings on evidence.project_id = person_settings.project_id
    group by evidence.project_id, evidence.id_kind, evidence.id, evidence.other_kind, evidence.other_id
),

person_ids as materialized (
    select
        project_id,
        id_kind,
        id,
        min(first_seen_at) as first_seen_at
    from (
        select project_id, id_kind, id, first_seen_at from person_edges
        union all
        select project_id, other_kind as id_kind, other_id as id, first_seen_at from person_edges
    ) as ids
    {%- if scope %}
    where {{ is_among(scope, 'ids', 'id_kind', 'id') }}
    {%- endif %}
    group by project_id, id_kind, id
),

person_hubs as materialized (
    select distinct
        neighbours.project_id,
        neighbours.id_kind,
        neighbours.id
    from (
        select
            project_id,
            id_kind,
            id,
            count(*) as neighbour_count
        from person_edges
        group by project_id, id_kind, id, other_kind
    ) as neighbours
    inner join person_settings on neighbours.project_id = person_settings.project_id
    where neighbours.neighbour_count > person_settings.max_users_per_device
    union
    select
        project_id,
        'device' as id_kind,
        anonymous_id as id
    from {{ pipeline_table('shared_devices') }}
),

person_ties as materialized (
    select
        project_id,
        id_kind,
        id,
        other_kind,
        other_id
    from person_edges as edges
    where
        not {{ is_among('person_hubs', 'edges', 'id_kind', 'id') }}
        and not {{ is_among('person_hubs', 'edges', 'other_kind', 'other_id') }}
        {%- if scope %}
        and {{ is_among(scope, 'edges', 'id_kind', 'id') }}
        and {{ is_among(scope, 'edges', 'other_kind', 'other_id') }}
        {%- endif %}
),

person_devices as materialized (
    select
        project_id,
        id_kind,
        id,
        count(*) as neighbour_count,
        min(other_kind) as other_kind,
        min(other_id) as other_id
    from person_ties
    where id_kind = 'device'
    group by project_id, id_kind, id
),

person_leaves as (
    select
        project_id,
        other_kind as id_kind,
        other_id as id,
        count(*) as leaf_count
    from person_devices
    where neighbour_count = 1
    group by project_id, other_kind, other_id
),

person_core as materialized (
    select
        project_id,
        id_kind,
        id,
        other_kind,
        other_id
    from person_ties as ties
    where
        id_kind != 'device'
        or exists (
            select 1 from person_devices as devices
            where
                devices.project_id = ties.project_id
                and devices.id = ties.id
                and devices.neighbour_count > 1
        )
),

-- Numbers, because they compare and join several times as fast as text; which id gets which is of no consequence.
person_nodes as materialized (
    select
        row_number() over () as node,
        project_id,
        id_kind,
        id
    from (
        select project_id, id_kind, id from person_core
        union
        select project_id, other_kind as id_kind, other_id as id from person_core
    ) as ids
),

person_node_facts as materialized (
    select
        nodes.node,
        nodes.project_id,
        nodes.id_kind,
        case when nodes.id_kind = 'user' then nodes.id else nodes.id_kind || ':' || nodes.id end as name,
        nodes.id_kind || ':' || nodes.id as label,
        ids.first_seen_at,
        1 + coalesce(leaves.leaf_count, 0) as id_count
    from person_nodes as nodes
    inner join person_ids as ids
        on nodes.project_id = ids.project_id and nodes.id_kind = ids.id_kind and nodes.id = ids.id
    left join person_leaves as leaves
        on nodes.project_id = leaves.project_id and nodes.id_kind = leaves.id_kind and nodes.id = leaves.id
),

person_core_edges as (
    select
        ones.node as a,
        others.node as b
    from person_core as core
    inner join person_nodes as ones
        on core.project_id = ones.project_id and core.id_kind = ones.id_kind and core.id = ones.id
    inner join person_nodes as others
        on core.project_id = others.project_id and core.other_kind = others.id_kind and core.other_id = others.id
),

person_graph as materialized (
    select a, b from person_core_edges
    union all
    select b as a, a as b from person_core_edges
),

{{ components('person_components', 'person_graph') }},

person_cells_0 as (
    select node, component as cell from person_components
),

-- Whom somebody says never to be the same. They are named as decided, as the evidence names them.
person_never_same as (
    select
        ones.node,
        others.node as other_node
    from {{ pipeline_table('never_same') }} as pairs
    inner join person_nodes as ones
        on pairs.project_id = ones.project_id and ones.id_kind = 'user' and pairs.person_id = ones.id
    inner join person_nodes as others
        on pairs.project_id = others.project_id and others.id_kind = 'user' and pairs.other_person_id = others.id
),

person_crowds_1 as (
    select distinct ones.cell
    from person_never_same as pairs
    inner join person_cells_0 as ones on pairs.node = ones.node
    inner join person_cells_0 as others on pairs.other_node = others.node
    where ones.cell = others.cell
),

-- Only if both hang together: that two others do is no reason to cut off an id that has nothing to do with them.
person_seeds_1 as (
    select pairs.node
    from person_never_same as pairs
    inner join person_cells_0 as ones on pairs.node = ones.node
    inner join person_cells_0 as others on pairs.other_node = others.node
    where ones.cell = others.cell
    union
    select pairs.other_node as node
    from person_never_same as pairs
    inner join person_cells_0 as ones on pairs.node = ones.node
    inner join person_cells_0 as others on pairs.other_node = others.node
    where ones.cell = others.cell
),

{{ cut_cells(1) }},
{% set cuts = 4 %}{# One for never_same, and settings.MAX_UNIQUE_IDENTIFIERS #}
{% for cut in range(2, cuts + 1) %}
person_crowds_{{ cut }} as (
    select cells.cell
    from person_cells_{{ cut - 1 }} as cells
    inner join person_node_facts as facts on cells.node = facts.node
    inner join {{ pipeline_table('unique_identifiers') }} as kinds
        on facts.project_id = kinds.project_id and facts.id_kind = kinds.id_kind and kinds.cut = {{ cut - 1 }}
    group by cells.cell
    having count(*) > 1
),

person_seeds_{{ cut }} as (
    select facts.node
    from person_node_facts as facts
    inner join {{ pipeline_table('unique_identifiers') }} as kinds
        on facts.project_id = kinds.project_id and facts.id_kind = kinds.id_kind and kinds.cut = {{ cut - 1 }}
),

{{ cut_cells(cut) }},
{% endfor %}
person_crowds_{{ cuts + 1 }} as (
    select cells.cell
    from person_cells_{{ cuts }} as cells
    inner join person_node_facts as facts on cells.node = facts.node
    inner join person_settings on facts.project_id = person_settings.project_id
    group by cells.cell
    having
        sum(facts.id_count) > max(person_settings.max_ids_per_person)
        and sum(case when facts.id_kind = 'user' then 1 else 0 end) > 1
),

person_seeds_{{ cuts + 1 }} as (
    select node from person_node_facts
    where id_kind = 'user'
),

{{ cut_cells(cuts + 1) }},

person_named_cells as (
    select
        named.cell,
        named.name,
        named.id_kind,
        sizes.id_count
    from (
        select
            cells.cell,
            facts.name,
            facts.id_kind,
            row_number() over (
                partition by cells.cell
                order by case when facts.id_kind = 'user' then 0 else 1 end, facts.first_seen_at, facts.name
            ) as position
        from person_cells_{{ cuts + 1 }} as cells
        inner join person_node_facts as facts on cells.node = facts.node
        where facts.id_kind != 'device'
    ) as named
    inner join (
        select
            cells.cell,
            sum(facts.id_count) as id_count
        from person_cells_{{ cuts + 1 }} as cells
        inner join person_node_facts as facts on cells.node = facts.node
        group by cells.cell
    ) as sizes on named.cell = sizes.cell
    where named.position = 1
),

-- Of what hung together before it was cut: from it a run tells which ids it has to resolve again.
person_labels as (
    select
        cells.cell,
        min(facts.label) as label
    from person_cells_0 as cells
    inner join person_node_facts as facts on cells.node = facts.node
    where facts.id_kind != 'device'
    group by cells.cell
),

person_nodes_resolved as (
    select
        nodes.project_id,
        nodes.id_kind,
        nodes.id,
        case
            when named.id_kind = 'user' or named.id_count <= person_settings.max_ids_per_person then named.name
        end as person_id,
        labels.label as component_id
    from person_nodes as nodes
    inner join person_settings on nodes.project_id = person_settings.project_id
    inner join person_cells_0 as components on nodes.node = components.node
    inner join person_labels as labels on components.cell = labels.cell
    inner join person_cells_{{ cuts + 1 }} as cells on nodes.node = cells.node
    left join person_named_cells as named on cells.cell = named.cell
),

-- All but the devices that were put aside: those of the graph, hubs, and ids that nothing ties to others.
person_ids_resolved as materialized (
    select
        ids.project_id,
        ids.id_kind,
        ids.id,
        ids.first_seen_at,
        case
            when nodes.id is not null then nodes.person_id
            when hubs.id is not null or ids.id_kind = 'device' then null
            when ids.id_kind = 'user' then ids.id
            when coalesce(leaves.leaf_count, 0) < person_settings.max_ids_per_person then ids.id_kind || ':' || ids.id
        end as person_id,
        case
            when nodes.id is not null then nodes.component_id
            when hubs.id is null and ids.id_kind != 'device' then ids.id_kind || ':' || ids.id
        end as component_id
    from person_ids as ids
    inner join person_settings on ids.project_id = person_settings.project_id
    left join person_nodes_resolved as nodes
        on ids.project_id = nodes.project_id and ids.id_kind = nodes.id_kind and ids.id = nodes.id
    left join person_hubs as hubs
        on ids.project_id = hubs.project_id and ids.id_kind = hubs.id_kind and ids.id = hubs.id
    left join person_leaves as leaves
        on ids.project_id = leaves.project_id and ids.id_kind = leaves.id_kind and ids.id = leaves.id
),

resolved_persons as (
    select
        ids.project_id,
        ids.id_kind,
        ids.id,
        case when ids.id_kind = 'user' then coalesce(ids.person_id, ids.id) else ids.person_id end as person_id,
        ids.component_id,
        ids.first_seen_at
    from person_ids_resolved as ids
    where not {{ is_leaf('ids') }}
    union all
    select
        ids.project_id,
        ids.id_kind,
        ids.id,
        neighbours.person_id,
        neighbours.component_id,
        ids.first_seen_at
    from person_ids_resolved as ids
    inner join person_devices as devices
        on
            ids.project_id = devices.project_id
            and ids.id_kind = devices.id_kind
            and ids.id = devices.id
            and devices.neighbour_count = 1
    inner join person_ids_resolved as neighbours
        on
            devices.project_id = neighbours.project_id
            and devices.other_kind = neighbours.id_kind
            and devices.other_id = neighbours.id
)
{%- endmacro %}

{# Every link that counts as (id_kind, id) that ties (other_kind, other_id). Users whom somebody says to be the same are
   one id already here, so no cut parts them. #}
{% macro person_evidence() -%}
select
        project_id,
        'device' as id_kind,
        anonymous_id as id,
        'user' as other_kind,
        person_id as other_id,
        first_seen_at
    from {{ links_in_force(decided_names()) }} as links
    union all
    select
        links.project_id,
        case when links.linked_kind = 'device' then 'device' else links.id_kind end as id_kind,
        case when links.linked_kind = 'device' then links.linked_id else links.id end as id,
        case when links.linked_kind = 'device' then links.id_kind else 'user' end as other_kind,
        case when links.linked_kind = 'device' then links.id else coalesce(names.person_id, links.linked_id) end as other_id,
        links.first_seen_at
    from {{ ref('identifier_links') }} as links
    left join {{ decided_names() }} as names
        on
            links.linked_kind = 'user'
            and links.project_id = names.project_id
            and links.linked_id = names.user_id
    where not {{ is_wrong_identifier('links') }}
{%- endmacro %}

{% macro is_among(ids, row, kind, id) -%}
exists (
            select 1 from {{ ids }} as listed
            where
                listed.project_id = {{ row }}.project_id
                and listed.id_kind = {{ row }}.{{ kind }}
                and listed.id = {{ row }}.{{ id }}
        )
{%- endmacro %}

{% macro is_leaf(row) -%}
exists (
            select 1 from person_devices as leaf
            where
                leaf.project_id = {{ row }}.project_id
                and leaf.id_kind = {{ row }}.id_kind
                and leaf.id = {{ row }}.id
                and leaf.neighbour_count = 1
        )
{%- endmacro %}

{#
  The connected components of a graph that is given by its edges, each in both directions: (node, component).

  In each round every node joins the least of itself and its neighbours in an order that is drawn anew, and those
  who joined become one. A round leaves less than half of a chain or a crowd; after `rounds` rounds what is left is
  walked through. The result does not depend on the order drawn, only the time does.
#}
{% macro components(name, edges, rounds=12) -%}
{% for round in range(1, rounds + 1) -%}
{%- set before = edges if round == 1 else name ~ '_edges_' ~ (round - 1) -%}
{{ name }}_joins_{{ round }} as materialized (
    select
        a as node,
        case
            when {{ shuffled('a', round) }} < min({{ shuffled('b', round) }}) then a
            else {{ first_known_by('b', shuffled('b', round)) }}
        end as joined
    from {{ before }}
    group by a
),

-- One end after the other: of three relations at once a planner may take the two joins first, each with each.
{{ name }}_halves_{{ round }} as materialized (
    select distinct
        joins.joined as a,
        edges.b
    from {{ before }} as edges
    inner join {{ name }}_joins_{{ round }} as joins on edges.a = joins.node
),

{{ name }}_edges_{{ round }} as materialized (
    select distinct
        halves.a,
        joins.joined as b
    from {{ name }}_halves_{{ round }} as halves
    inner join {{ name }}_joins_{{ round }} as joins on halves.b = joins.node
    where halves.a != joins.joined
),

{% endfor -%}
{{ name }}_of_{{ rounds }} as (
    {{ least_reached(name ~ '_edges_' ~ rounds) }}
),
{% for round in range(rounds, 0, -1) %}
{{ name ~ '_of_' ~ (round - 1) if round > 1 else name }} as {{ 'materialized ' if round == 1 }}(
    select
        joins.node,
        coalesce(components.component, joins.joined) as component
    from {{ name }}_joins_{{ round }} as joins
    left join {{ name }}_of_{{ round }} as components on joins.joined = components.node
){{ ',' if round > 1 }}
{% endfor %}
{%- endmacro %}

{#
  Cut the cells in `person_crowds_<cut>`, which hold more than one of `person_seeds_<cut>`: every node goes to the
  nearest seed, and to no cell if two are equally near. A new cell has its seed's number.
#}
{% macro cut_cells(cut) -%}
person_crowded_{{ cut }} as materialized (
    select
        cells.node,
        cells.cell
    from person_cells_{{ cut - 1 }} as cells
    inner join person_crowds_{{ cut }} as crowds on cells.cell = crowds.cell
),

person_crowded_seeds_{{ cut }} as (
    select seeds.node
    from person_seeds_{{ cut }} as seeds
    inner join person_crowded_{{ cut }} as crowded on seeds.node = crowded.node
),

person_crowded_halves_{{ cut }} as materialized (
    select
        edges.a,
        edges.b,
        crowded.cell
    from person_graph as edges
    inner join person_crowded_{{ cut }} as crowded on edges.a = crowded.node
),

person_crowded_edges_{{ cut }} as materialized (
    select
        halves.a,
        halves.b
    from person_crowded_halves_{{ cut }} as halves
    inner join person_crowded_{{ cut }} as crowded on halves.b = crowded.node and halves.cell = crowded.cell
),

person_nearest_{{ cut }} as (
    {{ nearest_seeds('person_crowded_seeds_' ~ cut, 'person_crowded_edges_' ~ cut) }}
),

person_cells_{{ cut }} as materialized (
    select
        cells.node,
        case when crowded.node is null then cells.cell else nearest.seed end as cell
    from person_cells_{{ cut - 1 }} as cells
    left join person_crowded_{{ cut }} as crowded on cells.node = crowded.node
    left join person_nearest_{{ cut }} as nearest on cells.node = nearest.node
)
{%- endmacro %}

{# What every user id is finally called under `graph`, without those that keep their name. #}
{% macro graph_names() -%}
(
        select
            persons.project_id,
            persons.id as user_id,
            persons.person_id
        from {{ pipeline_table('persons') }} as persons
        where persons.id_kind = 'user' and persons.id != persons.person_id
        union all
        select
            decided.project_id,
            decided.user_id,
            coalesce(persons.person_id, decided.person_id) as person_id
        from {{ decided_names() }} as decided
        left join {{ pipeline_table('persons') }} as persons
            on
                decided.project_id = persons.project_id
                and persons.id_kind = 'user'
                and decided.person_id = persons.id
    )
{%- endmacro %}

{# The ids that a run resolves again: those whose links changed, what their links tie them to now, and
   everybody who hung together with one of these before. #}
{% macro collect_unresolved_ids() %}
    create or replace temporary table unresolved_ids as
    with evidence as (
        {{ person_evidence() }}
    ),

    pending as (
        select distinct project_id, id_kind, id from {{ pipeline_table('pending_ids') }}
    ),

    touched as (
        select * from evidence where {{ is_among('pending', 'evidence', 'id_kind', 'id') }}
        union
        select * from evidence where {{ is_among('pending', 'evidence', 'other_kind', 'other_id') }}
    ),

    -- What a hub ties together it does not tie: it must not draw thousands into every run.
    hubs as (
        select distinct neighbours.project_id, neighbours.id_kind, neighbours.id
        from (
            select project_id, id_kind, id, count(distinct other_id) as neighbour_count
            from evidence
            where {{ is_among('touched', 'evidence', 'id_kind', 'id') }}
            group by project_id, id_kind, id, other_kind
        ) as neighbours
        inner join {{ pipeline_table('project_settings') }} as settings on neighbours.project_id = settings.project_id
        where neighbours.neighbour_count > settings.max_users_per_device
        union
        select project_id, 'device', anonymous_id from {{ pipeline_table('shared_devices') }}
    ),

    near as (
        select project_id, id_kind, id from pending
        union
        select project_id, id_kind, id from touched where not {{ is_among('hubs', 'touched', 'id_kind', 'id') }}
        union
        select project_id, other_kind, other_id from touched
        where not {{ is_among('hubs', 'touched', 'id_kind', 'id') }}
    ),

    components as (
        select distinct persons.project_id, persons.component_id
        from {{ this }} as persons
        where {{ is_among('near', 'persons', 'id_kind', 'id') }}
    )

    select project_id, id_kind, id from near
    union
    select persons.project_id, persons.id_kind, persons.id
    from {{ this }} as persons
    inner join components
        on persons.project_id = components.project_id and persons.component_id = components.component_id
{% endmacro %}
