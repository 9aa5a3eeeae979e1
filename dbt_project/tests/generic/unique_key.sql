{# One row per key among the partitions of the run; among all rows where the table has no day. #}
{% test unique_key(model, key, day=none) %}
select {{ key | join(', ') }}, count(*) as row_count
from {{ model }}
{% if day %}where {{ is_in_window(day) }}{% endif %}
group by {{ key | join(', ') }}
having count(*) > 1
{% endtest %}
