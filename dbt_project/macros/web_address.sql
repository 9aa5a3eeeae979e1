{# The host of an address with a scheme, without user and port. #}
{% macro host_of(url) -%}
    lower(split_part(split_part(split_part(split_part(split_part({{ url }}, '://', 2), '/', 1), '?', 1), '@', -1), ':', 1))
{%- endmacro %}

{# The end of a host that a site registers: two labels, or three where the second last is as short as that of `co.uk`.
   The list of public suffixes is not consulted, so it is a guess. #}
{% macro site_of(host) -%}
    case
        when {{ host }} like '%.%.%' and length(split_part({{ host }}, '.', -2)) <= 3
            then
                split_part({{ host }}, '.', -3) || '.' || split_part({{ host }}, '.', -2) || '.'
                || split_part({{ host }}, '.', -1)
        else split_part({{ host }}, '.', -2) || '.' || split_part({{ host }}, '.', -1)
    end
{%- endmacro %}

{# A field of a line of CSV. #}
{% macro csv_cell(text) -%} '"' || replace({{ text }}, '"', '""') || '"' {%- endmacro %}
