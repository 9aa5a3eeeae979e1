{#
  Policy `graph`: the row's own user; else the device's last link, to a user or to another identifier, that begins within
  the lookback of the row, as under `latest`. A link counts for the person of its user or
  identifier (macros/graph). A link is cut, and skipped, if its id belongs to another person or to none.
  (Segment Unify and RudderStack: an identity graph, with limits and unique identifiers.)
#}
{% macro policy_graph(lookups, links) -%}
graph_evidence as (
    select
        project_id,
        anonymous_id,
        linked_at,
        link_last_seen_at,
        link_event_id,
        'user' as id_kind,
        link_person_id as id
    from {{ links }}
    union all
    select
        links.project_id,
        links.linked_id as anonymous_id,
        links.first_seen_at as linked_at,
        links.last_seen_at as link_last_seen_at,
        links.first_event_id as link_event_id,
        links.id_kind,
        links.id
    from {{ identifiers_in_force() }} as links
    where
        links.linked_kind = 'device'
        and exists (
            select 1 from {{ lookups }} as lookups
            where lookups.project_id = links.project_id and lookups.anonymous_id = links.linked_id
        )
),

-- A user and an e-mail address may be seen at one instant: they belong to one person, or one of them is skipped.
graph_links_of_persons as (
    select
        project_id,
        anonymous_id,
        person_id,
        linked_at,
        link_last_seen_at,
        link_event_id
    from (
        select
            evidence.project_id,
            evidence.anonymous_id,
            evidence.linked_at,
            evidence.link_event_id,
            devices.person_id,
            -- Links to several ids of a person overlap. An earlier one may last longer, and it is the same person's.
            max(evidence.link_last_seen_at) over (
                partition by evidence.project_id, evidence.anonymous_id
                order by evidence.linked_at
            ) as link_last_seen_at,
            row_number() over (
                partition by evidence.project_id, evidence.anonymous_id, evidence.linked_at
                order by evidence.link_event_id desc
            ) as position
        from graph_evidence as evidence
        inner join {{ ref('persons') }} as devices
            on
                evidence.project_id = devices.project_id
                and devices.id_kind = 'device'
                and evidence.anonymous_id = devices.id
        inner join {{ ref('persons') }} as ids
            on
                evidence.project_id = ids.project_id
                and evidence.id_kind = ids.id_kind
                and evidence.id = ids.id
                and devices.person_id = ids.person_id
    ) as ordered
    where position = 1
),

graph_candidates as (
    select
        {{ lookups }}.*,
        graph_links_of_persons.person_id as link_user_id,
        graph_links_of_persons.linked_at as candidate_linked_at,
        graph_links_of_persons.link_last_seen_at,
        graph_links_of_persons.link_event_id as candidate_event_id
    from {{ join_latest(
        lookups, 'graph_links_of_persons', ['project_id', 'anonymous_id'], 'last_link_at', 'linked_at'
    ) }}
),

-- Devices without a person: hubs, and devices between two persons. Devices that are connected with devices only are just
-- anonymous.
graph_shared_devices as (
    select distinct
        lookups.project_id,
        lookups.anonymous_id
    from {{ lookups }} as lookups
    inner join {{ ref('persons') }} as devices
        on
            lookups.project_id = devices.project_id
            and devices.id_kind = 'device'
            and lookups.anonymous_id = devices.id
    where devices.person_id is null and {{ is_not_of_devices_only('devices') }}
)
{%- endmacro %}

{% macro policy_graph_traits() %}{{ return({
        'keeps_own_user': true, 'resolves_persons': true, 'finds_shared_devices': true, 'takes_over': true
    }) }}{% endmacro %}

{% macro policy_graph_reasons() %}
    {{ return({
        'shared': [
            [
                'true',
                "'device is nobody''s under graph: it has too many users, is between two persons, or tied to nothing else'",
            ],
        ],
        'cut': [['true', "'cut: ' || candidate_user_id || ' is another person than the device''s under graph'"]],
        'decides': [
            ['true', "'decides: the last link on the device within the lookback, to the person ' || stitched_user_id"],
        ],
        'loses_within_window': [
            ['candidate_person_id is null', "'connected with the device, and has no user either'"],
            ['true', "'a later link on the device wins under graph'"],
        ],
    }) }}
{% endmacro %}
