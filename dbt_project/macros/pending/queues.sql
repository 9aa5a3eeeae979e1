{# Work that a change of rows makes for others, noted in the transaction that makes the change. #}

{# Links changed: the rows of their devices may be somebody else's now, their users' traits may differ. #}
{% macro note_relinked_devices(added, gone) %}
    {% set changed = "(select * from " ~ added ~ " as added union all select * from " ~ gone ~ " as gone)" %}
    {% set devices = "select distinct project_id, anonymous_id from " ~ changed ~ " as changed" %}
    {% set users = "(select distinct project_id, user_id from " ~ changed ~ " as changed) as changed" %}
    {% set on_user = " as names on changed.project_id = names.project_id and changed.user_id = names.user_id" %}
    {{ return([
        note_devices(devices),
        "insert into " ~ pipeline_table('pending_users')
        ~ " select changed.project_id, coalesce(names.person_id, changed.user_id) from " ~ users
        ~ " left join " ~ person_names() ~ on_user
        ~ " except select project_id, stitched_user_id from " ~ pipeline_table('pending_users'),
        note_ids(
            "select project_id, 'device' as id_kind, anonymous_id as id from (" ~ devices ~ ") as devices"
            ~ " union select changed.project_id, 'user', coalesce(names.person_id, changed.user_id) from " ~ users
            ~ " left join " ~ decided_names() ~ on_user
        ),
    ]) }}
{% endmacro %}

{# Ids whose links changed may be other persons' now, where persons are resolved at all. #}
{% macro note_ids(ids) -%}
    insert into {{ pipeline_table('pending_ids') }}
    select project_id, id_kind, id from ({{ ids }}) as changed
    where
        project_id in (
            select project_id from {{ pipeline_table('project_settings') }} where resolves_persons
            -- A project that is gone has no settings any more, but its persons are still to be taken out.
            union select project_id from {{ pipeline_table('persons') }}
        )
    except select project_id, id_kind, id from {{ pipeline_table('pending_ids') }}
{%- endmacro %}

{# Links to further identifiers changed: the same, and the rows of their devices may be credited for another link. #}
{% macro note_relinked_identifiers(added, gone) %}
    {% set changed = "(select * from " ~ added ~ " as added union all select * from " ~ gone ~ " as gone)" %}
    {{ return([
        note_ids(
            "select project_id, id_kind, id from " ~ changed ~ " as changed union select project_id, linked_kind, linked_id from "
            ~ changed ~ " as changed"
        ),
        note_devices(
            "select project_id, linked_id as anonymous_id from " ~ changed ~ " as changed where linked_kind = 'device'"
            ~ " and project_id in (select project_id from " ~ pipeline_table('project_settings')
            ~ " where resolves_persons)"
        ),
    ]) }}
{% endmacro %}

{# All pending devices have just been resolved, by the rules that are set. #}
{% macro forget_pending_mappings() -%}
    delete from {{ pipeline_table('pending_devices') }} where grain = 'mapping'
{%- endmacro %}

{# Put devices on the lists of all grains. #}
{% macro note_devices(devices) -%}
    insert into {{ pipeline_table('pending_devices') }}
    select grain, project_id, anonymous_id
    from ({{ devices }}) as devices
    cross join (select 'sessions' as grain union all select 'page_views' union all select 'mapping') as grains
    except select grain, project_id, anonymous_id from {{ pipeline_table('pending_devices') }}
{%- endmacro %}

{# Ids became somebody else's: every device that one of them was seen on (and '', if it has rows without a device)
   may have rows to re-stitch, and whoever had them and has them now needs a new row. #}
{% macro note_renamed_people(added, gone) %}
    {{ return([
        "create or replace temporary table renamed_ids as
        select project_id, id_kind, id, person_id from (
            (select project_id, id_kind, id, person_id from " ~ added ~ " as added"
        ~ " except select project_id, id_kind, id, person_id from " ~ gone ~ " as gone)
            union all
            (select project_id, id_kind, id, person_id from " ~ gone ~ " as gone"
        ~ " except select project_id, id_kind, id, person_id from " ~ added ~ " as added)
        ) as renamed",
        note_devices(
            "select project_id, id as anonymous_id from renamed_ids where id_kind = 'device'"
            ~ " union select links.project_id, links.linked_id from " ~ ref('identifier_links') ~ " as links"
            ~ " where links.linked_kind = 'device' and " ~ is_among('renamed_ids', 'links', 'id_kind', 'id')
            ~ " union select events.project_id, coalesce(events.anonymous_id, '') from " ~ source('landing', 'raw_events') ~ " as events"
            ~ " inner join (select project_id, id from renamed_ids where id_kind = 'user'"
            ~ " union select names.project_id, names.user_id from " ~ decided_names() ~ " as names"
            ~ " inner join renamed_ids as renamed on names.project_id = renamed.project_id"
            ~ " and renamed.id_kind = 'user' and names.person_id = renamed.id) as users"
            ~ " on events.project_id = users.project_id and events.user_id = users.id"
        ),
        "insert into " ~ pipeline_table('pending_users')
        ~ " (select project_id, person_id from renamed_ids where person_id is not null"
        ~ " union select project_id, id from renamed_ids where id_kind = 'user')"
        ~ " except select project_id, stitched_user_id from " ~ pipeline_table('pending_users'),
    ] + remember_names()) }}
{% endmacro %}

{# By which id a person goes from now on, as of this run: what is so no more is ended, what is new begun. #}
{% macro remember_names() %}
    {% set history = pipeline_table('person_name_history') %}
    {% set known = "select project_id, user_id, person_id from " ~ history ~ " where followed_until is null" %}
    {#- Not by the policy, which a run may follow for itself alone. -#}
    {% set names = "select project_id, user_id, person_id from " ~ person_names('settings.resolves_persons') ~ " as names" %}
    {{ return([
        "update " ~ history ~ " set followed_until = " ~ known_at() ~ " where followed_until is null"
        ~ " and (project_id, user_id, person_id) not in (" ~ names ~ ")",
        "insert into " ~ history ~ " select project_id, user_id, person_id, " ~ known_at() ~ ", null"
        ~ " from (" ~ names ~ " except " ~ known ~ ") as begun",
    ]) }}
{% endmacro %}

{# Sessions changed hands or content: whoever had them and whoever has them now needs a new row. #}
{% macro note_changed_users(added, gone) %}
    {{ return([
        "insert into " ~ pipeline_table('pending_users')
        ~ " select project_id, stitched_user_id from " ~ added ~ " as added"
        ~ " union select project_id, stitched_user_id from " ~ gone ~ " as gone"
        ~ " except select project_id, stitched_user_id from " ~ pipeline_table('pending_users')
    ]) }}
{% endmacro %}

{# Views written without stitching: the next view stitch must look at their devices, and at those without a
   device whose user's person goes by another id. #}
{% macro note_unstitched_views(added, gone) %}
    {% if var('view_stitching') %}{{ return([]) }}{% endif %}
    {{ return([
        "insert into " ~ pipeline_table('pending_devices')
        ~ " select 'page_views', project_id, coalesce(anonymous_id, '') from " ~ added ~ " as added"
        ~ " where anonymous_id is not null or exists (select 1 from " ~ person_names()
        ~ " as names where names.project_id = added.project_id and names.user_id = added.user_id)"
        ~ " except select grain, project_id, anonymous_id from " ~ pipeline_table('pending_devices')
    ]) }}
{% endmacro %}

{# Everybody whose row of `users` the run may have changed: who is noted, and, unless the run is about
   changed links only, who was active in the window. #}
{% macro collect_affected_users() %}
    {% if has_rows(this) %}
    create or replace temporary table affected_users as
    with policy_names as (
        select project_id, user_id, person_id from {{ person_names() }} as names
    )

    select project_id, stitched_user_id from {{ pipeline_table('pending_users') }}
    -- A user whose links changed has its traits in the row of the person that it belongs to.
    union
    select pending.project_id, policy_names.person_id
    from {{ pipeline_table('pending_users') }} as pending
    inner join policy_names
        on pending.project_id = policy_names.project_id and pending.stitched_user_id = policy_names.user_id
    {% if not var('only_pending') -%}
    union
    select project_id, stitched_user_id from {{ ref('stitched_sessions') }} as sessions
    where {{ is_in_window('sessions.session_date') }}
    {%- endif %}
    {% endif %}
{% endmacro %}
