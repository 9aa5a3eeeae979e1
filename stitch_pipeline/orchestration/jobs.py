"""The jobs that sensors and schedules launch, and those that a person launches from the launchpad."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from dagster import (
    AssetKey,
    AssetObservation,
    AssetSelection,
    DagsterRun,
    Failure,
    JobDefinition,
    MetadataValue,
    Nothing,
    OpExecutionContext,
    Out,
    Output,
    TableRecord,
    define_asset_job,
    job,
    op,
)
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from stitch_pipeline.landing.index import LandingIndex
from stitch_pipeline.orchestration.exposure import hides_values, shown
from stitch_pipeline.orchestration.placement import Placement, config_of, key_of, name_of, names_of
from stitch_pipeline.orchestration.resource import open_in_run
from stitch_pipeline.orchestration.run_config import ForgetConfig, ProposedRules, ReconcileConfig, models_config
from stitch_pipeline.orchestration.run_records import run_record
from stitch_pipeline.settings import Settings, SettingsError
from stitch_pipeline.settings.forgotten import Mode
from stitch_pipeline.stitching.build import RESTITCHED_TABLES, TABLES, reconcile
from stitch_pipeline.stitching.forget import Request, forget, look
from stitch_pipeline.stitching.preview import Proposal, RulesPreview, how_to_follow, preview_rules, sentences
from stitch_pipeline.warehouse.tables import create_tables

BUILD_JOB = "build_job"
RESTITCH_JOB = "restitch_job"
RESTITCH_PAGE_VIEWS_JOB = "restitch_page_views_job"
RECONCILE_JOB = "reconcile_job"
PREVIEW_RULES_JOB = "preview_rules_job"
FORGET_JOB = "forget_job"
REPORT_JOB = "report_job"
REPORT = "stitching_report"
"""The asset that the report's job materializes."""
JOBS = (BUILD_JOB, RESTITCH_JOB, RESTITCH_PAGE_VIEWS_JOB, RECONCILE_JOB, FORGET_JOB)
"""The jobs that change the warehouse."""
ALL_JOBS = (*JOBS, PREVIEW_RULES_JOB, REPORT_JOB)


def asset_keys(settings: Settings) -> list[AssetKey]:
    """The keys of the assets that are tables."""
    return [key_of(settings, name) for name in ("raw_events", "quarantined_events", *TABLES)]


def is_own(settings: Settings, run: DagsterRun) -> bool:
    """Whether the run is of one of the jobs, or materializes one of the tables outside of them, as the UI does."""
    own = run.job_name in names_of(settings, ALL_JOBS)
    return own or not (run.asset_selection or set()).isdisjoint(asset_keys(settings))


def asset_jobs(settings: Settings, placement: Placement) -> list[UnresolvedAssetJobDefinition]:
    """The jobs that materialize assets for a range of days."""
    return [
        define_asset_job(
            name_of(settings, BUILD_JOB),
            AssetSelection.assets(*asset_keys(settings)),
            executor_def=placement.executor,
            description="Everything for the given days, from the landing zone to the statistics.",
        ),
        define_asset_job(
            name_of(settings, RESTITCH_JOB),
            AssetSelection.assets(*(key_of(settings, table) for table in RESTITCHED_TABLES)),
            config=config_of(settings, models_config(only_pending=True)),
            executor_def=placement.executor,
            description="Bring sessions, users and statistics of the given days up to date with the links.",
        ),
        define_asset_job(
            name_of(settings, RESTITCH_PAGE_VIEWS_JOB),
            AssetSelection.assets(key_of(settings, "page_views")),
            config=config_of(settings, models_config(restitch_only=True, view_stitching=True)),
            executor_def=placement.executor,
            description="Bring the page views of the given days up to date with the links, now.",
        ),
        define_asset_job(
            name_of(settings, REPORT_JOB),
            AssetSelection.assets(key_of(settings, REPORT)),
            executor_def=placement.executor,
            description="Write the report of each project anew. It reads the warehouse and changes nothing in it.",
        ),
    ]


def reconcile_job(settings: Settings, placement: Placement) -> JobDefinition:
    """The job that looks for stale rows over all days and records them; it corrects nothing."""

    @op(
        name=name_of(settings, "find_stale_partitions"),
        out=Out(Nothing),  # else an io manager of the code location would store None
        required_resource_keys={placement.warehouse_key(settings)},
        pool=placement.pool_name(settings),
        description="Compare every stored answer with the one that links and rules give now.",
    )
    @hides_values(settings)
    def find_stale_partitions(
        context: OpExecutionContext, config: ReconcileConfig
    ) -> Iterator[AssetObservation | Output[None]]:
        if not config.only_changed_rules:
            LandingIndex(settings.index_path).refresh(settings)
        with open_in_run(context, settings, placement) as opened:
            built = reconcile(opened.engine, opened.warehouse, settings, only_changed_rules=config.only_changed_rules)
            opened.continues &= not built.failures
            opened.looked_at = built.stale.checked if built.stale else ()
            opened.followed_rules = None if built.failures else settings.all_crediting_rules
        yield run_record(settings, {}, {}, built.stale)
        if built.failures:
            raise Failure("\n".join(shown(settings, failure) for failure in built.failures))
        yield Output(None)

    @job(
        name=name_of(settings, RECONCILE_JOB),
        executor_def=placement.executor,
        description=(
            "Look for stale rows over all days, of all devices or only of projects with changed rules. It corrects "
            "nothing itself: the sensors read what it found and request exactly those partitions."
        ),
    )
    def reconcile_everything() -> None:
        find_stale_partitions()

    return reconcile_everything


def preview_rules_job(settings: Settings, placement: Placement) -> JobDefinition:
    """The job that tries rules and shows in the UI what they would change."""

    @op(
        name=name_of(settings, "try_rules"),
        out=Out(Nothing),
        pool=placement.pool_name(settings),
        description="Compare what is stored with what the proposed rules would give. Writes nothing.",
    )
    @hides_values(settings)
    def try_rules(context: OpExecutionContext, config: ProposedRules) -> Iterator[AssetObservation | Output[None]]:
        proposal = Proposal(config.project_id or None, config.rules)
        try:
            preview = preview_rules(settings, proposal)
        except SettingsError as error:
            raise Failure(str(error), allow_retries=False) from None
        for sentence in sentences(preview):
            context.log.info(sentence)
        # The page of this asset then lists all previews.
        yield AssetObservation(
            key_of(settings, "stitched_sessions"), metadata=_preview_metadata(settings, preview, proposal)
        )
        yield Output(None)

    @job(
        name=name_of(settings, PREVIEW_RULES_JOB),
        executor_def=placement.executor,
        description=(
            "What another policy, window or sharing limit would change. In the launchpad, replace `as_set` by a value. "
            "The result is the newest event of the asset stitched_sessions: how many sessions, page views and people "
            "would move, per day (and with STITCH_SHOW_IDS a sample), and how to follow the rules. Nothing is written. "
            "`link_on`, `identifiers` and the session timeout cannot be tried: they need a rebuild of every day."
        ),
    )
    def preview() -> None:
        try_rules()

    return preview


def forget_job(settings: Settings, placement: Placement) -> JobDefinition:
    """The job that forgets ids. It writes no id into Dagster: the config names a file, and the log has counts."""

    @op(
        name=name_of(settings, "forget_ids"),
        out=Out(Nothing),
        required_resource_keys={placement.warehouse_key(settings)},
        pool=placement.pool_name(settings),
        description="Count what tables and files hold of the ids; unless it is a dry run, forget them.",
    )
    @hides_values(settings)
    def forget_ids(context: OpExecutionContext, config: ForgetConfig) -> Iterator[AssetObservation | Output[None]]:
        for name in ("project_id", "ids_file"):
            if not getattr(config, name):
                raise Failure(f"{name} is empty: it must be given.", allow_retries=False)
        try:
            requests = [
                Request(config.project_id, config.kind, line, Mode(config.mode))
                for line in Path(config.ids_file).read_text(encoding="utf-8-sig").splitlines()
                if line.strip()
            ]
            with open_in_run(context, settings, placement) as opened:
                create_tables(opened.warehouse)
                found = [look(opened.warehouse, settings, request) for request in requests]
                if not config.dry_run:
                    forget(opened.warehouse, settings, requests)
                    opened.continues = False  # devices are queued, and the next look finds their stale rows
        except OSError as error:
            raise Failure(f"The file of ids cannot be read: {error.strerror}.", allow_retries=False) from None
        except (SettingsError, UnicodeDecodeError) as error:
            raise Failure(str(error), allow_retries=False) from None
        rows = Counter[str]()
        for concerned in found:
            rows.update({held.table: held.rows for held in concerned.tables})
        for table, count in rows.items():
            context.log.info(f"{table}: {count:,} rows")
        if not config.dry_run:
            context.log.info("The files that hold the ids are read again next, and their days built.")
        yield AssetObservation(
            key_of(settings, "raw_events"),
            metadata={
                "ids": len(requests),
                "dry_run": config.dry_run,
                **{f"{table}_rows": count for table, count in rows.items()},
                "landing_files": len({file.name for one in found for file in one.landing_files}),
                "lines_of_settings": sum(len(file.lines) for one in found for file in one.setting_files),
            },
        )
        yield Output(None)

    @job(
        name=name_of(settings, FORGET_JOB),
        executor_def=placement.executor,
        description=(
            "Forget users, devices or identifiers for good: their rows are deleted or pseudonymised, and no file, late "
            "event or rebuild brings them back. A dry run by default, which counts what would go. The ids are in a "
            "file, one per line, so that none is in Dagster."
        ),
    )
    def forget_persons() -> None:
        forget_ids()

    return forget_persons


def _preview_metadata(settings: Settings, preview: RulesPreview, proposal: Proposal) -> dict[str, Any]:
    numbers = (
        *("sessions", "sessions_that_move", "sessions_that_change"),
        *("page_views", "page_views_that_move", "page_views_that_change"),
        *("people_that_change", "visitors_before", "visitors_after", "due_anyway"),
    )
    sample = preview.sample if settings.show_ids else ()
    tables = {"rules": preview.changed_rules, "moves_per_day": preview.days, "sample": sample}
    return {
        "summary": MetadataValue.md("\n".join(f"- {sentence}" for sentence in sentences(preview))),
        "to_follow": MetadataValue.text(how_to_follow(settings, proposal) or "nothing was proposed"),
        **{name: _table(rows) for name, rows in tables.items() if rows},
        **{name: MetadataValue.int(getattr(preview, name)) for name in numbers},
    }


def _table(rows: Sequence[Any]) -> MetadataValue[Any]:
    return MetadataValue.table(
        [
            TableRecord({name: value if isinstance(value, int) else str(value) for name, value in vars(row).items()})
            for row in rows
        ]
    )
