{#
  Policy `latest`: the user of the device's last link that begins within the lookback of the row. (Snowplow's user
  mapping: the latest user_id per identifier.)
#}
{% macro policy_latest(lookups, links) -%}
latest_candidates as (
    select
        {{ lookups }}.*,
        {{ links }}.link_user_id,
        {{ links }}.linked_at as candidate_linked_at,
        {{ links }}.link_last_seen_at,
        {{ links }}.link_event_id as candidate_event_id
    from {{ join_latest(lookups, links, ['project_id', 'anonymous_id'], 'last_link_at', 'linked_at') }}
)
{%- endmacro %}

{% macro policy_latest_traits() %}{{ return({'takes_over': true}) }}{% endmacro %}

{% macro policy_latest_reasons() %}
    {{ return({
        'decides': [['true', "'decides: the last link on the device within the lookback'"]],
        'loses_within_window': [['true', "'a later link on the device wins under latest'"]],
    }) }}
{% endmacro %}
