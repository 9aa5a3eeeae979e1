"""The keys of hashed ids, as the warehouse knows them: a fingerprint for each project that was loaded with a key.

With another key, or with none, the ids of new rows would not be those of old ones. So that is refused.
"""

from __future__ import annotations

from stitch_pipeline.settings import SettingsError
from stitch_pipeline.settings.hashing import Hashing
from stitch_pipeline.warehouse.port import Warehouse

_TABLES = ("raw_events", "duplicate_events", "forgotten_events")
_BEGIN_ANEW = "run `stitch rebuild` and delete the warehouse that it keeps aside, to build every table anew"


def refuse_other_keys(warehouse: Warehouse, hashing: Hashing) -> None:
    """Raise SettingsError if the rows of a project have ids of another key. A missing key is no other key."""
    stored = _fingerprints(warehouse)
    for project in sorted(stored.keys() - hashing.missing.keys()):
        if project not in hashing.keys and _has_rows(warehouse, project):
            raise SettingsError(
                f"The ids of project '{project}' are hashed, and its hash_key is not set any more: set it again, or "
                f"{_BEGIN_ANEW}."
            )
        if (
            project in hashing.keys
            and hashing.fingerprint(project) != stored[project]
            and _has_rows(warehouse, project)
        ):
            raise SettingsError(
                f"The key of project '{project}' is not the one that its ids were hashed with: put the right one back, "
                f"or {_BEGIN_ANEW}."
            )


def follow_keys(warehouse: Warehouse, hashing: Hashing) -> None:
    """Note by which keys rows are loaded from now on. Raises SettingsError as ``refuse_other_keys``.

    Also if rows of a project with a key were loaded without one.
    """
    stored = _fingerprints(warehouse)
    refuse_other_keys(warehouse, hashing)
    wanted = {project: hashing.fingerprint(project) for project in hashing.keys}
    for project in sorted(wanted.keys() - stored.keys()):
        if _has_rows(warehouse, project):
            raise SettingsError(
                f"Project '{project}' has a hash_key now, and rows with ids as they were sent: {_BEGIN_ANEW}."
            )
    kept = {project: one for project, one in stored.items() if project in hashing.missing}
    if stored != {**kept, **wanted}:
        warehouse.execute("delete from hash_keys")
        warehouse.insert_rows("hash_keys", sorted({**kept, **wanted}.items()))


def _fingerprints(warehouse: Warehouse) -> dict[str, str]:
    return dict(warehouse.rows("select project_id, fingerprint from hash_keys"))


def _has_rows(warehouse: Warehouse, project_id: str) -> bool:
    found = " union all ".join(f"(select 1 from {table} where project_id = $project limit 1)" for table in _TABLES)
    return bool(warehouse.rows(found, project=project_id))
