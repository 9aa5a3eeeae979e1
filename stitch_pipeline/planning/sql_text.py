"""SQL text for values and names that come from data or configuration."""

from __future__ import annotations

from collections.abc import Iterable


def literal(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def literals(values: Iterable[str]) -> str:
    return ", ".join(literal(value) for value in values)


def identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
