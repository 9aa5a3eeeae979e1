{# One row per key among the partitions of the run, or in the whole table if it has no days. The search is by hash,
   because keys take several times as long, and by sorting, which takes a third of the time of grouping. #}
{% test unique_key(model, key, day=none) %}
{%- set rows -%} from {{ model }} {%- if day %} where {{ is_in_window(day) }}{% endif %} {%- endset -%}
with hashed as (
    select {{ hash_of(key) }} as key_hash
    {{ rows }}
),

sorted as (
    select
        key_hash,
        lag(key_hash) over (order by key_hash) as previous_hash
    from hashed
)

select {{ key | join(', ') }}, count(*) as row_count
{{ rows }}
{{ 'and' if day else 'where' }} {{ hash_of(key) }} in (select key_hash from sorted where key_hash = previous_hash)
group by {{ key | join(', ') }}
having count(*) > 1
{% endtest %}
