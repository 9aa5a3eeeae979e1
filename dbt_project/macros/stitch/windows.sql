{#
  The window of a row: the span of time within which a link counts for it. Lookback and carry forward are each a number
  of UTC days (columns …_days) or, exact to the microsecond, of minutes (columns …_minutes); the other column is null.

  A link counts if it began at or before `last_link_at` and its last event is not before `first_link_at`. Both are
  times, edges included. With days they are the first and the last moment of a day, and because a link lies within one
  day, all links of that day count or none does.
#}

{% macro first_link_at(subject, settings) -%}
    case
        when {{ settings }}.carry_forward_minutes is null
            then cast({{ days_later(subject ~ '.subject_day', '-' ~ settings ~ '.carry_forward_days') }} as timestamp)
        else {{ minutes_later(subject ~ '.subject_at', '-' ~ settings ~ '.carry_forward_minutes') }}
    end
{%- endmacro %}

{% macro last_link_at(subject, settings) -%}
    case
        when {{ settings }}.lookback_minutes is null
            then
                cast({{ days_later(subject ~ '.subject_day', settings ~ '.lookback_days + 1') }} as timestamp)
                - {{ least_time() }}
        else {{ minutes_later(subject ~ '.subject_at', settings ~ '.lookback_minutes') }}
    end
{%- endmacro %}

{# Whether a link counts for a row with these two columns. #}
{% macro counts_for(linked_at, last_seen_at, row) -%}
    {{ linked_at }} <= {{ row }}.last_link_at and {{ last_seen_at }} >= {{ row }}.first_link_at
{%- endmacro %}

{# The least difference of two times. #}
{% macro least_time() -%} interval '1 microsecond' {%- endmacro %}

{# A lookback or carry forward in words. #}
{% macro duration_text(days, minutes) -%}
    case
        when {{ minutes }} is null then {{ days }} || ' day' || case when {{ days }} = 1 then '' else 's' end
        when {{ minutes }} = 60 then '1 hour'
        when {{ minutes }} = 1 then '1 minute'
        when {{ minutes }} > 0 and {{ minutes }} % 60 = 0 then cast({{ minutes }} / 60 as integer) || ' hours'
        else {{ minutes }} || ' minutes'
    end
{%- endmacro %}
