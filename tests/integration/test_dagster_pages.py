"""What a person reads and starts in Dagster's UI: descriptions, the launchpad's defaults, tags, checks alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
import yaml
from dagster import AssetCheckKey, AssetKey, ExecuteInProcessResult, RepositoryDefinition
from dagster._config.snap import ConfigSchemaSnapshot
from dagster._core.definitions.freshness import TimeWindowFreshnessPolicy
from dagster._core.snap.job_snapshot import JobSnap
from dagster._core.snap.snap_to_yaml import default_values_yaml_from_type_snap
from warehouses import Warehouse, page_view

from stitch_pipeline.definitions import build_defs
from stitch_pipeline.orchestration.freshness import TABLES_WITH_FRESHNESS
from stitch_pipeline.settings import Settings
from stitch_pipeline.warehouse.dbt_project import manifest

PERSONAL = {
    *("anonymous_id", "user_id", "stitched_user_id", "stored_user_id", "candidate_user_id", "first_touch_anonymous_id"),
    *("id", "linked_id", "person_id", "component_id", "blocked_anonymous_id", "blocked_user_id", "found"),
    *("previous_id", "blocked_previous_id", "identifiers", "other_anonymous_id", "proposed_decision"),
    *("traits", "properties", "raw_row", "page_url", "referrer", "first_touch_referrer"),
}
MODELS: dict[str, Any] = {
    "only_pending": False,
    "restitch_only": False,
    **dict.fromkeys(("view_stitching", "session_stitching", "policy", "keep_own_user", "lookback_days"), "as_set"),
}
LAUNCHPADS: dict[str, tuple[str, dict[str, Any]]] = {
    "build_job": ("stitch_models", MODELS),
    "restitch_job": ("stitch_models", MODELS),
    "restitch_page_views_job": ("stitch_models", MODELS),
    "reconcile_job": ("find_stale_partitions", {"only_changed_rules": False}),
    "preview_rules_job": (
        "try_rules",
        {
            "project_id": "",
            **dict.fromkeys(
                (
                    *("policy", "keep_own_user", "lookback_days", "carry_forward_days", "max_users_per_device"),
                    *("max_ids_per_person", "unique_identifiers", "limits", "contested_ids"),
                ),
                "as_set",
            ),
        },
    ),
    "forget_job": (
        "forget_ids",
        {"project_id": "", "kind": "user", "ids_file": "", "mode": "delete", "dry_run": True},
    ),
}


@pytest.fixture(scope="module")
def repository() -> RepositoryDefinition:
    return build_defs(Settings.load()).get_repository_def()


def test_everything_that_a_person_sees_has_a_description(repository: RepositoryDefinition) -> None:
    graph = repository.asset_graph
    described: dict[str, str | None] = {
        **{f"asset {key.path[-1]}": graph.get(key).description for key in graph.get_all_asset_keys()},
        **{f"check {key.name}": graph.get_check_spec(key).description for key in graph.asset_check_keys},
        **{f"sensor {sensor.name}": sensor.description for sensor in repository.sensor_defs},
        **{f"schedule {schedule.name}": schedule.description for schedule in repository.schedule_defs},
    }
    for job in repository.get_all_jobs():
        if job.name.startswith("__"):
            continue
        described[f"job {job.name}"] = job.description
        if job.name in LAUNCHPADS and LAUNCHPADS[job.name][0] != "stitch_models":
            described |= {f"op {node.name} of {job.name}": node.definition.description for node in job.nodes}
        described |= {f"field {path} of {job.name}": text for path, text in fields_of(JobSnap.from_job_def(job))}
    assert len([name for name in described if name.startswith("field")]) > 20
    assert [name for name, text in described.items() if not text or not text.strip().endswith((".", ")"))] == []


def fields_of(job: JobSnap) -> Iterator[tuple[str, str | None]]:
    """The fields of the config of each op, with their descriptions."""
    schema = job.config_schema_snapshot

    def below(type_key: str, path: tuple[str, ...]) -> Iterator[tuple[str, str | None]]:
        for field in schema.get_config_snap(type_key).fields or ():
            inside = (*path, str(field.name))
            if path[:1] == ("ops",) and path[2:3] == ("config",):
                yield ".".join(inside), field.description
            elif inside[0] == "ops":
                yield from below(field.type_key, inside)

    yield from below(root_of(job), ())


def root_of(job: JobSnap) -> str:
    key = job.mode_def_snaps[0].root_config_key
    assert key is not None
    return key


@pytest.mark.parametrize("job_name", LAUNCHPADS)
def test_the_launchpad_opens_with_every_field(repository: RepositoryDefinition, job_name: str) -> None:
    job = JobSnap.from_job_def(repository.get_job(job_name))
    schema: ConfigSchemaSnapshot = job.config_schema_snapshot
    text = default_values_yaml_from_type_snap(schema, schema.get_config_snap(root_of(job)))
    op, expected = LAUNCHPADS[job_name]
    assert yaml.safe_load(text)["ops"] == {op: {"config": expected}}
    assert {path.split(".")[-1] for path, _ in fields_of(job)} == set(expected), "every field has a default"


def test_what_may_hold_personal_data_is_tagged(repository: RepositoryDefinition) -> None:
    for key in repository.asset_graph.get_all_asset_keys():
        node = repository.asset_graph.get(key)
        if "dagster/column_schema" not in node.metadata:  # no table
            continue
        columns = node.metadata["dagster/column_schema"].columns
        tagged = {column.name for column in columns if "pii" in column.tags}
        assert tagged == {column.name for column in columns} & PERSONAL, key
        assert ("pii" in node.tags) == bool(tagged), key
    tests = [node for node in manifest()["nodes"].values() if node["resource_type"] == "test"]
    assert tests
    assert not any(test["tags"] for test in tests)


def test_a_table_is_overdue_when_daily_runs_are_missing() -> None:
    for cron, pause in (
        ("15 1 * * *", timedelta(days=1)),
        ("0 3 * * 1-5", timedelta(days=3)),
        ("0 8-20 * * *", timedelta(hours=12)),
    ):
        graph = build_defs(Settings.load(daily_cron=cron)).get_repository_def().asset_graph
        with_policy = {key.path[-1] for key in graph.get_all_asset_keys() if graph.get(key).freshness_policy}
        assert with_policy == set(TABLES_WITH_FRESHNESS)
        for name in TABLES_WITH_FRESHNESS:
            policy = graph.get(AssetKey(name)).freshness_policy
            assert isinstance(policy, TimeWindowFreshnessPolicy)
            assert policy.warn_window is not None
            assert policy.warn_window.to_timedelta() == pause + timedelta(hours=2)
            assert policy.fail_window.to_timedelta() == 2 * pause + timedelta(hours=2)


def test_checks_run_alone_and_look_at_what_is_stored(new_warehouse: Callable[..., Warehouse]) -> None:
    warehouse = new_warehouse()
    events = [page_view("e1", "2026-03-05 12:00"), page_view("e2", "2026-03-06 12:00", user_id="ann")]
    warehouse.land_events("jitsu/a.ndjson", events)
    warehouse.settle()
    warehouse.land_events("jitsu/b.ndjson", [page_view("e3", "2026-03-06 13:00")])
    before = warehouse.contents()

    every_check = set(warehouse.defs.get_repository_def().asset_graph.asset_check_keys)
    found = results_of(run_checks(warehouse, every_check))
    assert found == dict.fromkeys({key.name for key in every_check}, True)
    assert warehouse.contents() == before, "a run of checks loads and changes nothing"
    (one,) = (key for key in every_check if key.name == "persons_has_one_row_per_id")
    assert results_of(run_checks(warehouse, {one})) == {one.name: True}

    broken = {"raw_events": "raw_events_has_one_row_per_event", "sessions": "sessions_has_one_row_per_session"}
    for table in broken:
        execute(warehouse, f"insert into stitch.{table} select * from stitch.{table}")
    keys = {AssetCheckKey(AssetKey(table), check) for table, check in broken.items()}
    assert results_of(run_checks(warehouse, keys)) == dict.fromkeys(broken.values(), False)


def test_one_of_the_loaded_tables_alone_shows_what_was_loaded_of_both(new_warehouse: Callable[..., Warehouse]) -> None:
    warehouse = new_warehouse()
    warehouse.land_events("jitsu/a.ndjson", [page_view("e1", "2026-03-05 12:00")])
    job = warehouse.defs.resolve_implicit_global_asset_job_def().get_subset(asset_selection={AssetKey("raw_events")})
    result = job.execute_in_process(instance=warehouse.instance, partition_key="2026-03-05")
    shown = {
        event.asset_key.path[-1]: event.step_materialization_data.materialization.metadata["rows"].value
        for event in result.get_asset_materialization_events()
        if event.asset_key
    }
    assert shown == {"raw_events": 1, "quarantined_events": 0}


def run_checks(warehouse: Warehouse, keys: set[AssetCheckKey]) -> ExecuteInProcessResult:
    """A run as the button "Execute" of a check starts it: without assets, and without a partition."""
    job = warehouse.defs.resolve_implicit_global_asset_job_def().get_subset(
        asset_selection=set(), asset_check_selection=keys
    )
    return job.execute_in_process(instance=warehouse.instance, raise_on_error=False)


def results_of(result: ExecuteInProcessResult) -> dict[str, Any]:
    assert not result.get_asset_materialization_events()
    return {evaluation.check_name: evaluation.passed for evaluation in result.get_asset_check_evaluations()}


def execute(warehouse: Warehouse, sql: str) -> None:
    warehouse.write(sql)


@pytest.mark.parametrize(
    ("config", "missing"), [({}, "project_id"), ({"project_id": "shop"}, "ids_file")], ids=["as it opens", "half"]
)
def test_forgetting_asks_for_what_is_missing(
    new_warehouse: Callable[..., Warehouse], config: dict[str, str], missing: str
) -> None:
    warehouse = new_warehouse()
    result = warehouse.defs.resolve_job_def("forget_job").execute_in_process(
        instance=warehouse.instance, run_config={"ops": {"forget_ids": {"config": config}}}, raise_on_error=False
    )
    (failure,) = [event.step_failure_data for event in result.all_events if event.is_step_failure]
    assert failure.user_failure_data is not None
    assert failure.user_failure_data.description == f"{missing} is empty: it must be given."
