{#
  The further identifiers that events carry (`identifiers` of a project), normalised, each with whether a guard blocks it:
  a value that is no identity, or that a pattern of its kind excludes. `condition` chooses the `events`.

  Gives the CTEs up to `sent_identifiers`: one row per event, kind and path with a value.
#}
{% macro sent_identifiers(condition) -%}
{%- set bare = lower_of("trim(normalised.id, " ~ white_space() ~ " || '\"''`')") -%}
-- The first join leaves out projects without configured identifiers, so that no JSON is parsed for them.
found_identifiers as (
    select
        events.project_id,
        events.event_id,
        events.event_date,
        events.occurred_at,
        events.anonymous_id,
        events.user_id,
        fields.id_kind,
        fields.preference,
        fields.is_trimmed,
        fields.is_lower,
        fields.is_digits,
        fields.valid_pattern,
        fields.blocked_pattern,
        case
            when fields.place = 'traits' then {{ json_text('events.traits', 'fields.json_path') }}
            when fields.place = 'identifiers' then {{ json_text('events.identifiers', 'fields.json_path') }}
            else {{ json_text('events.properties', 'fields.json_path') }}
        end as sent
    from {{ source('landing', 'raw_events') }} as events
    inner join {{ internal_table('identifier_fields') }} as fields on events.project_id = fields.project_id
    inner join {{ project_settings() }} as settings on events.project_id = settings.project_id
    where
        {{ condition }}
        and (events.anonymous_id is not null or events.user_id is not null)
        and {{ may_link('events') }}
),

trimmed_identifiers as (
    select
        *,
        case when is_trimmed then trim(sent, {{ white_space() }}) else sent end as trimmed_value
    from found_identifiers
),

normalised_identifiers as (
    select
        *,
        case
            when is_digits then {{ digits_of('trimmed_value') }}
            when is_lower then {{ lower_of('trimmed_value') }}
            else trimmed_value
        end as id
    from trimmed_identifiers
),

sent_identifiers as (
    select
        normalised.*,
        exists (
            select 1 from {{ internal_table('blocked_identifiers') }} as blocked
            where blocked.project_id = normalised.project_id and blocked.value = {{ bare }}
        )
        or case when valid_pattern is null then false else not {{ matches('id', 'valid_pattern') }} end
        or case when blocked_pattern is null then false else {{ matches('id', 'blocked_pattern') }} end as is_blocked
    from normalised_identifiers as normalised
    where trim(normalised.id, {{ white_space() }}) != ''
)
{%- endmacro %}
