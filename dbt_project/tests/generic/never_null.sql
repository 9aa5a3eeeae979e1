{# No null in any of the columns, among the partitions of the run. #}
{% test never_null(model, columns, day=none) %}
select *
from {{ model }}
where
    ({% for column in columns %}{{ column }} is null{{ ' or ' if not loop.last }}{% endfor %})
    {% if day %}and {{ is_in_window(day) }}{% endif %}
{% endtest %}
