{#
  Whose an anonymous row of a device would be, at every time: the policies' answer is a step function of the
  row's time, and `stitch` is asked once per step. It can change only where a link begins, on the first day
  that a link's lookback reaches, and on the day after its carry-forward.

  Gives the CTEs up to `timelines`: one row per pending device and span of time in which the answer is the same.
  Devices without a link that counts have none.
#}
{% macro device_timelines() -%}
timeline_links as (
    select
        links.project_id,
        links.anonymous_id,
        links.event_date,
        links.first_seen_at,
        settings.lookback_days,
        settings.carry_forward_days
    from (
        select project_id, anonymous_id, event_date, first_seen_at, true as is_of_user
        from {{ links_in_force() }} as of_users
        union all
        select project_id, linked_id as anonymous_id, event_date, first_seen_at, false as is_of_user
        from {{ identifiers_in_force() }} as of_identifiers
        where linked_kind = 'device'
    ) as links
    inner join {{ project_settings() }} as settings on links.project_id = settings.project_id
    -- Policy `graph` goes by further identifiers as well.
    where (links.is_of_user or settings.resolves_persons) and {{ is_pending_device('mapping', 'links') }}
),

timeline_steps as (
    select
        project_id,
        anonymous_id,
        first_seen_at as step_at
    from timeline_links
    union
    select
        project_id,
        anonymous_id,
        cast({{ days_later('event_date', '-lookback_days') }} as timestamp) as step_at
    from timeline_links
    where lookback_days < {{ unlimited_days() }}
    union
    select
        project_id,
        anonymous_id,
        cast({{ days_later('event_date', 'carry_forward_days + 1') }} as timestamp) as step_at
    from timeline_links
    where carry_forward_days < {{ unlimited_days() }}
),

timeline_moments as (
    select
        project_id,
        anonymous_id,
        step_at as valid_from,
        step_at as subject_at
    from timeline_steps
    union all
    -- Before the first step the answer is always the same: it is asked for the day before.
    select
        project_id,
        anonymous_id,
        {{ beginning_of_time() }} as valid_from,
        cast({{ days_later('min(cast(step_at as date))', -1) }} as timestamp) as subject_at
    from timeline_steps
    group by project_id, anonymous_id
    union all
    -- Without a link that counts, a device may still be shared by decision.
    select
        devices.project_id,
        devices.anonymous_id,
        {{ beginning_of_time() }} as valid_from,
        {{ beginning_of_time() }} as subject_at
    from {{ shared_devices() }} as devices
    where
        {{ is_pending_device('mapping', 'devices') }}
        and not exists (
            select 1 from timeline_links as links
            where links.project_id = devices.project_id and links.anonymous_id = devices.anonymous_id
        )
),

timeline_subjects as (
    select
        project_id,
        anonymous_id,
        cast(null as varchar) as user_id,
        cast(subject_at as date) as subject_day,
        subject_at,
        anonymous_id as own_id,
        valid_from
    from timeline_moments
),

{{ stitch('timeline_subjects') }},

timeline_answers as (
    select
        project_id,
        anonymous_id,
        stitched_user_id,
        stitched_by,
        valid_from,
        lag(stitched_user_id) over device_in_time as previous_user_id,
        lag(stitched_by) over device_in_time as previous_rule
    from stitched
    window device_in_time as (
        partition by project_id, anonymous_id
        order by valid_from
    )
),

timelines as (
    select
        project_id,
        anonymous_id,
        case when {{ is_of_a_user() }} then stitched_user_id end as user_id,
        stitched_user_id,
        stitched_by,
        valid_from,
        lead(valid_from) over (
            partition by project_id, anonymous_id
            order by valid_from
        ) as valid_until
    from timeline_answers
    where
        stitched_user_id is distinct from previous_user_id
        or stitched_by is distinct from previous_rule
)
{%- endmacro %}

{# The same two spans, of rows that are called so; known_since and known_until aside. #}
{% macro is_same_interval(row, other) -%}
    {{ row }}.project_id = {{ other }}.project_id
    and {{ row }}.anonymous_id = {{ other }}.anonymous_id
    and {{ row }}.valid_from = {{ other }}.valid_from
    and {{ row }}.valid_until is not distinct from {{ other }}.valid_until
    and {{ row }}.stitched_user_id = {{ other }}.stitched_user_id
    and {{ row }}.stitched_by = {{ other }}.stitched_by
{%- endmacro %}

{# Before any event. A row's key cannot be null. #}
{% macro beginning_of_time() -%} cast('0001-01-01' as timestamp) {%- endmacro %}

{# What `null` (unlimited) means as a number of days; see warehouse/schema.py. #}
{% macro unlimited_days() -%} 36500 {%- endmacro %}
