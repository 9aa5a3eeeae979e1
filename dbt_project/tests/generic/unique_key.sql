{# One row per key among the partitions of the run; among all rows where the table has no day. Sought by hash first,
   because keys by themselves take three times as long to group. #}
{% test unique_key(model, key, day=none) %}
{%- set rows -%} from {{ model }} {%- if day %} where {{ is_in_window(day) }}{% endif %} {%- endset -%}
select {{ key | join(', ') }}, count(*) as row_count
{{ rows }}
{{ 'and' if day else 'where' }} {{ hash_of(key) }} in (
    select {{ hash_of(key) }} {{ rows }} group by {{ hash_of(key) }} having count(*) > 1
)
group by {{ key | join(', ') }}
having count(*) > 1
{% endtest %}
