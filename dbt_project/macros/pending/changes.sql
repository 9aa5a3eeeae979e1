{#
  What changed rows mean for other tables. Each macro is the `on_change` of a model. It gets the names of two relations,
  the rows added and the rows gone, and returns statements that run in the transaction that writes these rows.
#}

{# identity_map: rows of relinked devices may be credited to another user, and traits of their users may differ. #}
{% macro note_relinked_devices(added, gone) %}
    {%- set changed -%}
        (select * from {{ added }} as added union all select * from {{ gone }} as gone)
    {%- endset -%}
    {%- set devices -%}
        select project_id, anonymous_id, min(event_date) as linked_on from {{ changed }} as changed
        group by project_id, anonymous_id
    {%- endset -%}
    {%- set users -%}
        (select distinct project_id, user_id from {{ changed }} as changed)
    {%- endset -%}
    {%- set persons -%}
        select changed.project_id, coalesce(names.person_id, changed.user_id) as stitched_user_id
        from {{ users }} as changed
        left join {{ person_names() }} as names
            on changed.project_id = names.project_id and changed.user_id = names.user_id
    {%- endset -%}
    {%- set ids -%}
        select project_id, 'device' as id_kind, anonymous_id as id from ({{ devices }}) as devices
        union
        select changed.project_id, 'user' as id_kind, coalesce(names.person_id, changed.user_id) as id
        from {{ users }} as changed
        left join {{ decided_names() }} as names
            on changed.project_id = names.project_id and changed.user_id = names.user_id
    {%- endset -%}
    {{ return(
        [add_pending_devices(devices, linked_on='devices.linked_on'), add_pending_users(persons), add_pending_ids(ids)]
    ) }}
{% endmacro %}

{# identifier_links: ids may belong to other persons, and rows of their devices may be credited because of another
   link. Only projects that resolve persons use these links. #}
{% macro note_relinked_identifiers(added, gone) %}
    {%- set changed -%}
        (select * from {{ added }} as added union all select * from {{ gone }} as gone)
    {%- endset -%}
    {%- set ids -%}
        select project_id, id_kind, id from {{ changed }} as changed
        union
        select project_id, linked_kind as id_kind, linked_id as id from {{ changed }} as changed
        union
        -- The evidence has users by their decided names.
        select changed.project_id, 'user' as id_kind, names.person_id as id
        from {{ changed }} as changed
        inner join {{ decided_names() }} as names
            on changed.project_id = names.project_id and names.user_id in (changed.id, changed.linked_id)
        where changed.id_kind = 'user'
    {%- endset -%}
    {%- set devices -%}
        select project_id, linked_id as anonymous_id from {{ changed }} as changed
        where
            linked_kind = 'device'
            and project_id in (
                select project_id from {{ internal_table('project_settings') }} where resolves_persons
            )
    {%- endset -%}
    {{ return([add_pending_ids(ids), add_pending_devices(devices)]) }}
{% endmacro %}

{# persons: every device on which a renamed id was seen (and '' if it has rows without a device) may have rows to
   re-stitch. The old and the new person each need a new row of `users`, and days on which a renamed user has no device
   new rows of `visitor_stats`. #}
{% macro note_renamed_persons(added, gone) %}
    {%- set renamed -%}
        select project_id, id_kind, id, person_id from (
            (
                select project_id, id_kind, id, person_id from {{ added }} as added
                except select project_id, id_kind, id, person_id from {{ gone }} as gone
            )
            union all
            (
                select project_id, id_kind, id, person_id from {{ gone }} as gone
                except select project_id, id_kind, id, person_id from {{ added }} as added
            )
        ) as renamed
    {%- endset -%}
    {%- set renamed = create_temporary('renamed_ids', renamed) -%}
    {%- set users -%}
        select project_id, id as user_id from renamed_ids where id_kind = 'user'
        union
        select names.project_id, names.user_id
        from {{ decided_names() }} as names
        inner join renamed_ids as renamed
            on names.project_id = renamed.project_id and renamed.id_kind = 'user' and names.person_id = renamed.id
    {%- endset -%}
    {%- set devices -%}
        select project_id, id as anonymous_id from renamed_ids where id_kind = 'device'
        union
        select links.project_id, links.linked_id as anonymous_id
        from {{ ref('identifier_links') }} as links
        where links.linked_kind = 'device' and {{ is_among('renamed_ids', 'links', 'id_kind', 'id') }}
        union
        select events.project_id, coalesce(events.anonymous_id, '') as anonymous_id
        from {{ source('landing', 'raw_events') }} as events
        inner join ({{ users }}) as users
            on events.project_id = users.project_id and events.user_id = users.user_id
    {%- endset -%}
    {%- set persons -%}
        select project_id, person_id as stitched_user_id from renamed_ids where person_id is not null
        union
        select project_id, id as stitched_user_id from renamed_ids where id_kind = 'user'
    {%- endset -%}
    {{ return(
        [
            renamed,
            add_pending_devices(devices),
            add_pending_users(persons),
            add_pending_days(days_without_device(users)),
        ]
        + remember_names()
    ) }}
{% endmacro %}

{# stitched_sessions: the old and the new stitched user of a session each need a new row of `users`, and its day new
   rows of `visitor_stats`. #}
{% macro note_changed_sessions(added, gone) %}
    {%- set users -%}
        select project_id, stitched_user_id from {{ added }} as added
        union
        select project_id, stitched_user_id from {{ gone }} as gone
    {%- endset -%}
    {%- set days -%}
        select session_date as day from {{ added }} as added
        union
        select session_date as day from {{ gone }} as gone
    {%- endset -%}
    {{ return([add_pending_users(users), add_pending_days(days)]) }}
{% endmacro %}

{# activity_without_device: the users need a new row of `users`, and the days new rows of `visitor_stats`. Users are queued
   by their own ids; the model `users` looks up their persons. #}
{% macro note_changed_activity(added, gone) %}
    {%- set changed -%}
        select project_id, event_date, user_id from {{ added }} as added
        union
        select project_id, event_date, user_id from {{ gone }} as gone
    {%- endset -%}
    {%- set users -%} select project_id, user_id as stitched_user_id from ({{ changed }}) as changed {%- endset -%}
    {%- set days -%}
        select event_date as day from ({{ changed }}) as changed
        where project_id in ({{ projects_that_count_people() }})
    {%- endset -%}
    {{ return([add_pending_users(users), add_pending_days(days)]) }}
{% endmacro %}

{% macro projects_that_count_people() -%}
    select project_id from {{ internal_table('project_settings') }} where count_people_without_devices
{%- endmacro %}

{# The days on which these users, given as a query with (project_id, user_id), may count as visitors without a device. #}
{% macro days_without_device(users) -%}
    select activity.event_date as day
    from {{ internal_table('activity_without_device') }} as activity
    where
        activity.project_id in ({{ projects_that_count_people() }})
        and (activity.project_id, activity.user_id) in (select project_id, user_id from ({{ users }}) as users)
{%- endmacro %}

{# page_views: the next view stitch must look at views that are written without stitching, and at those without a
   device if their user has another canonical id. #}
{% macro note_unstitched_views(added, gone) %}
    {%- if var('view_stitching') %}{{ return([]) }}{% endif -%}
    {%- set devices -%}
        select project_id, anonymous_id from {{ added }} as added
        where
            anonymous_id is not null
            or exists (
                select 1 from {{ names_of_both_kinds() }} as names
                where names.project_id = added.project_id and names.user_id = added.user_id
            )
    {%- endset -%}
    {{ return([add_pending_devices(devices, ['page_views'])]) }}
{% endmacro %}

{# project_settings: if crediting rules of a project changed, all its devices may have rows to re-stitch. If it resolves
   persons, or did, all its ids may belong to other persons. With `reconcile` this holds for every project. If who is
   counted changed, days on which a user has no device need new rows of `visitor_stats`. #}
{% macro note_changed_rules(added, gone) %}
    {%- set history = internal_table('rules_history') -%}
    {%- set changed -%}
        select settings.project_id, settings.resolves_persons or persons.project_id is not null as has_persons
        from {{ this }} as settings
        left join (select distinct project_id from {{ internal_table('persons') }}) as persons
            on settings.project_id = persons.project_id
        {%- if var('reconcile') %}
        union
        select project_id, true as has_persons from {{ internal_table('persons') }}
        {%- else %}
        where not exists (
            select 1 from {{ history }} as followed
            where
                followed.followed_until is null
                and followed.project_id = settings.project_id
                and followed.rules = settings.crediting_rules
        )
        {%- endif %}
    {%- endset -%}
    {%- set changed = create_temporary('changed_rules', changed) -%}
    {%- set devices -%}
        select found.project_id, found.anonymous_id
        from (
            select project_id, anonymous_id from {{ internal_table('sessions') }}
            union
            select project_id, anonymous_id from {{ internal_table('stitched_sessions') }}
            union
            select project_id, anonymous_id from {{ internal_table('page_views') }} where anonymous_id is null
        ) as found
        where found.project_id in (select project_id from changed_rules)
    {%- endset -%}
    {%- set ids -%}
        select found.project_id, found.id_kind, found.id
        from ({{ known_ids() }}) as found
        where found.project_id in (select project_id from changed_rules where has_persons)
    {%- endset -%}
    {%- set counts = 'count_people_without_devices' -%}
    {%- set days -%}
        select event_date as day from {{ internal_table('activity_without_device') }} as activity
        where
            project_id in (
                select project_id
                from (
                    select project_id, {{ counts }} from {{ added }} as added
                    union all
                    select project_id, {{ counts }} from {{ gone }} as gone
                ) as rules
                where {{ counts }}
                group by project_id
                having count(*) = 1
            )
    {%- endset -%}
    {{ return([changed, add_pending_devices(devices), add_pending_ids(ids), add_pending_days(days)] + end_and_begin(
        history,
        ['project_id', 'policy', 'stitching', 'keep_own_user', 'rules'],
        "select project_id, policy, stitching, keep_own_user, crediting_rules as rules from " ~ this ~ " as settings",
        "project_id in (select project_id from " ~ this ~ " as settings)"
    )) }}
{% endmacro %}

{# decisions: a changed line concerns the devices and users that it names, and the ids of persons that it joins or
   separates. If only its reason changed, it concerns no row. #}
{% macro note_changed_decisions(added, gone) %}
    {%- set changed -%}
        select project_id, kind, id, other_id, is_new from (
            (
                select project_id, kind, id, other_id, true as is_new from {{ added }} as added
                where not {{ is_same_decision(gone, 'added') }}
            )
            union all
            (
                select project_id, kind, id, other_id, false as is_new from {{ gone }} as gone
                where not {{ is_same_decision(added, 'gone') }}
            )
        ) as changed
    {%- endset -%}
    {%- set changed = create_temporary('changed_decisions', changed) -%}
    {#- Canonical ids before and after the change: those in `decisions` now, and those that are gone. -#}
    {%- set names -%}
        select project_id, id as user_id, other_id as person_id from {{ this }} as decisions where kind = 'same_person'
        union
        select project_id, id as user_id, other_id as person_id from changed_decisions where kind = 'same_person'
    {%- endset -%}
    {%- set names = create_temporary('names_before_and_after', names) -%}
    {%- set concerned -%}
        select 'device' as kind, project_id, id from changed_decisions where kind in ('shared_device', 'wrong_link')
        union
        select 'user' as kind, project_id, id from changed_decisions where kind = 'same_person'
        union
        -- Two persons who are never the same: every user with one of the two canonical ids.
        select 'user' as kind, pairs.project_id, pairs.person_id as id from ({{ never_same_persons() }}) as pairs
        union
        select 'user' as kind, names.project_id, names.user_id as id
        from ({{ never_same_persons() }}) as pairs
        inner join names_before_and_after as names
            on pairs.project_id = names.project_id and pairs.person_id = names.person_id
        union
        select 'person' as kind, project_id, other_id as id from changed_decisions where kind = 'same_person'
        union
        -- A user who has another canonical id only before or only after the change was or is its own person.
        select 'person' as kind, project_id, id from changed_decisions where kind = 'same_person'
        group by project_id, id
        having count(distinct is_new) = 1
        union
        -- The traits of a person come from the links that count.
        select 'person' as kind, wrong.project_id, coalesce(names.person_id, wrong.other_id) as id
        from changed_decisions as wrong
        left join names_before_and_after as names
            on wrong.project_id = names.project_id and wrong.other_id = names.user_id
        where wrong.kind = 'wrong_link'
    {%- endset -%}
    {%- set concerned = create_temporary('concerned', concerned) -%}
    {%- set is_of_concerned_user -%}
        exists (
            select 1 from concerned
            where concerned.kind = 'user' and concerned.project_id = found.project_id and concerned.id = found.user_id
        )
    {%- endset -%}
    {%- set devices -%}
        select project_id, id as anonymous_id from concerned where kind = 'device'
        union
        select project_id, substr(other_id, 8) as anonymous_id from changed_decisions
        where kind = 'wrong_link' and other_id like 'device:%'
        union
        select found.project_id, found.anonymous_id
        from (
            select project_id, anonymous_id, user_id from {{ internal_table('identity_map') }}
            union all
            select project_id, anonymous_id, user_id from {{ internal_table('sessions') }}
            union all
            select project_id, anonymous_id, user_id from {{ internal_table('page_views') }}
        ) as found
        where {{ is_of_concerned_user }}
    {%- endset -%}
    {%- set ids -%}
        select project_id, case kind when 'device' then 'device' else 'user' end as id_kind, id from concerned
        union
        -- What is no link of a device may be a previous id that is no user's.
        select concerned.project_id, 'user' as id_kind, coalesce(names.person_id, concerned.id) as id
        from concerned
        left join names_before_and_after as names
            on concerned.project_id = names.project_id and concerned.id = names.user_id
        where concerned.kind = 'device'
        union
        -- Ids that are linked with these users may have another number of users now, and so become hubs or cease to be.
        select links.project_id, links.id_kind, links.id
        from {{ internal_table('identifier_links') }} as links
        inner join concerned
            on links.project_id = concerned.project_id and links.linked_id = concerned.id and concerned.kind != 'device'
        where links.linked_kind = 'user'
        union
        select links.project_id, 'user' as id_kind, names.person_id as id
        from {{ internal_table('identifier_links') }} as links
        inner join concerned
            on links.project_id = concerned.project_id and links.linked_id = concerned.id and concerned.kind != 'device'
        inner join names_before_and_after as names
            on links.project_id = names.project_id and links.id = names.user_id
        where links.id_kind = 'user'
        union
        select links.project_id, 'device' as id_kind, links.anonymous_id as id
        from {{ internal_table('identity_map') }} as links
        inner join concerned
            on links.project_id = concerned.project_id and links.user_id = concerned.id and concerned.kind != 'device'
    {%- endset -%}
    {%- set persons -%}
        select project_id, id as stitched_user_id from concerned where kind = 'person'
        union
        -- Devices are counted as one, or no longer.
        select sessions.project_id, sessions.stitched_user_id
        from {{ internal_table('stitched_sessions') }} as sessions
        inner join (
            select project_id, id as anonymous_id from changed_decisions where kind = 'same_device'
            union
            select project_id, other_id as anonymous_id from changed_decisions where kind = 'same_device'
        ) as devices
            on sessions.project_id = devices.project_id and sessions.anonymous_id = devices.anonymous_id
    {%- endset -%}
    {%- set days = days_without_device("select project_id, id as user_id from concerned where kind = 'user'") -%}
    {{ return(
        [changed, names, concerned, add_pending_devices(devices), add_pending_ids(ids), add_pending_users(persons)]
        + [add_pending_days(days)]
        + remember_decisions()
        + remember_names(is_before_persons=true)
    ) }}
{% endmacro %}

{% macro is_same_decision(others, row) -%}
    exists (
        select 1 from {{ others }} as others
        where
            others.project_id = {{ row }}.project_id
            and others.kind = {{ row }}.kind
            and others.id = {{ row }}.id
            and others.other_id = {{ row }}.other_id
    )
{%- endmacro %}

{% macro never_same_persons() -%}
    select project_id, id as person_id from changed_decisions where kind = 'never_same'
    union
    select project_id, other_id as person_id from changed_decisions where kind = 'never_same'
{%- endmacro %}

{# The ids of all links and all stored persons. #}
{% macro known_ids() -%}
    select project_id, id_kind, id from {{ internal_table('persons') }}
    union
    select project_id, id_kind, id from {{ internal_table('identifier_links') }}
    union
    select project_id, linked_kind as id_kind, linked_id as id from {{ internal_table('identifier_links') }}
    union
    select project_id, 'user' as id_kind, user_id as id from {{ internal_table('identity_map') }}
    union
    select project_id, 'device' as id_kind, anonymous_id as id from {{ internal_table('identity_map') }}
{%- endmacro %}

{# Update a history: end the rows that are no longer in force, among those that meet `condition`, and begin the new
   ones. #}
{% macro end_and_begin(history, columns, in_force, condition='true') %}
    {%- set columns = columns | join(', ') -%}
    {%- set end -%}
        update {{ history }} set followed_until = {{ known_at() }}
        where
            followed_until is null
            and {{ condition }}
            and ({{ columns }}) not in (select {{ columns }} from ({{ in_force }}) as in_force)
    {%- endset -%}
    {%- set begin -%}
        insert into {{ history }} ({{ columns }}, followed_since, followed_until)
        select {{ columns }}, {{ known_at() }} as followed_since, null as followed_until from (
            {{ in_force }}
            except select {{ columns }} from {{ history }} where followed_until is null
        ) as begun
    {%- endset -%}
    {{ return([end, begin]) }}
{% endmacro %}

{% macro remember_decisions() %}
    {{ return(end_and_begin(
        internal_table('decision_history'),
        ['project_id', 'decision', 'id', 'other_id', 'reason'],
        "select project_id, decision, id, other_id, reason from " ~ internal_table('decision_lines')
    )) }}
{% endmacro %}

{# The canonical ids that users have instead of their own. Before `persons` is built, those of projects that resolve
   persons are not known yet. #}
{% macro remember_names(is_before_persons=false) %}
    {%- set settings = internal_table('project_settings') -%}
    {%- set is_known -%}
        project_id in (select project_id from {{ settings }} where not resolves_persons)
    {%- endset -%}
    {#- By `resolves_persons`, which no run changes: the policy may be a run exception. -#}
    {%- set names -%}
        select project_id, user_id, person_id from {{ person_names('settings.resolves_persons') }} as names
        {%- if is_before_persons %} where {{ is_known }}{% endif %}
    {%- endset -%}
    {{ return(end_and_begin(
        internal_table('person_name_history'),
        ['project_id', 'user_id', 'person_id'],
        names,
        is_known if is_before_persons else 'true'
    )) }}
{% endmacro %}
