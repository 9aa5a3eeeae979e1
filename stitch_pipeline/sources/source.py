"""What a source is: the shapes in which a tracker's events lie in files, and what each field of them means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import PurePath
from typing import Literal

from stitch_pipeline.sources.paths import parse_path

# Text columns of raw_events that a source may fill, in the table's order; `source`, `event_date`
# and `landing_file` are known without looking into the event.
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
)

TimeFormat = Literal["iso8601", "seconds", "milliseconds", "microseconds"]


@dataclass(frozen=True)
class Layout:
    """One shape of a source's files: its event JSON, say, or one of its warehouse tables.

    ``fields`` maps a canonical column to paths (see ``sources.paths``); of several the first that holds a
    non-empty value wins. ``event_types`` maps the tracker's own type, or ``type/event name``, to ``page``,
    ``screen``, ``identify`` or another canonical event type; a type that is not listed becomes
    ``other_event_type``, or is kept if that is None.
    """

    name: str
    fields: Mapping[str, tuple[str, ...]]
    recognised_by: tuple[str, ...] = ()
    """Columns, or keys of a JSON document, that a file of this layout always has."""
    file_names: tuple[str, ...] = ()
    """Patterns of which the file's name or a directory above it matches one; empty if the name does not matter."""
    columns: tuple[str, ...] = ()
    """The columns of a delimited file that has no header."""
    event_id_from: tuple[str, ...] = ()
    """Where the tracker sends no event id: the paths whose values together are one."""
    times: TimeFormat | None = None
    """How times are written; None accepts ISO 8601 and epoch numbers, whose size says the unit."""
    event_types: Mapping[str, str] = field(default_factory=dict)
    other_event_type: str | None = None
    platforms: Mapping[str, str] = field(default_factory=dict)
    default_platform: str | None = None
    envelope: tuple[str, ...] = ()
    """Patterns of columns that are neither traits nor properties, for layouts that spread those over columns."""
    user_id_may_repeat_anonymous_id: bool = False
    """The tracker repeats the anonymous id as the user id until it knows the user: then it is no user id."""

    def __post_init__(self) -> None:
        unknown = set(self.fields) - set(CANONICAL_FIELDS)
        if unknown:
            raise ValueError(f"layout {self.name!r} maps columns that do not exist: {', '.join(sorted(unknown))}")
        for path in self.all_paths():
            parse_path(path)

    def paths(self, column: str) -> tuple[str, ...]:
        return self.fields.get(column, ())

    def all_paths(self) -> tuple[str, ...]:
        """Every path that is looked up, each once."""
        own = (path for column in CANONICAL_FIELDS for path in self.paths(column))
        return tuple(dict.fromkeys((*own, *self.event_id_from)))

    def is_layout_of(self, landing_file: str, names: frozenset[str]) -> bool:
        """Whether a file with this name and these columns (lower case) is of this layout."""
        has_columns = not self.columns and all(name.lower() in names for name in self.recognised_by)
        return has_columns and self._has_name(landing_file)

    def _has_name(self, landing_file: str) -> bool:
        parts = PurePath(landing_file.lower()).parts
        return not self.file_names or any(fnmatch(part, pattern) for part in parts for pattern in self.file_names)


@dataclass(frozen=True)
class Lookup:
    """A table that lies in the same directory as the event files and completes their rows.

    A path ``lookup:column`` of the layouts is the value of ``column`` in the row whose ``key`` is that of
    the event. ``columns`` names the columns, each with another one that must be empty for it to count.
    """

    file_names: tuple[str, ...]
    key: str
    columns: Mapping[str, str | None]

    def is_lookup_file(self, landing_file: str) -> bool:
        return _name_matches(landing_file, self.file_names)


@dataclass(frozen=True)
class Source:
    """One tracker's events. Of its layouts the first that a file matches is the one by which it is read."""

    name: str
    layouts: tuple[Layout, ...]
    documentation: str
    """Where the tracker says what its events look like."""
    lookup: Lookup | None = None
    without_events: tuple[str, ...] = ()
    """Patterns of the names of files that hold no events and are left alone."""

    def has_no_events(self, landing_file: str) -> bool:
        """Whether the file is one of the tracker's tables that hold no events."""
        is_lookup = self.lookup is not None and self.lookup.is_lookup_file(landing_file)
        return is_lookup or _name_matches(landing_file, self.without_events)

    def layout_of(self, landing_file: str, names: frozenset[str]) -> Layout | None:
        """The layout of a file with this name and these columns (lower case); None if it is of none."""
        return next((layout for layout in self.layouts if layout.is_layout_of(landing_file, names)), None)

    @property
    def usual_layout(self) -> Layout:
        """By which JSON documents are read whose keys are not those of any layout: each is judged by itself."""
        return next(layout for layout in self.layouts if not layout.file_names and not layout.columns)


def _name_matches(landing_file: str, patterns: tuple[str, ...]) -> bool:
    name = PurePath(landing_file.lower()).name
    return any(fnmatch(name, pattern) for pattern in patterns)
