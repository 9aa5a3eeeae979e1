{# Steps 1 and 2 of resolve.sql: from links to a graph of numbered ids. #}

{% macro person_settings() %}
    select
        project_id,
        max_users_per_device,
        max_ids_per_person,
        contested_ids
    from {{ internal_table('project_settings') }}
    where resolves_persons
{% endmacro %}

{# An edge goes from a device, an identifier or the previous id of a user, which may be a hub, to an id that it ties. An
   edge between two devices is there in both directions. #}
{% macro person_evidence(scope) %}
    select evidence.*
    from (
        {{ all_evidence() }}
    ) as evidence
    inner join person_settings on evidence.project_id = person_settings.project_id
    {%- if scope %}
    where
        {{ is_among(scope, 'evidence', 'id_kind', 'id') }}
        or {{ is_among(scope, 'evidence', 'other_kind', 'other_id') }}
    {%- endif %}
{% endmacro %}

{# Every link that counts: (id_kind, id) ties (other_kind, other_id). Users who are one person by decision are one id
   from here on, so no cut separates them. #}
{% macro all_evidence() -%}
select
        project_id,
        'device' as id_kind,
        anonymous_id as id,
        'user' as other_kind,
        person_id as other_id,
        first_seen_at,
        last_seen_at,
        event_count,
        first_event_id
    from {{ links_in_force(decided_names()) }} as links
    union all
    select
        links.project_id,
        case when links.linked_kind = 'device' then 'device' else links.id_kind end as id_kind,
        case
            when links.linked_kind = 'device' then links.linked_id
            else coalesce(previous_names.person_id, links.id)
        end as id,
        case when links.linked_kind = 'device' then links.id_kind else 'user' end as other_kind,
        case when links.linked_kind = 'device' then links.id else coalesce(names.person_id, links.linked_id) end as other_id,
        links.first_seen_at,
        links.last_seen_at,
        links.event_count,
        links.first_event_id
    from {{ identifiers_in_force() }} as links
    left join {{ decided_names() }} as names
        on
            links.linked_kind = 'user'
            and links.project_id = names.project_id
            and links.linked_id = names.user_id
    left join {{ decided_names() }} as previous_names
        on
            links.id_kind = 'user'
            and links.project_id = previous_names.project_id
            and links.id = previous_names.user_id
    -- Two users who are one id by decision need no edge.
    where
        links.id_kind != 'user'
        or coalesce(previous_names.person_id, links.id) != coalesce(names.person_id, links.linked_id)
{%- endmacro %}

{# Numbers for ids: they compare and join several times as fast as text, and take a fraction of the memory. Which id
   gets which number makes no difference. #}
{% macro person_ids(scope) %}
    select
        row_number() over () as node,
        ids.project_id,
        ids.id_kind,
        ids.id,
        ids.first_seen_at,
        ids.is_seen,
        {{ is_among(scope, 'ids', 'id_kind', 'id') if scope else 'true' }} as is_in_scope
    from (
        select
            project_id,
            id_kind,
            id,
            min(first_seen_at) as first_seen_at,
            max(is_seen) = 1 as is_seen
        from (
            -- A user who was only named as the previous id was never seen.
            select
                project_id, id_kind, id, first_seen_at,
                case when id_kind = 'user' then 0 else 1 end as is_seen
            from person_evidence
            union all
            select project_id, other_kind as id_kind, other_id as id, first_seen_at, 1 as is_seen from person_evidence
        ) as ends
        group by project_id, id_kind, id
    ) as ids
{% endmacro %}

{# Here and below, one query joins one end of an edge. With both ends in one query, a planner may first join all ends
   with all ends. #}
{% macro person_starts() %}
    select
        ids.node as a,
        ids.id_kind = 'device' as is_of_device,
        evidence.project_id,
        evidence.other_kind,
        evidence.other_id
    from person_evidence as evidence
    inner join person_ids as ids
        on evidence.project_id = ids.project_id and evidence.id_kind = ids.id_kind and evidence.id = ids.id
{% endmacro %}

{% macro person_edges() %}
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
{% endmacro %}

{% macro person_hubs() %}
    select ids.node
    from (
        select
            a as node,
            other_kind,
            true as is_limited_by_default,
            count(*) as neighbour_count
        from person_edges
        group by a, other_kind
        -- No limit is below one, so ids with one neighbour, which are most, need no join.
        having count(*) > 1
        {%- if has_rows(internal_table('id_limits')) %}
        union all
        -- Seen from the other end, an id may be tied to any number of others unless a limit says otherwise.
        select
            edges.b as node,
            starts.id_kind as other_kind,
            false as is_limited_by_default,
            count(*) as neighbour_count
        from person_edges as edges
        inner join person_ids as starts on edges.a = starts.node and edges.other_kind != starts.id_kind
        group by edges.b, starts.id_kind
        having count(*) > 1
        {%- endif %}
    ) as neighbours
    inner join person_ids as ids on neighbours.node = ids.node
    inner join person_settings on ids.project_id = person_settings.project_id
    left join {{ internal_table('id_limits') }} as limits
        on
            ids.project_id = limits.project_id
            and ids.id_kind = limits.id_kind
            and neighbours.other_kind = limits.other_kind
    where
        neighbours.neighbour_count > coalesce(
            limits.max_count,
            case when neighbours.is_limited_by_default then person_settings.max_users_per_device end
        )
    union
    select ids.node
    from {{ shared_devices() }} as decided
    inner join person_ids as ids
        on decided.project_id = ids.project_id and ids.id_kind = 'device' and decided.anonymous_id = ids.id
    union
    -- A forgotten user or identifier counts towards the limits, and ties nothing together.
    select ids.node
    from person_ids as ids
    where ids.id_kind != 'device' and {{ is_forgotten('ids.id') }}
{% endmacro %}

{# The edges without hubs. Only hubs link ids outside of the scope to ids within it. #}
{% macro person_ties(scope) %}
    select
        edges.a,
        edges.b,
        edges.is_of_device,
        edges.is_of_device and edges.other_kind = 'device' as is_between_devices
    from person_edges as edges
    {%- if scope %}
    inner join person_ids as ones on edges.a = ones.node and ones.is_in_scope
    inner join person_ids as others on edges.b = others.node and others.is_in_scope
    {%- endif %}
    where
        not exists (select 1 from person_hubs as hubs where hubs.node = edges.a)
        and not exists (select 1 from person_hubs as hubs where hubs.node = edges.b)
{% endmacro %}

{# Devices with one neighbour tie nothing together: only the other ids need to be searched. Not if the neighbour is a
   device, which may have no other neighbour either. #}
{% macro person_leaf_devices() %}
    select
        a as node,
        min(b) as neighbour
    from person_ties
    where is_of_device
    group by a
    having count(*) = 1 and max(case when is_between_devices then 1 else 0 end) = 0
{% endmacro %}

{% macro person_leaves() %}
    select
        neighbour as node,
        count(*) as leaf_count
    from person_leaf_devices
    group by neighbour
{% endmacro %}

{% macro person_core() %}
    select
        a,
        b
    from person_ties as ties
    where
        not exists (select 1 from person_leaf_devices as leaf where leaf.node = ties.a)
        and not (is_between_devices and a > b)
{% endmacro %}

{# Each edge in both directions. #}
{% macro person_graph() %}
    select a, b from person_core
    union all
    select b as a, a as b from person_core
{% endmacro %}

{# The ids of the graph. `id_count` includes the devices that were put aside. #}
{% macro person_nodes() %}
    select
        ids.node,
        ids.project_id,
        ids.id_kind,
        ids.id,
        ids.first_seen_at,
        ids.is_seen,
        1 + coalesce(leaves.leaf_count, 0) as id_count
    from person_ids as ids
    left join person_leaves as leaves on ids.node = leaves.node
    where exists (select 1 from person_graph as edges where edges.a = ids.node)
{% endmacro %}
