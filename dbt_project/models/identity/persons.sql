{#- Most runs have nothing to resolve, because no project follows `graph` or no link changed: these do not even
    look at the links. -#}
{%- set pending = run_query('select count(*) from ' ~ pipeline_table('pending_ids')).rows[0][0] if execute else 1 -%}

{{ config(
    materialized='in_place',
    key=['project_id', 'id_kind', 'id'],
    scope='persons',
    on_change='note_renamed_people',
    pre_hook="{{ collect_unresolved_ids() }}",
    post_hook="delete from {{ pipeline_table('pending_ids') }}",
) }}

{% if pending -%}
with {{ resolve_persons('resolves_persons', 'unresolved_ids') }}

select
    project_id,
    id_kind,
    id,
    person_id,
    component_id,
    first_seen_at
from resolved_persons
{%- else -%}
-- depends_on: {{ ref('identity_map') }}, {{ ref('identifier_links') }}
select
    project_id,
    id_kind,
    id,
    person_id,
    component_id,
    first_seen_at
from {{ this }}
where 1 = 0
{%- endif %}
