{#
  Policy `next_identify`: the row's own user; else the next link that began after the row. After a logout, rows stay
  anonymous until the next login. (Jitsu replays the buffered events of an anonymous id when it is identified.)
#}
{% macro policy_next_identify(lookups, links) -%}
{{ links_around('next_identify_around', links) }},

next_identify_candidates as (
    select
        {{ lookups }}.*,
        next_identify_around.after_user_id as link_user_id,
        next_identify_around.after_linked_at as candidate_linked_at,
        next_identify_around.after_last_seen_at as link_last_seen_at,
        next_identify_around.after_event_id as candidate_event_id
    from {{ join_latest(
        lookups, 'next_identify_around', ['project_id', 'anonymous_id'], 'subject_at', 'since_at'
    ) }}
)
{%- endmacro %}

{% macro policy_next_identify_traits() %}{{ return({'keeps_own_user': true}) }}{% endmacro %}

{% macro policy_next_identify_reasons() %}
    {{ return({
        'decides': [['true', "'decides: the next link after the row'"]],
        'loses_before_window': [
            ['candidate_at <= subject_at', "'began at or before the row: next_identify looks ahead only'"],
        ],
        'loses_within_window': [['true', "'an earlier link after the row wins under next_identify'"]],
    }) }}
{% endmacro %}
