"""Run config: what the launchpad, schedules and backfills may say of one run."""

from __future__ import annotations

from typing import Any

from dagster import Config
from pydantic import Field

from stitch_pipeline.settings import Policy
from stitch_pipeline.settings.rules import rules_with
from stitch_pipeline.stitching.build import Options


class ModelsConfig(Config):
    """What one run does differently. Every field has a default, so an empty editor is a valid config."""

    only_pending: bool = Field(
        default=False,
        description="Touch only rows of devices whose links changed, instead of every row of the partitions.",
    )
    restitch_only: bool = Field(
        default=False,
        description="Page views: keep the rows and bring only their answers up to date.",
    )
    view_stitching: bool | None = Field(
        default=None,
        description="Stitch page views in this run, or leave their answers as they are; by default as set.",
    )
    session_stitching: bool | None = Field(
        default=None, description="Stitch sessions in this run, or not; by default as set per project."
    )
    policy: Policy | None = Field(
        default=None, description="Which link of a device decides, in this run; by default as set per project."
    )
    lookback_days: int | None = Field(
        default=None, ge=0, description="Days back from a login, for this run; by default as set per project."
    )

    @property
    def options(self) -> Options:
        given = {name: getattr(self, name) for name in rules_with("one_run")}
        return Options(
            only_pending=self.only_pending,
            restitch_only=self.restitch_only,
            view_stitching=self.view_stitching,
            exceptions={name: value for name, value in given.items() if value is not None},
        )


def models_config(**values: bool | str) -> dict[str, Any]:
    """Run config for the dbt models, as the launchpad and backfills take it."""
    return {"ops": {"stitch_models": {"config": values}}}


class ReconcileConfig(Config):
    """What to look at. By default everything."""

    only_changed_rules: bool = Field(
        default=False,
        description="Look only at projects whose stitching rules have changed, and at what is known to be pending.",
    )


def reconcile_config(*, only_changed_rules: bool) -> dict[str, Any]:
    return {"ops": {"find_stale_partitions": {"config": {"only_changed_rules": only_changed_rules}}}}
