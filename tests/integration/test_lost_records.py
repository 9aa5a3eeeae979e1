"""Records that are lost or older than the warehouse: a plain ``settle`` still gives what a build from nothing gives."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from engines import of_duckdb
from kills import build_as_the_daemon_does, contents, deployment, land_the_story, late_logins
from warehouses import Row, Warehouse

pytestmark = [pytest.mark.slow, pytest.mark.long, of_duckdb("copies of a deployment's files")]

Contents = dict[str, list[Row]]


@pytest.fixture(scope="module")
def settled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A settled deployment, from which each test starts with a copy."""
    directory = tmp_path_factory.mktemp("settled") / "deployment"
    with deployment(directory) as warehouse:
        land_the_story(warehouse)
        warehouse.settle()
    return directory


@pytest.fixture(scope="module")
def without_logins(settled: Path) -> Contents:
    return contents(settled / "warehouse.duckdb")


@pytest.fixture(scope="module")
def with_logins(tmp_path_factory: pytest.TempPathFactory) -> Contents:
    directory = tmp_path_factory.mktemp("fresh") / "deployment"
    with deployment(directory) as warehouse:
        land_the_story(warehouse)
        land_late_logins(warehouse)
        warehouse.settle()
    return contents(directory / "warehouse.duckdb")


@pytest.fixture
def directory(settled: Path, tmp_path: Path) -> Path:
    shutil.copytree(settled, tmp_path / "deployment")
    return tmp_path / "deployment"


def land_late_logins(warehouse: Warehouse) -> None:
    warehouse.land_events("jitsu/late.ndjson", late_logins())


def settle(directory: Path) -> Contents:
    with deployment(directory) as warehouse:
        warehouse.settle()
        assert not warehouse.settle().runs
    return contents(directory / "warehouse.duckdb")


def wrong(actual: Contents, expected: Contents) -> dict[str, tuple[int, int]]:
    return {name: (len(actual[name]), len(rows)) for name, rows in expected.items() if actual[name] != rows}


def delete(directory: Path, *names: str) -> None:
    for name in names:
        path = directory / name
        if path.is_dir():
            # Its configuration stays, as a deployment would write it again.
            for part in path.iterdir():
                if part.name != "dagster.yaml":
                    shutil.rmtree(part) if part.is_dir() else part.unlink()
        else:
            path.unlink()


def restore(directory: Path, copy: Path, *names: str) -> None:
    for name in names:
        delete(directory, name)
        if (copy / name).is_dir():
            shutil.copytree(copy / name, directory / name, dirs_exist_ok=True)
        else:
            shutil.copy2(copy / name, directory / name)


HOME, INDEX, WAREHOUSE = "dagster_home", "warehouse.landing.sqlite", "warehouse.duckdb"
LOSSES = ([HOME], [INDEX], [WAREHOUSE], [HOME, INDEX], [HOME, WAREHOUSE], [INDEX, WAREHOUSE], [HOME, INDEX, WAREHOUSE])


@pytest.mark.parametrize("how", [delete, None], ids=["deleted", "restored"])
@pytest.mark.parametrize("lost", LOSSES, ids="+".join)
def test_what_is_lost_while_rows_are_pending_loses_no_row(
    lost: list[str], how: Callable[..., None] | None, directory: Path, settled: Path, with_logins: Contents
) -> None:
    with deployment(directory) as warehouse:
        land_late_logins(warehouse)
        build_as_the_daemon_does(warehouse)  # the logins make sessions and page views stale
    if how:
        how(directory, *lost)
    else:
        restore(directory, settled, *lost)
    assert not wrong(settle(directory), with_logins)


@pytest.mark.parametrize("lost", LOSSES, ids="+".join)
def test_records_from_before_the_last_load_are_brought_up_to_date(
    lost: list[str], directory: Path, settled: Path, with_logins: Contents
) -> None:
    with deployment(directory) as warehouse:
        land_late_logins(warehouse)
        warehouse.settle()
    restore(directory, settled, *lost)
    assert not wrong(settle(directory), with_logins)


@pytest.mark.parametrize("lost", LOSSES, ids="+".join)
def test_records_of_a_file_that_is_gone_are_brought_up_to_date(
    lost: list[str], directory: Path, tmp_path: Path, without_logins: Contents
) -> None:
    with deployment(directory) as warehouse:
        land_late_logins(warehouse)
        warehouse.settle()
    shutil.copytree(directory, tmp_path / "with logins")
    with deployment(directory) as warehouse:
        warehouse.take_away("jitsu/late.ndjson")
        warehouse.settle()
    restore(directory, tmp_path / "with logins", *lost)
    assert not wrong(settle(directory), without_logins)


def test_a_warehouse_that_is_deleted_again_and_again_is_built_each_time(
    directory: Path, without_logins: Contents
) -> None:
    for _ in range(5):
        delete(directory, WAREHOUSE)
        assert not wrong(settle(directory), without_logins)


def test_a_file_that_moves_out_and_in_is_loaded_each_time(
    directory: Path, tmp_path: Path, with_logins: Contents, without_logins: Contents
) -> None:
    with deployment(directory) as warehouse:
        land_late_logins(warehouse)
    late, aside = directory / "landing/jitsu/late.ndjson", tmp_path / "late.ndjson"
    for _ in range(5):
        assert not wrong(settle(directory), with_logins)
        late.rename(aside)
        assert not wrong(settle(directory), without_logins)
        aside.rename(late)
