"""Paths of the files that ship with the code: inside the package in a wheel, beside it in a checkout."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def _shipped(in_wheel: str, in_checkout: str) -> Path:
    inside = _PACKAGE / in_wheel
    return inside if inside.exists() else _PACKAGE.parent / in_checkout


DBT_PROJECT = _shipped("dbt_project", "dbt_project")
DAGSTER_YAML = _shipped("dagster.yaml", "dagster_home/dagster.yaml")
"""The Dagster instance's configuration: its pool lets one step at a time write. Copied into a new DAGSTER_HOME."""
IS_CHECKOUT = DBT_PROJECT.parent == _PACKAGE.parent
