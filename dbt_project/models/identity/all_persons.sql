{{ config(materialized='view') }}

with {{ resolve_persons() }}

select
    project_id,
    id_kind,
    id,
    person_id,
    component_id,
    first_seen_at
from resolved_persons
