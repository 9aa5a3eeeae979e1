{#
  Who a row belongs to. Every table and view that credits rows to users comes through here, so that
  sessions, page views, events and the mapping cannot disagree.

  `subjects` names a CTE with project_id, anonymous_id, user_id (the row's own, or null), subject_day,
  subject_at and own_id (what the row is credited to when nobody is known). `switch` says whether a row is
  stitched at all: by default a column of project_settings. `policy` is the expression that names the
  policy of a row: what project_settings says, or, to see what another policy would give, a column of the
  subjects.

  Gives the CTEs up to `stitched`: the columns of `subjects` and stitched_user_id, stitched_by, linked_at,
  link_event_id, policy.

  A policy is one macro in macros/policies. It is given what it is asked (devices and times, with the window
  within which a link counts) and the links of the devices, and gives the CTE `<policy>_candidates`: the
  columns of what is asked and the one link that it picks for each (link_user_id, link_day,
  candidate_linked_at, candidate_event_id, all null for no link); `graph` also says which devices are nobody's.
  That a link counts only within the window, that a row's own user may go before any link, that a shared
  device's rows are nobody's, that stitching may be off, and what people have decided (macros/overrides.sql) is
  the same for all policies and said here. A new policy is a macro there and a few lines here; rows of projects
  with other policies do not reach it, so a policy that nobody uses costs nothing.
#}
{% macro stitch(subjects, switch='settings.is_stitched', policy='settings.policy') %}
{%- set settings = pipeline_table('project_settings') %}
{%- set is_of_known_device -%}
    {{ hash_of(['subjects.project_id', 'subjects.anonymous_id']) }} in (select device_hash from policy_known_devices)
{%- endset %}
-- By hash, which DuckDB 2.0 looks up in a fraction of the time. A device whose hash is that of another one is asked too,
-- and has no link.
policy_known_devices as (
    select {{ hash_of(['project_id', 'anonymous_id']) }} as device_hash
    from {{ ref('identity_map') }}
    union all
    select {{ hash_of(['project_id', 'linked_id']) }} as device_hash
    from {{ ref('identifier_links') }}
    where linked_kind = 'device'
    union all
    select {{ hash_of(['project_id', 'anonymous_id']) }} as device_hash
    from {{ pipeline_table('shared_devices') }}
),

policy_subjects as (
    {{ with_settings(subjects, switch, policy) }}
    -- Not as `is_listed`: for each further condition DuckDB 2.0 expects fewer rows, and in the end next to none.
    where {{ is_of_known_device }}
),

-- Most rows are of devices that nobody ever logged in on: they are asked nothing, and pass by all that follows.
policy_unasked as (
    {{ with_settings(subjects, switch, policy) }}
    -- Not as `not exists`: DuckDB 2.0 would gather all these rows to look among them.
    where not coalesce({{ is_of_known_device }}, false)
),

-- The others are asked once per device and time, without the columns that the answer does not depend on.
policy_asks as (
    select distinct
        subjects.project_id,
        subjects.anonymous_id,
        subjects.subject_day,
        subjects.subject_at,
        subjects.policy,
        subjects.max_users_per_device,
        subjects.last_link_day,
        subjects.first_link_day
    from policy_subjects as subjects
),

-- A person is here whom people have decided on: what `graph` makes of persons is its own answer.
policy_links as (
    select
        links.project_id,
        links.anonymous_id,
        links.user_id as link_user_id,
        links.person_id as link_person_id,
        links.event_date as link_day,
        links.first_seen_at as linked_at,
        links.first_event_id as link_event_id
    from {{ links_in_force(decided_names()) }} as links
    where exists (
        select 1 from policy_asks as asks
        where asks.project_id = links.project_id and asks.anonymous_id = links.anonymous_id
    )
),

{{ rows_of_policy('latest') }},

{{ policy_latest('latest_asks', 'latest_links') }},

{{ rows_of_policy('first') }},

{{ policy_first('first_asks', 'first_links') }},

{{ rows_of_policy('device_split') }},

{{ policy_device_split('device_split_asks', 'device_split_links') }},

{{ rows_of_policy('next_identify') }},

{{ policy_next_identify('next_identify_asks', 'next_identify_links') }},

{{ rows_of_policy('graph') }},

{{ policy_graph('graph_asks', 'graph_links') }},

policy_candidates as (
    select * from latest_candidates
    union all
    select * from first_candidates
    union all
    select * from device_split_candidates
    union all
    select * from next_identify_candidates
    union all
    select * from graph_candidates
),

policy_crowded_devices as (
    select
        policy_links.project_id,
        policy_links.anonymous_id
    from policy_links
    inner join {{ settings }} as settings on policy_links.project_id = settings.project_id
    group by policy_links.project_id, policy_links.anonymous_id, settings.max_users_per_device
    having count(distinct policy_links.link_person_id) > settings.max_users_per_device
),

{{ days_shared_by_decision('policy_asks', 'policy_links') }},

-- Counting users within the window is dear, so it is done for the few devices with many users only.
policy_shared_device_days as (
    select
        subjects.project_id,
        subjects.anonymous_id,
        subjects.subject_day
    from (
        select distinct
            policy_asks.project_id,
            policy_asks.anonymous_id,
            policy_asks.subject_day,
            policy_asks.first_link_day,
            policy_asks.last_link_day,
            policy_asks.max_users_per_device
        from policy_asks
        inner join policy_crowded_devices
            on
                policy_asks.project_id = policy_crowded_devices.project_id
                and policy_asks.anonymous_id = policy_crowded_devices.anonymous_id
    ) as subjects
    inner join policy_links
        on
            subjects.project_id = policy_links.project_id
            and subjects.anonymous_id = policy_links.anonymous_id
            and policy_links.link_day between subjects.first_link_day and subjects.last_link_day
    group by subjects.project_id, subjects.anonymous_id, subjects.subject_day, subjects.max_users_per_device
    having count(distinct policy_links.link_person_id) > subjects.max_users_per_device
    union
    select
        project_id,
        anonymous_id,
        subject_day
    from policy_days_shared_by_decision
),

policy_answers as (
    select
        subjects.*,
        candidates.link_user_id,
        candidates.link_day,
        candidates.candidate_linked_at,
        candidates.candidate_event_id,
        shared.project_id is not null or graph_shared.project_id is not null as is_on_shared_device
    from policy_subjects as subjects
    left join policy_candidates as candidates
        on
            subjects.project_id = candidates.project_id
            and subjects.anonymous_id = candidates.anonymous_id
            and subjects.subject_day = candidates.subject_day
            and subjects.subject_at = candidates.subject_at
            and subjects.policy = candidates.policy
    left join policy_shared_device_days as shared
        on
            subjects.project_id = shared.project_id
            and subjects.anonymous_id = shared.anonymous_id
            and subjects.subject_day = shared.subject_day
    left join graph_shared_devices as graph_shared
        on
            subjects.policy = 'graph'
            and subjects.project_id = graph_shared.project_id
            and subjects.anonymous_id = graph_shared.anonymous_id
    union all
    select
        subjects.*,
        null as link_user_id,
        null as link_day,
        null as candidate_linked_at,
        null as candidate_event_id,
        false as is_on_shared_device
    from policy_unasked as subjects
),

policy_rules as (
    select
        *,
        case
            -- Without a device there is nothing to stitch: the row is its own user's, or nobody's.
            when anonymous_id is null then case when user_id is null then 'none' else 'own' end
            when not is_stitched then 'off'
            when is_on_shared_device then case when user_id is null then 'shared device' else 'own' end
            when keeps_own_user and user_id is not null then 'own'
            when link_user_id is null then 'none'
            when link_day not between first_link_day and last_link_day then 'none'
            when link_user_id = user_id then 'own'
            when candidate_linked_at <= subject_at then 'link before'
            else 'link after'
        end as rule,
        anonymous_id is not null
        and not is_on_shared_device
        and not (keeps_own_user and user_id is not null) as is_asked_of_links
    from policy_answers
),

-- Whoever a row is credited to is at last called as the person is: the only place where ids are exchanged.
policy_names as (
    select * from {{ names_of_both_kinds() }} as names
),

stitched as (
    select
        credited.*,
        case
            when credited.rule in ('off', 'none', 'shared device') then credited.own_id
            else coalesce(names.person_id, credited.credited_user_id)
        end as stitched_user_id,
        credited.rule as stitched_by,
        case when credited.is_by_link then credited.candidate_linked_at end as linked_at,
        case when credited.is_by_link then credited.candidate_event_id end as link_event_id
    from (
        select
            policy_rules.*,
            case
                when rule = 'own' then user_id
                when rule in ('link before', 'link after') then link_user_id
            end as credited_user_id,
            is_asked_of_links and {{ is_of_a_user('rule') }} as is_by_link
        from policy_rules
    ) as credited
    left join policy_names as names
        on
            credited.project_id = names.project_id
            and credited.credited_user_id = names.user_id
            and names.is_of_graph = (credited.policy = 'graph')
)
{%- endmacro %}

{# The columns of `stitch`'s subjects, and what their project's settings say of each. #}
{% macro with_settings(subjects, switch, policy) -%}
    select
        subjects.*,
        {{ policy }} as policy,
        {{ policy }} in ({{ policies_that_keep_own_users() }}) as keeps_own_user,
        {{ switch }} as is_stitched,
        settings.max_users_per_device,
        {{ days_later('subjects.subject_day', 'settings.lookback_days') }} as last_link_day,
        {{ days_later('subjects.subject_day', '-settings.carry_forward_days') }} as first_link_day
    from {{ subjects }} as subjects
    inner join {{ pipeline_table('project_settings') }} as settings on subjects.project_id = settings.project_id
{%- endmacro %}

{# What is asked in projects that have the policy, and the links of the devices it is asked of. #}
{% macro rows_of_policy(policy) -%}
{{ policy }}_asks as (
    select * from policy_asks
    where policy = '{{ policy }}'
),

{{ policy }}_links as (
    select * from policy_links as links
    where exists (
        select 1 from {{ policy }}_asks as asks
        where asks.project_id = links.project_id and asks.anonymous_id = links.anonymous_id
    )
)
{%- endmacro %}

{# Whether a row is credited to a user, as its rule says; else it is its device's, or nobody's. #}
{% macro is_of_a_user(rule='stitched_by') -%} {{ rule }} in ('own', 'link before', 'link after') {%- endmacro %}

{# Under these a row's own user goes before any link. #}
{% macro policies_that_keep_own_users() %}'device_split', 'next_identify', 'graph'{% endmacro %}

{# The policies there are, one row each. #}
{% macro all_policies() -%}
(
        select 'latest' as policy
        union all
        select 'first' as policy
        union all
        select 'device_split' as policy
        union all
        select 'next_identify' as policy
        union all
        select 'graph' as policy
    )
{%- endmacro %}

{# Under `graph` only the projects that follow it have their persons resolved. To try it on others, build `persons` in a
   trial (stitch_pipeline/stitching/views.py). #}
{% macro is_answerable(policies, row) -%}
(
        {{ policies }}.policy != 'graph'
        or exists (
            select 1 from {{ pipeline_table('project_settings') }} as settings
            where settings.project_id = {{ row }}.project_id and settings.resolves_persons
        )
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
