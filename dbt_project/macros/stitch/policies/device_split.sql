{#
  Policy `device_split`: the row's own user; else the last link that began at or before the row, if it is at most
  carry_forward_days old; else the next link that began after the row. (Adobe's device-split stitching, Amplitude's
  users on shared devices: a device's time is divided among its users.)
#}
{% macro policy_device_split(lookups, links) -%}
{{ links_around('device_split_around', links) }},

device_split_candidates as (
    select
        {{ lookups }}.*,
        case
            when device_split_around.before_last_seen_at >= {{ lookups }}.first_link_at then device_split_around.before_user_id
            else device_split_around.after_user_id
        end as link_user_id,
        case
            when device_split_around.before_last_seen_at >= {{ lookups }}.first_link_at then device_split_around.since_at
            else device_split_around.after_linked_at
        end as candidate_linked_at,
        case
            when device_split_around.before_last_seen_at >= {{ lookups }}.first_link_at
                then device_split_around.before_last_seen_at
            else device_split_around.after_last_seen_at
        end as link_last_seen_at,
        case
            when device_split_around.before_last_seen_at >= {{ lookups }}.first_link_at then device_split_around.before_event_id
            else device_split_around.after_event_id
        end as candidate_event_id
    from {{ join_latest(
        lookups, 'device_split_around', ['project_id', 'anonymous_id'], 'subject_at', 'since_at'
    ) }}
)
{%- endmacro %}

{% macro policy_device_split_traits() %}{{ return({'keeps_own_user': true}) }}{% endmacro %}

{% macro policy_device_split_reasons() %}
    {{ return({
        'decides': [
            ['candidate_at <= subject_at', "'decides: the last link at or before the row'"],
            ['true', "'decides: the next link after the row'"],
        ],
        'loses_within_window': [
            ['candidate_at <= subject_at', "'a later link at or before the row wins under device_split'"],
            [
                'candidate_event_id is not null and candidate_linked_at <= subject_at',
                "'a link at or before the row goes first under device_split'",
            ],
            ['true', "'an earlier link after the row wins under device_split'"],
        ],
    }) }}
{% endmacro %}
