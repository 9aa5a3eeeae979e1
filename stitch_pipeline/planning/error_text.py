"""Error messages of DuckDB and dbt without the values that they quote, which may be personal data."""

from __future__ import annotations

import re

_FILE = re.compile(r"""\bfile:? (["']).*?\1""", re.IGNORECASE)
# DuckDB puts a value in quotes, after the word "value", into a sum, or on a line of its own. A "record/value 3" is a
# place.
_VALUE = re.compile(r"""["'`]|(?<!/)\bvalue\b|\(-?\d+ [-+*/%]""")
_IS_OF_ENGINE = re.compile(r"\s*(?:[A-Z]\w* )+Error: ")


def without_values(message: str) -> str:
    """The message up to the first thing that may be a value: what kind of error, and where, but not of which data.

    dbt names the model in the lines before the engine's message: these stay.
    """
    kept = []
    for line in message.splitlines():
        safe = _VALUE.split(_FILE.sub("the file", line), maxsplit=1)[0]
        kept.append(safe.rstrip(" :,("))
        if _VALUE.search(_FILE.sub("the file", line)) or _IS_OF_ENGINE.match(line):
            break
    return "\n".join(kept)
