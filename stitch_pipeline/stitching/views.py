"""Trials of the warehouse's own views: their results for one device, or under rules that are not set.

So ``why`` and ``preview`` run the same SQL that stitches, and write nothing to the warehouse.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from stitch_pipeline.settings import ProjectSettings, Settings
from stitch_pipeline.settings.decisions import Decision
from stitch_pipeline.stitching.rules import follow
from stitch_pipeline.warehouse import dbt_project
from stitch_pipeline.warehouse.engine import engine_of
from stitch_pipeline.warehouse.migrations import check_version
from stitch_pipeline.warehouse.port import Engine, Warehouse, WarehouseError
from stitch_pipeline.warehouse.tables import TABLES_OF_RULES

# The tables that a build of `persons` reads and writes.
_TABLES_OF_PERSONS = (
    *("persons", "person_name_history", "changed_rows", "unpublished"),
    *("pending_ids", "pending_devices", "pending_users", "pending_days"),
)


@contextmanager
def trial(settings: Settings, replaced: Mapping[str, str], views: Sequence[str]) -> Iterator[tuple[Engine, Warehouse]]:
    """``Engine.trial``. Also raises WarehouseError if another version of the project created the warehouse's views."""
    engine = engine_of(settings)
    with engine.open(read_only=True) as warehouse:
        refuse_other_views(warehouse, engine.place)
    with engine.trial(replaced, views) as (scratch, warehouse):
        yield scratch, warehouse


@dataclass(frozen=True)
class RulesTrial:
    """A trial in which no rules are set until ``follow`` sets some."""

    engine: Engine
    warehouse: Warehouse

    def follow(self, rules: Mapping[str, ProjectSettings], decisions: Sequence[Decision]) -> None:
        """Set the rules of each project, and resolve the persons that follow from them."""
        follow(self.warehouse, rules, decisions)
        self.warehouse.execute("delete from persons")
        if not any(own.resolves_persons for own in rules.values()):
            return
        # `persons` is empty, so one pending id makes the model resolve all ids.
        self.warehouse.execute(
            "insert into pending_ids select project_id, 'user', '' from project_settings where resolves_persons"
        )
        results = dbt_project.run_models(self.engine, models=["persons"], variables={}, on_event=lambda event: None)
        if messages := [result.message for result in results if not result.succeeded]:
            raise WarehouseError(f"The persons under these rules cannot be resolved: {' '.join(messages)}")


@contextmanager
def rules_trial(
    settings: Settings, views: Sequence[str] = (), replaced: Mapping[str, str] | None = None
) -> Iterator[RulesTrial]:
    """A trial of rules, in which ``replaced`` adds further replacements; see ``trial``."""
    tables = (*TABLES_OF_RULES, "decisions", *_TABLES_OF_PERSONS)
    stored = engine_of(settings).dialect.stored
    emptied = {table: f"select * from {stored(table)} limit 0" for table in tables}
    with trial(settings, {**emptied, **(replaced or {})}, views) as (engine, warehouse):
        yield RulesTrial(engine, warehouse)


def views_are_current(warehouse: Warehouse) -> bool:
    """Whether this version of the dbt project created the views of the warehouse."""
    dbt_project.prepare_manifest()
    are_known = warehouse.rows(
        "select 1 from information_schema.tables where table_schema = current_schema() and table_name = 'views_version'"
    )
    digests = warehouse.rows("select digest from views_version") if are_known else []
    return digests == [(dbt_project.prepared_digest(),)]


def refuse_other_views(warehouse: Warehouse, place: str) -> None:
    """Raise WarehouseError for views of another version of the project, because their answers may differ."""
    check_version(warehouse)
    if not views_are_current(warehouse):
        raise WarehouseError(
            f"The views of the warehouse '{place}' are not those of this version: run `stitch settle --reconcile`, "
            "which creates them again, and try again."
        )
