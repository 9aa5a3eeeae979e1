{{ config(materialized='view', read_by_device=true) }}

-- Sessions and events of devices. Each grain has its own switch for stitching.
with device_rows as (
    select
        project_id,
        'session' as grain,
        session_id as row_id,
        anonymous_id,
        user_id,
        session_date as subject_day,
        started_at as subject_at,
        ended_at as row_ended_at,
        anonymous_id as own_id
    from {{ ref('sessions') }}
    union all
    select
        project_id,
        event_type as grain,
        event_id as row_id,
        anonymous_id,
        user_id,
        event_date as subject_day,
        occurred_at as subject_at,
        occurred_at as row_ended_at,
        anonymous_id as own_id
    from {{ source('landing', 'raw_events') }}
    where anonymous_id is not null
),

{{ stitch(
    'device_rows',
    switch="case when subjects.grain = 'session' then settings.stitching and settings.session_stitching else settings.stitching end"
) }},

-- An event is of its device, and of the device that its previous id may be.
events_of_devices as (
    select
        events.project_id,
        events.anonymous_id,
        events.user_id,
        events.event_id,
        events.event_date,
        events.occurred_at,
        events.event_type,
        events.landing_file,
        events.received_at,
        {{ may_link('events') }} as may_link
    from {{ source('landing', 'raw_events') }} as events
    inner join {{ project_settings() }} as settings on events.project_id = settings.project_id
    where events.anonymous_id is not null
    union all
    select
        events.project_id,
        events.previous_id as anonymous_id,
        events.user_id,
        events.event_id,
        events.event_date,
        events.occurred_at,
        events.event_type,
        events.landing_file,
        events.received_at,
        {{ may_link('events') }} as may_link
    from {{ source('landing', 'raw_events') }} as events
    inner join {{ project_settings() }} as settings on events.project_id = settings.project_id
    where
        {{ has_previous_id('events') }}
        and events.previous_id is distinct from events.anonymous_id
),

identified_events as (
    select
        *,
        not may_link as is_kept_from_linking,
        last_value(user_id) over (
            partition by project_id, anonymous_id, occurred_at, may_link
            order by event_id
            rows between unbounded preceding and unbounded following
        ) as user_of_instant
    from events_of_devices
    where user_id is not null
),

-- All that could have given the device a user: its links, and events that a guard kept from being links.
candidates as (
    select
        links.project_id,
        links.anonymous_id,
        links.user_id as candidate_user_id,
        links.first_seen_at as candidate_at,
        links.last_seen_at as candidate_last_seen_at,
        links.event_count as candidate_event_count,
        links.first_event_id as candidate_id,
        'no link, as decided: ' || wrong.line as no_link_reason
    from {{ ref('identity_map') }} as links
    left join {{ wrong_links() }} as wrong
        on
            links.project_id = wrong.project_id
            and links.anonymous_id = wrong.anonymous_id
            and links.user_id = wrong.user_id
    union all
    -- Under a policy that resolves persons, identifiers link as well.
    select
        links.project_id,
        links.linked_id as anonymous_id,
        links.id_kind || ':' || links.id as candidate_user_id,
        links.first_seen_at as candidate_at,
        links.last_seen_at as candidate_last_seen_at,
        links.event_count as candidate_event_count,
        links.first_event_id as candidate_id,
        'no link, as decided: ' || wrong.line as no_link_reason
    from {{ ref('identifier_links') }} as links
    inner join {{ project_settings() }} as settings on links.project_id = settings.project_id
    left join {{ wrong_links() }} as wrong
        on
            links.project_id = wrong.project_id
            and links.linked_id = wrong.anonymous_id
            and wrong.user_id = links.id_kind || ':' || links.id
    where
        {{ has_trait('settings.policy', 'resolves_persons') }}
        and links.linked_kind = 'device'
    union all
    select
        project_id,
        anonymous_id,
        user_id as candidate_user_id,
        min(occurred_at) as candidate_at,
        max(occurred_at) as candidate_last_seen_at,
        count(*) as candidate_event_count,
        {{ first_known_by('event_id', place_in_time('occurred_at', 'event_id')) }} as candidate_id,
        'no link: only identify events link in this project' as no_link_reason
    from identified_events
    where is_kept_from_linking
    group by project_id, anonymous_id, user_id, event_date
    union all
    select
        project_id,
        anonymous_id,
        user_id as candidate_user_id,
        occurred_at as candidate_at,
        occurred_at as candidate_last_seen_at,
        count(*) as candidate_event_count,
        min(event_id) as candidate_id,
        'no link: ' || user_of_instant || ' was seen at the same instant with the greater event id' as no_link_reason
    from identified_events
    where not is_kept_from_linking and user_id != user_of_instant
    group by project_id, anonymous_id, user_id, event_date, occurred_at, user_of_instant
    union all
    select
        project_id,
        anonymous_id,
        blocked_user_id as candidate_user_id,
        min(occurred_at) as candidate_at,
        max(occurred_at) as candidate_last_seen_at,
        count(*) as candidate_event_count,
        {{ first_known_by('event_id', place_in_time('occurred_at', 'event_id')) }} as candidate_id,
        'no link: blocked id ''' || blocked_user_id || '''' as no_link_reason
    from {{ source('landing', 'raw_events') }}
    where anonymous_id is not null and blocked_user_id is not null
    group by project_id, anonymous_id, blocked_user_id
),

-- The number of users that the guard against shared devices counts in the window around each row.
users_in_window as (
    select
        stitched.project_id,
        stitched.anonymous_id,
        stitched.first_link_at,
        stitched.last_link_at,
        count(distinct links.person_id) as user_count
    from (
        select distinct
            project_id,
            anonymous_id,
            first_link_at,
            last_link_at
        from stitched
    ) as stitched
    inner join {{ links_in_force(decided_names()) }} as links
        on
            stitched.project_id = links.project_id
            and stitched.anonymous_id = links.anonymous_id
            and {{ counts_for('links.first_seen_at', 'links.last_seen_at', 'stitched') }}
    group by stitched.project_id, stitched.anonymous_id, stitched.first_link_at, stitched.last_link_at
),

compared as (
    select
        stitched.*,
        settings.keep_own_user,
        {{ duration_text('settings.lookback_days', 'settings.lookback_minutes') }} as lookback,
        {{ duration_text('settings.carry_forward_days', 'settings.carry_forward_minutes') }} as carry_forward,
        candidates.candidate_user_id,
        candidates.candidate_at,
        candidates.candidate_last_seen_at,
        candidates.candidate_event_count,
        candidates.candidate_id,
        candidates.no_link_reason,
        coalesce(users_in_window.user_count, 0) as user_count,
        candidate_persons.person_id as candidate_person_id,
        device_persons.person_id as device_person_id,
        decided.line as shared_by_decision,
        names.line as named_by_decision,
        candidates.candidate_id is not null
        and candidates.no_link_reason is null
        and candidates.candidate_id = coalesce(stitched.link_event_id, '')
        and (
            not {{ has_trait('stitched.policy', 'resolves_persons') }}
            or candidate_persons.person_id = device_persons.person_id
        ) as decides,
        -- Whether the row would be a forgotten user's.
        stitched.is_held
        or (
            {{ is_forgotten('stitched.link_user_id') }}
            and {{ counts_for('stitched.candidate_linked_at', 'stitched.link_last_seen_at', 'stitched') }}
            and not (stitched.keeps_own_user and stitched.user_id is not null)
        ) as is_kept_for_forgotten,
        -- The link that the policy picked, whether or not it then counted.
        candidates.candidate_id = stitched.candidate_event_id and candidates.no_link_reason is null as is_picked
    from stitched
    inner join {{ project_settings() }} as settings on stitched.project_id = settings.project_id
    left join candidates
        on
            stitched.project_id = candidates.project_id
            and stitched.anonymous_id = candidates.anonymous_id
    left join users_in_window
        on
            stitched.project_id = users_in_window.project_id
            and stitched.anonymous_id = users_in_window.anonymous_id
            and stitched.first_link_at = users_in_window.first_link_at
            and stitched.last_link_at = users_in_window.last_link_at
    left join {{ ref('persons') }} as device_persons
        on
            {{ has_trait('stitched.policy', 'resolves_persons') }}
            and stitched.project_id = device_persons.project_id
            and device_persons.id_kind = 'device'
            and stitched.anonymous_id = device_persons.id
    left join {{ decided_names() }} as candidate_names
        on
            {{ has_trait('stitched.policy', 'resolves_persons') }}
            and stitched.project_id = candidate_names.project_id
            and candidates.candidate_user_id = candidate_names.user_id
    left join {{ ref('persons') }} as candidate_persons
        on
            {{ has_trait('stitched.policy', 'resolves_persons') }}
            and stitched.project_id = candidate_persons.project_id
            and coalesce(candidate_names.person_id, candidates.candidate_user_id) = {{ person_name('candidate_persons') }}
    left join policy_windows_shared_by_decision as decided
        on
            stitched.project_id = decided.project_id
            and stitched.anonymous_id = decided.anonymous_id
            and stitched.first_link_at = decided.first_link_at
            and stitched.last_link_at = decided.last_link_at
    -- Only for the candidate by which the row is credited.
    left join {{ decided_names() }} as names
        on
            stitched.project_id = names.project_id
            -- A policy that resolves persons credits the person to which the candidate led.
            and (
                stitched.credited_user_id = names.user_id
                or ({{ has_trait('stitched.policy', 'resolves_persons') }} and stitched.link_event_id is not null)
            )
            and candidates.candidate_user_id = names.user_id
            and candidates.no_link_reason is null
),

reasons as (
    select
        compared.*,
        case
            when candidate_id is null then 'no event on this device names a user'
            when no_link_reason is not null then no_link_reason
            when stitched_by = 'off' and grain = 'session' then 'session stitching is off for the project'
            when stitched_by = 'off' then 'stitching is off for the project'
            when user_count > max_users_per_device and user_id is null
                then 'device is shared by ' || user_count || ' users, more than ' || max_users_per_device
            when user_count > max_users_per_device
                then 'own user decides: device is shared by ' || user_count || ' users, more than ' || max_users_per_device
            when shared_by_decision is not null and user_id is null
                then 'device is shared, as decided: ' || shared_by_decision
            when shared_by_decision is not null
                then 'own user decides: device is shared, as decided: ' || shared_by_decision
            {{ reasons_of_policies('shared', "stitched_by = 'shared device'") }}
            when {{ is_forgotten('candidate_user_id') }} and is_kept_for_forgotten
                then 'a user who was forgotten: the row is credited to nobody else, and stays with the device'
            when is_kept_for_forgotten then 'takes no row over from a user who was forgotten'
            when {{ is_forgotten('candidate_user_id') }} and user_id is null
                then 'a user who was forgotten: does not decide this row under ' || policy
            when not is_decided_by_links and keep_own_user then 'own user decides: the project keeps own users'
            when not is_decided_by_links then 'own user decides under ' || policy
            {{ reasons_of_policies('cut', "coalesce(candidate_person_id, '') != coalesce(device_person_id, '')") }}
            {{ reasons_of_policies('decides', 'decides') }}
            {{ reasons_of_policies('loses_before_window') }}
            when candidate_at > last_link_at
                then 'outside the lookback of ' || lookback
            when candidate_last_seen_at < first_link_at
                then 'expired: carried forward ' || carry_forward || ' only'
            {{ reasons_of_policies('loses_within_window') }}
        end as reason
    from compared
)

select
    reasons.project_id,
    reasons.grain,
    reasons.row_id,
    reasons.anonymous_id,
    reasons.user_id,
    reasons.subject_at as row_at,
    reasons.row_ended_at,
    reasons.policy,
    reasons.stitched_user_id,
    reasons.stitched_by,
    coalesce(stored_sessions.stitched_user_id, stored_views.stitched_user_id) as stored_user_id,
    reasons.candidate_user_id,
    reasons.candidate_at,
    reasons.candidate_last_seen_at,
    reasons.candidate_event_count,
    reasons.candidate_id as candidate_event_id,
    events.event_type as candidate_event_type,
    events.landing_file as candidate_landing_file,
    events.received_at as candidate_received_at,
    files.loaded_at as candidate_loaded_at,
    reasons.decides,
    reasons.reason || case
        when reasons.named_by_decision is not null and (reasons.decides or not reasons.is_decided_by_links)
            then '; goes by ' || reasons.stitched_user_id || ', as decided: ' || reasons.named_by_decision
        else ''
    end as reason
from reasons
left join events_of_devices as events
    on
        reasons.project_id = events.project_id
        and reasons.anonymous_id = events.anonymous_id
        and reasons.candidate_id = events.event_id
left join {{ internal_table('landing_files') }} as files on events.landing_file = files.landing_file
left join {{ ref('stitched_sessions') }} as stored_sessions
    on
        reasons.grain = 'session'
        and reasons.project_id = stored_sessions.project_id
        and reasons.anonymous_id = stored_sessions.anonymous_id
        and reasons.row_id = stored_sessions.session_id
        and reasons.subject_day = stored_sessions.session_date
left join {{ ref('page_views') }} as stored_views
    on
        reasons.grain in ('page', 'screen')
        and reasons.project_id = stored_views.project_id
        and reasons.anonymous_id = stored_views.anonymous_id
        and reasons.row_id = stored_views.event_id
        and reasons.subject_day = stored_views.event_date
