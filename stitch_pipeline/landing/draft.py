"""Draft the ``stitch.toml`` of a feed of unknown format: guess from a sample which column plays which role.

A guess is a proposal to a person, who sees the sample that it is drawn from. Nothing is read with it by itself.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

import orjson

from stitch_pipeline.landing.landed_file import LandedFile
from stitch_pipeline.landing.parser import Parser
from stitch_pipeline.planning.sql_text import literal
from stitch_pipeline.sources.paths import Key, parse_path

_SAMPLE_ROWS = 1_000
_WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")
_PAGE_WORDS = {"page", "pageview", "pageviews", "view", "viewed", "visit", "hit"}
_LOGIN_WORDS = {"identify", "login", "signin", "signup", "register", "registered", "registration"}
_UNITS = {range(9, 12): "seconds", range(12, 15): "milliseconds", range(15, 18): "microseconds"}
_NEVER_IDS = {"agent", "type", "count", "country", "language", "version", "os", "model", "brand", "category", "role"}
_UNKNOWN = "?"
_NO_VALUES = ("", "null", "none", "undefined", "nan")


@dataclass(frozen=True)
class Draft:
    """A table of ``stitch.toml`` that reads the feed, and what could not be guessed."""

    feed: str
    toml: str
    missing: Sequence[str]
    """Sentences on fields without which no event can be read."""


@dataclass(frozen=True)
class _Column:
    path: str
    words: frozenset[str]
    values: Sequence[str]
    """Those that are not empty."""
    rows: int

    @property
    def is_distinct(self) -> bool:
        return len(self.values) == self.rows and len(set(self.values)) == self.rows

    @cached_property
    def time_formats(self) -> Mapping[str, int]:
        """How many values are a time in each format."""
        formats = map(_time_format, self.values)
        return Counter(one for one in formats if one is not None)

    @property
    def are_times(self) -> bool:
        """Whether most values are times. A few bad ones among them must not hide the column."""
        return sum(self.time_formats.values()) * 2 > len(self.values)

    @property
    def unreadable_time(self) -> str | None:
        """A value that is no time that can be read, but might be one because it has digits."""
        return next((value for value in self.values if _time_format(value) is None and re.search(r"\d", value)), None)

    @property
    def is_page(self) -> bool:
        return bool(self.values) and all(re.match(r"https?://|/", value) for value in self.values)


# The words that the name of a column may have for a role, the best first.
_NAMES: dict[str, Sequence[frozenset[str]]] = {
    role: [frozenset(words.split()) for words in names]
    for role, names in {
        "event_id": ("event id", "message id", "hit id", "eventid", "messageid", "uuid", "guid", "id"),
        "occurred_at": (
            *("occurred", "event time", "event timestamp", "timestamp", "happened", "ts", "time", "when", "datetime"),
            *("created", "sent", "date", "at"),
        ),
        "received_at": ("received", "ingested", "arrived", "collector"),
        "anonymous_id": (
            *("anonymous", "anon", "visitor", "device", "client id", "clientid", "cookie", "browser id", "browser"),
            *("install", "installation", "fingerprint", "pseudo", "guest"),
        ),
        "user_id": (
            *("user id", "userid", "user", "customer", "member", "account", "login", "uid", "person", "email", "who"),
            *("client", "contact"),
        ),
        "source_session_id": ("session id", "sessionid", "session", "visit id"),
        "event_name": (
            *("event name", "eventname", "event type", "event", "action", "activity", "what", "type", "kind", "name"),
        ),
        "page_url": ("page url", "pageurl", "url", "href", "page location", "location", "uri", "link"),
        "page_path": ("page path", "path", "page", "screen", "route"),
        "page_title": ("page title", "title"),
        "referrer": ("referrer", "referer"),
        "utm_source": ("utm source",),
        "utm_medium": ("utm medium",),
        "utm_campaign": ("utm campaign",),
        "project_id": ("project id", "project", "site", "tenant", "workspace", "app id"),
    }.items()
}


def draft(parser: Parser, file: LandedFile) -> Draft | None:
    """The draft for the feed of a staged file; None if no column of the file can be read."""
    rows = list(_sample(parser, file))
    columns = _columns(rows)
    if not columns:
        return None
    found = _guess(columns)
    return _written(file.landing_file.split("/")[0], found)


def _guess(columns: Sequence[_Column]) -> dict[str, _Column]:
    """The column of each role that has one; a column plays one role."""
    found: dict[str, _Column] = {}

    def take(role: str, candidates: Sequence[_Column]) -> None:
        free = [column for column in candidates if column not in found.values()]
        ranked = [(rank, column) for column in free if (rank := _rank(role, column)) is not None]
        if ranked:
            found[role] = min(ranked, key=lambda ranked: ranked[0])[1]

    times = [column for column in columns if column.are_times]
    for role in ("received_at", "occurred_at"):
        take(role, times)
    if "occurred_at" not in found and (left := [column for column in times if column not in found.values()]):
        found["occurred_at"] = left[0]
    if "occurred_at" not in found:
        # By the name alone: its rows are quarantined for their times until these are converted.
        take("occurred_at", [column for column in columns if column.unreadable_time and not column.is_page])
        times += [found["occurred_at"]] if "occurred_at" in found else []
    take("event_id", [column for column in columns if column.is_distinct and column not in times])
    for role in ("source_session_id", "project_id", "utm_source", "utm_medium", "utm_campaign", "referrer"):
        take(role, columns)
    texts = [column for column in columns if column.values and not column.is_page and column not in times]
    ids = [
        column for column in texts if not column.words & _NEVER_IDS and not any(" " in value for value in column.values)
    ]
    # The device first: "client id" and "browser user" name a device although they have a word of a user.
    take("anonymous_id", ids)
    take("user_id", ids)
    take("page_title", columns)
    pages = [column for column in columns if column.is_page]
    take("page_url", [column for column in pages if column.values[0].startswith("http")])
    take("page_path", [column for column in pages if column.values[0].startswith("/")])
    few = [column for column in texts if len(set(column.values)) <= max(20, column.rows // 10)]
    take("event_name", few)
    return found


def _rank(role: str, column: _Column) -> int | None:
    """How well the name fits the role, smaller is better: the place of the name, and words that it has beside."""
    places = enumerate(_NAMES[role])
    return min(
        (place + 2 * len(column.words - words) for place, words in places if words <= column.words), default=None
    )


def _written(feed: str, found: Mapping[str, _Column]) -> Draft:
    lines = [feed_table(feed), 'source = "custom"']
    if "project_id" not in found:
        lines.append(f"project_id = {_quoted(feed)}    # the project of all of its events: choose a name")
    time = found.get("occurred_at")
    # Without `times` each value's own format counts, which reads a column with several.
    if time and len(time.time_formats) == 1 and "iso8601" not in time.time_formats:
        lines.append(f'times = "{next(iter(time.time_formats))}"')
    if "event_id" not in found:
        identifying = ("occurred_at", "anonymous_id", "user_id", "event_name", "page_url", "page_path")
        own = [found[role].path for role in identifying if role in found]
        if own:
            # Without the time, all visits of a device to one page would be one event.
            listed = ", ".join(map(_quoted, own if time else [_UNKNOWN, *own]))
            then = "" if time else f"; put the time's column in place of {_quoted(_UNKNOWN)}"
            lines.append(f"event_id_from = [{listed}]    # no column is an id of each event{then}")
    name = found.get("event_name")
    types = _event_types(name) if name else {}
    if name:
        listed = ", ".join(f"{_quoted(value)} = {_quoted(kind)}" for value, kind in types.items())
        lines += [f"event_types = {{ {listed} }}"] if types else []
        lines.append('other_event_type = "track"')
    lines += ["", f"[feeds.{_key(feed)}.fields]"]
    if not time:
        lines.append(f"occurred_at = {_quoted(_UNKNOWN)}    # the time's column; it belongs into event_id_from too")
    lines += [f"{role} = {_quoted(found[role].path)}" for role in _NAMES if role in found]
    if name:
        lines.append(f"event_type = {_quoted(name.path)}")
    else:
        is_page = "page_url" in found or "page_path" in found
        lines.append(f'event_type = "={"page" if is_page else "track"}"    # every event is of this type')
    missing = [
        sentence
        for role, sentence in {
            "occurred_at": "No column holds a time that can be read (ISO 8601, or an epoch number): "
            "set occurred_at and event_id_from.",
            "anonymous_id": "No column is named like a device's id: set anonymous_id, or nothing can be stitched.",
            "user_id": "No column is named like a user's id: set user_id, or nothing can be stitched.",
        }.items()
        if role not in found
    ]
    if time and not time.are_times:
        missing.insert(0, _about_unreadable_times(time))
    return Draft(feed, "\n".join(lines) + "\n", missing)


def _about_unreadable_times(column: _Column) -> str:
    example = str(column.unreadable_time)
    remedy = "convert them to ISO 8601, for instance 2026-10-20T09:00:00Z"
    if re.fullmatch(r"\d{1,8}", example):
        remedy += ', or state times = "seconds" if they are epoch seconds'
    return (
        f"The times of column '{column.path}' cannot be read, for instance '{example}': {remedy}. "
        "Until then their rows are quarantined."
    )


def _event_types(column: _Column) -> dict[str, str]:
    """The canonical type of each value whose words say that it is a page view or a login."""
    types = {}
    for value in sorted(set(column.values)):
        words = _words(value)
        kind = "page" if words & _PAGE_WORDS else "identify" if _is_login(words) else None
        if kind:
            types[value] = kind
    return types


def _is_login(words: frozenset[str]) -> bool:
    return bool(words & _LOGIN_WORDS) or {"sign", "in"} <= words or {"log", "in"} <= words or {"sign", "up"} <= words


def _quoted(text: str) -> str:
    """A string of TOML. It is JSON's but for escaped surrogates, which TOML refuses."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def feed_table(feed: str) -> str:
    """The heading of the feed's table in ``stitch.toml``."""
    return f"[feeds.{_key(feed)}]"


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _quoted(name)


def _words(name: str) -> frozenset[str]:
    return frozenset(word.lower() for word in _WORDS.findall(name))


def _columns(rows: Sequence[Mapping[str, Any]]) -> list[_Column]:
    columns = []
    for path in dict.fromkeys(path for row in rows for path in row):
        texts = ["" if row.get(path) is None else str(row[path]).strip() for row in rows]
        values = [text for text in texts if text.lower() not in _NO_VALUES]
        if _is_plain(path):
            columns.append(_Column(path, _words(path), values, len(rows)))
    return columns


def _is_plain(path: str) -> bool:
    try:
        segments = parse_path(path)
    except ValueError:
        return False
    return bool(segments) and all(isinstance(segment, Key) for segment in segments)


def _time_format(value: str) -> str | None:
    number = re.fullmatch(r"(\d{9,17})(\.\d+)?", value)
    if number:
        return next(unit for digits, unit in _UNITS.items() if len(number[1]) in digits)
    try:
        datetime.fromisoformat(value)
    except ValueError:
        return None
    return "iso8601"


def _sample(parser: Parser, file: LandedFile) -> Iterator[Mapping[str, Any]]:
    """The first rows, with a path for each column or key."""
    if file.file_type == ".parquet":
        relation = f"read_parquet({literal(str(file.read_path))}, hive_partitioning = false)"
        names = [str(row[0]) for row in parser.rows(f"describe select * from {relation}")]
        for values in parser.rows(f"select * from {relation} limit {_SAMPLE_ROWS}"):
            yield _flat(dict(zip(names, values, strict=True)))
        return
    with file.open() as stream:
        text = io.TextIOWrapper(stream, encoding=file.encoding or "utf-8-sig", errors="replace", newline="")
        head = text.readline()
        lines = [head, *(line for _, line in zip(range(_SAMPLE_ROWS), text, strict=False))]
    if head.lstrip().startswith(("{", "[")):
        for line in lines:
            try:
                found = orjson.loads(line.strip().removeprefix("[").removesuffix("]").removesuffix(","))
            except orjson.JSONDecodeError:
                continue
            if isinstance(found, dict):
                yield _flat(found)
        return
    delimiter = max(",;\t|", key=head.count)
    for row in csv.DictReader(lines, delimiter=delimiter):
        yield {name: value for name, value in row.items() if isinstance(name, str) and isinstance(value, str)}


def _flat(document: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in document.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        elif not isinstance(value, list):
            flat[f"{prefix}{key}"] = value
    return flat
