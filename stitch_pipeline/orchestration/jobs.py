"""The jobs: what sensors and schedules launch, and what a person launches from the launchpad."""

from collections.abc import Iterator, Sequence
from typing import Any

from dagster import (
    AssetKey,
    AssetObservation,
    AssetSelection,
    Config,
    Failure,
    JobDefinition,
    MetadataValue,
    OpExecutionContext,
    Output,
    TableRecord,
    define_asset_job,
    job,
    op,
)
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition
from pydantic import Field, create_model

from stitch_pipeline.landing.index import LandingIndex
from stitch_pipeline.orchestration.assets.landing import POOL
from stitch_pipeline.orchestration.assets.models import (
    ModelsConfig,
    keep_views,
    resolve_persons,
    stale_partitions,
    write_rules,
)
from stitch_pipeline.settings import Policy, Settings, SettingsError
from stitch_pipeline.settings.rules import UNLIMITED_DAYS, StitchingRules, rules_with
from stitch_pipeline.stitching import load as loading
from stitch_pipeline.stitching import stale
from stitch_pipeline.stitching.preview import Proposal, RulesPreview, how_to_follow, preview_rules, sentences
from stitch_pipeline.warehouse.duckdb_old import WarehouseResource

BUILD_JOB = "build_job"
RESTITCH_JOB = "restitch_job"
RESTITCH_PAGE_VIEWS_JOB = "restitch_page_views_job"
RECONCILE_JOB = "reconcile_job"
PREVIEW_RULES_JOB = "preview_rules_job"


def models_config(**values: bool | str) -> dict[str, Any]:
    """Run config for the dbt models, as the launchpad and backfills take it."""
    return {"ops": {"stitch_models": {"config": values}}}


def reconcile_config() -> dict[str, Any]:
    """Run config for looking only at the projects whose stitching rules have changed."""
    return {"ops": {"find_stale_partitions": {"config": {"only_changed_rules": True}}}}


def asset_jobs() -> list[UnresolvedAssetJobDefinition]:
    return [
        define_asset_job(
            BUILD_JOB,
            AssetSelection.assets(
                "raw_events",
                "quarantined_events",
                "identity_map",
                "identifier_links",
                "persons",
                "user_mapping_history",
                "sessions",
                "stitched_sessions",
                "users",
                "page_views",
                "visitor_stats",
            ),
            description="Everything for the given days, from the landing zone to the statistics.",
        ),
        define_asset_job(
            RESTITCH_JOB,
            AssetSelection.assets("user_mapping_history", "stitched_sessions", "users", "visitor_stats"),
            config=models_config(only_pending=True),
            description="Bring sessions, users and statistics of the given days up to date with the links.",
        ),
        define_asset_job(
            RESTITCH_PAGE_VIEWS_JOB,
            AssetSelection.assets("page_views"),
            config=models_config(restitch_only=True, view_stitching=True),
            description="Bring the page views of the given days up to date with the links, now.",
        ),
    ]


class ReconcileConfig(Config):
    """What to look at. By default everything."""

    only_changed_rules: bool = Field(
        default=False,
        description="Look only at projects whose stitching rules have changed, and at what is known to be pending.",
    )


def reconcile_job(settings: Settings) -> JobDefinition:
    @op(pool=POOL, description="Compare every stored answer with the one that the links give now.")
    def find_stale_partitions(
        context: OpExecutionContext, config: ReconcileConfig, warehouse: WarehouseResource
    ) -> Iterator[AssetObservation | Output[None]]:
        index = LandingIndex(settings.index_path)
        if not config.only_changed_rules:
            index.refresh(settings)
        with warehouse.get_connection() as con:
            write_rules(con, settings, ModelsConfig())
            keep_views(con, warehouse.path, settings)
            if not config.only_changed_rules:
                index.set_loaded(loading.loaded_files(con))
                stale.suspect_every_device(con)
            resolve_persons(con, warehouse.path, settings)
            metadata = stale_partitions(con, settings)
        yield AssetObservation(AssetKey("identity_map"), metadata=metadata)
        # Not before the event log has it: see LandingIndex.
        index.set_followed_rules(settings.all_crediting_rules)
        yield Output(None)

    @job(
        name=RECONCILE_JOB,
        description=(
            "Look for wrong answers over all days, of all devices or of the projects whose rules changed. It mends "
            "nothing itself: the sensors read what it found and ask for exactly those partitions."
        ),
    )
    def reconcile() -> None:
        find_stale_partitions()

    return reconcile


def _proposed(rule: str) -> tuple[Any, Any]:
    """A rule as a field of ``ProposedRules``; its values are checked when it is tried, as they are in the settings."""
    kind: Any = StitchingRules.model_fields[rule].annotation
    description = StitchingRules.model_fields[rule].description
    if kind not in (Policy, int):
        kind, description = int, f"{description} Here {UNLIMITED_DAYS} is unlimited."
    return kind | None, Field(default=None, description=description)


_PROPOSED: dict[str, Any] = {
    "project_id": (str | None, Field(default=None, description="The project to try them on; by default every one.")),
    **{rule: _proposed(rule) for rule in rules_with("preview")},
}
ProposedRules = create_model(
    "ProposedRules",
    __base__=Config,
    __doc__="Rules to try. What is left out stays as it is set; with nothing set, what is due by the rules in force.",
    **_PROPOSED,
)


def preview_rules_job(settings: Settings) -> JobDefinition:
    @op(pool=POOL, description="Compare what is stored with what the proposed rules would give. Writes nothing.")
    def try_rules(context: OpExecutionContext, config: ProposedRules) -> Iterator[AssetObservation | Output[None]]:
        project_id, *values = (getattr(config, name) for name in _PROPOSED)
        given = zip(rules_with("preview"), values, strict=True)
        proposal = Proposal(project_id, {rule: value for rule, value in given if value is not None})
        try:
            preview = preview_rules(settings, proposal)
        except SettingsError as error:
            raise Failure(str(error), allow_retries=False) from None
        for sentence in sentences(preview):
            context.log.info(sentence)
        # On the page of this view the previews that were made stand side by side.
        yield AssetObservation(AssetKey("policy_preview_sessions"), metadata=_preview_metadata(preview, proposal))
        yield Output(None)

    @job(
        name=PREVIEW_RULES_JOB,
        description=(
            "What another policy, window or sharing limit would change: how many sessions, page views and people would "
            "move, per day and with a sample, in the metadata of the run's observation of policy_preview_sessions. "
            "Nothing is written. `link_on` and the session timeout cannot be tried: they need every day built again."
        ),
    )
    def preview() -> None:
        try_rules()

    return preview


def _preview_metadata(preview: RulesPreview, proposal: Proposal) -> dict[str, Any]:
    numbers = (
        *("sessions", "sessions_that_move", "sessions_that_change"),
        *("page_views", "page_views_that_move", "page_views_that_change"),
        *("people_that_change", "visitors_before", "visitors_after", "due_anyway"),
    )
    tables = {"rules": preview.changed_rules, "moves_per_day": preview.days, "sample": preview.sample}
    return {
        "summary": MetadataValue.md("\n".join(f"- {sentence}" for sentence in sentences(preview))),
        **{name: MetadataValue.int(getattr(preview, name)) for name in numbers},
        **{name: _table(rows) for name, rows in tables.items() if rows},
        "to_follow": MetadataValue.text(how_to_follow(proposal) or "nothing was proposed"),
    }


def _table(rows: Sequence[Any]) -> MetadataValue[Any]:
    return MetadataValue.table(
        [
            TableRecord({name: value if isinstance(value, int) else str(value) for name, value in vars(row).items()})
            for row in rows
        ]
    )
