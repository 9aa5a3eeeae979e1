{{ config(materialized='view') }}

-- A blocked id is treated as absent. Its event stays.
with blocked_ids as (
    select
        project_id,
        'blocked id' as guard,
        'anonymous_id' as field,
        blocked_anonymous_id as found,
        occurred_at
    from {{ source('landing', 'raw_events') }}
    where blocked_anonymous_id is not null
    union all
    select
        project_id,
        'blocked id' as guard,
        'user_id' as field,
        blocked_user_id as found,
        occurred_at
    from {{ source('landing', 'raw_events') }}
    where blocked_user_id is not null
    union all
    select
        project_id,
        'blocked id' as guard,
        'previous_id' as field,
        blocked_previous_id as found,
        occurred_at
    from {{ source('landing', 'raw_events') }}
    where blocked_previous_id is not null
),

links as (
    select * from {{ links_in_force(decided_names()) }} as links_in_force
),

-- A device can be shared within some window only if it has too many users over all time, or by decision.
suspect_devices as (
    select
        links.project_id,
        links.anonymous_id
    from links
    inner join {{ project_settings() }} as settings on links.project_id = settings.project_id
    group by links.project_id, links.anonymous_id, settings.max_users_per_device
    having count(distinct links.person_id) > settings.max_users_per_device
    union
    select
        project_id,
        id as anonymous_id
    from {{ ref('persons') }}
    where id_kind = 'device' and person_id is null
    union
    select
        project_id,
        anonymous_id
    from {{ shared_devices() }} as decided
    union
    select
        links.project_id,
        links.anonymous_id
    from {{ never_same() }} as pairs
    inner join links
        on pairs.project_id = links.project_id and links.person_id in (pairs.person_id, pairs.other_person_id)
),

subjects as (
    select
        events.project_id,
        events.anonymous_id,
        events.user_id,
        events.event_date as subject_day,
        events.occurred_at as subject_at,
        events.anonymous_id as own_id
    from {{ source('landing', 'raw_events') }} as events
    inner join suspect_devices
        on
            events.project_id = suspect_devices.project_id
            and events.anonymous_id = suspect_devices.anonymous_id
),

{{ stitch('subjects') }},

shared_devices as (
    select
        stitched.project_id,
        case when decided.project_id is null then 'shared device' else 'shared by decision' end as guard,
        'anonymous_id' as field,
        stitched.anonymous_id as found,
        stitched.subject_at as occurred_at
    from stitched
    left join policy_windows_shared_by_decision as decided
        on
            stitched.project_id = decided.project_id
            and stitched.anonymous_id = decided.anonymous_id
            and stitched.first_link_at = decided.first_link_at
            and stitched.last_link_at = decided.last_link_at
    where stitched.stitched_by = 'shared device'
),

wrong_links as (
    select
        events.project_id,
        'wrong link' as guard,
        'user_id' as field,
        events.user_id as found,
        events.occurred_at
    from {{ source('landing', 'raw_events') }} as events
    inner join {{ wrong_links() }} as wrong
        on
            events.project_id = wrong.project_id
            and events.anonymous_id = wrong.anonymous_id
            and events.user_id = wrong.user_id
    inner join {{ project_settings() }} as settings on events.project_id = settings.project_id
    where {{ may_link('events') }}
    union all
    select
        events.project_id,
        'wrong link' as guard,
        'previous_id' as field,
        events.previous_id as found,
        events.occurred_at
    from {{ source('landing', 'raw_events') }} as events
    inner join {{ wrong_links() }} as wrong
        on
            events.project_id = wrong.project_id
            and (
                (events.previous_id = wrong.anonymous_id and events.user_id = wrong.user_id)
                or (
                    events.user_id is null
                    and (
                        (events.previous_id = wrong.anonymous_id and 'device:' || events.anonymous_id = wrong.user_id)
                        or (events.anonymous_id = wrong.anonymous_id and 'device:' || events.previous_id = wrong.user_id)
                    )
                )
            )
    inner join {{ project_settings() }} as settings on events.project_id = settings.project_id
    where {{ has_previous_id('events') }} and {{ may_link('events') }}
),

-- Where only identify events link: users of other events who were never identified on the same device.
unlinked_users as (
    select
        events.project_id,
        'does not link' as guard,
        'user_id' as field,
        events.user_id as found,
        events.occurred_at
    from {{ source('landing', 'raw_events') }} as events
    inner join {{ project_settings() }} as settings on events.project_id = settings.project_id
    where
        settings.link_on = 'identify'
        and events.anonymous_id is not null
        and events.user_id is not null
        and not exists (
            select 1 from {{ ref('identity_map') }} as links
            where
                links.project_id = events.project_id
                and links.anonymous_id = events.anonymous_id
                and links.user_id = events.user_id
        )
),

-- Quarantined rows have no project. Their landing file shows where to look.
bad_times as (
    select
        cast(null as varchar) as project_id,
        case when problem = 'before_start_date' then 'before start date' else 'in the future' end as guard,
        'landing_file' as field,
        landing_file as found,
        occurred_at
    from {{ internal_table('quarantined_events') }}
    where problem in ('before_start_date', 'in_the_future')
),

evidence as (
    {{ all_evidence() }}
),

-- Policy `graph`: every tie between two ids, from both ends.
ties as (
    select
        *,
        true as is_limited_by_default
    from evidence
    union all
    select
        project_id,
        other_kind as id_kind,
        other_id as id,
        id_kind as other_kind,
        id as other_id,
        first_seen_at,
        last_seen_at,
        event_count,
        first_event_id,
        false as is_limited_by_default
    from evidence
    where evidence.id_kind != evidence.other_kind
),

-- Hubs by a limit. A device with too many users is a shared device above.
crowded as (
    select
        counted.project_id,
        counted.id_kind,
        counted.id,
        counted.other_kind
    from ties as counted
    inner join {{ project_settings() }} as settings
        on counted.project_id = settings.project_id and settings.resolves_persons
    left join {{ internal_table('id_limits') }} as limits
        on
            counted.project_id = limits.project_id
            and counted.id_kind = limits.id_kind
            and counted.other_kind = limits.other_kind
    group by
        counted.project_id, counted.id_kind, counted.id, counted.other_kind, counted.is_limited_by_default,
        limits.max_count, settings.max_users_per_device
    having
        count(distinct counted.other_id) > coalesce(
            limits.max_count,
            case when counted.is_limited_by_default and counted.id_kind != 'device' then settings.max_users_per_device end
        )
),

crowded_ids as (
    select
        ties.project_id,
        ties.id_kind || '.' || ties.other_kind as field,
        ties.id as found,
        ties.event_count,
        ties.first_seen_at,
        ties.last_seen_at
    from ties
    inner join crowded
        on
            ties.project_id = crowded.project_id
            and ties.id_kind = crowded.id_kind
            and ties.id = crowded.id
            and ties.other_kind = crowded.other_kind
),

-- The values of a kind of which one person would have too many.
parted_ids as (
    select
        ties.project_id,
        ties.id_kind || '.per_person' as field,
        ties.id as found,
        ties.event_count,
        ties.first_seen_at,
        ties.last_seen_at
    from ties
    inner join {{ ref('persons') }} as ids
        on ties.project_id = ids.project_id and ties.id_kind = ids.id_kind and ties.id = ids.id
    inner join (
        select
            persons.project_id,
            persons.id_kind,
            persons.component_id
        from {{ ref('persons') }} as persons
        inner join {{ internal_table('unique_identifiers') }} as kinds
            on persons.project_id = kinds.project_id and persons.id_kind = kinds.id_kind
        where persons.component_id is not null
        group by persons.project_id, persons.id_kind, persons.component_id, kinds.max_values
        having count(*) > kinds.max_values
    ) as parted
        on
            ids.project_id = parted.project_id
            and ids.id_kind = parted.id_kind
            and ids.component_id = parted.component_id
),

limited as (
    select * from crowded_ids
    union all
    select * from parted_ids
),

guarded as (
    select * from blocked_ids
    union all
    select * from shared_devices
    union all
    select * from wrong_links
    union all
    select * from unlinked_users
    union all
    select * from bad_times
)

select
    project_id,
    guard,
    field,
    found,
    count(*) as event_count,
    min(occurred_at) as first_seen_at,
    max(occurred_at) as last_seen_at
from guarded
group by project_id, guard, field, found
union all
select
    project_id,
    'over the limit' as guard,
    field,
    found,
    cast(sum(event_count) as bigint) as event_count,
    min(first_seen_at) as first_seen_at,
    max(last_seen_at) as last_seen_at
from limited
group by project_id, field, found
