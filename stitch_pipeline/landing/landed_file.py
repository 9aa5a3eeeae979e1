"""One file of the landing zone, and its shape: how its bytes become rows, and the layout of those rows.

Belongs here: what follows from the file's name, its feed and its first line. Does not: anything that needs DuckDB
(``landing.parser``).
"""

from __future__ import annotations

import csv
import gzip
import zlib
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import orjson
from duckdb.sqltypes import VARCHAR

from stitch_pipeline.sources import SOURCES, Layout, Source

FILE_TYPES = (".ndjson", ".jsonl", ".json", ".csv", ".tsv", ".txt", ".parquet")
_DOCUMENT_TYPES = (".ndjson", ".jsonl", ".json")
_DELIMITERS = ",\t;|"
_HEAD_BYTES = 10_000_000

Columns = tuple[tuple[str, Any], ...]
"""Names and types of columns, the types as DuckDB's Python objects."""

SEALED = "stitch_sealed"
"""The column of an extract that holds rows without a forgotten id; the other columns of such a row are empty."""

_NOT_A_FEED = (
    "its directory is no feed: put it into a directory directly below the landing directory that is named "
    f"after a source ({', '.join(SOURCES)}) or that a [feeds.<directory>] table in stitch.toml names"
)


class UnreadableFile(Exception):
    """A landed file cannot be read at all; the message gives the reason and a remedy."""


@dataclass(frozen=True)
class LandedFile:
    """One file as it is in the landing zone now, and what its feed says about reading it."""

    path: Path
    landing_file: str
    """Path relative to the landing directory, with forward slashes; the file's name everywhere else."""
    source: Source | None
    """None if its directory is not a feed."""
    size: int
    modified_ns: int
    project_id: str | None = None
    """The project of every event in the file, if its feed says so."""
    encoding: str | None = None
    stated_type: str | None = None
    """The file's type according to its feed; it wins over the name."""
    lookup_files: tuple[Path, ...] = ()
    """Files in the same directory with the source's lookup table."""
    problem: str | None = None
    """Why it is no file that can be read, as the listing of its directory shows."""
    latest_arrival: datetime | None = None
    """Set where the file is dated in the future: its rows count as arrived then."""
    staged: Path | None = None
    """A link or a copy that the reader can open where it cannot read ``path`` itself."""
    version: str = ""
    """Changes when the file changes, or the way it is read."""
    waits_for: tuple[str, str] | None = None
    """A project that may have rows in the file, and the variable of its missing key: the file is not read now."""

    @property
    def has_no_events(self) -> bool:
        """Whether the file is one of the tracker's tables without events."""
        return self.source is not None and self.source.has_no_events(self.landing_file)

    @property
    def file_type(self) -> str:
        """The type with a leading dot, such as ``.csv``; without ``.gz``."""
        if self.stated_type:
            return f".{self.stated_type}"
        suffixes = [suffix.lower() for suffix in self.path.suffixes]
        return (suffixes[-2] if suffixes[-1] == ".gz" and len(suffixes) > 1 else suffixes[-1]) if suffixes else ""

    @property
    def modified_at(self) -> datetime:
        """When the file was modified, which is when its rows have arrived at the latest."""
        if self.latest_arrival is not None:
            return self.latest_arrival
        return datetime.fromtimestamp(max(self.modified_ns, 0) / 1e9, tz=UTC)

    @property
    def read_path(self) -> Path:
        """What the reader opens."""
        return self.staged or self.path

    def has_changed(self) -> bool:
        """Whether the file has grown, was replaced or is gone since it was found."""
        try:
            stat = self.path.stat()
        except OSError:
            return True
        return (stat.st_size, stat.st_mtime_ns) != (self.size, self.modified_ns)

    def open(self) -> IO[bytes]:
        """Open the file for reading, decompressed."""
        if self.is_compressed:
            return gzip.open(self.read_path, "rb")  # type: ignore[return-value]
        return self.read_path.open("rb")

    @property
    def is_compressed(self) -> bool:
        return self.read_path.suffix.lower() == ".gz"

    @property
    def is_delimited(self) -> bool:
        return self.file_type in FILE_TYPES and self.file_type not in (*_DOCUMENT_TYPES, ".parquet")


@dataclass(frozen=True, eq=False)
class Shape:
    """What files must have in common to be read by one query."""

    source: Source
    layout: Layout
    project_id: str | None
    file_type: str
    """``.ndjson``, ``.csv``, ``.tsv`` or ``.parquet``; ``array`` for a JSON file that is one list."""
    encoding: str = "utf-8"
    columns: Columns = ()
    has_header: bool = False
    delimiter: str = ","
    directory: Path | None = None
    """Set for files with a lookup table, which are read only with files of the same directory."""
    is_recognised: bool = True
    """Whether the first row has the layout's fields. If not, each row is judged by itself."""

    @property
    def is_document(self) -> bool:
        return self.file_type in (*_DOCUMENT_TYPES, "array")

    @property
    def is_sealed(self) -> bool:
        """Whether some rows are in the column ``SEALED``."""
        return any(name == SEALED for name, _ in self.columns)

    def _key(self) -> tuple[Any, ...]:
        columns = tuple((name, str(column_type)) for name, column_type in self.columns)
        rest = (self.encoding, self.has_header, self.delimiter, self.directory)
        return (self.source.name, self.layout.name, self.project_id, self.file_type, columns, *rest)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Shape) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())


def shape_of_text(file: LandedFile) -> Shape:
    """The shape of a text file, from its name and first line. Raises UnreadableFile if they do not determine one."""
    source = _source(file)
    if file.file_type not in FILE_TYPES:
        raise UnreadableFile(
            f"its type is not one of {', '.join(FILE_TYPES)} (or .gz of the text ones); "
            "state it with file_type on the feed if its name does not say it"
        )
    encoding, head = _head(file)
    if file.file_type not in _DOCUMENT_TYPES:
        return _delimited_shape(file, source, encoding, head)
    is_array = file.file_type == ".json" and head.lstrip().startswith("[")
    first = head.lstrip().removeprefix("[").rstrip().removesuffix("]").rstrip().removesuffix(",")
    recognised = source.layout_of(file.landing_file, _keys(first))
    return _shape(
        file,
        source,
        recognised or source.usual_layout,
        "array" if is_array else ".ndjson",
        encoding=encoding,
        is_recognised=recognised is not None,
    )


def shape_of_columns(file: LandedFile, columns: Columns) -> Shape:
    """The shape of a Parquet file with these columns. Raises UnreadableFile if no layout of the source has them."""
    source = _source(file)
    layout = _layout_of_columns(file, source, [name for name, _ in columns])
    return _shape(file, source, layout, ".parquet", columns=columns)


def _source(file: LandedFile) -> Source:
    if file.source is None:
        raise UnreadableFile(_NOT_A_FEED)
    return file.source


def _shape(file: LandedFile, source: Source, layout: Layout, file_type: str, **parts: Any) -> Shape:
    directory = file.path.parent if file.lookup_files else None
    return Shape(source, layout, file.project_id, file_type, directory=directory, **parts)


def _delimited_shape(file: LandedFile, source: Source, encoding: str, head: str) -> Shape:
    delimiter = "\t" if file.file_type == ".tsv" else max(_DELIMITERS, key=head.count)
    try:
        names = next(csv.reader([head.rstrip("\r\n")], delimiter=delimiter), [])
    except csv.Error:  # a field of more than 128 KiB, which is no name; the file may have no header
        names = []
    recognised = source.layout_of(file.landing_file, frozenset(name.lower() for name in names))
    if recognised is None:
        fields = head.rstrip("\r\n").split("\t")
        for layout in source.layouts:
            if layout.columns and len(layout.columns) == len(fields):
                columns = tuple((name, VARCHAR) for name in layout.columns)
                return _shape(file, source, layout, ".tsv", encoding=encoding, columns=columns, delimiter="\t")
    if not names or len({name.lower() for name in names}) < len(names):
        raise UnreadableFile("its first line is not a header with distinct column names")
    return _shape(
        file,
        source,
        _layout_of_columns(file, source, names),
        ".csv",
        encoding=encoding,
        columns=tuple((name, VARCHAR) for name in names),
        has_header=True,
        delimiter=delimiter,
    )


def _layout_of_columns(file: LandedFile, source: Source, names: list[str]) -> Layout:
    layout = source.layout_of(file.landing_file, frozenset(name.lower() for name in names))
    if layout is None:
        known = "; ".join(
            f"{layout.name} (has {', '.join(layout.recognised_by)}"
            + (f", and a name like {' or '.join(layout.file_names)}" if layout.file_names else "")
            + ")"
            for layout in source.layouts
            if layout.recognised_by
        )
        raise UnreadableFile(f"its columns fit no layout of source {source.name!r}; the layouts are: {known}")
    return layout


def _head(file: LandedFile) -> tuple[str, str]:
    """The encoding and the first line that is not blank."""
    encoding = file.encoding or "utf-8"
    try:
        with file.open() as stream:
            head = stream.readline(_HEAD_BYTES)
            while not head.strip():
                line = stream.readline(_HEAD_BYTES)
                if not line:
                    break
                head = line
            if file.file_type == ".json" and head.strip() in (b"[", b"\xef\xbb\xbf["):
                head += stream.readline(_HEAD_BYTES)
    except (OSError, EOFError, zlib.error) as error:
        raise UnreadableFile(f"its first line cannot be read ({error})") from None
    try:
        return encoding, head.decode("utf-8-sig" if encoding == "utf-8" else encoding)
    except UnicodeDecodeError as error:
        if file.file_type in _DOCUMENT_TYPES:
            # This line is quarantined; others may be good.
            return encoding, head.decode(encoding, errors="replace")
        raise UnreadableFile(
            f"its first line cannot be read ({error}); save it as UTF-8, or state its encoding on the feed"
        ) from None


def _keys(document: str) -> frozenset[str]:
    try:
        parsed = orjson.loads(document)
    except orjson.JSONDecodeError:
        return frozenset()
    return frozenset(key.lower() for key in parsed) if isinstance(parsed, dict) else frozenset()
