{#
  The meaning of decisions (lines of overrides.csv), the same for every policy. Python reads and checks the file
  (`stitch_pipeline/settings/decisions.py`). The table `decisions` holds the consequences that are followed; `line`
  quotes the decision. By kind:

    same_person    a user (id) has the canonical id other_id instead of its own
    wrong_link     links between a device (id) and a user or identifier (other_id) do not count
    shared_device  a device (id) is shared, however few users it has
    same_device    a device (id) is counted as the device other_id; nothing is credited otherwise
    never_same     two canonical ids (id, other_id) name two persons: a device linked with both is shared
#}

{% macro decisions_of(kind, id, other_id=none) -%}
(
        select
            project_id,
            id as {{ id }},
            {% if other_id %}other_id as {{ other_id }},{% endif %}
            line
        from {{ internal_table('decisions') }} as decisions
        where kind = '{{ kind }}'
    )
{%- endmacro %}

{# The users with a canonical id other than their own, by decision. #}
{% macro decided_names() -%} {{ decisions_of('same_person', 'user_id', 'person_id') }} {%- endmacro %}

{% macro wrong_links() -%} {{ decisions_of('wrong_link', 'anonymous_id', 'user_id') }} {%- endmacro %}

{% macro shared_devices() -%} {{ decisions_of('shared_device', 'anonymous_id') }} {%- endmacro %}

{% macro same_devices() -%} {{ decisions_of('same_device', 'anonymous_id', 'first_anonymous_id') }} {%- endmacro %}

{% macro never_same() -%} {{ decisions_of('never_same', 'person_id', 'other_person_id') }} {%- endmacro %}

{# Canonical ids by decision, and canonical ids under `graph`. Under `graph`, links may tie the decided id to a person
   with another name: that name counts. #}
{% macro names_of_both_kinds() -%}
(
        select project_id, user_id, person_id, false as is_of_graph from {{ decided_names() }} as decided
        union all
        select project_id, user_id, person_id, true as is_of_graph from {{ graph_names() }} as of_graph
    )
{%- endmacro %}

{# The canonical ids that apply in each project: under `graph` where `is_of_graph` holds, elsewhere by decision. #}
{% macro person_names(is_of_graph="settings.policy = 'graph'") -%}
(
        select
            named.project_id,
            named.user_id,
            named.person_id
        from {{ names_of_both_kinds() }} as named
        inner join {{ project_settings() }} as settings on named.project_id = settings.project_id
        where named.is_of_graph = ({{ is_of_graph }})
    )
{%- endmacro %}

{# The identifier links that count. A decision on a wrong link names the identifier as `email:sam@example.com`, another
   device as `device:phone`, and of a previous id the id first and then the user. #}
{% macro identifiers_in_force() -%}
(
        select links.*
        from {{ ref('identifier_links') }} as links
        where not exists (
            select 1 from {{ wrong_links() }} as wrong
            where
                wrong.project_id = links.project_id
                and links.linked_kind = 'device'
                and wrong.anonymous_id = links.linked_id
                and wrong.user_id = links.id_kind || ':' || links.id
        )
        -- Looked up apart, because few links are of two ids of one kind.
        and not (
            links.id_kind = links.linked_kind
            and exists (
                select 1 from {{ wrong_links() }} as wrong
                where
                    wrong.project_id = links.project_id
                    and wrong.anonymous_id = links.id
                    and wrong.user_id = case when links.id_kind = 'device' then 'device:' else '' end || links.linked_id
            )
        )
    )
{%- endmacro %}

{# The links of the identity map that count, each with its person. #}
{% macro links_in_force(names=none) -%}
(
        select
            links.*,
            coalesce(names.person_id, links.user_id) as person_id
        from {{ ref('identity_map') }} as links
        left join {{ names or person_names() }} as names
            on links.project_id = names.project_id and links.user_id = names.user_id
        where not exists (
            select 1 from {{ wrong_links() }} as wrong
            where
                wrong.project_id = links.project_id
                and wrong.anonymous_id = links.anonymous_id
                and wrong.user_id = links.user_id
        )
    )
{%- endmacro %}

{# What users did in events without a device (models/marts/activity_without_device), each day with its person. A row that
   has no device is credited to its own user. #}
{% macro people_without_device() -%}
(
        select
            activity.*,
            coalesce(names.person_id, activity.user_id) as stitched_user_id
        from {{ ref('activity_without_device') }} as activity
        left join {{ person_names() }} as names
            on activity.project_id = names.project_id and activity.user_id = names.user_id
    )
{%- endmacro %}

{# The devices that are shared by decision, with the windows of the subjects for which they are. #}
{% macro windows_shared_by_decision(subjects, links) -%}
policy_contested_devices as (
    select
        one.project_id,
        one.anonymous_id,
        one.linked_at as one_linked_at,
        one.link_last_seen_at as one_last_seen_at,
        other.linked_at as other_linked_at,
        other.link_last_seen_at as other_last_seen_at,
        pairs.line
    from {{ never_same() }} as pairs
    inner join {{ links }} as one
        on pairs.project_id = one.project_id and pairs.person_id = one.link_person_id
    inner join {{ links }} as other
        on
            one.project_id = other.project_id
            and one.anonymous_id = other.anonymous_id
            and pairs.other_person_id = other.link_person_id
),

policy_windows_shared_by_decision as (
    select
        project_id,
        anonymous_id,
        first_link_at,
        last_link_at,
        min(line) as line
    from (
        select
            subjects.project_id,
            subjects.anonymous_id,
            subjects.first_link_at,
            subjects.last_link_at,
            decided.line
        from {{ subjects }} as subjects
        inner join {{ shared_devices() }} as decided
            on subjects.project_id = decided.project_id and subjects.anonymous_id = decided.anonymous_id
        union all
        select
            subjects.project_id,
            subjects.anonymous_id,
            subjects.first_link_at,
            subjects.last_link_at,
            contested.line
        from {{ subjects }} as subjects
        inner join policy_contested_devices as contested
            on
                subjects.project_id = contested.project_id
                and subjects.anonymous_id = contested.anonymous_id
                and {{ counts_for('contested.one_linked_at', 'contested.one_last_seen_at', 'subjects') }}
                and {{ counts_for('contested.other_linked_at', 'contested.other_last_seen_at', 'subjects') }}
    ) as windows
    group by project_id, anonymous_id, first_link_at, last_link_at
)
{%- endmacro %}
