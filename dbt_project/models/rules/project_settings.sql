{{ config(
    materialized='in_place',
    key=['project_id'],
    scope='all',
    on_change='note_changed_rules',
    tags=['internal'],
) }}

-- The rules that are followed become those that are configured, and the devices that this concerns are queued.
select * from {{ internal_table('configured_rules') }} as configured
