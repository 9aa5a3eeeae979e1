{#
  A policy is one file in macros/stitch/policies and one member of the Python enum `Policy`, which dbt gets as the
  variable `policies`. The file of the policy `p` has three macros.

  policy_p(lookups, links)
      Gives the CTE `p_candidates`: all columns of `lookups` (a device and a time, with the window within which a link
      counts) and the one link that the policy picks for each: link_user_id, candidate_linked_at,
      link_last_seen_at and candidate_event_id, all null for no link. `links` holds the links of these devices.

  policy_p_traits()
      The traits of the policy. A trait that is not named is false.
      keeps_own_user        a row's own user takes precedence over any link, as with the setting keep_own_user
      resolves_persons      links count for persons (models/identity/persons), and identifiers link as well
      takes_over            a later link may take rows over that an earlier link would have (macros/stitch/forgotten.sql)
      finds_shared_devices  policy_p also gives the CTE `p_shared_devices`: project_id and anonymous_id

  policy_p_reasons()
      The reasons that `stitching_reasons` gives for a link, by stage, in the order in which the stages are tried. Each
      is a pair of a condition and a text, in SQL over the columns of its CTE `compared`. The first pair of a stage that
      applies counts.
      shared               the policy found the device shared
      cut                  the link was cut, because it leads to another person
      decides              the link decides
      loses_before_window  another link wins, wherever the window lies
      loses_within_window  another link wins, and this one is within the window
#}

{# The policies, one row each. #}
{% macro all_policies() -%}
(
        {%- for name in var('policies') %}
        {{ 'union all' if not loop.first }}
        select '{{ name }}' as policy
        {%- endfor %}
    )
{%- endmacro %}

{# Whether a policy has a trait; `policy` is an expression. #}
{% macro has_trait(policy, trait) -%}
    {{ policy }} in (
        {%- for name in var('policies') if context['policy_' ~ name ~ '_traits']().get(trait) -%}
            '{{ name }}'{{ ', ' if not loop.last }}
        {%- endfor -%}
    )
{%- endmacro %}

{# Branches of a CASE: the reasons of each policy at a stage, for rows that meet `condition`. #}
{% macro reasons_of_policies(stage, condition='true') -%}
    {%- for name in var('policies') %}
    {%- for also, reason in context['policy_' ~ name ~ '_reasons']().get(stage, []) %}
            when policy = '{{ name }}' and {{ condition }} and {{ also }} then {{ reason }}
    {%- endfor %}
    {%- endfor %}
{%- endmacro %}

{# The CTEs with the candidates of all policies. A policy gets only lookups of projects that follow it, so a policy
   that no project follows costs nothing. #}
{% macro candidates_of_policies(lookups, links) -%}
{%- for name in var('policies') %}
{{ name }}_lookups as (
    select * from {{ lookups }}
    where policy = '{{ name }}'
),

{{ name }}_links as (
    select * from {{ links }} as links
    where exists (
        select 1 from {{ name }}_lookups as lookups
        where lookups.project_id = links.project_id and lookups.anonymous_id = links.anonymous_id
    )
),

{{ context['policy_' ~ name](name ~ '_lookups', name ~ '_links') }},
{% endfor %}
policy_candidates as (
    {%- for name in var('policies') %}
    {{ 'union all' if not loop.first }}
    select * from {{ name }}_candidates
    {%- endfor %}
)
{%- endmacro %}
