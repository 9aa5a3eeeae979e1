"""Where the definitions stand in a code location: their names, and what they share with definitions of others.

Everything that names an asset, job, sensor, schedule or op, or looks one up in Dagster's records, takes the name from
here. ``Settings.key_prefix`` keeps names apart: it precedes every asset key, and with ``_`` every other name.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Annotated, Any, Literal

from dagster import AssetKey, ExecutorDefinition, in_process_executor, multiprocess_executor
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WithJsonSchema, field_validator

from stitch_pipeline.settings import Settings, SettingsError
from stitch_pipeline.settings.rules import sentences

OWNERS = ("team:analytics-engineering",)
POOL = "duckdb"
WAREHOUSE = "warehouse"

TriggerName = Literal[
    "feeds_sensor",
    "landing_sensor",
    "recovery_sensor",
    "rules_sensor",
    "identify_sensor",
    "view_stitching_schedule",
    "daily_schedule",
    "reconcile_schedule",
    "report_schedule",
]

_EXECUTORS = {"in_process": in_process_executor, "multiprocess": multiprocess_executor}
_Executor = Annotated[
    ExecutorDefinition,
    BeforeValidator(lambda value: _EXECUTORS.get(value, value) if isinstance(value, str) else value),
    WithJsonSchema({"type": "string", "enum": list(_EXECUTORS)}),
]


def key_of(settings: Settings, name: str) -> AssetKey:
    """The key of one of the assets."""
    return AssetKey([*settings.key_prefix_parts, name])


def name_of(settings: Settings, name: str) -> str:
    """The name of a job, sensor, schedule, op, pool or resource in the code location."""
    return "_".join([*settings.key_prefix_parts, name])


def names_of(settings: Settings, names: Collection[str]) -> list[str]:
    """The names of several."""
    return [name_of(settings, name) for name in names]


def config_of(settings: Settings, run_config: Mapping[str, Any]) -> dict[str, Any]:
    """Run config with the ops under the names that they have in the code location."""
    return {"ops": {name_of(settings, op): given for op, given in run_config["ops"].items()}} if run_config else {}


class Placement(BaseModel):
    """How the definitions fit into a code location of others."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, arbitrary_types_allowed=True)

    group_name: str | None = None
    """The group of all assets; by default a group per kind: landing, identity, sessions, …."""
    owners: tuple[str, ...] = OWNERS
    """The owners of all assets: e-mail addresses, or teams such as `team:growth`."""
    triggers: tuple[TriggerName, ...] | None = None
    """The sensors and schedules to include, by name; by default all."""
    resource_key: str | None = None
    """The key of the warehouse's resource; by default `warehouse`, after the key prefix."""
    pool: str | None = None
    """The concurrency pool of everything that opens the warehouse; by default `duckdb`, after the key prefix."""
    executor: _Executor = Field(default_factory=lambda: in_process_executor)
    """The executor of these jobs and of nothing else: `in_process` (the default) or `multiprocess`."""

    @field_validator("resource_key", "pool", "group_name", mode="after")
    @classmethod
    def _is_a_name(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"\w+", value, re.ASCII):
            raise ValueError("is not a name of letters, digits and _")
        return value

    def warehouse_key(self, settings: Settings) -> str:
        return self.resource_key or name_of(settings, WAREHOUSE)

    def pool_name(self, settings: Settings) -> str:
        return self.pool or name_of(settings, POOL)


def placement_of(**given: Any) -> Placement:
    """The placement with these fields. Raises SettingsError with one sentence for each wrong one."""
    try:
        return Placement.model_validate(given)
    except ValidationError as error:
        raise SettingsError(sentences(error, Placement)) from None
