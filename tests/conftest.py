"""What all tests share. Its place also makes ``warehouses``, ``oracle`` and ``histories`` importable."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from dagster import DagsterInstance
from warehouses import Warehouse

from stitch_pipeline.orchestration.event_storage import CheapSqliteStorage

NewWarehouse = Callable[..., Warehouse]

# The tests and the processes that they start run in the repository, where somebody may have a .env of their own.
os.environ["STITCH_ENV_FILE"] = "off"


@pytest.fixture
def new_warehouse(tmp_path: Path) -> Iterator[NewWarehouse]:
    """Makes empty warehouses, each with a Dagster instance of its own: ``new_warehouse(lookback_days=2)``."""
    yield from _maker(tmp_path, lambda home: DagsterInstance.ephemeral())


@pytest.fixture
def new_warehouse_on_disk(tmp_path: Path) -> Iterator[NewWarehouse]:
    """The same with instances that keep their records in files, as a deployment does; slower."""
    yield from _maker(tmp_path, lambda home: DagsterInstance.local_temp(str(home), overrides=_as_shipped(home)))


def _as_shipped(home: Path) -> dict[str, Any]:
    """The storage that ``dagster.yaml`` names."""
    module, name = CheapSqliteStorage.__module__, CheapSqliteStorage.__name__
    storage = {"custom": {"module": module, "class": name, "config": {"base_dir": str(home)}}}
    return {"telemetry": {"enabled": False}, "storage": storage}


def _maker(directory: Path, new_instance: Callable[[Path], DagsterInstance]) -> Iterator[NewWarehouse]:
    with ExitStack() as instances:
        numbers = itertools.count(1)

        def make(**settings: Any) -> Warehouse:
            number = next(numbers)
            home = directory / f"dagster{number}"
            home.mkdir()
            instance = instances.enter_context(new_instance(home))
            return Warehouse(directory / f"deployment{number}", instance, **settings)

        yield make
