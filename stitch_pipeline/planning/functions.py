"""SQL for a few functions that engines spell differently, for queries that run in an engine and in the parser alike."""

from __future__ import annotations

from typing import Protocol

from stitch_pipeline.planning.sql_text import literal


class Functions(Protocol):
    """The functions of one engine. Arguments are SQL, unless their type says otherwise."""

    def byte_length(self, text: str) -> str:
        """The number of bytes of a text in UTF-8."""

    def keyed_hash(self, inner: bytes, outer: bytes, message: str) -> str:
        """The HMAC-SHA256 of a text, in hexadecimal, by the two padded keys of that function."""

    def json_text(self, document: str, path: str) -> str:
        """The value at a path (``sql_text.json_path``) of a JSON text; null if there is none."""

    def lower(self, text: str) -> str:
        """The text in lower case, whatever its alphabet."""


class DuckDBFunctions:
    """The functions of DuckDB, which also parses the files for every engine."""

    def byte_length(self, text: str) -> str:
        return f"strlen({text})"

    def keyed_hash(self, inner: bytes, outer: bytes, message: str) -> str:
        return f"sha256(unhex('{outer.hex()}') || unhex(sha256(unhex('{inner.hex()}') || encode({message}))))"

    def json_text(self, document: str, path: str) -> str:
        return f"try(json_extract_string({document}, {literal(path)}))"

    def lower(self, text: str) -> str:
        return f"lower({text})"


DUCKDB = DuckDBFunctions()
