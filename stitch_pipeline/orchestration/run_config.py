"""Run config: what the launchpad, schedules and backfills may set for one run.

Every field has a default that is not None, because the launchpad opens with the defaults and leaves out those that are
None. A rule's is ``as_set``.
"""

from __future__ import annotations

from enum import StrEnum
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, cast

from dagster import Config
from pydantic import Field, create_model

from stitch_pipeline.settings import ProjectSettings, SettingsError
from stitch_pipeline.settings.forgotten import Mode
from stitch_pipeline.settings.rules import rules_with
from stitch_pipeline.stitching.build import Options

AS_SET = "as_set"
"""The value of a field that leaves it to the settings."""


@cache
def _choices(rule_type: type[StrEnum]) -> type[StrEnum]:
    """The members of the rule's type and ``as_set``, for the launchpad to offer."""
    new_enum: Any = StrEnum  # mypy knows enums with literal members only
    return cast("type[StrEnum]", new_enum(rule_type.__name__, [AS_SET, *rule_type.__members__]))


def _rules_config(scope: Literal["one_run", "preview"]) -> type[Config]:
    """A config class with a field for each rule that has this scope.

    Values are checked when they are used, as settings are, so the error for a wrong value is one sentence. Dagster has
    no type for "a number or ``as_set``".
    """
    fields: dict[str, Any] = {}
    for name in rules_with(scope):
        rule = ProjectSettings.model_fields[name]
        description = f"{rule.description} `{AS_SET}`: as the settings say, per project."
        if isinstance(rule.annotation, type) and issubclass(rule.annotation, StrEnum):
            choices = _choices(rule.annotation)
            fields[name] = (choices, Field(default=choices[AS_SET], description=description))
        else:
            fields[name] = (Any, Field(default=AS_SET, description=description))
    return create_model(f"Rules_{scope}", __base__=Config, **fields)


def _given(config: Config, scope: Literal["one_run", "preview"]) -> dict[str, Any]:
    """The rules that have a value in the config, by name."""
    values = {name: getattr(config, name) for name in rules_with(scope)}
    return {
        name: str(value) if isinstance(value, StrEnum) else value
        for name, value in values.items()
        if value not in (None, "", AS_SET)
    }


if TYPE_CHECKING:
    RulesOfOneRun = Config
    RulesOfPreview = Config
else:
    RulesOfOneRun = _rules_config("one_run")
    RulesOfPreview = _rules_config("preview")


class ModelsConfig(RulesOfOneRun):
    """What one run does differently, run exceptions included. An empty config is valid: every field has a default."""

    only_pending: bool = Field(
        default=False,
        description="Touch only rows of devices with changed links, instead of every row of the partitions.",
    )
    restitch_only: bool = Field(
        default=False,
        description="Page views: keep the rows and bring only their answers up to date.",
    )
    view_stitching: Any = Field(
        default=AS_SET,
        description=(
            "Page views: true stitches them in this run, false leaves their answers as they are. "
            f"`{AS_SET}`: as STITCH_VIEW_STITCHING says."
        ),
    )

    @property
    def options(self) -> Options:
        """The config as ``stitching.build`` takes it. Raises SettingsError for an invalid value."""
        if self.view_stitching not in (None, AS_SET, True, False):
            raise SettingsError(f"view_stitching = '{self.view_stitching}': must be true, false or {AS_SET}.")
        given = _given(self, "one_run")
        rules = ProjectSettings().changed_by(given)
        return Options(
            only_pending=self.only_pending,
            restitch_only=self.restitch_only,
            view_stitching=None if self.view_stitching == AS_SET else self.view_stitching,
            exceptions={name: getattr(rules, name) for name in given},
        )


class ProposedRules(RulesOfPreview):
    """Rules to try. A rule that is ``as_set`` stays as it is; if all do, the preview shows what is due anyway."""

    project_id: str = Field(default="", description="The project to try them on. Empty: every project.")

    @property
    def rules(self) -> dict[str, Any]:
        """The proposed rules, by name."""
        return _given(self, "preview")


def models_config(**values: bool | int | str) -> dict[str, Any]:
    """Run config for the dbt models, as the launchpad and backfills take it."""
    return {"ops": {"stitch_models": {"config": values}}}


class ReconcileConfig(Config):
    """What a run of ``reconcile_job`` looks at. By default everything."""

    only_changed_rules: bool = Field(
        default=False,
        description="Look only at projects with changed stitching rules, and at what is known to be pending.",
    )


class ForgetConfig(Config):
    """What ``forget_job`` forgets. The ids are in a file, because Dagster keeps run config for ever."""

    project_id: str = Field(default="", description="The project of the ids. It must be given.")
    kind: str = Field(default="user", description="user, device, or a kind of identifier of the project.")
    ids_file: str = Field(
        default="",
        description="The path of a text file with one id per line. It must be given. Delete the file afterwards.",
    )
    mode: Mode = Field(default=Mode.delete, description="Delete the rows, or keep them under a pseudonym.")
    dry_run: bool = Field(default=True, description="Only count what would go.")


def reconcile_config(*, only_changed_rules: bool) -> dict[str, Any]:
    """Run config for ``reconcile_job``."""
    return {"ops": {"find_stale_partitions": {"config": {"only_changed_rules": only_changed_rules}}}}
