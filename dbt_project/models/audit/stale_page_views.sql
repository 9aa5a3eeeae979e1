{{ config(materialized='view', tags=['internal']) }}

{{ stale_page_views() }}
