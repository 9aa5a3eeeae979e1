{#
  Which events are evidence of identity. `events` is an alias of raw_events, with `settings` for the rules of its project.
#}

{# Whether the ids of an event may be linked: with `link_on: identify` only those of identify events, and of events that
   say outright which ids are one. #}
{% macro may_link(events) -%}
(
            settings.link_on = 'any'
            or {{ events }}.event_type = 'identify'
            or (
                {{ events }}.event_type in ('alias', 'merge')
                and ({{ events }}.previous_id is not null or {{ events }}.identifiers is not null)
            )
        )
{%- endmacro %}

{# The same for a row of forgotten_events, of which less is kept. #}
{% macro may_link_forgotten(events) -%}
({{ events }}.event_type in ('identify', 'alias', 'merge') or settings.link_on = 'any')
{%- endmacro %}

{# Whether an event names a previous id that is not the very id it is the same as. #}
{% macro has_previous_id(events) -%}
{{ events }}.previous_id is not null
        and {{ events }}.previous_id is distinct from coalesce({{ events }}.user_id, {{ events }}.anonymous_id)
{%- endmacro %}
