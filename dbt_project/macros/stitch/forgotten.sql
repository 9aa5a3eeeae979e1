{#
  Rows of forgotten users. The reading rule (`stitch_pipeline/landing/forgetting.py`) leaves a pseudonym in a link in place
  of the user. The link takes part in the policy as the user's did, and rows for which it decides stay with the device.
  So they never pass to another user: neither when the user is forgotten nor at the next login.

  A policy with the trait `takes_over` lets a later link take rows over that an earlier one would have. From a forgotten
  user it takes none: neither rows after the user's link and before the next link of anybody, nor rows before the user's
  link and within its lookback.
#}

{# Whether an id is a pseudonym (PREFIX in `stitch_pipeline/settings/forgotten.py`). #}
{% macro is_forgotten(id) -%} coalesce({{ id }} like 'forgotten:%', false) {%- endmacro %}

{# The CTEs up to `policy_held`: the lookups of rows that no link may take over. Without forgotten users all are empty. #}
{% macro held_lookups(lookups, links) -%}
policy_forgotten_devices as (
    select
        project_id,
        anonymous_id
    from {{ links }}
    where {{ is_forgotten('link_user_id') }}
    union
    select
        project_id,
        linked_id as anonymous_id
    from {{ ref('identifier_links') }}
    where linked_kind = 'device' and {{ is_forgotten('id') }}
),

-- Identifiers link only under a policy that resolves persons.
policy_beginnings as (
    select
        links.project_id,
        links.anonymous_id,
        kinds.counts_identifiers,
        links.linked_at as since_at,
        links.link_last_seen_at as last_seen_at,
        {{ is_forgotten('links.link_user_id') }} as is_forgotten
    from {{ links }} as links
    inner join policy_forgotten_devices as devices
        on links.project_id = devices.project_id and links.anonymous_id = devices.anonymous_id
    cross join (select false as counts_identifiers union all select true as counts_identifiers) as kinds
    union all
    select
        links.project_id,
        links.linked_id as anonymous_id,
        true as counts_identifiers,
        links.first_seen_at as since_at,
        links.last_seen_at,
        {{ is_forgotten('links.id') }} as is_forgotten
    from {{ identifiers_in_force() }} as links
    inner join policy_forgotten_devices as devices
        on links.project_id = devices.project_id and links.linked_id = devices.anonymous_id
    where links.linked_kind = 'device'
    union all
    select
        devices.project_id,
        devices.anonymous_id,
        kinds.counts_identifiers,
        {{ beginning_of_time() }} as since_at,
        cast(null as timestamp) as last_seen_at,
        false as is_forgotten
    from policy_forgotten_devices as devices
    cross join (select false as counts_identifiers union all select true as counts_identifiers) as kinds
),

policy_forgotten_around as (
    select
        project_id,
        anonymous_id,
        counts_identifiers,
        since_at,
        last_seen_at,
        is_forgotten,
        min(case when is_forgotten then since_at end) over (
            partition by project_id, anonymous_id, counts_identifiers
            order by since_at
            rows between 1 following and unbounded following
        ) as next_forgotten_at
    from (
        select
            project_id,
            anonymous_id,
            counts_identifiers,
            since_at,
            max(last_seen_at) as last_seen_at,
            max(case when is_forgotten then 1 else 0 end) = 1 as is_forgotten
        from policy_beginnings
        group by project_id, anonymous_id, counts_identifiers, since_at
    ) as beginnings
),

policy_takeovers as (
    select
        lookups.*,
        {{ has_trait('lookups.policy', 'resolves_persons') }} as counts_identifiers
    from {{ lookups }} as lookups
    inner join policy_forgotten_devices as devices
        on lookups.project_id = devices.project_id and lookups.anonymous_id = devices.anonymous_id
    where {{ has_trait('lookups.policy', 'takes_over') }}
),

policy_held as (
    select
        policy_takeovers.project_id,
        policy_takeovers.anonymous_id,
        policy_takeovers.subject_at,
        policy_takeovers.policy
    from {{ join_latest(
        'policy_takeovers', 'policy_forgotten_around', ['project_id', 'anonymous_id', 'counts_identifiers'],
        'subject_at', 'since_at'
    ) }}
    where
        (policy_forgotten_around.is_forgotten and policy_forgotten_around.last_seen_at >= policy_takeovers.first_link_at)
        or policy_forgotten_around.next_forgotten_at <= policy_takeovers.last_link_at
)
{%- endmacro %}
