{#
  Policy `device_split`: the row's own user; else the last link that began at or before the row, unless
  carry_forward_days have gone by; else the next link that began after it. (Adobe's device-split stitching,
  Amplitude's users on shared devices: a device is split among its users in time.)
#}
{% macro policy_device_split(asks, links) -%}
{{ spells('device_split_spells', links) }},

device_split_candidates as (
    select
        {{ asks }}.*,
        case
            when device_split_spells.before_day >= {{ asks }}.first_link_day then device_split_spells.before_user_id
            else device_split_spells.after_user_id
        end as link_user_id,
        case
            when device_split_spells.before_day >= {{ asks }}.first_link_day then device_split_spells.before_day
            else device_split_spells.after_day
        end as link_day,
        case
            when device_split_spells.before_day >= {{ asks }}.first_link_day then device_split_spells.since_at
            else device_split_spells.after_linked_at
        end as candidate_linked_at,
        case
            when device_split_spells.before_day >= {{ asks }}.first_link_day then device_split_spells.before_event_id
            else device_split_spells.after_event_id
        end as candidate_event_id
    from {{ join_latest(
        asks, 'device_split_spells', ['project_id', 'anonymous_id'], 'subject_at', 'since_at'
    ) }}
)
{%- endmacro %}

{# The time of each device, cut where its links begin: in each spell the link that began it (none in the
   first) and the link that ends it (none in the last). So one look-up finds a row's neighbours. #}
{% macro spells(name, links) -%}
{{ name }} as (
    select
        project_id,
        anonymous_id,
        linked_at as since_at,
        link_day as before_day,
        link_user_id as before_user_id,
        link_event_id as before_event_id,
        lead(linked_at) over device_in_time as after_linked_at,
        lead(link_day) over device_in_time as after_day,
        lead(link_user_id) over device_in_time as after_user_id,
        lead(link_event_id) over device_in_time as after_event_id
    from (
        select
            project_id,
            anonymous_id,
            link_user_id,
            link_day,
            linked_at,
            link_event_id
        from {{ links }}
        union all
        select distinct
            project_id,
            anonymous_id,
            cast(null as varchar) as link_user_id,
            cast(null as date) as link_day,
            {{ since_ever() }} as linked_at,
            cast(null as varchar) as link_event_id
        from {{ links }}
    ) as beginnings
    window device_in_time as (
        partition by project_id, anonymous_id
        order by linked_at
    )
)
{%- endmacro %}
