{# Which ids a run of `persons` resolves again. #}

{% macro has_pending_ids() %}
    {{ return(has_rows(internal_table('pending_ids'))) }}
{% endmacro %}

{# True in a first build and in a reconcile. Resolving all ids is then cheaper than finding the ids to resolve. #}
{% macro is_everything_pending() %}
    {{ return(run_query(
        'select (select count(*) from ' ~ internal_table('pending_ids') ~ ') >= (select count(*) from '
        ~ internal_table('persons') ~ ')'
    ).rows[0][0]) }}
{% endmacro %}

{# Whether a run of `persons` may touch a stored row. #}
{% macro is_unresolved(row) -%}
    {%- if not has_pending_ids() -%} false
    {%- elif is_everything_pending() -%} true
    {%- else -%} {{ is_among('unresolved_ids', row, 'id_kind', 'id') }}
    {%- endif -%}
{%- endmacro %}

{# The ids that a run resolves again: ids with changed links, ids that their links tie them to now, and all ids that
   were in a component with one of these before. #}
{% macro unresolved_ids() %}
    with evidence as (
        {{ all_evidence() }}
    ),

    pending as (
        select distinct project_id, id_kind, id from {{ internal_table('pending_ids') }}
    ),

    touched as (
        select * from evidence where {{ is_among('pending', 'evidence', 'id_kind', 'id') }}
        union
        select * from evidence where {{ is_among('pending', 'evidence', 'other_kind', 'other_id') }}
    ),

    ends as (
        select project_id, id_kind, id from touched
        union
        select project_id, other_kind, other_id from touched
    ),

    -- A hub ties nothing together: it must not draw thousands of ids into every run.
    hubs as (
        select distinct neighbours.project_id, neighbours.id_kind, neighbours.id
        from (
            select project_id, id_kind, id, other_kind, count(distinct other_id) as neighbour_count
            from evidence
            where {{ is_among('ends', 'evidence', 'id_kind', 'id') }}
            group by project_id, id_kind, id, other_kind
        ) as neighbours
        inner join {{ internal_table('project_settings') }} as settings on neighbours.project_id = settings.project_id
        left join {{ internal_table('id_limits') }} as limits
            on
                neighbours.project_id = limits.project_id
                and neighbours.id_kind = limits.id_kind
                and neighbours.other_kind = limits.other_kind
        where neighbours.neighbour_count > coalesce(limits.max_count, settings.max_users_per_device)
        union
        select project_id, 'device' as id_kind, anonymous_id as id from {{ shared_devices() }} as shared
    ),

    near as (
        select project_id, id_kind, id from pending
        union
        select project_id, id_kind, id from ends where not {{ is_among('hubs', 'ends', 'id_kind', 'id') }}
    ),

    components as (
        select distinct persons.project_id, persons.component_id
        from {{ this }} as persons
        where {{ is_among('near', 'persons', 'id_kind', 'id') }}
    )

    select project_id, id_kind, id from near
    union
    select persons.project_id, persons.id_kind, persons.id
    from {{ this }} as persons
    inner join components
        on persons.project_id = components.project_id and persons.component_id = components.component_id
{% endmacro %}

{% macro is_among(ids, row, kind, id) -%}
exists (
            select 1 from {{ ids }} as listed
            where
                listed.project_id = {{ row }}.project_id
                and listed.id_kind = {{ row }}.{{ kind }}
                and listed.id = {{ row }}.{{ id }}
        )
{%- endmacro %}
