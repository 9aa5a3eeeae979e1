{#
  Policy `first`: the user of the device's first link, whatever came later and whatever the row's own user.
  (Umami's identity links and PostHog's persons: whoever claims a device first keeps it.)
#}
{% macro policy_first(asks, links) -%}
first_links_of_devices as (
    select
        project_id,
        anonymous_id,
        {{ first_known_by('link_user_id', 'linked_at') }} as link_user_id,
        {{ first_known_by('link_event_id', 'linked_at') }} as link_event_id,
        min(link_day) as link_day,
        min(linked_at) as linked_at
    from {{ links }}
    group by project_id, anonymous_id
),

first_candidates as (
    select
        {{ asks }}.*,
        first_links_of_devices.link_user_id,
        first_links_of_devices.link_day,
        first_links_of_devices.linked_at as candidate_linked_at,
        first_links_of_devices.link_event_id as candidate_event_id
    from {{ asks }}
    left join first_links_of_devices
        on
            {{ asks }}.project_id = first_links_of_devices.project_id
            and {{ asks }}.anonymous_id = first_links_of_devices.anonymous_id
)
{%- endmacro %}
