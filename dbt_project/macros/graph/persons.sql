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
  Without it everything is resolved. Gives the CTEs up to `resolved_persons`; or, with `in_steps`, runs them one by one and
  leaves a temporary view of that name, so that of tens of millions of links only one step at a time is in memory.

  Size is met thus: a device with one neighbour, as most have, is put aside and takes its neighbour's answer, so that
  only ids that can tie others together are looked at; and what hangs together is contracted by a constant factor per
  round, however long its chains are, before it is walked through (Bögeholz, Brand and Todor, "In-database
  connected component analysis", 2019).
#}
{% macro resolve_persons(settings_condition='true', scope=none, in_steps=false) %}
{% call step('person_settings', in_steps, is_kept=false) %}
    select
        project_id,
        max_users_per_device,
        max_ids_per_person
    from {{ pipeline_table('project_settings') }}
    where {{ settings_condition }}
{% endcall %}

-- An edge goes from a device or identifier, which may be a hub, to what it ties together. Without a scope it is the
-- largest of all, and text: rather read twice than kept.
{% call step('person_evidence', in_steps, is_kept=scope is not none) %}
    select evidence.*
    from (
        {{ person_evidence() }}
    ) as evidence
    inner join person_settings on evidence.project_id = person_settings.project_id
    {%- if scope %}
    where
        {{ is_among(scope, 'evidence', 'id_kind', 'id') }}
        or {{ is_among(scope, 'evidence', 'other_kind', 'other_id') }}
    {%- endif %}
{% endcall %}

-- Numbers, because they compare and join several times as fast as text, and take a fraction of the memory; which id gets
-- which is of no consequence.
{% call step('person_ids', in_steps) %}
    select
        row_number() over () as node,
        ids.project_id,
        ids.id_kind,
        ids.id,
        ids.first_seen_at,
        {{ is_among(scope, 'ids', 'id_kind', 'id') if scope else 'true' }} as is_asked
    from (
        select
            project_id,
            id_kind,
            id,
            min(first_seen_at) as first_seen_at
        from (
            select project_id, id_kind, id, first_seen_at from person_evidence
            union all
            select project_id, other_kind as id_kind, other_id as id, first_seen_at from person_evidence
        ) as ends
        group by project_id, id_kind, id
    ) as ids
{% endcall %}

-- One end after the other, here and below: of three relations at once a planner may first take each end with each.
{% call step('person_starts', in_steps) %}
    select
        ids.node as a,
        ids.id_kind = 'device' as is_of_device,
        evidence.project_id,
        evidence.other_kind,
        evidence.other_id
    from person_evidence as evidence
    inner join person_ids as ids
        on evidence.project_id = ids.project_id and evidence.id_kind = ids.id_kind and evidence.id = ids.id
{% endcall %}

{% call step('person_edges', in_steps) %}
    select distinct
        starts.a,
        ids.node as b,
        starts.other_kind,
        starts.is_of_device
    from person_starts as starts
    inner join person_ids as ids
        on
            starts.project_id = ids.project_id
            and starts.other_kind = ids.id_kind
            and starts.other_id = ids.id
{% endcall %}
{{ forget_steps(['person_starts'], in_steps) }}

{% call step('person_hubs', in_steps) %}
    select ids.node
    from (
        select
            a as node,
            count(*) as neighbour_count
        from person_edges
        group by a, other_kind
        -- No limit is below one, and most ids have one neighbour: they need not be joined.
        having count(*) > 1
    ) as neighbours
    inner join person_ids as ids on neighbours.node = ids.node
    inner join person_settings on ids.project_id = person_settings.project_id
    where neighbours.neighbour_count > person_settings.max_users_per_device
    union
    select ids.node
    from {{ shared_devices() }} as decided
    inner join person_ids as ids
        on decided.project_id = ids.project_id and ids.id_kind = 'device' and decided.anonymous_id = ids.id
{% endcall %}

{% call step('person_ties', in_steps) %}
    select
        edges.a,
        edges.b,
        edges.is_of_device
    from person_edges as edges
    {%- if scope %}
    inner join person_ids as ones on edges.a = ones.node and ones.is_asked
    inner join person_ids as others on edges.b = others.node and others.is_asked
    {%- endif %}
    where
        not exists (select 1 from person_hubs as hubs where hubs.node = edges.a)
        and not exists (select 1 from person_hubs as hubs where hubs.node = edges.b)
{% endcall %}

{{ forget_steps(['person_edges'], in_steps) }}
{% call step('person_leaf_devices', in_steps) %}
    select
        a as node,
        min(b) as neighbour
    from person_ties
    where is_of_device
    group by a
    having count(*) = 1
{% endcall %}

{% call step('person_leaves', in_steps) %}
    select
        neighbour as node,
        count(*) as leaf_count
    from person_leaf_devices
    group by neighbour
{% endcall %}

{% call step('person_core', in_steps) %}
    select
        a,
        b
    from person_ties as ties
    where not exists (select 1 from person_leaf_devices as leaf where leaf.node = ties.a)
{% endcall %}

{% call step('person_graph', in_steps) %}
    select a, b from person_core
    union all
    select b as a, a as b from person_core
{% endcall %}

{{ forget_steps(['person_ties', 'person_core'], in_steps) }}
{% call step('person_node_facts', in_steps) %}
    select
        ids.node,
        ids.project_id,
        ids.id_kind,
        {{ person_name('ids') }} as name,
        ids.id_kind || ':' || ids.id as label,
        ids.first_seen_at,
        1 + coalesce(leaves.leaf_count, 0) as id_count
    from person_ids as ids
    left join person_leaves as leaves on ids.node = leaves.node
    where exists (select 1 from person_graph as edges where edges.a = ids.node)
{% endcall %}

{{ components('person_components', 'person_graph', in_steps) }}

{% call step('person_cells_0', in_steps, is_kept=false) %}
    select node, component as cell from person_components
{% endcall %}

-- Whom somebody says never to be the same. They are named as decided, as the evidence names them.
{% call step('person_never_same', in_steps, is_kept=false) %}
    select
        ones.node,
        others.node as other_node
    from {{ never_same() }} as pairs
    inner join person_node_facts as ones
        on pairs.project_id = ones.project_id and ones.id_kind = 'user' and pairs.person_id = ones.name
    inner join person_node_facts as others
        on pairs.project_id = others.project_id and others.id_kind = 'user' and pairs.other_person_id = others.name
{% endcall %}

{% call step('person_never_same_halves', in_steps) %}
    select
        pairs.node,
        pairs.other_node,
        cells.cell
    from person_never_same as pairs
    inner join person_cells_0 as cells on pairs.node = cells.node
{% endcall %}

-- Only if both hang together: that two others do is no reason to cut off an id that has nothing to do with them.
{% call step('person_parted', in_steps) %}
    select
        halves.node,
        halves.other_node,
        halves.cell
    from person_never_same_halves as halves
    inner join person_cells_0 as cells on halves.other_node = cells.node and halves.cell = cells.cell
{% endcall %}

{% call step('person_crowds_1', in_steps, is_kept=false) %}
    select distinct cell from person_parted
{% endcall %}

{% call step('person_seeds_1', in_steps, is_kept=false) %}
    select node from person_parted
    union
    select other_node as node from person_parted
{% endcall %}

{{ cut_cells(1, in_steps) }}
{% set cuts = 4 %}{# One for never_same, and settings.MAX_UNIQUE_IDENTIFIERS #}
{% for cut in range(2, cuts + 1) %}
{% call step('person_seeds_' ~ cut, in_steps, is_kept=false) %}
    select facts.node
    from person_node_facts as facts
    inner join {{ pipeline_table('unique_identifiers') }} as kinds
        on facts.project_id = kinds.project_id and facts.id_kind = kinds.id_kind and kinds.cut = {{ cut - 1 }}
{% endcall %}

{% call step('person_crowds_' ~ cut, in_steps, is_kept=false) %}
    select cells.cell
    from person_cells_{{ cut - 1 }} as cells
    inner join person_seeds_{{ cut }} as seeds on cells.node = seeds.node
    group by cells.cell
    having count(*) > 1
{% endcall %}

{{ cut_cells(cut, in_steps) }}
{% endfor %}
{% call step('person_crowds_' ~ (cuts + 1), in_steps, is_kept=false) %}
    select cells.cell
    from person_cells_{{ cuts }} as cells
    inner join person_node_facts as facts on cells.node = facts.node
    inner join person_settings on facts.project_id = person_settings.project_id
    group by cells.cell
    having
        sum(facts.id_count) > max(person_settings.max_ids_per_person)
        and sum(case when facts.id_kind = 'user' then 1 else 0 end) > 1
{% endcall %}

{% call step('person_seeds_' ~ (cuts + 1), in_steps, is_kept=false) %}
    select node from person_node_facts
    where id_kind = 'user'
{% endcall %}

{{ cut_cells(cuts + 1, in_steps) }}

{% call step('person_named_cells', in_steps, is_kept=false) %}
    select
        named.cell,
        named.node,
        named.id_kind,
        sizes.id_count
    from (
        select
            cells.cell,
            cells.node,
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
{% endcall %}

-- Of what hung together before it was cut: from it a run tells which ids it has to resolve again.
{% call step('person_labels', in_steps, is_kept=false) %}
    select
        cells.cell,
        {{ first_known_by('cells.node', 'facts.label') }} as label_node
    from person_cells_0 as cells
    inner join person_node_facts as facts on cells.node = facts.node
    where facts.id_kind != 'device'
    group by cells.cell
{% endcall %}

-- By which ids an id's person and component go. Of all but the devices that were put aside; hubs go by none.
{% call step('person_answers', in_steps) %}
    select
        facts.node,
        case
            when named.id_kind = 'user' or named.id_count <= person_settings.max_ids_per_person then named.node
        end as name_node,
        labels.label_node
    from person_node_facts as facts
    inner join person_settings on facts.project_id = person_settings.project_id
    inner join person_cells_0 as components on facts.node = components.node
    inner join person_labels as labels on components.cell = labels.cell
    inner join person_cells_{{ cuts + 1 }} as cells on facts.node = cells.node
    left join person_named_cells as named on cells.cell = named.cell
    union all
    select
        ids.node,
        case
            when ids.id_kind = 'user' or coalesce(leaves.leaf_count, 0) < person_settings.max_ids_per_person then ids.node
        end as name_node,
        ids.node as label_node
    from person_ids as ids
    inner join person_settings on ids.project_id = person_settings.project_id
    left join person_leaves as leaves on ids.node = leaves.node
    where
        ids.id_kind != 'device'
        and not exists (select 1 from person_node_facts as facts where facts.node = ids.node)
        and not exists (select 1 from person_hubs as hubs where hubs.node = ids.node)
{% endcall %}

{% call step('resolved_persons', in_steps, is_kept=false, is_last=true) %}
    select
        ids.project_id,
        ids.id_kind,
        ids.id,
        case when ids.id_kind = 'user' then coalesce({{ person_name('names') }}, ids.id) else {{ person_name('names') }} end
            as person_id,
        labels.id_kind || ':' || labels.id as component_id,
        ids.first_seen_at
    from person_ids as ids
    left join (
        select node, name_node, label_node from person_answers
        union all
        select leaf.node, answers.name_node, answers.label_node
        from person_leaf_devices as leaf
        inner join person_answers as answers on leaf.neighbour = answers.node
    ) as answers on ids.node = answers.node
    left join person_ids as names on answers.name_node = names.node
    left join person_ids as labels on answers.label_node = labels.node
    where ids.is_asked
{% endcall %}
{%- endmacro %}

{# One query of several that build on each other. What is kept is worked out once. -#}
{% macro step(name, in_steps, is_kept=true, is_last=false) -%}
{%- if in_steps -%}
    {%- do run_query('create or replace temporary ' ~ ('table ' if is_kept else 'view ') ~ name ~ ' as ' ~ caller()) -%}
{%- else -%}
{{ name }} as {{ 'materialized ' if is_kept }}({{ caller() }}){{ ',' if not is_last }}
{%- endif -%}
{%- endmacro %}

{# Free the memory of steps that nobody reads any more. -#}
{% macro forget_steps(names, in_steps) -%}
{%- for name in names if in_steps -%}
    {%- do run_query('drop table ' ~ name) -%}
{%- endfor -%}
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
    from {{ identifiers_in_force() }} as links
    left join {{ decided_names() }} as names
        on
            links.linked_kind = 'user'
            and links.project_id = names.project_id
            and links.linked_id = names.user_id
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

{# By which name a person goes who is named after this id. #}
{% macro person_name(id) -%}
case {{ id }}.id_kind when 'user' then {{ id }}.id else {{ id }}.id_kind || ':' || {{ id }}.id end
{%- endmacro %}

{#
  The connected components of a graph that is given by its edges, each in both directions: (node, component).

  In each round every node joins the least of itself and its neighbours in an order that is drawn anew, and those
  who joined become one. A round leaves less than half of a chain or a crowd; after `rounds` rounds what is left is
  walked through. The result does not depend on the order drawn, only the time does.
#}
{% macro components(name, edges, in_steps, rounds=12) -%}
{% for round in range(1, rounds + 1) -%}
{%- set before = edges if round == 1 else name ~ '_edges_' ~ (round - 1) -%}
{% call step(name ~ '_joins_' ~ round, in_steps) %}
    select
        a as node,
        case
            when {{ shuffled('a', round) }} < min({{ shuffled('b', round) }}) then a
            else {{ first_known_by('b', shuffled('b', round)) }}
        end as joined
    from {{ before }}
    group by a
{% endcall %}

{% call step(name ~ '_halves_' ~ round, in_steps) %}
    select distinct
        joins.joined as a,
        edges.b
    from {{ before }} as edges
    inner join {{ name }}_joins_{{ round }} as joins on edges.a = joins.node
{% endcall %}

{% call step(name ~ '_edges_' ~ round, in_steps) %}
    select distinct
        halves.a,
        joins.joined as b
    from {{ name }}_halves_{{ round }} as halves
    inner join {{ name }}_joins_{{ round }} as joins on halves.b = joins.node
    where halves.a != joins.joined
{% endcall %}
{{ forget_steps([name ~ '_halves_' ~ round] + ([before] if round > 1 else []), in_steps) }}

{% endfor -%}
{% call step(name ~ '_of_' ~ rounds, in_steps, is_kept=false) %}
    {{ least_reached(name ~ '_edges_' ~ rounds) }}
{% endcall %}
{% for round in range(rounds, 0, -1) %}
{% call step(name ~ '_of_' ~ (round - 1) if round > 1 else name, in_steps, is_kept=round == 1) %}
    select
        joins.node,
        coalesce(components.component, joins.joined) as component
    from {{ name }}_joins_{{ round }} as joins
    left join {{ name }}_of_{{ round }} as components on joins.joined = components.node
{% endcall %}
{% endfor %}
{% for round in range(1, rounds + 1) -%}
{{ forget_steps([name ~ '_joins_' ~ round], in_steps) }}
{%- endfor %}
{%- endmacro %}

{#
  Cut the cells in `person_crowds_<cut>`, which hold more than one of `person_seeds_<cut>`: every node goes to the
  nearest seed, and to no cell if two are equally near. A new cell has its seed's number.
#}
{% macro cut_cells(cut, in_steps) -%}
{% call step('person_crowded_' ~ cut, in_steps) %}
    select
        cells.node,
        cells.cell
    from person_cells_{{ cut - 1 }} as cells
    inner join person_crowds_{{ cut }} as crowds on cells.cell = crowds.cell
{% endcall %}

{% call step('person_crowded_seeds_' ~ cut, in_steps, is_kept=false) %}
    select seeds.node
    from person_seeds_{{ cut }} as seeds
    inner join person_crowded_{{ cut }} as crowded on seeds.node = crowded.node
{% endcall %}

{% call step('person_crowded_halves_' ~ cut, in_steps) %}
    select
        edges.a,
        edges.b,
        crowded.cell
    from person_graph as edges
    inner join person_crowded_{{ cut }} as crowded on edges.a = crowded.node
{% endcall %}

{% call step('person_crowded_edges_' ~ cut, in_steps) %}
    select
        halves.a,
        halves.b
    from person_crowded_halves_{{ cut }} as halves
    inner join person_crowded_{{ cut }} as crowded on halves.b = crowded.node and halves.cell = crowded.cell
{% endcall %}

{% call step('person_nearest_' ~ cut, in_steps, is_kept=false) %}
    {{ nearest_seeds('person_crowded_seeds_' ~ cut, 'person_crowded_edges_' ~ cut) }}
{% endcall %}

{% call step('person_cells_' ~ cut, in_steps) %}
    select
        cells.node,
        case when crowded.node is null then cells.cell else nearest.seed end as cell
    from person_cells_{{ cut - 1 }} as cells
    left join person_crowded_{{ cut }} as crowded on cells.node = crowded.node
    left join person_nearest_{{ cut }} as nearest on cells.node = nearest.node
{% endcall %}
{{ forget_steps(['person_crowded_' ~ cut, 'person_crowded_halves_' ~ cut, 'person_crowded_edges_' ~ cut], in_steps) }}
{{ forget_steps(['person_cells_' ~ (cut - 1)] if cut > 1 else [], in_steps) }}
{%- endmacro %}

{# What every user id is finally called under `graph`, without those that keep their name. #}
{% macro graph_names() -%}
(
        select
            persons.project_id,
            persons.id as user_id,
            persons.person_id
        from {{ pipeline_table('persons') }} as persons
        where
            persons.id_kind = 'user'
            and persons.id != persons.person_id
            -- Until the next run resolves it, an id that was decided on has a row of its own as well.
            and not exists (
                select 1 from {{ decided_names() }} as decided
                where decided.project_id = persons.project_id and decided.user_id = persons.id
            )
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

{#
  What a run of `persons` does before its transaction: it finds the ids to resolve again, and leaves the temporary view
  `resolved_persons`. Each step is a transaction of its own, because a table that is dropped within one keeps its
  place until the end of it.
#}
{% macro prepare_persons() %}
    {%- if execute -%}
    {%- if has_pending_ids() -%}
        {%- set scope = none if is_everything_pending() else 'unresolved_ids' -%}
        {%- if scope -%} {%- do run_query(collect_unresolved_ids()) -%} {%- endif -%}
        {%- do adapter.commit() -%}
        {%- do resolve_persons('resolves_persons', scope, in_steps=true) -%}
        {% call statement('begin_again', auto_begin=True) %} select 1 {% endcall %}
    {%- endif -%}
    {%- endif -%}
{% endmacro %}

{% macro has_pending_ids() %}
    {{ return(run_query('select 1 from ' ~ pipeline_table('pending_ids') ~ ' limit 1').rows | length > 0) }}
{% endmacro %}

{# As at first, and when all is looked at again: then everything is resolved, and nobody asks which ids. #}
{% macro is_everything_pending() %}
    {{ return(run_query(
        'select (select count(*) from ' ~ pipeline_table('pending_ids') ~ ') >= (select count(*) from '
        ~ pipeline_table('persons') ~ ')'
    ).rows[0][0]) }}
{% endmacro %}

{# The stored rows that a run of `persons` may touch. #}
{% macro is_unresolved(row) -%}
    {%- if not has_pending_ids() -%} false
    {%- elif is_everything_pending() -%} true
    {%- else -%} {{ is_among('unresolved_ids', row, 'id_kind', 'id') }}
    {%- endif -%}
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

    ends as (
        select project_id, id_kind, id from touched
        union
        select project_id, other_kind, other_id from touched
    ),

    -- What a hub ties together it does not tie: it must not draw thousands into every run.
    hubs as (
        select distinct neighbours.project_id, neighbours.id_kind, neighbours.id
        from (
            select project_id, id_kind, id, count(distinct other_id) as neighbour_count
            from evidence
            where {{ is_among('ends', 'evidence', 'id_kind', 'id') }}
            group by project_id, id_kind, id, other_kind
        ) as neighbours
        inner join {{ pipeline_table('project_settings') }} as settings on neighbours.project_id = settings.project_id
        where neighbours.neighbour_count > settings.max_users_per_device
        union
        select project_id, 'device', anonymous_id from {{ shared_devices() }}
    ),

    near as (
        select project_id, id_kind, id from pending
        union
        select project_id, id_kind, id from ends where not {{ is_among('hubs', 'ends', 'id_kind', 'id') }}
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
