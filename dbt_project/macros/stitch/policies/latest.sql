{#
  Policy `latest`: the user of the device's last link, if the link's day is at most lookback_days after the row's
  day. (Snowplow's user mapping: the latest user_id per identifier.)
#}
{% macro policy_latest(lookups, links) -%}
-- Only the last link of a day can be picked.
latest_links_of_days as (
    select
        project_id,
        anonymous_id,
        link_day,
        {{ last_known_by('link_user_id', 'linked_at') }} as link_user_id,
        {{ last_known_by('link_event_id', 'linked_at') }} as link_event_id,
        max(linked_at) as linked_at
    from {{ links }}
    group by project_id, anonymous_id, link_day
),

latest_candidates as (
    select
        {{ lookups }}.*,
        latest_links_of_days.link_user_id,
        latest_links_of_days.link_day,
        latest_links_of_days.linked_at as candidate_linked_at,
        latest_links_of_days.link_event_id as candidate_event_id
    from {{ join_latest(
        lookups, 'latest_links_of_days', ['project_id', 'anonymous_id'], 'last_link_day', 'link_day'
    ) }}
)
{%- endmacro %}

{% macro policy_latest_traits() %}{{ return({'takes_over': true}) }}{% endmacro %}

{% macro policy_latest_reasons() %}
    {{ return({
        'decides': [['true', "'decides: the last link on the device within the lookback'"]],
        'loses_within_window': [['true', "'a later link on the device wins under latest'"]],
    }) }}
{% endmacro %}
