{# Step 5 of resolve.sql: the person of each id. Also the names of persons, for other models. #}

{#
  The order in which ids name their component and their cell, and keep what is contested: users first, then users who were
  never seen and only named as the previous id of others, then identifiers, then devices; each by the time of first sight.
  At one instant the kind decides, then the id of the event, and not how the id is written: ids may be hashed. Only
  devices that are tied to devices alone may differ in nothing else.
#}
{% macro person_places() %}
    select
        nodes.node,
        row_number() over (
            order by
                case
                    when nodes.id_kind = 'device' then 3
                    when nodes.id_kind != 'user' then 2
                    when nodes.is_seen then 0
                    else 1
                end,
                nodes.first_seen_at,
                nodes.id_kind,
                events.first_event_id,
                nodes.id
        ) as place
    from person_nodes as nodes
    left join person_first_events as events on nodes.node = events.node
{% endmacro %}

{# Ids of one kind and component that were first seen at one instant. #}
{% macro person_tied() %}
    select
        numbered.node,
        numbered.project_id,
        numbered.id_kind,
        numbered.id,
        numbered.first_seen_at
    from (
        select
            nodes.*,
            count(*) over (partition by members.component, nodes.id_kind, nodes.first_seen_at) as tied
        from person_components as members
        inner join person_nodes as nodes on members.node = nodes.node
        where nodes.id_kind != 'device'
    ) as numbered
    where numbered.tied > 1
{% endmacro %}

{# The event at which each of them was first seen. They are few, so the event is not looked up for all ids. #}
{% macro person_first_events() %}
    select
        tied.node,
        min(evidence.first_event_id) as first_event_id
    from person_tied as tied
    inner join (
        -- A user that is the previous id of another comes after it, where one event was the first of both.
        select
            project_id, id_kind, id, first_seen_at,
            case when id_kind = 'user' then first_event_id || '~' else first_event_id end as first_event_id
        from person_evidence
        union all
        select project_id, other_kind as id_kind, other_id as id, first_seen_at, first_event_id from person_evidence
    ) as evidence
        on
            tied.project_id = evidence.project_id
            and tied.id_kind = evidence.id_kind
            and tied.id = evidence.id
            and tied.first_seen_at = evidence.first_seen_at
    group by tied.node
{% endmacro %}

{# The id that names each cell: its first user, or without one its first identifier. A cell of devices has no name. #}
{% macro person_named_cells() %}
    select
        named.cell,
        named.node,
        ids.id_kind,
        named.id_count
    from (
        select
            cells.cell,
            {{ first_known_by('cells.node', "case when nodes.id_kind != 'device' then places.place end") }} as node,
            sum(nodes.id_count) as id_count
        from person_cells as cells
        inner join person_nodes as nodes on cells.node = nodes.node
        inner join person_places as places on cells.node = places.node
        where cells.cell is not null
        group by cells.cell
    ) as named
    inner join person_ids as ids on named.node = ids.node
{% endmacro %}

{# For each id, the id that names its person and the id that labels its component. First the ids of the graph, then the
   ids that have no neighbours, or only devices that were put aside. An identifier without a neighbour names nobody. Hubs
   have neither a name nor a label. #}
{% macro person_answers() %}
    select
        cells.node,
        case
            when named.id_kind = 'user' or named.id_count between 2 and person_settings.max_ids_per_person then named.node
        end as name_node,
        cells.label_node
    from person_cells as cells
    inner join person_nodes as nodes on cells.node = nodes.node
    inner join person_settings on nodes.project_id = person_settings.project_id
    left join person_named_cells as named on cells.cell = named.cell
    union all
    select
        ids.node,
        case
            when ids.id_kind = 'user' or 1 + leaves.leaf_count <= person_settings.max_ids_per_person then ids.node
        end as name_node,
        ids.node as label_node
    from person_ids as ids
    inner join person_settings on ids.project_id = person_settings.project_id
    left join person_leaves as leaves on ids.node = leaves.node
    where
        ids.id_kind != 'device'
        and not exists (select 1 from person_nodes as nodes where nodes.node = ids.node)
        and not exists (select 1 from person_hubs as hubs where hubs.node = ids.node)
{% endmacro %}

{% macro resolved_persons() %}
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
    where ids.is_in_scope
{% endmacro %}

{# The name of a person who is named after this id. #}
{% macro person_name(id) -%}
case {{ id }}.id_kind when 'user' then {{ id }}.id else {{ id }}.id_kind || ':' || {{ id }}.id end
{%- endmacro %}

{# Whether a row of `persons` is in a component that holds more than devices: such a component is not named after one. #}
{% macro is_not_of_devices_only(row) -%}
({{ row }}.component_id is null or {{ row }}.component_id not like 'device:%')
{%- endmacro %}

{# The canonical id of every user under `graph`, without users that keep their own. #}
{% macro graph_names() -%}
(
        select
            persons.project_id,
            persons.id as user_id,
            persons.person_id
        from {{ internal_table('persons') }} as persons
        where
            persons.id_kind = 'user'
            and persons.id != persons.person_id
            -- Until the next run resolves it, a user with a new decision has a row of its own as well.
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
        left join {{ internal_table('persons') }} as persons
            on
                decided.project_id = persons.project_id
                and persons.id_kind = 'user'
                and decided.person_id = persons.id
    )
{%- endmacro %}
