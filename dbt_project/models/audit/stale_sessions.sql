{{ config(materialized='view', tags=['internal']) }}

{{ stale_sessions() }}
