{{ config(
    materialized='in_place',
    key=['project_id', 'kind', 'id', 'other_id'],
    scope='all',
    on_change='note_changed_decisions',
    tags=['internal'],
) }}

-- depends_on: {{ ref('project_settings') }}
-- The decisions that are followed become those that are configured, and the ids that this concerns are queued.
select * from {{ internal_table('configured_decisions') }} as configured
