{# A small table by which Python and the models tell each other what to do; Python creates it
   (`warehouse/schema.py`). It is no source, because it is nobody's data. #}
{% macro internal_table(name) -%}
    {{ target.schema }}.{{ name }}
{%- endmacro %}
