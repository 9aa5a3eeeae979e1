"""One file of the landing zone, and its shape: how its bytes are cut into rows and which layout they have."""

from __future__ import annotations

import csv
import gzip
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import duckdb
import orjson

from stitch_pipeline.planning.sql_text import literal
from stitch_pipeline.sources import Layout, Source

FILE_TYPES = (".ndjson", ".jsonl", ".json", ".csv", ".tsv", ".txt", ".parquet")
_DOCUMENT_TYPES = (".ndjson", ".jsonl", ".json")
_DELIMITERS = ",\t;|"
_HEAD_BYTES = 10_000_000


class UnreadableFile(Exception):
    """A landed file cannot be read at all; the message says why and what would help."""


@dataclass(frozen=True)
class LandedFile:
    """One file of the landing zone and what its feed says about it."""

    path: Path
    landing_file: str
    """Path relative to the landing directory, with forward slashes; the file's name everywhere else."""
    source: Source
    size: int
    modified_ns: int
    project_id: str | None = None
    """The project of every event in the file, if its feed says so."""
    encoding: str | None = None
    stated_type: str | None = None
    """The type of the file if its name does not say it."""
    lookup_files: tuple[Path, ...] = ()
    """Files in the same directory that hold the source's lookup table."""

    @property
    def file_type(self) -> str:
        if self.stated_type:
            return f".{self.stated_type}"
        suffixes = [suffix.lower() for suffix in self.path.suffixes]
        return (suffixes[-2] if suffixes[-1] == ".gz" and len(suffixes) > 1 else suffixes[-1]) if suffixes else ""

    @property
    def modified_at(self) -> datetime:
        return datetime.fromtimestamp(self.modified_ns / 1e9, tz=UTC)

    def has_changed(self) -> bool:
        """Whether the file is no longer the one that was found: it has grown, was replaced or is gone."""
        try:
            stat = self.path.stat()
        except FileNotFoundError:
            return True
        return (stat.st_size, stat.st_mtime_ns) != (self.size, self.modified_ns)

    def open(self) -> IO[bytes]:
        if self.path.suffix.lower() == ".gz":
            return gzip.open(self.path, "rb")  # type: ignore[return-value]
        return self.path.open("rb")


@dataclass(frozen=True, eq=False)
class Shape:
    """What files must have in common to be read by one query."""

    source: str
    layout: Layout
    project_id: str | None
    file_type: str
    """As the file's name says; ``array`` for a JSON file that is one list."""
    encoding: str = "utf-8"
    columns: tuple[tuple[str, Any], ...] = ()
    """Names and types, of files that have columns."""
    has_header: bool = False
    delimiter: str = ","
    directory: Path | None = None
    """Files that look something up are read with those of their directory only."""
    is_recognised: bool = True
    """The first row has what the layout says; if not, each row will be judged by itself."""

    @property
    def is_document(self) -> bool:
        return self.file_type in (*_DOCUMENT_TYPES, "array")

    def _key(self) -> tuple[Any, ...]:
        columns = tuple((name, str(column_type)) for name, column_type in self.columns)
        rest = (self.encoding, self.has_header, self.delimiter, self.directory)
        return (self.source, self.layout.name, self.project_id, self.file_type, columns, *rest)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Shape) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())


def shape_of(con: duckdb.DuckDBPyConnection, file: LandedFile) -> Shape:
    """How the file is to be read. Raises UnreadableFile if nothing says how."""
    if file.file_type not in FILE_TYPES:
        raise UnreadableFile(
            f"its type is not one of {', '.join(FILE_TYPES)} (or .gz of the text ones); "
            "state it with file_type on the feed if its name does not say it"
        )
    if file.file_type == ".parquet":
        return _parquet_shape(con, file)
    encoding, head = _head(file)
    if file.file_type in _DOCUMENT_TYPES:
        is_array = file.file_type == ".json" and head.lstrip().startswith("[")
        first = head.lstrip().removeprefix("[").rstrip().removesuffix("]").rstrip().removesuffix(",")
        recognised = file.source.layout_of(file.landing_file, _keys(first))
        return _shape(
            file,
            recognised or file.source.usual_layout,
            "array" if is_array else ".ndjson",
            encoding=encoding,
            is_recognised=recognised is not None,
        )
    return _delimited_shape(file, encoding, head)


def _shape(file: LandedFile, layout: Layout, file_type: str, **parts: Any) -> Shape:
    directory = file.path.parent if file.lookup_files else None
    return Shape(file.source.name, layout, file.project_id, file_type, directory=directory, **parts)


def _parquet_shape(con: duckdb.DuckDBPyConnection, file: LandedFile) -> Shape:
    try:
        relation = con.sql(f"select * from read_parquet({literal(str(file.path))})")
    except duckdb.Error as error:
        raise UnreadableFile(str(error).splitlines()[0]) from None
    columns = tuple(zip(relation.columns, relation.types, strict=True))
    layout = _layout_of_columns(file, relation.columns)
    return _shape(file, layout, ".parquet", columns=columns)


def _delimited_shape(file: LandedFile, encoding: str, head: str) -> Shape:
    delimiter = "\t" if file.file_type == ".tsv" else max(_DELIMITERS, key=head.count)
    names = next(csv.reader([head.rstrip("\r\n")], delimiter=delimiter), [])
    recognised = file.source.layout_of(file.landing_file, frozenset(name.lower() for name in names))
    if recognised is None:
        fields = head.rstrip("\r\n").split("\t")
        for layout in file.source.layouts:
            if layout.columns and len(layout.columns) == len(fields):
                columns = tuple((name, _TEXT) for name in layout.columns)
                return _shape(file, layout, ".tsv", encoding=encoding, columns=columns, delimiter="\t")
    if not names or len({name.lower() for name in names}) < len(names):
        raise UnreadableFile("its first line is not a header with distinct column names")
    return _shape(
        file,
        _layout_of_columns(file, names),
        ".csv",
        encoding=encoding,
        columns=tuple((name, _TEXT) for name in names),
        has_header=True,
        delimiter=delimiter,
    )


def _layout_of_columns(file: LandedFile, names: list[str]) -> Layout:
    layout = file.source.layout_of(file.landing_file, frozenset(name.lower() for name in names))
    if layout is None:
        known = "; ".join(
            f"{layout.name} (has {', '.join(layout.recognised_by)}"
            + (f", and a name like {' or '.join(layout.file_names)}" if layout.file_names else "")
            + ")"
            for layout in file.source.layouts
            if layout.recognised_by
        )
        raise UnreadableFile(f"its columns are those of no layout of source {file.source.name!r}; these are: {known}")
    return layout


def _head(file: LandedFile) -> tuple[str, str]:
    """The encoding, and the first line that is not blank."""
    try:
        with file.open() as stream:
            head = stream.read(2)
            encoding = "utf-16" if head in (b"\xff\xfe", b"\xfe\xff") else file.encoding or "utf-8"
            head += stream.readline(_HEAD_BYTES)
            while encoding != "utf-16" and not head.strip():
                line = stream.readline(_HEAD_BYTES)
                if not line:
                    break
                head = line
            if encoding == "utf-16":
                head += stream.read(1)
            if file.file_type == ".json" and head.strip() == b"[":
                head += stream.readline(_HEAD_BYTES)
    except (OSError, EOFError) as error:
        raise UnreadableFile(f"its first line cannot be read ({error})") from None
    try:
        if encoding == "utf-16":
            return encoding, head.decode(encoding, errors="ignore")  # the line's end may be half a character
        return encoding, head.decode("utf-8-sig" if encoding == "utf-8" else encoding)
    except UnicodeDecodeError as error:
        if file.file_type in _DOCUMENT_TYPES:
            return encoding, ""  # the line is quarantined; the others may be good
        raise UnreadableFile(
            f"its first line cannot be read ({error}); save it as UTF-8, or state its encoding on the feed"
        ) from None


def _keys(document: str) -> frozenset[str]:
    try:
        parsed = orjson.loads(document)
    except orjson.JSONDecodeError:
        return frozenset()
    return frozenset(key.lower() for key in parsed) if isinstance(parsed, dict) else frozenset()


_TEXT = duckdb.sqltype("VARCHAR")
