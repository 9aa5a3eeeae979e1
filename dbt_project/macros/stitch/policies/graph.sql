{#
  Policy `graph`: the row's own user; else the last link of the device, to a user or to another identifier, whose
  day is not more than lookback_days after the row's day, as under `latest`. Either counts for its person (see
  macros/persons.sql); a link to an id that is another person's, or nobody's, was cut and is passed over.
  (Segment Unify and RudderStack: an identity graph, with limits and unique identifiers.)
#}
{% macro policy_graph(asks, links) -%}
graph_evidence as (
    select
        project_id,
        anonymous_id,
        link_day,
        linked_at,
        link_event_id,
        'user' as id_kind,
        link_person_id as id
    from {{ links }}
    union all
    select
        links.project_id,
        links.linked_id as anonymous_id,
        links.event_date as link_day,
        links.first_seen_at as linked_at,
        links.first_event_id as link_event_id,
        links.id_kind,
        links.id
    from {{ identifiers_in_force() }} as links
    where
        links.linked_kind = 'device'
        and exists (
            select 1 from {{ asks }} as asks
            where asks.project_id = links.project_id and asks.anonymous_id = links.linked_id
        )
),

-- At one instant a user and an e-mail address may both be seen; they are one person's, or one of them is passed over.
graph_links_of_days as (
    select
        project_id,
        anonymous_id,
        person_id,
        link_day,
        linked_at,
        link_event_id
    from (
        select
            evidence.*,
            devices.person_id,
            row_number() over (
                partition by evidence.project_id, evidence.anonymous_id, evidence.link_day
                order by evidence.linked_at desc, evidence.link_event_id desc
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
        {{ asks }}.*,
        graph_links_of_days.person_id as link_user_id,
        graph_links_of_days.link_day,
        graph_links_of_days.linked_at as candidate_linked_at,
        graph_links_of_days.link_event_id as candidate_event_id
    from {{ join_latest(
        asks, 'graph_links_of_days', ['project_id', 'anonymous_id'], 'last_link_day', 'link_day'
    ) }}
),

-- Devices that are hubs, or that lie between two persons.
graph_shared_devices as (
    select distinct
        asks.project_id,
        asks.anonymous_id
    from {{ asks }} as asks
    inner join {{ ref('persons') }} as devices
        on
            asks.project_id = devices.project_id
            and devices.id_kind = 'device'
            and asks.anonymous_id = devices.id
    where devices.person_id is null
)
{%- endmacro %}
