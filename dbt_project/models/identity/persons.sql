{#- Most runs have nothing to resolve, because no project follows `graph` or no link changed. They do not read the
    links. -#}
{%- set is_pending = execute and has_pending_ids() -%}

{{ config(
    materialized='in_place',
    key=['project_id', 'id_kind', 'id'],
    scope='persons',
    on_change='note_renamed_persons',
    pre_hook="{{ prepare_persons() }}",
    post_hook="{{ drain_pending_ids() }}",
) }}

-- depends_on: {{ ref('identity_map') }}, {{ ref('identifier_links') }}
select
    project_id,
    id_kind,
    id,
    person_id,
    component_id,
    first_seen_at
from {{ 'resolved_persons' if is_pending else this }}
{% if not is_pending %}where 1 = 0{% endif %}
