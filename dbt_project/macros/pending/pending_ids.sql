{#
  The queue `pending_ids` (project_id, id_kind, id): ids of projects that resolve persons, whose links or decisions
  changed, so that they may belong to other persons. The model `persons` is its only reader.
#}

{# Queue ids, given as a query with (project_id, id_kind, id), of the projects that resolve persons. #}
{% macro add_pending_ids(ids) -%}
    insert into {{ internal_table('pending_ids') }}
    select project_id, id_kind, id from ({{ ids }}) as found
    where
        project_id in (
            select project_id from {{ internal_table('project_settings') }} where resolves_persons
            -- A project that no longer resolves persons may have stored persons to remove.
            union select project_id from {{ internal_table('persons') }}
        )
    except select project_id, id_kind, id from {{ internal_table('pending_ids') }}
{%- endmacro %}

{% macro drain_pending_ids() -%}
    delete from {{ internal_table('pending_ids') }}
{%- endmacro %}
