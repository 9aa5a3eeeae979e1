{{ config(
    materialized='in_place',
    key=['project_id', 'kind', 'id', 'other_id'],
    scope='all',
    on_change='note_changed_decisions',
    tags=['internal'],
) }}

-- depends_on: {{ ref('project_settings') }}
-- Makes the followed decisions equal to the configured ones, and queues the ids that a change concerns.
select * from {{ internal_table('configured_decisions') }}
