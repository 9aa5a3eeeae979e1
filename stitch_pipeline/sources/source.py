"""The data model of a source: the layouts of a tracker's event files, and what each field of them means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import PurePath
from typing import Literal

from stitch_pipeline.sources.paths import parse_path

# Columns of raw_events that a source may fill, in the table's order. `source`, `event_date` and `landing_file` are
# not read from the event, and `identifiers` is made of several fields.
CANONICAL_FIELDS = (
    "event_id",
    "project_id",
    "occurred_at",
    "received_at",
    "event_type",
    "event_name",
    "platform",
    "anonymous_id",
    "user_id",
    "source_session_id",
    "page_url",
    "page_path",
    "page_title",
    "referrer",
    "utm_source",
    "utm_medium",
    "utm_campaign",
    "traits",
    "properties",
    "previous_id",
)

# The fields that may stand elsewhere on an event that says that two ids are one.
MERGING_FIELDS = ("anonymous_id", "previous_id")

TimeFormat = Literal["iso8601", "seconds", "milliseconds", "microseconds"]


@dataclass(frozen=True)
class Layout:
    """One form of a source's files, for example its event JSON or one of its warehouse tables.

    ``fields`` maps a canonical column to paths (see ``sources.paths``); the first with a non-empty value wins.
    ``event_types`` maps the tracker's own type, or ``type/event name``, to ``page``, ``screen``, ``identify`` or
    another canonical event type. A type that is not listed becomes ``other_event_type``, or is kept if that is None.
    Raises ValueError for an unknown column or an invalid path.
    """

    name: str
    fields: Mapping[str, tuple[str, ...]]
    recognised_by: tuple[str, ...] = ()
    """Columns, or keys of a JSON document, that every file of this layout has."""
    file_names: tuple[str, ...] = ()
    """Patterns for the file's name or a directory above it, one of which must match; empty if any name will do."""
    columns: tuple[str, ...] = ()
    """The columns of a delimited file that has no header."""
    event_id_from: tuple[str, ...] = ()
    """Paths that together identify an event, where the tracker sends no event id."""
    times: TimeFormat | None = None
    """The format of times. None accepts ISO 8601 and epoch numbers, with the unit given by the number of digits."""
    event_types: Mapping[str, str] = field(default_factory=dict)
    other_event_type: str | None = None
    platforms: Mapping[str, str] = field(default_factory=dict)
    default_platform: str | None = None
    envelope: tuple[str, ...] = ()
    """Patterns of columns that are neither traits nor properties, for layouts with a column per trait or property."""
    user_id_may_repeat_anonymous_id: bool = False
    """The tracker sends the anonymous id as the user id until it knows the user; a repeated id is not a user id."""
    merging_types: tuple[str, ...] = ()
    """The tracker's own types of events that say that two ids are one, in lower case."""
    fields_when_merging: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Paths that replace those of ``fields`` on such events. Only MERGING_FIELDS can have some."""
    identifiers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Paths of further ids by kind; the first with a value wins. A feed reads those that a project names
    (``landing.zone``)."""

    def __post_init__(self) -> None:
        unknown = {*self.fields} - {*CANONICAL_FIELDS} | {*self.fields_when_merging} - {*MERGING_FIELDS}
        if unknown:
            raise ValueError(f"layout {self.name!r} maps columns that do not exist: {', '.join(sorted(unknown))}")
        for path in self.all_paths():
            parse_path(path)

    def paths(self, column: str) -> tuple[str, ...]:
        """The paths of a canonical column; none if the layout does not fill it."""
        return self.fields.get(column, ())

    def all_paths(self) -> tuple[str, ...]:
        """Every path of the layout, each once."""
        further = (*self.fields_when_merging.values(), *self.identifiers.values())
        several = (path for paths in (self.paths("previous_id"), *further) for path in paths)
        return tuple(dict.fromkeys((*self.paths_of_fields(), *several)))

    def paths_of_fields(self) -> tuple[str, ...]:
        """The paths that a wildcard leaves out. A previous id or an identifier stays a trait or property as well."""
        own = (path for column in CANONICAL_FIELDS if column != "previous_id" for path in self.paths(column))
        return tuple(dict.fromkeys((*own, *self.event_id_from)))

    def is_layout_of(self, landing_file: str, names: frozenset[str]) -> bool:
        """Whether a file with this name and these columns or keys (lower case) has this layout."""
        has_columns = not self.columns and all(name.lower() in names for name in self.recognised_by)
        return has_columns and self._has_name(landing_file)

    def _has_name(self, landing_file: str) -> bool:
        parts = PurePath(landing_file.lower()).parts
        return not self.file_names or any(fnmatch(part, pattern) for part in parts for pattern in self.file_names)


@dataclass(frozen=True)
class Lookup:
    """A table in the same directory as the event files that completes their rows.

    A layout's path ``lookup:column`` is the value of ``column`` in the row with the event's ``key``. ``columns`` lists
    the columns, each with another column that must be empty for a value to count, or None.
    """

    file_names: tuple[str, ...]
    key: str
    columns: Mapping[str, str | None]

    def is_lookup_file(self, landing_file: str) -> bool:
        return _name_matches(landing_file, self.file_names)


@dataclass(frozen=True)
class Source:
    """One tracker's events. A file is read by the first layout that matches it."""

    name: str
    layouts: tuple[Layout, ...]
    documentation: str
    """Where the tracker documents its events."""
    lookup: Lookup | None = None
    without_events: tuple[str, ...] = ()
    """Patterns for the names of files without events, which are not read."""
    load_times: tuple[str, ...] = ()
    """In the loader's tables, the columns that say when a row was loaded; the first that a table has counts."""

    def has_no_events(self, landing_file: str) -> bool:
        """Whether the file is one of the tracker's tables without events, its lookup table included."""
        is_lookup = self.lookup is not None and self.lookup.is_lookup_file(landing_file)
        return is_lookup or _name_matches(landing_file, self.without_events)

    def layout_of(self, landing_file: str, names: frozenset[str]) -> Layout | None:
        """The layout of a file with this name and these columns or keys (lower case); None if no layout matches."""
        return next((layout for layout in self.layouts if layout.is_layout_of(landing_file, names)), None)

    @property
    def usual_layout(self) -> Layout:
        """The layout for a JSON file that no layout matches by its first line; each line is then judged by itself."""
        return next(layout for layout in self.layouts if not layout.file_names and not layout.columns)


def _name_matches(landing_file: str, patterns: tuple[str, ...]) -> bool:
    name = PurePath(landing_file.lower()).name
    return any(fnmatch(name, pattern) for pattern in patterns)
