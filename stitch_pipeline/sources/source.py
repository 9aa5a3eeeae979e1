"""What a source is: for every canonical column the places in a tracker's event that may hold it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

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


@dataclass(frozen=True)
class Source:
    """One event format.

    ``fields`` maps a canonical column to paths such as ``context.page.url`` or
    ``contexts[0].userId``; the first path that holds a non-empty value wins. A path is looked up in
    the JSON document, or, in CSV and Parquet, first as a column of exactly that name, then as a
    column named after its first segment that holds a struct or JSON text.

    ``event_types`` maps the tracker's own type, or ``type/event name``, to ``page``, ``screen``,
    ``identify`` or another canonical event type; a type that is not listed is kept as it is.
    """

    name: str
    fields: Mapping[str, tuple[str, ...]]
    event_types: Mapping[str, str] = field(default_factory=dict)
    platforms: Mapping[str, str] = field(default_factory=dict)
    default_platform: str | None = None

    def __post_init__(self) -> None:
        unknown = set(self.fields) - set(CANONICAL_FIELDS)
        if unknown:
            raise ValueError(f"source {self.name!r} maps columns that do not exist: {sorted(unknown)}")

    def paths(self, column: str) -> tuple[str, ...]:
        return self.fields.get(column, ())
