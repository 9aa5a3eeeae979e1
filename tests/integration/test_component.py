"""The definitions in somebody else's code location: as a component, and merged with what a team has already."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import pytest
import yaml
from dagster import (
    AssetKey,
    DagsterInstance,
    DagsterRun,
    DagsterRunStatus,
    Definitions,
    InMemoryIOManager,
    InputContext,
    OutputContext,
    ResourceParam,
    RunsFilter,
    asset,
    build_sensor_context,
    define_asset_job,
    in_process_executor,
    multiprocess_executor,
)
from dagster._core.utils import make_new_run_id
from dagster.components.core.component_tree import ComponentTreeException
from dagster.components.testing import create_defs_folder_sandbox
from engines import of_duckdb
from jsonschema import Draft202012Validator
from warehouses import REPOSITORY, START, Warehouse, page_view

import stitch_pipeline
from stitch_pipeline import IdentityStitching
from stitch_pipeline.cli.main import main
from stitch_pipeline.cli.progress import settled_document
from stitch_pipeline.component import Attributes, markdown_table
from stitch_pipeline.definitions import build_defs
from stitch_pipeline.orchestration import pool
from stitch_pipeline.orchestration.abandoned_runs import SETTLE_TAG, fail_abandoned_runs
from stitch_pipeline.orchestration.placement import Placement
from stitch_pipeline.orchestration.run_records import past_runs, run_request
from stitch_pipeline.orchestration.settle import settle
from stitch_pipeline.orchestration.status import status
from stitch_pipeline.orchestration.triggers import TRIGGERS
from stitch_pipeline.planning.days import DayRange
from stitch_pipeline.planning.requests import Request
from stitch_pipeline.settings import Settings, SettingsError
from stitch_pipeline.stitching.published import NotPublished

pytestmark = of_duckdb("deployments beside each other are files")

DOCS = REPOSITORY / "docs" / "your-own-dagster.md"
LOGIN = [
    page_view("e1", "2026-03-01 12:00"),
    page_view("e2", "2026-03-02 12:00", event_type="identify", user_id="maya"),
]


class OnlyTheTeams(InMemoryIOManager):
    """The team's io manager, which cannot store what is not the team's."""

    def handle_output(self, context: OutputContext, obj: Any) -> None:
        assert context.asset_key.path == ["users"], context.asset_key
        super().handle_output(context, obj)

    def load_input(self, context: InputContext) -> Any:
        return super().load_input(context)


@asset
def users(warehouse: ResourceParam[str]) -> list[str]:
    """The team's own asset of this name, on its own resource of this name."""
    return [warehouse]


TEAM = Definitions(
    assets=[users],
    jobs=[define_asset_job("build_job", [users])],
    resources={"warehouse": "the team's", "io_manager": OnlyTheTeams()},  # type: ignore[no-untyped-call]
    executor=multiprocess_executor,
)


@dataclass
class Merged:
    """A team's definitions with those of two projects, each with a warehouse of its own, in one instance."""

    defs: Definitions
    instance: DagsterInstance
    shop: Warehouse
    blog: Warehouse

    def settle(self, warehouse: Warehouse) -> list[tuple[str, str]]:
        settled = settle(warehouse.settings, lambda: self.defs, self.instance, reconcile=True, view_stitching=True)
        assert settled.is_settled, settled
        return [(run.job_name, str(run.days)) for run in settled.runs]


@pytest.fixture(scope="module")
def merged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Merged]:
    directory = tmp_path_factory.mktemp("merged")
    with DagsterInstance.ephemeral() as instance:
        shop = Warehouse(directory / "shop", instance, key_prefix="shop")
        blog = Warehouse(directory / "blog", instance, key_prefix="marketing/blog")
        defs = Definitions.merge(
            TEAM,
            build_defs(shop.settings, group_name="identity", owners=["team:growth"]),
            build_defs(blog.settings, triggers=["landing_sensor", "daily_schedule"], pool="blog_file"),
        )
        both = Merged(defs, instance, shop, blog)
        shop.land_events("jitsu/a.ndjson", LOGIN)
        blog.land_events("jitsu/a.ndjson", LOGIN[:1])
        assert both.settle(shop) == [("shop_reconcile_job", "None"), ("shop_build_job", f"{START} to 2026-03-04")]
        both.settle(blog)
        yield both


def test_each_project_writes_its_own_warehouse(merged: Merged) -> None:
    wanted = ["session_date", "stitched_user_id"]
    assert [tuple(row.values()) for row in merged.shop.rows("stitched_sessions", wanted)] == [
        (date(2026, 3, 1), "maya"),
        (date(2026, 3, 2), "maya"),
    ]
    assert [tuple(row.values()) for row in merged.blog.rows("stitched_sessions", wanted)] == [(date(2026, 3, 1), "a")]


def test_the_team_keeps_its_asset_its_resource_and_its_executor(merged: Merged) -> None:
    repository = merged.defs.get_repository_def()
    result = merged.defs.resolve_job_def("build_job").execute_in_process(instance=merged.instance)
    assert result.output_for_node("users") == ["the team's"]
    executors = {job.name: job.executor_def.name for job in repository.get_all_jobs()}
    own = {name: found for name, found in executors.items() if name.startswith(("shop_", "marketing_blog_"))}
    assert len(own) == 14
    assert set(own.values()) == {in_process_executor.name}
    assert {found for name, found in executors.items() if name not in own} == {multiprocess_executor.name}


def test_nothing_has_the_name_of_something_else(merged: Merged) -> None:
    graph = merged.defs.get_repository_def().asset_graph
    keys = {key.to_user_string() for key in graph.get_all_asset_keys()}
    assert {"users", "shop/users", "marketing/blog/users"} < keys
    assert {key for key in keys if not key.startswith(("shop/", "marketing/blog/"))} == {"users"}
    for key in graph.asset_check_keys:
        assert key.asset_key.path[0] in ("shop", "marketing"), key
    sessions = graph.get(AssetKey(["shop", "stitched_sessions"]))
    assert AssetKey(["shop", "sessions"]) in sessions.parent_keys
    assert {key.path[0] for key in sessions.parent_keys} == {"shop"}
    assert (sessions.group_name, sessions.owners, sessions.pools) == ("identity", ["team:growth"], {"shop_duckdb"})
    other = graph.get(AssetKey(["marketing", "blog", "stitched_sessions"]))
    assert (other.group_name, other.pools) == ("stitched", {"blog_file"})


def test_only_the_chosen_triggers_are_there(merged: Merged) -> None:
    repository = merged.defs.get_repository_def()
    names = {sensor.name for sensor in repository.sensor_defs} | {found.name for found in repository.schedule_defs}
    assert names == {
        *(f"shop_{trigger.name}" for trigger in TRIGGERS if trigger.name != "feeds_sensor"),  # no feed is a table
        *("shop_alert_sensor", "marketing_blog_alert_sensor"),
        "marketing_blog_landing_sensor",
        "marketing_blog_daily_schedule",
    }
    with pytest.raises(SettingsError, match=r"triggers\.0 = 'landing': input should be 'feeds_sensor', 'landing_"):
        build_defs(merged.shop.settings, triggers=["landing"])
    with pytest.raises(SettingsError, match="resource_key = 'a-b': is not a name of letters, digits and _"):
        build_defs(merged.shop.settings, resource_key="a-b")


def test_a_tick_of_one_project_requests_its_own_job_and_sees_its_own_runs(merged: Merged) -> None:
    sensor = merged.defs.get_repository_def().get_sensor_def("shop_identify_sensor")
    assert sensor.job_name == "shop_restitch_job"
    assert [run.state for run in past_runs(merged.instance, "shop_build_job")] == ["succeeded"]
    runs = merged.instance.get_runs(RunsFilter(job_name="marketing_blog_build_job"))
    assert len(runs) == 1
    found = status(merged.shop.settings, merged.instance)
    assert found.is_settled
    assert found.last_look is not None
    assert found.last_success is not None
    assert found.last_success.job_name in ("shop_reconcile_job", "shop_build_job")
    assert [trigger.job_name for trigger in found.triggers][:2] == ["shop_build_job", "shop_reconcile_job"]
    observed = merged.instance.fetch_observations(AssetKey(["shop", "identity_map"]), limit=10).records
    assert len(observed) == 2, "the look and the build"
    assert not merged.instance.fetch_observations(AssetKey("identity_map"), limit=1).records


def test_settle_prints_names_as_the_ui_has_them(merged: Merged) -> None:
    def begun(job_name: str) -> str:
        run = DagsterRun(job_name, make_new_run_id(), status=DagsterRunStatus.STARTED)
        merged.instance.add_run(run)
        return run.run_id

    ids = [begun(name) for name in ("build_job", "shop_reconcile_job")]
    lines: list[Any] = []
    settled = settle(merged.shop.settings, lambda: merged.defs, merged.instance, reconcile=True, report=lines.append)
    for run_id in ids:
        merged.instance.delete_run(run_id)
    assert settled.waiting == ["shop_reconcile_job: a run is queued or running elsewhere"]
    assert "shop_reconcile_job: all days" in lines
    assert [run["job_name"] for run in settled_document(settled)["runs"]] == ["shop_reconcile_job"]


def test_the_jobs_of_a_prefix_take_the_config_of_the_launchpad(merged: Merged) -> None:
    request = run_request(Request(DayRange(START, START), "by hand"))
    result = merged.defs.resolve_job_def("shop_restitch_job").execute_in_process(
        instance=merged.instance,
        tags=dict(request.tags),
        run_config={"ops": {"shop_stitch_models": {"config": {"policy": "first", "only_pending": False}}}},
    )
    assert result.success
    preview = merged.defs.resolve_job_def("shop_preview_rules_job").execute_in_process(
        instance=merged.instance, run_config={"ops": {"shop_try_rules": {"config": {"lookback_days": 0}}}}
    )
    (event,) = preview.get_asset_observation_events()
    observation = event.asset_observation_data.asset_observation
    assert observation.asset_key == AssetKey(["shop", "stitched_sessions"])
    assert observation.metadata["sessions_that_move"].value == 1


def test_abandoned_runs_of_others_are_left_alone(merged: Merged) -> None:
    def unfinished(job_name: str) -> str:
        run = DagsterRun(job_name, make_new_run_id(), tags={SETTLE_TAG: "true"}, status=DagsterRunStatus.STARTED)
        merged.instance.add_run(run)
        return run.run_id

    ids = {name: unfinished(name) for name in ("build_job", "marketing_blog_build_job", "shop_build_job")}
    fail_abandoned_runs(merged.shop.settings, merged.instance)
    found = {name: merged.instance.get_run_by_id(run_id).status for name, run_id in ids.items()}  # type: ignore[union-attr]
    for run_id in ids.values():
        merged.instance.delete_run(run_id)
    assert found == {
        "build_job": DagsterRunStatus.STARTED,
        "marketing_blog_build_job": DagsterRunStatus.STARTED,
        "shop_build_job": DagsterRunStatus.FAILURE,
    }


def test_a_missing_pool_limit_is_said_in_ticks_and_runs_until_it_is_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pool, "_warned", set())
    sentence = "The pool 'duckdb' has no limit in this Dagster instance"
    with DagsterInstance.local_temp(str(tmp_path)) as instance:
        warehouse = Warehouse(tmp_path / "deployment", instance)
        sensor = warehouse.defs.get_repository_def().get_sensor_def("landing_sensor")
        with caplog.at_level(logging.WARNING), build_sensor_context(instance=instance) as context:
            for _ in range(2):
                sensor.evaluate_tick(context)
        assert [sentence in record.message for record in caplog.records if record.name == pool.__name__] == [True]
        job = warehouse.defs.resolve_job_def("reconcile_job")
        run_id = job.execute_in_process(instance=instance).run_id
        assert any(sentence in entry.user_message for entry in instance.all_logs(run_id))
        assert "`dagster instance concurrency set duckdb 1`" in (pool.missing_limit(instance, "duckdb") or "")
        instance.event_log_storage.set_concurrency_slots("duckdb", 2)
        assert "has the limit 2" in (pool.missing_limit(instance, "duckdb") or "")
        instance.event_log_storage.set_concurrency_slots("duckdb", 1)
        assert pool.missing_limit(instance, "duckdb") is None
    (tmp_path / "limited").mkdir()
    limited = {"concurrency": {"pools": {"default_limit": 1}}}
    with DagsterInstance.local_temp(str(tmp_path / "limited"), overrides=limited) as instance:
        assert pool.missing_limit(instance, "duckdb") is None


def component_of(yaml: str, project: Path | None = None) -> tuple[IdentityStitching, Definitions, Path]:
    """The component that a ``defs.yaml`` with these attributes gives, its definitions and the project's root."""
    with create_defs_folder_sandbox() as sandbox:
        path = sandbox.scaffold_component(component_cls=IdentityStitching, defs_path="identity")
        if yaml:
            text = textwrap.indent(textwrap.dedent(yaml), "  ")
            (path / "defs.yaml").write_text(f"type: stitch_pipeline.IdentityStitching\nattributes:\n{text}\n")
        with sandbox.load_component_and_build_defs(defs_path=path) as (component, defs):
            assert isinstance(component, IdentityStitching)
            return component, defs, sandbox.project_root


def test_what_is_scaffolded_loads_with_paths_in_the_project(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    component, defs, root = component_of("")
    settings = component.settings
    assert settings.key_prefix == "identity"
    assert settings.landing_dir == root / "data" / "landing"
    assert settings.duckdb_path == root / "data" / "identity.duckdb"
    assert settings.project_file == root / "stitch.toml"
    assert settings.start_date == date(2025, 1, 1)
    keys = {key.to_user_string() for key in defs.get_repository_def().asset_graph.get_all_asset_keys()}
    assert "identity/stitched_sessions" in keys
    assert defs.get_repository_def().asset_graph.get(AssetKey(["identity", "users"])).owners == []


@pytest.mark.parametrize("scaffold_format", ["yaml", "python"])
def test_any_name_may_be_scaffolded(scaffold_format: Literal["yaml", "python"], tmp_path: Path) -> None:
    with create_defs_folder_sandbox() as sandbox:
        path = sandbox.scaffold_component(
            component_cls=IdentityStitching, defs_path="stitch", scaffold_format=scaffold_format
        )
        if scaffold_format == "python":
            names: dict[str, Any] = {}
            exec((path / "component.py").read_text(), names)
            settings = names["load"](SimpleNamespace(project_root=tmp_path)).settings
        else:
            with sandbox.load_component_and_build_defs(defs_path=path) as (component, _):
                assert isinstance(component, IdentityStitching)
                settings = component.settings
    assert (settings.key_prefix, settings.duckdb_path.name) == ("stitch", "warehouse.duckdb")


def test_every_kind_of_attribute_arrives_typed_and_templates_are_filled_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_DAYS", "7")
    monkeypatch.setenv("SHOP_KEY", "0123456789abcdef")
    monkeypatch.setenv("STITCH_CARRY_FORWARD_DAYS", "3")
    component, defs, root = component_of(
        """
        key_prefix: shop
        landing_dir: "{{ context.project_root }}/events"
        duckdb_path: /tmp/somewhere/shop.duckdb
        start_date: 2026-03-01
        lookback_days: "{{ env.SHOP_DAYS }}"
        forget_key: "{{ env.SHOP_KEY }}"
        index_seconds_per_tick: 1.5
        show_ids: true
        projects:
          shop:
            policy: graph
            lookback_days: unlimited
            blocked_ids: ["0123"]
            identifiers: {email: {paths: traits.email, normalise: [trim, lower]}}
        feeds:
          web: {source: segment, project_id: shop}
        group_name: growth
        owners: ["team:growth"]
        triggers: [landing_sensor]
        resource_key: shop_file
        executor: multiprocess
        """
    )
    settings = component.settings
    assert settings.landing_dir == root / "events"
    assert (settings.lookback_days, settings.carry_forward_days) == (7, 3), "what YAML leaves out is as in STITCH_…"
    assert settings.start_date == START
    assert settings.forget_key_in_environment == "0123456789abcdef"
    assert "0123456789abcdef" not in repr(component)
    assert settings.rules("shop").lookback_days is None
    assert settings.rules("shop").blocked_ids == ("0123",)
    assert settings.rules("shop").identifiers["email"].paths == ("traits.email",)
    assert settings.feed("web").source == "segment"
    repository = defs.get_repository_def()
    assert repository.get_job("shop_build_job").executor_def.name == multiprocess_executor.name
    assert {sensor.name for sensor in repository.sensor_defs} == {"shop_landing_sensor", "shop_alert_sensor"}
    assert not repository.schedule_defs
    assert "shop_file" in repository.get_top_level_resources()
    assert repository.asset_graph.get(AssetKey(["shop", "users"])).group_name == "growth"


@pytest.mark.parametrize(
    ("attributes", "path", "message"),
    [
        ({"lookback_dayz": 3}, [], "'lookback_dayz' was unexpected"),
        ({"lookback_days": "many"}, ["lookback_days"], "'many' does not match '^unlimited$|"),
        ({"lookback_days": -1}, ["lookback_days"], "-1 is less than the minimum of 0"),
        ({"policy": "lates"}, ["policy"], "'lates' does not match '^latest$|^first$|"),
        ({"duckdb_path": 3}, ["duckdb_path"], "3 is not of type 'string'"),
        ({"show_ids": "yes"}, ["show_ids"], "'yes' does not match"),
        ({"forget_key": "in the file"}, ["forget_key"], "'in the file' does not match"),
        ({"projects": {"a": {"policy": 1}}}, ["projects", "a", "policy"], "1 is not of type 'string'"),
        ({"feeds": {"a": {"sauce": "x"}}}, ["feeds", "a"], "'sauce' was unexpected"),
        ({"triggers": ["landing"]}, ["triggers", 0], "'landing' does not match '^feeds_sensor$|"),
        ({"executor": "k8s"}, ["executor"], "'k8s' does not match '^in_process$|^multiprocess$|"),
    ],
)
def test_the_schema_refuses_a_wrong_value_and_says_what_is_expected(
    attributes: dict[str, Any], path: list[str | int], message: str
) -> None:
    # `dg check yaml` does the same with the same schema.
    (error,) = Draft202012Validator(Attributes.model_json_schema()).iter_errors(attributes)
    assert list(error.absolute_path) == path
    assert message in error.message


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("daily_cron: 1 15 * *", "daily_cron = '1 15 * *': is not a cron expression of five fields"),
        ("duckdb_path: data/stitch.duckdb", "must not be named after the schema 'stitch'"),
        ("key_prefix: a-b", "key_prefix = 'a-b': is not a prefix such as identity"),
        ("lookback_days: many", "lookback_days = 'many': must be a number of days (0 to 36500), hours as"),
        ("project_file: nowhere.toml", "nowhere.toml', which does not exist"),
        ("feeds: {web: {source: sigment}}", "feeds.web.source = 'sigment': is no source; the sources are:"),
        ("triggers: [landing]", "triggers.0 = 'landing': input should be 'feeds_sensor'"),
        (
            "landing_dir: '{{ env.NOT_SET_ANYWHERE }}'",
            "landing_dir = '{{ env.NOT_SET_ANYWHERE }}': has no value; is the variable set?",
        ),
    ],
)
def test_what_no_schema_can_say_is_refused_when_the_definitions_load(yaml: str, message: str) -> None:
    # `dg check defs` prints this error.
    with pytest.raises(ComponentTreeException) as caught:
        component_of(yaml)
    assert message in str(caught.value.__cause__)


def test_every_attribute_is_described_and_documented() -> None:
    def undescribed(schema: dict[str, Any], path: str) -> Iterator[str]:
        for name, found in schema.get("properties", {}).items():
            if not found.get("description"):
                yield f"{path}{name}"
            yield from undescribed(found, f"{path}{name}.")
            yield from undescribed(found.get("additionalProperties") or {}, f"{path}{name}.*.")

    schema = Attributes.model_json_schema()
    assert list(undescribed(schema, "")) == []
    assert set(schema["properties"]) == {*Settings.model_fields, *Placement.model_fields} - {"decisions"}
    assert f"<!-- attributes -->\n\n{markdown_table()}<!-- end -->" in DOCS.read_text("utf-8")


def test_every_trigger_may_be_chosen() -> None:
    items = Attributes.model_json_schema()["properties"]["triggers"]["items"]
    assert [name.strip("^$") for name in items["pattern"].split("|")[:-1]] == [trigger.name for trigger in TRIGGERS]


def test_commands_take_their_settings_from_a_component(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with create_defs_folder_sandbox() as sandbox:
        sandbox.scaffold_component(component_cls=IdentityStitching, defs_path="identity")
        monkeypatch.syspath_prepend(sandbox.project_root / "src")
        monkeypatch.chdir(sandbox.project_root)
        for arguments in (["--component", "identity", "settings"], ["settings", "--component", "identity"]):
            assert main(arguments) == 0
            printed = capsys.readouterr().out
            assert "STITCH_KEY_PREFIX = identity" in printed
            assert f"STITCH_DUCKDB_PATH = {sandbox.project_root}/data/identity.duckdb" in printed
            assert f"STITCH_CODE_LOCATION = {sandbox.project_root.name} " in printed, "dg's name for the project"
        for arguments in (["--component", "nowhere", "settings"], ["sources", "check", "x", "--component", "nowhere"]):
            assert main(arguments) == 2
            error = capsys.readouterr().err
            assert "No component 'nowhere' loads in the dg project" in error
            assert error.endswith("There are: identity.\n")
        monkeypatch.chdir(tmp_path)
        assert main(["settings"]) == 0
        assert "STITCH_KEY_PREFIX = not set" in capsys.readouterr().out, "not beyond the command that named it"


@dataclass
class InProject:
    """The working directory is a dg project, with what commands print there."""

    root: Path
    scaffold: Callable[[str, Literal["yaml", "python"]], Path]
    capsys: pytest.CaptureFixture[str]

    def value(self, setting: str) -> str:
        assert main(["settings", "--json"]) == 0
        value: str = json.loads(self.capsys.readouterr().out)[f"STITCH_{setting.upper()}"]["value"]
        return value

    def refusal(self, *arguments: str) -> str:
        assert main(arguments) == 2
        return self.capsys.readouterr().err


@pytest.fixture
def in_project(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[InProject]:
    with create_defs_folder_sandbox() as sandbox:

        def scaffold(name: str, scaffold_format: Literal["yaml", "python"] = "yaml") -> Path:
            path = sandbox.scaffold_component(
                component_cls=IdentityStitching, defs_path=name, scaffold_format=scaffold_format
            )
            capsys.readouterr()
            return path

        monkeypatch.syspath_prepend(sandbox.project_root / "src")
        monkeypatch.chdir(sandbox.project_root)
        monkeypatch.setenv("DAGSTER_HOME", "")
        yield InProject(sandbox.project_root, scaffold, capsys)


def test_a_command_in_a_dg_project_is_about_its_only_component(
    in_project: InProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, path = in_project.root, in_project.scaffold("identity", "yaml")
    (root / "data" / "landing").mkdir(parents=True)
    monkeypatch.chdir(path)
    assert main(["status"]) == 0
    assert f"warehouse {root}/data/identity.duckdb: does not exist yet" in in_project.capsys.readouterr().out
    assert {found.relative_to(root).as_posix() for found in root.rglob("*.sqlite")} == {"data/identity.landing.sqlite"}
    assert not (path / "dagster_home").exists()
    assert (root / "dagster_home").is_dir()
    with pytest.raises(NotPublished, match=re.escape(f"Nothing is published in '{root}/data/identity.published' yet")):
        stitch_pipeline.read("users")


def test_a_warehouse_that_is_named_comes_before_a_component_that_has_its_own(
    in_project: InProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, path = in_project.root, in_project.scaffold("identity", "yaml")
    assert in_project.value("key_prefix") == "identity"
    (root / "stitch.toml").write_text('duckdb_path = "named.duckdb"\n')
    assert (in_project.value("key_prefix"), in_project.value("duckdb_path")) == ("", f"{root}/named.duckdb")
    monkeypatch.setenv("STITCH_DUCKDB_PATH", "other.duckdb")
    assert (in_project.value("key_prefix"), in_project.value("duckdb_path")) == ("", f"{root}/other.duckdb")
    # The same warehouse, so the names of its jobs are those of the component too.
    text = (path / "defs.yaml").read_text()
    for others in ("", '  duckdb_path: "{{ env.STITCH_DUCKDB_PATH }}"'):
        (path / "defs.yaml").write_text(text.replace("  duckdb_path: data/identity.duckdb", others))
        assert (in_project.value("key_prefix"), in_project.value("duckdb_path")) == ("identity", f"{root}/other.duckdb")
    assert in_project.value("code_location") == root.name
    with (root / "dg.toml").open("a") as config:
        config.write('code_location_name = "shop"\n')
    assert in_project.value("code_location") == "shop"
    monkeypatch.setenv("STITCH_CODE_LOCATION", "elsewhere")
    assert in_project.value("code_location") == "elsewhere"


def test_of_several_components_one_has_to_be_named(in_project: InProject) -> None:
    in_project.scaffold("identity", "yaml")
    in_project.scaffold("sites/blog", "python")
    error = in_project.refusal("status")
    assert "has 2 components of identity stitching (identity, sites/blog/component.py)" in error
    assert "say which one, for instance `stitch --component identity …`" in error
    assert not list(in_project.root.rglob("*.sqlite"))
    with pytest.raises(SettingsError, match=r"component='identity' in Python"):
        stitch_pipeline.read("users")
    with pytest.raises(NotPublished, match=r"data/blog\.published' yet"):
        stitch_pipeline.read("users", component="sites/blog/component.py")
    assert main(["completion", "bash"]) == 0, "is about no warehouse"


def test_looking_for_components_does_not_import_dagster(in_project: InProject) -> None:
    program = "import stitch_pipeline.deployment as d, sys; print(d.deployment(None), 'dagster' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout == "None False\n"


def test_importing_the_package_does_not_import_dagster() -> None:
    program = "import stitch_pipeline, sys; assert 'dagster' not in sys.modules; print(dir(stitch_pipeline))"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "'IdentityStitching'" in ended.stdout


def test_the_examples_in_what_is_scaffolded_load() -> None:
    with create_defs_folder_sandbox() as sandbox:
        path = sandbox.scaffold_component(component_cls=IdentityStitching, defs_path="identity") / "defs.yaml"
        examples = re.sub(r"^  # (?=\w+:$| {2})", "  ", path.read_text(), flags=re.MULTILINE)
        path.write_text(examples)
        with sandbox.load_component_and_build_defs(defs_path=path.parent) as (component, _):
            assert isinstance(component, IdentityStitching)
            assert component.settings.feed("web_events").source == "segment"
            assert component.settings.feed("exports").fields["anonymous_id"] == ("cookie",)
            assert component.settings.rules("shop").lookback_days == 90


def test_the_examples_in_the_docs_are_valid() -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", DOCS.read_text("utf-8"), flags=re.DOTALL)
    documents = [yaml.safe_load(textwrap.dedent(block)) for block in blocks]
    attributes = [document.get("attributes", document) for document in documents]
    checked = [given for given in attributes if {"feeds", "key_prefix"} & given.keys()]
    assert len(checked) == 4
    for given in checked:
        Draft202012Validator(Attributes.model_json_schema()).validate(given)
