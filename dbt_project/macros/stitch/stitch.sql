{#
  Which user a row is credited to. Every table and view that credits rows to users uses this macro, so sessions, page
  views, events and the mapping cannot disagree.

  `subjects` names a CTE with project_id, anonymous_id, user_id (the row's own, or null), subject_day, subject_at and
  own_id (what the row is credited to when no user is found). `switch` says whether a row is stitched at all: by
  default a column of project_settings. `policy` is the policy of a row: by default what project_settings says; to see
  what another policy would give, a column of the subjects.

  Gives the CTEs up to `stitched`: the columns of `subjects` and stitched_user_id, stitched_by, linked_at,
  link_event_id, policy.

  A policy picks one link for a device and a time (macros/stitch/policies.sql). The rest is the same for all policies
  and is here: a link counts only within the window, a row's own user may go before any link, and counts where no link
  does, anonymous rows of a shared device stay anonymous, stitching may be off, decisions are followed
  (macros/decisions.sql), and rows of a forgotten user stay with the device (macros/stitch/forgotten.sql).
#}
{% macro stitch(subjects, switch='settings.stitching', policy='settings.policy') %}
{%- set settings = project_settings() %}
{%- set shared_by_policies = [] %}
{%- for name in var('policies') if context['policy_' ~ name ~ '_traits']().get('finds_shared_devices') %}
    {%- do shared_by_policies.append(name) %}
{%- endfor %}
{%- set is_of_known_device -%}
    {{ hash_of(['subjects.project_id', 'subjects.anonymous_id']) }} in (select device_hash from policy_known_devices)
{%- endset %}
-- By hash, which DuckDB 2.0 looks up in a fraction of the time. A device that only shares a hash with one of these is
-- looked up too, without finding a link.
policy_known_devices as (
    select {{ hash_of(['project_id', 'anonymous_id']) }} as device_hash
    from {{ ref('identity_map') }}
    union all
    select {{ hash_of(['project_id', 'linked_id']) }} as device_hash
    from {{ ref('identifier_links') }}
    where linked_kind = 'device'
    union all
    select {{ hash_of(['project_id', 'anonymous_id']) }} as device_hash
    from {{ shared_devices() }} as shared
),

policy_subjects as (
    {{ with_settings(subjects, switch, policy) }}
    -- Not as `is_listed`: DuckDB 2.0 expects fewer rows for each further condition, and in the end almost none.
    where {{ is_of_known_device }}
),

-- Most rows are of devices without any login: they skip the policies.
policy_subjects_without_links as (
    {{ with_settings(subjects, switch, policy) }}
    -- Not as `not exists`: for that DuckDB 2.0 would build a hash table of all these rows.
    where not coalesce({{ is_of_known_device }}, false)
),

-- The others are looked up once per device and time, without the columns on which the answer does not depend.
policy_lookups as (
    select distinct
        subjects.project_id,
        subjects.anonymous_id,
        subjects.subject_at,
        subjects.policy,
        subjects.max_users_per_device,
        subjects.first_link_at,
        subjects.last_link_at
    from policy_subjects as subjects
),

-- Persons by decision only: a policy that resolves persons looks them up itself.
policy_links as (
    select
        links.project_id,
        links.anonymous_id,
        links.user_id as link_user_id,
        links.person_id as link_person_id,
        links.first_seen_at as linked_at,
        links.last_seen_at as link_last_seen_at,
        links.first_event_id as link_event_id
    from {{ links_in_force(decided_names()) }} as links
    where exists (
        select 1 from policy_lookups as lookups
        where lookups.project_id = links.project_id and lookups.anonymous_id = links.anonymous_id
    )
),

{{ candidates_of_policies('policy_lookups', 'policy_links') }},

{{ held_lookups('policy_lookups', 'policy_links') }},

policy_crowded_devices as (
    select
        policy_links.project_id,
        policy_links.anonymous_id
    from policy_links
    inner join {{ settings }} as settings on policy_links.project_id = settings.project_id
    group by policy_links.project_id, policy_links.anonymous_id, settings.max_users_per_device
    having count(distinct policy_links.link_person_id) > settings.max_users_per_device
),

{{ windows_shared_by_decision('policy_lookups', 'policy_links') }},

-- Counting users within a window is expensive, so do it only for the few devices with many users. All rows of a day have
-- one window, unless it is counted in hours or minutes.
policy_shared_windows as (
    select
        subjects.project_id,
        subjects.anonymous_id,
        subjects.first_link_at,
        subjects.last_link_at
    from (
        select distinct
            policy_lookups.project_id,
            policy_lookups.anonymous_id,
            policy_lookups.first_link_at,
            policy_lookups.last_link_at,
            policy_lookups.max_users_per_device
        from policy_lookups
        inner join policy_crowded_devices
            on
                policy_lookups.project_id = policy_crowded_devices.project_id
                and policy_lookups.anonymous_id = policy_crowded_devices.anonymous_id
    ) as subjects
    inner join policy_links
        on
            subjects.project_id = policy_links.project_id
            and subjects.anonymous_id = policy_links.anonymous_id
            and {{ counts_for('policy_links.linked_at', 'policy_links.link_last_seen_at', 'subjects') }}
    group by
        subjects.project_id,
        subjects.anonymous_id,
        subjects.first_link_at,
        subjects.last_link_at,
        subjects.max_users_per_device
    having count(distinct policy_links.link_person_id) > subjects.max_users_per_device
    union
    select
        project_id,
        anonymous_id,
        first_link_at,
        last_link_at
    from policy_windows_shared_by_decision
),

policy_answers as (
    select
        subjects.*,
        candidates.link_user_id,
        candidates.candidate_linked_at,
        candidates.link_last_seen_at,
        candidates.candidate_event_id,
        held.project_id is not null as is_held,
        shared.project_id is not null
        {%- for name in shared_by_policies %}
        or {{ name }}_shared.project_id is not null
        {%- endfor %} as is_on_shared_device
    from policy_subjects as subjects
    left join policy_candidates as candidates
        on
            subjects.project_id = candidates.project_id
            and subjects.anonymous_id = candidates.anonymous_id
            and subjects.subject_at = candidates.subject_at
            and subjects.policy = candidates.policy
    left join policy_held as held
        on
            subjects.project_id = held.project_id
            and subjects.anonymous_id = held.anonymous_id
            and subjects.subject_at = held.subject_at
            and subjects.policy = held.policy
    left join policy_shared_windows as shared
        on
            subjects.project_id = shared.project_id
            and subjects.anonymous_id = shared.anonymous_id
            and subjects.first_link_at = shared.first_link_at
            and subjects.last_link_at = shared.last_link_at
    {%- for name in shared_by_policies %}
    left join {{ name }}_shared_devices as {{ name }}_shared
        on
            subjects.policy = '{{ name }}'
            and subjects.project_id = {{ name }}_shared.project_id
            and subjects.anonymous_id = {{ name }}_shared.anonymous_id
    {%- endfor %}
    union all
    select
        subjects.*,
        null as link_user_id,
        null as candidate_linked_at,
        null as link_last_seen_at,
        null as candidate_event_id,
        false as is_held,
        false as is_on_shared_device
    from policy_subjects_without_links as subjects
),

policy_rules as (
    select
        *,
        case
            -- Without a device there is nothing to stitch: the row keeps its own user, if it has one.
            when anonymous_id is null then {{ own_user_or('none') }}
            when not is_stitched then 'off'
            when is_on_shared_device then {{ own_user_or('shared device') }}
            when keeps_own_user and user_id is not null then 'own'
            -- What a forgotten user leaves is the device's, except for what other users did themselves.
            when is_held then {{ own_user_or('none') }}
            when not has_link then {{ own_user_or('none') }}
            when {{ is_forgotten('link_user_id') }} then {{ own_user_or('none') }}
            when link_user_id = user_id then 'own'
            when candidate_linked_at <= subject_at then 'link before'
            else 'link after'
        end as rule,
        anonymous_id is not null
        and not is_on_shared_device
        and not is_held
        and not (keeps_own_user and user_id is not null)
        and not {{ is_forgotten('link_user_id') }} as is_decided_by_links
    from (
        select
            *,
            coalesce({{ counts_for('candidate_linked_at', 'link_last_seen_at', 'policy_answers') }}, false) as has_link
        from policy_answers
    ) as answers
),

-- The only place where a user's id is replaced by the canonical id.
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
            is_decided_by_links and has_link and {{ is_of_a_user('rule') }} as is_by_link
        from policy_rules
    ) as credited
    left join policy_names as names
        on
            credited.project_id = names.project_id
            and credited.credited_user_id = names.user_id
            and names.is_of_graph = ({{ has_trait('credited.policy', 'resolves_persons') }})
)
{%- endmacro %}

{# The columns of the subjects of `stitch`, with the rules that apply to each. #}
{% macro with_settings(subjects, switch, policy) -%}
    select
        subjects.*,
        {{ policy }} as policy,
        settings.keep_own_user or {{ has_trait(policy, 'keeps_own_user') }} as keeps_own_user,
        {{ switch }} as is_stitched,
        settings.max_users_per_device,
        {{ first_link_at('subjects', 'settings') }} as first_link_at,
        {{ last_link_at('subjects', 'settings') }} as last_link_at
    from {{ subjects }} as subjects
    inner join {{ project_settings() }} as settings on subjects.project_id = settings.project_id
{%- endmacro %}

{# The rule of a row that no link credits: a row that says who it is does not end as anonymous. #}
{% macro own_user_or(rule) -%} case when user_id is null then '{{ rule }}' else 'own' end {%- endmacro %}

{# Whether the rule of a row credits it to a user. #}
{% macro is_of_a_user(rule='stitched_by') -%} {{ rule }} in ('own', 'link before', 'link after') {%- endmacro %}

{# Whether a policy can be tried on a row. One that resolves persons needs the stored persons of the project. Only
   projects that follow the policy have them; a trial (stitch_pipeline/stitching/views.py) builds them for others. #}
{% macro is_answerable(policies, row) -%}
(
        not {{ has_trait(policies ~ '.policy', 'resolves_persons') }}
        or exists (
            select 1 from {{ project_settings() }} as settings
            where settings.project_id = {{ row }}.project_id and settings.resolves_persons
        )
    )
{%- endmacro %}

{# The rule of a row in a run that does not stitch. #}
{% macro rule_without_stitching(row) -%}
    case
        when {{ row }}.anonymous_id is not null then 'off'
        when {{ row }}.user_id is not null then 'own'
        else 'none'
    end
{%- endmacro %}
