"""Run config: what the launchpad, schedules and backfills may set for one run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from dagster import Config
from pydantic import Field, create_model

from stitch_pipeline.settings.forgotten import Mode
from stitch_pipeline.settings.rules import UNLIMITED_DAYS, StitchingRules, rules_with
from stitch_pipeline.stitching.build import Options


def _rules_config(scope: Literal["one_run", "preview"]) -> type[Config]:
    """A config class with a field for each rule that has this scope. None means as set, so unlimited is UNLIMITED_DAYS.

    Values are checked when they are used, as settings are, so the error for a wrong value is one sentence.
    """
    fields: dict[str, Any] = {}
    for name in rules_with(scope):
        rule = StitchingRules.model_fields[name]
        is_days = name.endswith("_days")
        description = f"{rule.description}{f' {UNLIMITED_DAYS} is unlimited.' * is_days} By default as set per project."
        kind: Any = int if is_days else rule.annotation
        fields[name] = (kind | None, Field(default=None, description=description))
    return create_model(f"Rules_{scope}", __base__=Config, **fields)


def _given(config: Config, scope: Literal["one_run", "preview"]) -> dict[str, Any]:
    """The rules that have a value in the config, by name."""
    values = {name: getattr(config, name) for name in rules_with(scope)}
    return {name: value for name, value in values.items() if value is not None}


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
    view_stitching: bool | None = Field(
        default=None,
        description="Stitch page views in this run, or leave their answers as they are; by default as set.",
    )

    @property
    def options(self) -> Options:
        """The config as ``stitching.build`` takes it."""
        return Options(
            only_pending=self.only_pending,
            restitch_only=self.restitch_only,
            view_stitching=self.view_stitching,
            exceptions=_given(self, "one_run"),
        )


class ProposedRules(RulesOfPreview):
    """Rules to try. A rule without a value stays as it is set; with no rule, the preview shows what is due anyway."""

    project_id: str | None = Field(default=None, description="The project to try them on; by default every project.")

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

    project_id: str = Field(description="The project of the ids.")
    kind: str = Field(default="user", description="user, device, or a kind of identifier of the project.")
    ids_file: str = Field(description="A text file with one id per line. Delete it afterwards.")
    mode: Mode = Field(default=Mode.delete, description="Delete the rows, or keep them under a pseudonym.")
    dry_run: bool = Field(default=True, description="Only count what would go.")


def reconcile_config(*, only_changed_rules: bool) -> dict[str, Any]:
    """Run config for ``reconcile_job``."""
    return {"ops": {"find_stale_partitions": {"config": {"only_changed_rules": only_changed_rules}}}}
