{#
  Policy `first`: the user of the device's first link, whatever links follow. (The first user to claim a device keeps
  it, as in PostHog's and Mixpanel's persons, where in addition a row's own user goes first, as the setting keep_own_user says.)
#}
{% macro policy_first(lookups, links) -%}
first_links_of_devices as (
    select
        project_id,
        anonymous_id,
        {{ first_known_by('link_user_id', 'linked_at') }} as link_user_id,
        {{ first_known_by('link_event_id', 'linked_at') }} as link_event_id,
        {{ first_known_by('link_last_seen_at', 'linked_at') }} as link_last_seen_at,
        min(linked_at) as linked_at
    from {{ links }}
    group by project_id, anonymous_id
),

first_candidates as (
    select
        {{ lookups }}.*,
        first_links_of_devices.link_user_id,
        first_links_of_devices.linked_at as candidate_linked_at,
        first_links_of_devices.link_last_seen_at,
        first_links_of_devices.link_event_id as candidate_event_id
    from {{ lookups }}
    left join first_links_of_devices
        on
            {{ lookups }}.project_id = first_links_of_devices.project_id
            and {{ lookups }}.anonymous_id = first_links_of_devices.anonymous_id
)
{%- endmacro %}

{% macro policy_first_traits() %}{{ return({}) }}{% endmacro %}

{% macro policy_first_reasons() %}
    {{ return({
        'decides': [['true', "'decides: the first link on the device'"]],
        'loses_before_window': [['not is_picked', "'an earlier link on the device wins under first'"]],
        'loses_within_window': [['true', "'an earlier link after the row wins under first'"]],
    }) }}
{% endmacro %}
