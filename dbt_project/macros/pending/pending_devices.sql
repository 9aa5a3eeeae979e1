{#
  The queue `pending_devices` (grain, project_id, anonymous_id, linked_on): devices that have to be looked at because their
  links, or the rules for them, changed. Each grain has a reader of its own: `sessions`, `page_views` and `mapping`
  (user_mapping_history). Rows without a device are queued as the device '' of their project; no device has this id,
  because a blank id is blocked. `linked_on` is the day of the earliest link that changed, and null if all rows of the
  device have to be looked at.

  Devices are added in the transaction that makes the change, and drained in the transaction of the reader.
#}

{# Queue devices, given as a query with (project_id, anonymous_id), for the readers of all grains or of some. `linked_on` is
   a column of the query. #}
{% macro add_pending_devices(devices, grains=['sessions', 'page_views', 'mapping'], linked_on='null') -%}
    insert into {{ internal_table('pending_devices') }} (grain, project_id, anonymous_id, linked_on)
    select
        grains.grain,
        devices.project_id,
        coalesce(devices.anonymous_id, '') as anonymous_id,
        cast({{ linked_on }} as date) as linked_on
    from ({{ devices }}) as devices
    cross join (
        {%- for grain in grains %}
        select '{{ grain }}' as grain {{- ' union all' if not loop.last }}
        {%- endfor %}
    ) as grains
    except select grain, project_id, anonymous_id, linked_on from {{ internal_table('pending_devices') }}
{%- endmacro %}

{# Remove the devices of a grain once its reader has looked at all of them. `keep` is a table (grain, project_id,
   anonymous_id) of devices that it has to look at again. #}
{% macro drain_pending_devices(grain, keep=none) -%}
    delete from {{ internal_table('pending_devices') }}
    where
        grain = '{{ grain }}'
        {%- if keep %}
        and (project_id, anonymous_id) not in (
            select kept.project_id, kept.anonymous_id from {{ keep }} as kept where kept.grain = '{{ grain }}'
        )
        {%- endif %}
{%- endmacro %}

{# Whether anything is queued for a grain. If not, planning the reader's query takes longer than all other work. #}
{% macro has_pending_devices(grain) -%}
    {{ return(has_rows(internal_table('pending_devices') ~ " where grain = '" ~ grain ~ "'")) }}
{%- endmacro %}

{# The first day on which a row may be credited otherwise because of the devices that are queued for a grain, or none if it
   can be any day. A link counts for no row more than the lookback before it (macros/stitch/windows.sql), so a link that
   came, went or changed decides no earlier row. Where a policy resolves persons, a link ties ids together at any time. #}
{% macro first_day_reached(grain) %}
    {%- set lookback -%}
    coalesce(settings.lookback_days, cast(ceil(settings.lookback_minutes / 1440.0) as integer))
    {%- endset -%}
    {%- set found -%}
    select cast(case when count(*) = count(reached.day) then min(reached.day) end as varchar) as first_day
    from (
        select
            case
                when not settings.resolves_persons
                    then {{ days_later('pending.linked_on', '-' ~ lookback) }}
            end as day
        from {{ internal_table('pending_devices') }} as pending
        left join {{ internal_table('project_settings') }} as settings on pending.project_id = settings.project_id
        where pending.grain = '{{ grain }}'
    ) as reached
    {%- endset -%}
    {{ return(run_query(found).rows[0][0]) }}
{% endmacro %}

{# Whether a row's device is queued for a grain. #}
{% macro is_pending_device(grain, row) -%} {{ is_listed(row, 'anonymous_id', queued_devices(grain)) }} {%- endmacro %}

{% macro queued_devices(grain) -%}
    (select project_id, anonymous_id as id from {{ internal_table('pending_devices') }} where grain = '{{ grain }}')
{%- endmacro %}

{# Rows of queued devices that meet a condition. Page views without a device are queued as the device ''; a session
   always has a device. #}
{% macro rows_of_pending_devices(relation, grain, condition) -%}
    (
        select * from {{ rows_with_ids(relation, 'anonymous_id', queued_devices(grain)) }} as of_device
        where {{ condition }} and {{ is_pending_device(grain, 'of_device') }}
        {%- if grain == 'page_views' %}
        union all
        select * from {{ relation }} as of_no_device
        where
            {{ condition }}
            and of_no_device.anonymous_id is null
            and of_no_device.project_id in (
                select project_id from {{ internal_table('pending_devices') }}
                where grain = '{{ grain }}' and anonymous_id = ''
            )
        {%- endif %}
    )
{%- endmacro %}
