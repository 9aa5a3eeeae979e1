{#
  The CTE `name`: each device's time, cut into intervals where its links begin, with the link that begins the interval
  (none before the first link) and the link that ends it (none after the last). So one lookup finds the links on both
  sides of a row.
#}
{% macro links_around(name, links) -%}
{{ name }} as (
    select
        project_id,
        anonymous_id,
        linked_at as since_at,
        link_last_seen_at as before_last_seen_at,
        link_user_id as before_user_id,
        link_event_id as before_event_id,
        lead(linked_at) over device_in_time as after_linked_at,
        lead(link_last_seen_at) over device_in_time as after_last_seen_at,
        lead(link_user_id) over device_in_time as after_user_id,
        lead(link_event_id) over device_in_time as after_event_id
    from (
        select
            project_id,
            anonymous_id,
            link_user_id,
            linked_at,
            link_last_seen_at,
            link_event_id
        from {{ links }}
        union all
        select distinct
            project_id,
            anonymous_id,
            cast(null as varchar) as link_user_id,
            {{ beginning_of_time() }} as linked_at,
            cast(null as timestamp) as link_last_seen_at,
            cast(null as varchar) as link_event_id
        from {{ links }}
    ) as beginnings
    window device_in_time as (
        partition by project_id, anonymous_id
        order by linked_at
    )
)
{%- endmacro %}
