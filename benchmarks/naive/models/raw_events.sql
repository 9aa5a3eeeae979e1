{#- A file holds one day. By `days`, a partition is replaced, so that a run can be repeated. By `new_files`, files that
    are not yet loaded are appended. -#}
{{ config(
    materialized='table' if env_var('NAIVE_MODE') == 'rebuild' else 'incremental',
    incremental_strategy='delete+insert',
    unique_key='event_date' if env_var('NAIVE_MODE') == 'days' else none,
) }}

{%- set directory = env_var('NAIVE_FILES') -%}
{%- set files = [directory ~ '/*.parquet'] -%}
{%- if execute and is_incremental() -%}
    {%- if env_var('NAIVE_MODE') == 'days' -%}
        {%- set is_wanted -%}
            parse_filename(file, true) between '{{ var("first_day") }}' and '{{ var("last_day") }}'
        {%- endset -%}
    {%- else -%}
        {%- set is_wanted -%} file not in (select distinct landing_file from {{ this }}) {%- endset -%}
    {%- endif -%}
    {%- set found = run_query("select file from glob('" ~ directory ~ "/*.parquet') where " ~ is_wanted) -%}
    {%- set files = found.columns[0].values() | list -%}
{%- endif %}

{% if files -%}
select
    'snowplow' as source,
    event_id,
    app_id as project_id,
    derived_tstamp as occurred_at,
    collector_tstamp as received_at,
    cast(derived_tstamp as date) as event_date,
    case event when 'page_view' then 'page' else 'track' end as event_type,
    platform,
    domain_userid as anonymous_id,
    user_id,
    page_url,
    page_urlpath as page_path,
    page_title,
    page_referrer as referrer,
    mkt_source as utm_source,
    mkt_medium as utm_medium,
    filename as landing_file,
    '{{ invocation_id if env_var("NAIVE_MODE") == "new_files" }}' as loaded_by
from read_parquet(
    [{% for file in files %}'{{ file }}'{% if not loop.last %}, {% endif %}{% endfor %}], filename = true
)
{%- else -%}
select * from {{ this }} limit 0
{%- endif %}
