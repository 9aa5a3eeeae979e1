{{ config(
    materialized='in_place',
    has_exceptions=true,
    key=['project_id', 'session_id'],
    day='session_date',
    scope='sessions',
    on_change='note_changed_sessions',
) }}

with subjects as {{ compute_per_use() }} (
    select
        sessions.*,
        sessions.session_date as subject_day,
        sessions.started_at as subject_at,
        sessions.anonymous_id as own_id
    from {{ rows_in_scope(ref('sessions'), 'session_date', 'sessions') }} as sessions
),

{{ stitch('subjects', switch='settings.stitching and settings.session_stitching') }}

select
    project_id,
    session_id,
    session_date,
    anonymous_id,
    user_id,
    started_at,
    ended_at,
    event_count,
    page_view_count,
    first_page_path,
    last_page_path,
    referrer,
    utm_source,
    utm_medium,
    utm_campaign,
    platform,
    source_session_id,
    stitched_user_id,
    stitched_by,
    linked_at,
    link_event_id
from stitched
