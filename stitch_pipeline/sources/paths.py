"""The path language of sources: where an event holds a value.

=====================================  ===============================================================
``userId``                             a column, or a key of the JSON document
``context.page.url``                   a key within a key; in a table also within a struct or JSON text
``contexts[0].userId``                 an element of a list, from 0
``params[key=page_title].value``       the first element of a list whose ``key`` is ``page_title``
``data[schema=iglu:a/b/*].data.id``    the first whose ``schema`` begins with ``iglu:a/b/``
``page_url?aid``                       a parameter in the query of an address, decoded
``page_url?_sp.0``                     its part before the first dot; ``.1`` is the part before the second, and so on
``context_traits_*``                   an object of all columns with this prefix, named without it
``*``                                  an object of all columns that no other field uses
``lookup:visitor_id``                  a column of the source's lookup table
``=page``                              the text ``page`` itself
=====================================  ===============================================================
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Key:
    """A column, or a key of an object."""

    name: str


@dataclass(frozen=True)
class Index:
    """An element of a list, from 0."""

    position: int


@dataclass(frozen=True)
class Match:
    """The first element of a list with ``value`` at its ``key``, or with a value that begins with it."""

    key: str
    value: str
    is_prefix: bool


@dataclass(frozen=True)
class Parameter:
    """A parameter in the query of an address, or one of its parts between dots, from 0."""

    name: str
    part: int | None


Segment = Key | Index | Match | Parameter

_SEGMENT = re.compile(r"\.?(?:\[(?P<index>\d+)\]|\[(?P<key>[^=\[\]]+)=(?P<value>[^\]]+)\]|(?P<name>[^.\[\]]+))")

_PARAMETER = re.compile(r"(?<=.)\?(?P<name>[\w~-]+)(?:\.(?P<part>\d))?$")


def parse_path(path: str) -> tuple[Segment, ...]:
    """The segments of a path; none for a constant, a lookup or a wildcard.

    Raises ValueError with the path and what is wrong with it.
    """
    if not path or path in ("=", "lookup:"):
        raise ValueError(f"{path!r} is not a path: name a field, for instance context.page.url")
    if is_constant(path) or is_lookup(path) or is_wildcard(path):
        return ()
    segments: list[Segment] = []
    parameter = _PARAMETER.search(path)
    if parameter is not None:
        path = path[: parameter.start()]
    position = 0
    while position < len(path):
        found = _SEGMENT.match(path, position)
        if found is None or (position == 0 and path.startswith(".")):
            raise ValueError(
                f"{path!r} is not a path: at {path[position:]!r} a name, [0] or [key=value] is expected, "
                "for instance context.page.url"
            )
        if found["index"] is not None:
            segments.append(Index(int(found["index"])))
        elif found["key"] is not None:
            value = found["value"]
            segments.append(Match(found["key"], value.removesuffix("*"), value.endswith("*")))
        else:
            segments.append(Key(found["name"]))
        position = found.end()
    if parameter is not None:
        segments.append(Parameter(parameter["name"], int(parameter["part"]) if parameter["part"] else None))
    return tuple(segments)


def column_of(path: str) -> str | None:
    """The column in which a path begins; None for a constant, a lookup or a wildcard."""
    first = next(iter(parse_path(path)), None)
    return first.name if isinstance(first, Key) else None


def is_constant(path: str) -> bool:
    """Whether the path stands for its own text: ``=page``."""
    return path.startswith("=")


def is_lookup(path: str) -> bool:
    """Whether the path is a column of the lookup table: ``lookup:visitor_id``."""
    return path.startswith("lookup:")


def is_wildcard(path: str) -> bool:
    """Whether the path is an object of several columns: ``*`` or ``context_traits_*``."""
    return path.endswith("*") and "[" not in path
