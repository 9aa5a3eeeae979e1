{#- Built again from the day before the run's days, so that a session which ran past midnight is completed. -#}
{{ config(
    materialized='table' if env_var('NAIVE_MODE') == 'rebuild' else 'incremental',
    incremental_strategy='delete+insert',
    unique_key='session_date',
) }}

with events as (
    select * from {{ ref('raw_events') }}
    where {{ is_day_of_run('event_date', before=2, after=1) }}
),

with_previous as (
    select
        *,
        lag(occurred_at) over (partition by project_id, anonymous_id order by occurred_at) as previous_at
    from events
),

numbered as (
    select
        *,
        sum(case when occurred_at - previous_at < interval 30 minutes then 0 else 1 end) over (
            partition by project_id, anonymous_id
            order by occurred_at
            rows unbounded preceding
        ) as session_number
    from with_previous
),

sessions as (
    select
        project_id,
        anonymous_id,
        arg_max(user_id, occurred_at) as user_id,
        md5(arg_min(event_id, occurred_at)) as session_id,
        cast(min(occurred_at) as date) as session_date,
        min(occurred_at) as started_at,
        max(occurred_at) as ended_at,
        count(*) as event_count,
        count(*) filter (event_type = 'page') as page_view_count,
        arg_min(page_path, occurred_at) filter (event_type = 'page') as first_page_path,
        arg_max(page_path, occurred_at) filter (event_type = 'page') as last_page_path,
        arg_min_null(referrer, occurred_at) as referrer,
        arg_min_null(utm_source, occurred_at) as utm_source,
        arg_min_null(utm_medium, occurred_at) as utm_medium,
        arg_min_null(platform, occurred_at) as platform
    from numbered
    group by project_id, anonymous_id, session_number
)

select * from sessions
where {{ is_day_of_run('session_date', before=1) }}
