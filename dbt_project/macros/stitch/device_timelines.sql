{#
  The stitched user that an anonymous row of a device would have, at every time. It is a step function of the row's
  time: it can change only where a link begins, where its lookback begins, and just after its carry forward ends. So
  `stitch` computes it once per step.

  Gives the CTEs up to `timelines`: one row per pending device and interval with one answer. Devices without a link that
  counts have no rows, unless they are shared by decision.
#}
{% macro device_timelines() -%}
timeline_links as (
    select
        links.project_id,
        links.anonymous_id,
        links.event_date,
        links.first_seen_at,
        links.last_seen_at,
        settings.lookback_days,
        settings.lookback_minutes,
        settings.carry_forward_days,
        settings.carry_forward_minutes
    from (
        select project_id, anonymous_id, event_date, first_seen_at, last_seen_at, true as is_of_user
        from {{ links_in_force() }} as of_users
        union all
        select
            project_id,
            linked_id as anonymous_id,
            event_date,
            first_seen_at,
            last_seen_at,
            false as is_of_user
        from {{ identifiers_in_force() }} as of_identifiers
        where linked_kind = 'device'
    ) as links
    inner join {{ project_settings() }} as settings on links.project_id = settings.project_id
    -- Identifiers link only where persons are resolved.
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
        case
            when lookback_minutes is null then cast({{ days_later('event_date', '-lookback_days') }} as timestamp)
            else {{ minutes_later('first_seen_at', '-lookback_minutes') }}
        end as step_at
    from timeline_links
    where lookback_minutes is not null or lookback_days < {{ unlimited_days() }}
    union
    select
        project_id,
        anonymous_id,
        case
            when carry_forward_minutes is null
                then cast({{ days_later('event_date', 'carry_forward_days + 1') }} as timestamp)
            -- At the edge itself the link still counts.
            else {{ minutes_later('last_seen_at', 'carry_forward_minutes') }} + {{ least_time() }}
        end as step_at
    from timeline_links
    where carry_forward_minutes is not null or carry_forward_days < {{ unlimited_days() }}
),

timeline_moments as (
    select
        project_id,
        anonymous_id,
        step_at as valid_from,
        step_at as subject_at
    from timeline_steps
    union all
    -- Before the first step the answer never changes. It is computed for the day before that step.
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

{# Whether two rows, given by their aliases, are the same interval with the same answer, whenever it was known. #}
{% macro is_same_interval(row, other) -%}
    {{ row }}.project_id = {{ other }}.project_id
    and {{ row }}.anonymous_id = {{ other }}.anonymous_id
    and {{ row }}.valid_from = {{ other }}.valid_from
    and {{ row }}.valid_until is not distinct from {{ other }}.valid_until
    and {{ row }}.stitched_user_id = {{ other }}.stitched_user_id
    and {{ row }}.stitched_by = {{ other }}.stitched_by
{%- endmacro %}

{# A time before any event. It stands for no beginning, because valid_from is in a key and cannot be null. #}
{% macro beginning_of_time() -%} cast('0001-01-01' as timestamp) {%- endmacro %}

{# The number of days that means unlimited: UNLIMITED_DAYS in stitch_pipeline/settings/rules.py. #}
{% macro unlimited_days() -%} 36500 {%- endmacro %}
