"""SQL text for values and names that come from data or configuration."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path


def literal(value: str) -> str:
    """The text as a SQL string, in quotes."""
    return "'" + value.replace("'", "''") + "'"


def literals(values: Iterable[str]) -> str:
    """The texts as SQL strings, with commas between them."""
    return ", ".join(literal(value) for value in values)


def json_path(names: Iterable[str]) -> str:
    """The path of nested keys in a JSON document, as DuckDB's JSON functions read it; not yet a SQL string."""
    return "$" + "".join('."' + name.replace('"', '\\"') + '"' for name in names)


def identifier(name: str) -> str:
    """The name as a SQL identifier, in double quotes."""
    return '"' + name.replace('"', '""') + '"'


def file_pattern(path: Path) -> str:
    """The pattern that matches this path and no other, as DuckDB's readers of files take it; not yet a SQL string."""
    return re.sub(r"([*?\[])", r"[\1]", str(path))


_NAME_PART = re.compile(r'"((?:[^"]|"")+)"|([^".]+)')


def split_name(name: str) -> list[str]:
    """The parts of a table's name as people write it: ``schema.table``, or with quotes ``"Odd.Schema".table``.

    Upper and lower case stay as they are written. Raises ValueError if it is no such name.
    """
    parts: list[str] = []
    position = 0
    while (found := _NAME_PART.match(name, position)) is not None:
        parts.append(found[1].replace('""', '"') if found[1] else found[2].strip())
        position = found.end()
        if position == len(name) and all(parts) and len(parts) <= 2:
            return parts
        if name[position : position + 1] != ".":
            break
        position += 1
    raise ValueError(f"{name!r} is no name of a table: write schema.table, a part with a dot in it in double quotes")


def any_of(patterns: Sequence[str]) -> str | None:
    """A regular expression that matches what any of these matches; None without any."""
    return "|".join(f"(?:{pattern})" for pattern in patterns) or None
