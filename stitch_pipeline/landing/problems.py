"""Why a row cannot be an event, or a file cannot be read: the codes of ``quarantined_events.problem``.

Programs match the code; people read ``reason`` and ``remedy``. No other file declares a problem.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from stitch_pipeline.sources import Layout

NOT_JSON = "not_json"
NO_EVENT_ID = "no_event_id"
NO_EVENT_TIME = "no_event_time"
UNREADABLE_EVENT_TIME = "unreadable_event_time"
BEFORE_START_DATE = "before_start_date"
IN_THE_FUTURE = "in_the_future"
NO_EVENT_TYPE = "no_event_type"
EVENT_ID_IS_STRUCTURE = "event_id_is_structure"
USER_ID_IS_STRUCTURE = "user_id_is_structure"
ANONYMOUS_ID_IS_STRUCTURE = "anonymous_id_is_structure"
REFUSED_LINE = "refused_line"
"""DuckDB's reader refuses the line: it is not in the file's encoding, is too long, or has too few columns."""
UNREADABLE_FILE = "unreadable_file"
"""No line of the file can be read; ``line`` is null."""

WHOLE_LINE, WHOLE_FILE = "the whole line", "the whole file"
REFUSED_LINE_REMEDY = "correct the line and put the file back"
UNREADABLE_FILE_REMEDY = "correct the file and put it back, or take it away; the other files are loaded"

_SEND_THE_FIELD = "give every event this field"
_SEND_A_VALUE = "make it a text or a number"
_TIME_REMEDIES = {
    None: "write ISO 8601, for instance 2025-01-31T12:00:00Z, or an epoch number",
    "iso8601": "write ISO 8601, for instance 2025-01-31T12:00:00Z",
    "seconds": "write epoch seconds, as the feed's times say",
    "milliseconds": "write epoch milliseconds, as the feed's times say",
    "microseconds": "write epoch microseconds, as the feed's times say",
}


@dataclass(frozen=True)
class Problem:
    """A reason for which a row cannot be an event."""

    code: str
    condition: str
    """SQL over the columns that ``landing.reading`` maps."""
    field: str
    reason: str
    remedy: str
    names_the_time: bool = False
    """``reason`` continues a sentence that begins with the event time as it was written."""


def problems_of_rows(layout: Layout, start_date: date) -> tuple[Problem, ...]:
    """Every problem that a row can have. If several apply, the first counts."""

    def field(column: str) -> str:
        return " or ".join(layout.paths(column)) or column

    event_id, time, event_type = field("event_id"), field("occurred_at"), field("event_type")
    has_no_time = "occurred_at_text is null and occurred_at_native is null"
    arrived_at = "least(coalesce(received_at, modified_at), modified_at)"
    has_user_structure = f"{_is_structure('user_id_text')} and not user_id_is_blocked"
    has_device_structure = f"{_is_structure('anonymous_id_text')} and not anonymous_id_is_blocked"
    return (
        Problem(NOT_JSON, "is_broken", WHOLE_LINE, "not valid JSON", "write one complete JSON object per line"),
        Problem(NO_EVENT_ID, "event_id_text is null", event_id, "there is no event id", _SEND_THE_FIELD),
        Problem(NO_EVENT_TIME, has_no_time, time, "there is no event time", _SEND_THE_FIELD),
        Problem(
            UNREADABLE_EVENT_TIME,
            "occurred_at is null",
            time,
            "cannot be read",
            _TIME_REMEDIES[layout.times],
            names_the_time=True,
        ),
        Problem(
            BEFORE_START_DATE,
            f"occurred_at < '{start_date.isoformat()}'::timestamp",
            time,
            f"is before the start date {start_date.isoformat()}",
            "set STITCH_START_DATE earlier to load it",
            names_the_time=True,
        ),
        Problem(
            IN_THE_FUTURE,
            f"occurred_at > {arrived_at} + interval 1 day",
            time,
            "is more than one day after the event arrived",
            "correct the time and deliver the event again",
            names_the_time=True,
        ),
        Problem(NO_EVENT_TYPE, "event_type is null", event_type, "there is no event type", _SEND_THE_FIELD),
        Problem(
            EVENT_ID_IS_STRUCTURE,
            _is_structure("event_id_text"),
            event_id,
            "the event id is an object or a list",
            _SEND_A_VALUE,
        ),
        Problem(
            USER_ID_IS_STRUCTURE,
            has_user_structure,
            field("user_id"),
            "the user id is an object or a list",
            _SEND_A_VALUE,
        ),
        Problem(
            ANONYMOUS_ID_IS_STRUCTURE,
            has_device_structure,
            field("anonymous_id"),
            "the anonymous id is an object or a list",
            _SEND_A_VALUE,
        ),
    )


def _is_structure(column: str) -> str:
    # Comparing character codes takes a third of the time of comparing texts.
    return f"ascii({column}) in (ascii('{{'), ascii('['))"
