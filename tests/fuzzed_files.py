"""Random damage to landed files: bytes, lines, fields and names. Each case follows from its seed alone."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from stitch_pipeline.planning.sql_text import identifier, literal

RECORDED = Path(__file__).resolve().parent / "fixtures" / "recorded" / "landed"
# The names that the reading SQL uses itself, and others that a reader may stumble over.
ODD_NAMES = (
    *("line_number", "filename", "file_path", "raw_row", "landing_file", "modified_at", "json", "line", "found", "c0"),
    *("records", "picked", "event_id_text", "occurred_at_native", "project_id", "problem", "is_broken", "rowid", ""),
    *(" ", '"', "'", "a.b", "a[0]", "*", "select", "é", "\x01", "lookup_key", "lookup:visitor_id", "$x", "?", "C0"),
    *("Ünïcode", "x" * 300, "element", "entry", "read_path", "files", "source", "day", "null", "\ufeff"),
)
ODD_VALUES = (
    *("", "null", "infinity", "-infinity", "epoch", "0001-01-01", "290000-01-01 00:00:00", "9999-12-31T23:59:59Z"),
    *("1e308", "-1", "NaN", "99999999999999999999", "12345678901234567", "2026-03-02T25:00:00Z", "2026-03-02"),
    *("{", "[", '{"a": 1}', "[[[[", "'", '"', "\\", "\x00", "\x01", "x" * 70_000, "é", "😀", "\u202e", "a,b;c\td|e"),
    *("2026-03-02 12:00:00+99:99", "0", "true", "$1", "%s", "\ud800"),
)
# Names as bytes, because a file system does not ask for UTF-8.
ODD_FILE_NAMES = (
    *(
        b"a*",
        b"a?",
        b"[ab]",
        b"a[1]",
        b"**",
        b"a\\b",
        b"a\\*b",
        b"caf\xe9",
        b"\xff\xfe",
        b"n\nl",
        b"q'uo\"te",
        b"{a,b}",
    ),
    *(b"x=1", b"filename=2", b"event_id=3", b"~", b"%41", b"sp ace", b"$HOME", b"\xc3\xa9", b"#", b"a;b", b"s3:", b"-"),
    *("😀".encode(), b"x" * 200, b"a.b.c", b"\x01", b"landing_file=4"),
)
SPECIAL_BYTES = (
    *(b"\x00", b"\xff", b"\xfe\xff", b"\xff\xfe", b"\xef\xbb\xbf", b"\r", b"\n", b"\r\n", b"\n\r", b"\x01", b"\x1a"),
    *(b'"', b'""', b"'", b"\\", b",", b"\t", b"{", b"}", b"[", b"]", b"[[[[[[", b"\xc3\x28", b"\xed\xa0\x80", b" "),
    *(b"\x01\x02\x03\x04", b"null", b"\n\n\n", b"\x85", b"\xe2\x80\xa8", b"PAR1", b"\x1f\x8b"),
)


@dataclass(frozen=True)
class FuzzedFile:
    """A damaged file: its name below the feed (as bytes), its contents, its time, and how it was made."""

    name: bytes
    content: bytes
    modified: float
    story: str
    lines: int | None = None
    """The lines that are not blank, where the format is lines of JSON in UTF-8."""


def fuzzed_file(seed: str, recorded: Path) -> FuzzedFile:
    """The recorded file with one to four kinds of damage."""
    dice = random.Random(seed)
    content, suffix = recorded.read_bytes(), recorded.suffix
    story = []
    if dice.random() < 0.15 and suffix in (".ndjson", ".jsonl"):
        content, suffix = _as_array(content, dice), ".json"
        story.append("array")
    for _ in range(dice.randint(1, 4)):
        kinds: list[Callable[[bytes, random.Random], bytes]] = [_bytes_changed]
        if suffix == ".parquet":
            kinds += [_columns_changed]
        else:
            kinds += [_lines_changed, _encoded]
            kinds += [_cells_changed if suffix in (".csv", ".tsv") else _documents_changed] * 2
        kind = dice.choice(kinds)
        content = kind(content, dice)
        story.append(kind.__name__.strip("_"))
    lines = None
    if suffix in (".ndjson", ".jsonl") and not content.startswith((b"\xff\xfe", b"\xfe\xff")) and b"\r" not in content:
        lines = sum(1 for line in content.removeprefix(b"\xef\xbb\xbf").split(b"\n") if line.strip(b" "))
    if suffix != ".parquet" and dice.random() < 0.2:
        content, suffix = gzip.compress(content, mtime=0), suffix + ".gz"
        story.append("gzip")
        if dice.random() < 0.5:
            content, lines = _bytes_changed(content, dice), None
            story.append("bytes_changed")
    # Umami and the tables of Segment are recognised by the file's name.
    name = recorded.stem.encode() + (dice.choice(ODD_FILE_NAMES) if dice.random() < 0.4 else b"")
    if dice.random() < 0.1:
        name = dice.choice(ODD_FILE_NAMES) + b"/" + name
    modified = dice.choice([time.time() - 60] * 6 + [0.0, time.time() + 86400 * 400, time.time() + 1e10, 1e9])
    return FuzzedFile(name + suffix.encode(), content, modified, "+".join(story), lines)


def _some(content: bytes, dice: random.Random) -> tuple[int, int]:
    start = dice.randrange(len(content) + 1)
    return start, min(len(content), start + dice.choice([0, 1, 1, 2, 8, 64, 1000]))


def _bytes_changed(content: bytes, dice: random.Random) -> bytes:
    for _ in range(dice.choice([1, 1, 1, 2, 5, 20])):
        start, end = _some(content, dice)
        put = dice.choice(
            [
                bytes([dice.randrange(256)]),
                dice.randbytes(dice.choice([1, 4, 64])),
                dice.choice(SPECIAL_BYTES),
                b"",
                content[start:end] * dice.choice([2, 3]),
                content[slice(*_some(content, dice))],
            ]
        )
        content = content[:start] + put + content[end:]
    return content[: dice.randrange(len(content) + 1)] if dice.random() < 0.1 else content


def _lines_changed(content: bytes, dice: random.Random) -> bytes:
    lines = content.split(b"\n")
    for _ in range(dice.choice([1, 1, 2, 5])):
        place = dice.randrange(len(lines))
        what = dice.randrange(8)
        if what == 0:
            del lines[place]
        elif what == 1:
            lines.insert(place, dice.choice(lines or [b""]))
        elif what == 2:
            lines.insert(
                place, dice.choice([b"", b"   ", b"null", b"{}", b"[]", b"1", b'"', b"\r", b"\x01", b"\x00" * 9])
            )
        elif what == 3:
            lines[place] += dice.choice([b"\r", b"\r\r", b"\r", b" ", b"\x00", b","])
        elif what == 4:
            lines[place] = lines[place][: dice.randrange(len(lines[place]) + 1)]
        elif what == 5:
            dice.shuffle(lines)
        elif what == 6:
            lines = [line + b"\r" for line in lines]
        else:
            lines[place] = lines[place].decode("utf-8", "replace").encode("latin-1", "replace") + b"caf\xe9"
        lines = lines or [b""]
    return b"\n".join(lines)


def _encoded(content: bytes, dice: random.Random) -> bytes:
    text = content.decode("utf-8", "replace") + dice.choice(["", "", "😀"])
    return dice.choice(
        [
            text.encode("latin-1", "replace"),
            text.encode("utf-16"),
            b"\xfe\xff" + text.encode("utf-16-be"),
            text.encode("utf-16-be"),
            text.encode("utf-8-sig"),
            text.encode("utf-32"),
            text.encode("utf-16")[:-1],
            text.replace("\n", dice.choice(["\r", "\r\n", "\n\n", "\n\r", "\x85"])).encode(),
        ]
    )


def _documents_changed(content: bytes, dice: random.Random) -> bytes:
    """JSON documents, one per line or in an array: values, keys and depth."""
    lines = content.split(b"\n")
    for _ in range(dice.choice([1, 1, 2, 4])):
        place = dice.randrange(len(lines))
        try:
            document = json.loads(lines[place].strip(b", "))
        except (ValueError, RecursionError):
            continue
        if not isinstance(document, dict) or not document:
            continue
        inner = document
        while (
            inside := [value for value in inner.values() if isinstance(value, dict) and value]
        ) and dice.random() < 0.4:
            inner = dice.choice(inside)
        key = dice.choice(list(inner))
        value: Any = dice.choice(
            [*ODD_VALUES, None, 1, -1, 1e300, 2**70, True, [], {}, [{}], {"a": {"b": [1]}}, "DEEP"]
        )
        what = dice.randrange(4)
        if what == 0:
            inner[key] = value
        elif what == 1:
            inner[dice.choice(ODD_NAMES)] = value
        elif what == 2:
            inner[dice.choice(ODD_NAMES)] = inner.pop(key)
        else:
            del inner[key]
        text = json.dumps(document, ensure_ascii=dice.random() < 0.5)
        text = text.replace('"DEEP"', "[" * 2000 + "]" * 2000)
        lines[place] = text.encode("utf-8", "surrogatepass") + (b"," if lines[place].endswith(b",") else b"")
    return b"\n".join(lines)


def _cells_changed(content: bytes, dice: random.Random) -> bytes:
    """A delimited file: cells, names, the number of columns, quotes."""
    text = content.decode("utf-8", "surrogateescape")
    delimiter = "\t" if text.split("\n")[0].count("\t") > text.split("\n")[0].count(",") else ","
    try:
        rows = list(csv.reader(io.StringIO(text), delimiter=delimiter))
    except csv.Error:
        return content
    rows = [row for row in rows if row]
    if not rows:
        return content
    raw_cell: str | None = None
    for _ in range(dice.choice([1, 1, 2, 5])):
        row = dice.choice(rows)
        place = dice.randrange(len(row) or 1)
        what = dice.randrange(9)
        if what == 0 and row:
            row[place] = dice.choice(ODD_VALUES)
        elif what == 1:
            row.insert(place, dice.choice(ODD_VALUES))
        elif what == 2 and row:
            del row[place]
        elif what == 3 and rows[0]:
            rows[0][dice.randrange(len(rows[0]))] = dice.choice(ODD_NAMES)
        elif what == 4:
            name = dice.choice(ODD_NAMES)
            for number, each in enumerate(rows):
                each.append(name if number == 0 else dice.choice(ODD_VALUES))
        elif what == 5:
            raw_cell = dice.choice(['5" screen', '"a"b', '"open', 'a""b', '"a\\"b"', "\"a'b"])
        elif what == 6 and row:
            row[place] = "several\nlines\r\nof text"
        elif what == 7 and rows[0] and dice.random() < 0.05:
            for number, each in enumerate(rows):
                each.extend((f"extra_{n}" if number == 0 else str(n)) for n in range(300))
        elif row:
            row[place] = "RAW"
    written = io.StringIO()
    try:
        csv.writer(written, delimiter=delimiter, lineterminator=dice.choice(["\n", "\r\n"])).writerows(rows)
    except csv.Error:
        return content
    return (
        written.getvalue().replace("RAW", raw_cell or '"').encode("utf-8", "surrogatepass" if raw_cell else "replace")
    )


def _columns_changed(content: bytes, dice: random.Random) -> bytes:
    """A Parquet file: names, types and values of its columns."""
    source, target = (Path(f"/tmp/stitch-fuzz-{os.getpid()}-{n}.parquet") for n in (1, 2))
    source.write_bytes(content)
    try:
        with duckdb.connect(config={"threads": 1}) as con:
            relation = con.sql(f"select * from read_parquet('{source}')")
            columns = list(relation.columns)
            place = dice.randrange(len(columns))
            picks = [identifier(name) for name in columns]
            what = dice.randrange(5)
            if what == 0:
                picks[place] += f" as {identifier(dice.choice(ODD_NAMES) or 'empty')}"
            elif what == 1:
                picks.append(f"{literal(dice.choice(ODD_VALUES))} as {identifier(dice.choice(ODD_NAMES) or 'empty')}")
            elif what == 2:
                kind = dice.choice(
                    ["varchar", "blob", "json", "varchar[]", "integer", "date", "timestamp_ns", "double"]
                )
                picks[place] = f"try_cast({picks[place]} as {kind}) as {identifier(columns[place])}"
            elif what == 3:
                value = dice.choice(["'infinity'::timestamp", "'-infinity'::date", "null", "{'a': [1]}", "'x'::blob"])
                picks[place] = f"{value} as {identifier(columns[place])}"
            else:
                del picks[place]
            codec = dice.choice(["snappy", "zstd", "uncompressed", "gzip"])
            con.execute(f"copy (select {', '.join(picks)} from read_parquet('{source}')) to '{target}' (codec {codec})")
        return target.read_bytes()
    except (duckdb.Error, UnicodeError, RuntimeError):
        return content
    finally:
        source.unlink(missing_ok=True)
        target.unlink(missing_ok=True)


def _as_array(content: bytes, dice: random.Random) -> bytes:
    lines = [line for line in content.split(b"\n") if line.strip()]
    ends = [b"\n"] if dice.random() < 0.7 else [b""]
    return b"[" + ends[0] + (b"," + ends[0]).join(lines) + ends[0] + b"]"


def printable(name: bytes) -> str:
    return re.sub(r"[^ -~]", "?", name.decode("latin-1"))
