{{ config(
    materialized='in_place',
    key=['project_id'],
    scope='all',
    on_change='note_changed_rules',
    tags=['internal'],
) }}

-- Makes the followed rules equal to the configured ones, and queues the devices and ids that a change concerns.
select * from {{ internal_table('configured_rules') }}
