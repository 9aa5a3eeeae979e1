{#
  Who a row belongs to. Every table and view that credits rows to users comes through here, so that
  sessions, page views, events and the mapping cannot disagree.

  `subjects` names a CTE with project_id, anonymous_id, user_id (the row's own, or null), subject_day,
  subject_at and own_id (what the row is credited to when nobody is known). `switch` is the column of
  project_settings that says whether this grain is stitched.

  Gives the CTEs up to `stitched`: the columns of `subjects` and stitched_user_id, stitched_by, linked_at,
  link_event_id.

  Policy `latest`: the user of the last link whose day is not more than lookback_days after the row's day,
  unless that link is more than carry_forward_days before it. (Snowplow's user mapping: the latest user_id
  per identifier.)
#}
{% macro stitch(subjects, switch='is_stitched') %}
{%- set settings = pipeline_table('project_settings') %}
{%- set links = ref('identity_map') %}
policy_subjects as (
    select
        subjects.*,
        settings.{{ switch }} as is_stitched,
        settings.max_users_per_device,
        {{ days_later('subjects.subject_day', 'settings.lookback_days') }} as last_link_day,
        {{ days_later('subjects.subject_day', '-settings.carry_forward_days') }} as first_link_day
    from {{ subjects }} as subjects
    inner join {{ settings }} as settings on subjects.project_id = settings.project_id
),

policy_links as (
    select *
    from {{ links }} as links
    where exists (
        select 1 from policy_subjects as subjects
        where subjects.project_id = links.project_id and subjects.anonymous_id = links.anonymous_id
    )
),

-- The last link of each day is the only one of the day that `latest` can pick.
policy_last_links as (
    select
        project_id,
        anonymous_id,
        event_date as link_day,
        {{ last_known_by('user_id', 'first_seen_at') }} as link_user_id,
        {{ last_known_by('first_event_id', 'first_seen_at') }} as link_event_id,
        max(first_seen_at) as linked_at
    from policy_links
    group by project_id, anonymous_id, event_date
),

policy_crowded_devices as (
    select
        policy_links.project_id,
        policy_links.anonymous_id
    from policy_links
    inner join {{ settings }} as settings on policy_links.project_id = settings.project_id
    group by policy_links.project_id, policy_links.anonymous_id, settings.max_users_per_device
    having count(distinct policy_links.user_id) > settings.max_users_per_device
),

-- Counting users within the window is dear, so it is done for the few devices with many users only.
policy_shared_device_days as (
    select
        subjects.project_id,
        subjects.anonymous_id,
        subjects.subject_day
    from (
        select distinct
            policy_subjects.project_id,
            policy_subjects.anonymous_id,
            policy_subjects.subject_day,
            policy_subjects.first_link_day,
            policy_subjects.last_link_day,
            policy_subjects.max_users_per_device
        from policy_subjects
        inner join policy_crowded_devices
            on
                policy_subjects.project_id = policy_crowded_devices.project_id
                and policy_subjects.anonymous_id = policy_crowded_devices.anonymous_id
    ) as subjects
    inner join policy_links
        on
            subjects.project_id = policy_links.project_id
            and subjects.anonymous_id = policy_links.anonymous_id
            and policy_links.event_date between subjects.first_link_day and subjects.last_link_day
    group by subjects.project_id, subjects.anonymous_id, subjects.subject_day, subjects.max_users_per_device
    having count(distinct policy_links.user_id) > subjects.max_users_per_device
),

policy_candidates as (
    select
        policy_subjects.*,
        policy_last_links.link_user_id,
        policy_last_links.link_day,
        policy_last_links.linked_at as candidate_linked_at,
        policy_last_links.link_event_id as candidate_event_id
    from {{ join_latest(
        'policy_subjects', 'policy_last_links', ['project_id', 'anonymous_id'], 'last_link_day', 'link_day'
    ) }}
),

policy_rules as (
    select
        candidates.*,
        case
            -- Without a device there is nothing to stitch: the row is its own user's, or nobody's.
            when candidates.anonymous_id is null
                then case when candidates.user_id is null then 'none' else 'own' end
            when not candidates.is_stitched then 'off'
            when shared.project_id is not null
                then case when candidates.user_id is null then 'shared device' else 'own' end
            when candidates.link_user_id is null or candidates.link_day < candidates.first_link_day then 'none'
            when candidates.link_user_id = candidates.user_id then 'own'
            when candidates.candidate_linked_at <= candidates.subject_at then 'link before'
            else 'link after'
        end as rule,
        shared.project_id is not null as is_shared
    from policy_candidates as candidates
    left join policy_shared_device_days as shared
        on
            candidates.project_id = shared.project_id
            and candidates.anonymous_id = shared.anonymous_id
            and candidates.subject_day = shared.subject_day
),

stitched as (
    select
        policy_rules.*,
        case
            when rule in ('off', 'none', 'shared device') then own_id
            when rule = 'own' then user_id
            else link_user_id
        end as stitched_user_id,
        rule as stitched_by,
        case when is_by_link then candidate_linked_at end as linked_at,
        case when is_by_link then candidate_event_id end as link_event_id
    from (
        select
            policy_rules.*,
            anonymous_id is not null and not is_shared and rule in ('own', 'link before', 'link after') as is_by_link
        from policy_rules
    ) as policy_rules
)
{%- endmacro %}

{# The rule of a row that is written by a run that does not stitch. #}
{% macro rule_without_stitching(row) -%}
    case
        when {{ row }}.anonymous_id is not null then 'off'
        when {{ row }}.user_id is not null then 'own'
        else 'none'
    end
{%- endmacro %}
