"""What all tests share. Its place also makes ``warehouses``, ``oracle`` and ``histories`` importable."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from dagster import DagsterInstance
from warehouses import Warehouse

NewWarehouse = Callable[..., Warehouse]


@pytest.fixture
def new_warehouse(tmp_path: Path) -> Iterator[NewWarehouse]:
    """Makes empty warehouses, each with a Dagster instance of its own: ``new_warehouse(lookback_days=2)``."""
    with ExitStack() as instances:
        count = 0

        def make(**settings: Any) -> Warehouse:
            nonlocal count
            count += 1
            instance = instances.enter_context(DagsterInstance.ephemeral())
            return Warehouse(tmp_path / f"deployment{count}", instance, **settings)

        yield make


@pytest.fixture
def new_warehouse_on_disk(tmp_path: Path) -> Iterator[NewWarehouse]:
    """The same with instances that keep their records in files, as a deployment does; slower."""
    with ExitStack() as instances:
        count = 0

        def make(**settings: Any) -> Warehouse:
            nonlocal count
            count += 1
            home = tmp_path / f"dagster{count}"
            home.mkdir()
            instance = instances.enter_context(
                DagsterInstance.local_temp(str(home), overrides={"telemetry": {"enabled": False}})
            )
            return Warehouse(tmp_path / f"deployment{count}", instance, **settings)

        yield make
