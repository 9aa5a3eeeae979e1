{#
  A table by name, without an edge in dbt's graph. Mostly an internal control table, which is not a dbt source and which
  Python creates (`stitch_pipeline/warehouse/tables.py`). Also a model that a macro reads before or after dbt builds it.
#}
{% macro internal_table(name) -%}
    {{ target.schema }}.{{ name }}
{%- endmacro %}
