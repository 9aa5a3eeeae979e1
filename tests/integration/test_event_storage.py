"""Dagster's SQLite storage with kept connections records what Dagster's own class records."""

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.storage.event_log import SqliteEventLogStorage
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage

from stitch_pipeline.orchestration import event_storage
from stitch_pipeline.orchestration.event_storage import CheapSqliteStorage, KeptConnections, is_supported

DAYS = dg.DailyPartitionsDefinition("2026-03-01")


@dg.multi_asset(
    specs=[dg.AssetSpec("a"), dg.AssetSpec("b")],
    check_specs=[dg.AssetCheckSpec("is_whole", asset="a")],
    partitions_def=DAYS,
    backfill_policy=dg.BackfillPolicy.single_run(),
)
def tables(context: dg.AssetExecutionContext) -> Iterator[Any]:
    for day in context.partition_keys:
        context.add_asset_metadata({"rows": int(day[-2:])}, asset_key="a", partition_key=day)
    yield dg.MaterializeResult(asset_key="a", tags={"kind": "first"})
    yield dg.MaterializeResult(asset_key="b")
    yield dg.AssetObservation("a", metadata={"seen": 1}, tags={"kind": "second"})
    yield dg.AssetCheckResult(check_name="is_whole", asset_key="a", passed=True)


@dg.asset
def broken() -> None:
    raise RuntimeError("on purpose")


DEFS = dg.Definitions(
    assets=[tables, broken], jobs=[dg.define_asset_job("tables_job", dg.AssetSelection.assets("a", "b"))]
)


@contextmanager
def instance_of(storage: type[DagsterSqliteStorage], home: Path) -> Iterator[dg.DagsterInstance]:
    home.mkdir(exist_ok=True)
    (home / "dagster.yaml").write_text(
        "telemetry: {enabled: false}\n"
        f"storage:\n  custom:\n    module: {storage.__module__}\n    class: {storage.__name__}\n"
        f"    config: {{base_dir: '{home}'}}\n"
    )
    with dg.DagsterInstance.from_config(str(home)) as instance:
        yield instance


def build(
    instance: dg.DagsterInstance, first: str = "2026-03-01", last: str = "2026-03-05"
) -> dg.ExecuteInProcessResult:
    range_tags = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}
    return DEFS.resolve_job_def("tables_job").execute_in_process(instance=instance, tags=range_tags)


def recorded(instance: dg.DagsterInstance) -> dict[str, Any]:
    """What the instance says about runs, partitions, checks and observations, without ids and times."""
    key = dg.AssetKey("a")
    runs = instance.get_runs()
    events = instance.fetch_materializations(key, limit=100).records
    observations = instance.fetch_observations(key, limit=100).records
    planned = [
        (record.dagster_event_type, record.dagster_event.asset_key, record.dagster_event.partition)
        for run in runs
        for record in instance.all_logs(run.run_id)
        if record.dagster_event and record.dagster_event.event_type_value.startswith("ASSET_")
    ]
    storage = instance.event_log_storage
    checks = storage.get_asset_check_execution_history(dg.AssetCheckKey(key, "is_whole"), limit=100)
    return {
        "runs": [(run.job_name, run.status) for run in runs],
        "materializations": [
            (
                record.partition_key,
                record.asset_materialization.metadata,
                (record.asset_materialization.tags or {}).get("kind"),
            )
            for record in events
            if record.asset_materialization
        ],
        "observations": [len(observations)],
        "events of assets": sorted(map(str, planned)),
        "partitions": sorted(storage.get_materialized_partitions(key)),
        "asset keys": sorted(map(str, instance.all_asset_keys())),
        "checks": [(check.status, check.partition) for check in checks],
        "tags": sorted(map(str, storage.get_event_tags_for_asset(key, {"kind": "first"}))),
        "kinds of events": [[record.dagster_event_type for record in instance.all_logs(run.run_id)] for run in runs],
    }


def test_it_records_what_dagsters_own_class_records(tmp_path: Path) -> None:
    found = []
    for name, storage in (("own", DagsterSqliteStorage), ("cheap", CheapSqliteStorage)):
        with instance_of(storage, tmp_path / name) as instance:
            assert build(instance).success
            assert build(instance, "2026-03-04", "2026-03-07").success
            assert not dg.materialize([broken], instance=instance, raise_on_error=False).success
            found.append(recorded(instance))
            assert isinstance(instance.event_log_storage, KeptConnections) == (storage is CheapSqliteStorage)
    assert found[0] == found[1]
    assert found[1]["partitions"] == [f"2026-03-0{day}" for day in range(1, 8)]
    assert len(found[1]["materializations"]) == 9


def test_either_class_opens_what_the_other_has_written(tmp_path: Path) -> None:
    for storage in (DagsterSqliteStorage, CheapSqliteStorage, DagsterSqliteStorage):
        with instance_of(storage, tmp_path / "home") as instance:
            before = len(instance.get_runs())
            assert build(instance).success
            assert len(recorded(instance)["materializations"]) == 5 * (before + 1)


def test_events_of_a_batch_are_stored_together_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with instance_of(CheapSqliteStorage, tmp_path) as instance:
        storage = instance.event_log_storage
        run_id = build(instance).run_id
        events = [
            record
            for record in instance.all_logs(run_id)
            if record.dagster_event_type == dg.DagsterEventType.ASSET_MATERIALIZATION
        ]
        count = len(instance.all_logs(run_id))
        stored = 0
        store_event = SqliteEventLogStorage.store_event

        def fails_at_the_third(self: SqliteEventLogStorage, event: dg.EventLogEntry) -> None:
            nonlocal stored
            stored += 1
            if stored == 3:
                raise RuntimeError("on purpose")
            store_event(self, event)

        monkeypatch.setattr(SqliteEventLogStorage, "store_event", fails_at_the_third)
        with pytest.raises(RuntimeError):
            storage.store_event_batch(events)
        assert len(instance.all_logs(run_id)) == count
        assert len(instance.fetch_materializations(dg.AssetKey("a"), limit=100).records) == 5
        storage.store_event_batch(events)
        assert len(instance.all_logs(run_id)) == count + len(events)


def test_a_home_that_is_replaced_meanwhile_is_opened_again(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with instance_of(CheapSqliteStorage, home) as instance:
        assert build(instance).success
        shutil.copytree(home, tmp_path / "copy")
        assert build(instance).success
        assert len(instance.fetch_materializations(dg.AssetKey("a"), limit=100).records) == 10
        shutil.rmtree(home / "history" / "runs")
        shutil.copytree(tmp_path / "copy" / "history" / "runs", home / "history" / "runs")
        assert len(instance.fetch_materializations(dg.AssetKey("a"), limit=100).records) == 5


def test_a_forked_process_opens_connections_of_its_own(tmp_path: Path) -> None:
    with instance_of(CheapSqliteStorage, tmp_path) as instance:
        run_id = build(instance).run_id
        child = os.fork()
        if not child:
            instance.report_engine_event("from the child", job_name="tables_job", run_id=run_id)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        instance.report_engine_event("from the parent", job_name="tables_job", run_id=run_id)
        said = [record.message for record in instance.all_logs(run_id)]
        assert said[-2:] == ["from the child", "from the parent"]
        with closing(sqlite3.connect(tmp_path / "history" / "runs" / f"{run_id}.db")) as db:
            assert db.execute("pragma integrity_check").fetchall() == [("ok",)]


def test_few_files_stay_open(tmp_path: Path) -> None:
    with instance_of(CheapSqliteStorage, tmp_path) as instance:
        runs = [build(instance).run_id for _ in range(8)]
        for run_id in runs:
            assert instance.all_logs(run_id)
        held = [Path(path).resolve() for path in Path("/proc/self/fd").iterdir()]
        assert len([path for path in held if path.is_relative_to(tmp_path) and path.suffix == ".db"]) <= 6


def test_a_changed_dagster_gets_its_own_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_supported()

    def connect(self: SqliteEventLogStorage, shard: str, mode: str) -> None: ...

    monkeypatch.setattr(SqliteEventLogStorage, "_connect", connect)
    assert not is_supported()
    monkeypatch.undo()
    monkeypatch.setattr(event_storage, "is_supported", lambda: False)
    with instance_of(CheapSqliteStorage, tmp_path) as instance:
        assert type(instance.event_log_storage) is SqliteEventLogStorage
        assert build(instance).success
