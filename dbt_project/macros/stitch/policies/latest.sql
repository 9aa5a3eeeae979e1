{#
  Policy `latest`: the user of the device's last link whose day is not more than lookback_days after the
  row's day. The row's own user does not matter. (Snowplow's user mapping: the latest user_id per identifier.)
#}
{% macro policy_latest(asks, links) -%}
-- The last link of each day is the only one of the day that can be picked.
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
        {{ asks }}.*,
        latest_links_of_days.link_user_id,
        latest_links_of_days.link_day,
        latest_links_of_days.linked_at as candidate_linked_at,
        latest_links_of_days.link_event_id as candidate_event_id
    from {{ join_latest(
        asks, 'latest_links_of_days', ['project_id', 'anonymous_id'], 'last_link_day', 'link_day'
    ) }}
)
{%- endmacro %}
