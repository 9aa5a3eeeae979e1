{#
  Policy `next_identify`: the row's own user; else the next link that began after the row. What somebody
  does after logging out stays anonymous until the next login. (Jitsu replays the buffered events of an
  anonymous id when it is identified.)
#}
{% macro policy_next_identify(asks, links) -%}
{{ spells('next_identify_spells', links) }},

next_identify_candidates as (
    select
        {{ asks }}.*,
        next_identify_spells.after_user_id as link_user_id,
        next_identify_spells.after_day as link_day,
        next_identify_spells.after_linked_at as candidate_linked_at,
        next_identify_spells.after_event_id as candidate_event_id
    from {{ join_latest(
        asks, 'next_identify_spells', ['project_id', 'anonymous_id'], 'subject_at', 'since_at'
    ) }}
)
{%- endmacro %}
