"""The same files and rules give the same rows on DuckDB and on PostgreSQL, whatever the ids and times look like.

Both warehouses live through the same steps, and after each every table and view of the one is that of the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from engines import new_database
from histories import History, Settle, history
from warehouses import TABLES, VIEWS, Row, Warehouse, as_jitsu, differences, ephemeral_warehouse, ordered, page_view

HISTORIES = ("user_mapping_history", "rules_history", "decision_history", "person_name_history")
CONTROL_TABLES = (
    *("project_settings", "unique_identifiers", "identifier_fields", "blocked_identifiers", "conversion_events"),
    *("decision_lines", "decisions", "forgotten_events", "landing_files", "changed_rows"),
    *("pending_devices", "pending_ids", "pending_users", "pending_days", "stale_partitions"),
)
# When a run took place, and when a file was written, which by nature is not the same for two warehouses.
TIMES_OF_RUNS = ("known_since", "followed_since", "loaded_at", "candidate_loaded_at", "version", "modified_at")
ENDS_OF_TIMES = ("known_until", "followed_until")


@dataclass
class Both:
    """A warehouse on each engine. What is done is done to both."""

    duckdb: Warehouse
    postgres: Warehouse

    def do(self, step: Callable[[Warehouse], Any]) -> None:
        for warehouse in (self.duckdb, self.postgres):
            step(warehouse)

    def assert_agree(self, what: str) -> None:
        with self.duckdb.reading(), self.postgres.reading():
            for table in (*TABLES, *VIEWS, *HISTORIES, *CONTROL_TABLES):
                one, other = (contents(warehouse, table) for warehouse in (self.duckdb, self.postgres))
                if one != other:
                    found = differences(other, one)
                    shown = {name: rows[:3] for name, rows in found.items()}
                    pytest.fail(f"{what}, {table}: on PostgreSQL {[len(rows) for rows in found.values()]} rows {shown}")


@contextmanager
def both_engines(directory: Path, **settings: Any) -> Iterator[Both]:
    with (
        ephemeral_warehouse(directory / "duckdb", **{**settings, "warehouse": None}) as one,
        ephemeral_warehouse(directory / "postgres", **{**settings, "warehouse": new_database()}) as other,
    ):
        yield Both(one, other)


def contents(warehouse: Warehouse, table: str) -> list[Row]:
    """The rows without the times of runs, each value with its type: 1, 1.0 and true are not the same."""
    return ordered(
        {
            name: value is None if name in ENDS_OF_TIMES else (type(value).__name__, _stored(value))
            for name, value in row.items()
            if name not in TIMES_OF_RUNS
        }
        for row in warehouse.query(f"select * from stitch.{table}")
    )


def _stored(value: object) -> object:
    # PostgreSQL stores no NUL character.
    return value.replace("\0", "\ufffd") if isinstance(value, str) else value


# Hard ids.

IDS = (
    *("a", "B", "b", "A", "z", "Z", "_", "-", "a_b", "a-b", "ab", "a b", "10", "9", "1e3", "NaN", "nan", "Infinity"),
    *("Ä", "ä", "é", "e\u0301", "ß", "ss", "ẞ", "SS", "İ", "i̇", "ı", "ﬁ", "fi", "\u212a", "ǆ", "ǅ", "Σ", "ς", "σ"),
    *("😀", "👩‍👧", "中文", "\uffee", "\U0010fffd", "\u200b", "\ufeff", "\u00a0", "x\u00a0", "\u2028", "x\u0085"),
    *(
        "'",
        '"',
        "\\",
        "\\N",
        "$1",
        "%s",
        "%",
        "{}",
        "a,b",
        "a;b",
        "a\tb",
        "a\nb",
        "a\r\nb",
        "\x01",
        "\x7f",
        "x" * 10_000,
    ),
    *("x" * 10_000 + "y", "ä" * 5_000),
    # Nobody's, or nearly so.
    *("", " ", "\t", "null", "NULL", " Null ", "undefined", "none", "(not set)", "0", "00000000", "guest", "“null”"),
)
TIMES = (
    "2026-03-01T00:00:00Z",
    "2026-03-01T23:59:59.999999Z",
    "2026-03-02T00:00:00.000001Z",
    "2026-03-02T05:29:59.123456+05:30",
    "2026-03-02T00:15:00+14:00",
    "2026-03-01T14:00:00.5-10:00",
    "2026-03-02 12:00:00.1234567Z",
    "2026-03-02T12:00:00",
    "2026-03-02T24:00:00Z",
    "2026-03-29T02:30:00+01:00",
    "2026-03-02T12:00:60Z",
    "2026-03-02",
    1772452800,
    1772452800123,
    1772452800.123456,
    "1772452800123",
    "1772452800",
    "9999-12-31T23:59:59Z",
    "-infinity",
    "infinity",
    "0044-03-15 (BC)",
    "0001-01-01",
    "58135-08-27T00:00:00Z",
    "NaN",
    "",
)
DOCUMENTS: tuple[Any, ...] = (
    {"email": "Ann@Example.com "},
    {"email": "ANN@EXAMPLE.COM", "name": 'Ä\u0301"\\/\b\f\n\r\t\u2028😀'},
    {"email": "İ@example.com"},
    {"email": "STRASSE@example.com", "n": [1, 2.5, -0.0, 1e21, 1e-7, 12345678901234567890, 0.1, 100.0, True, None, {}]},
    {"email": "ẞ@example.com", "deep": {"a": {"b": [{"c": "d"}]}}},
    {"email": 42},
    {"email": 4.5},
    {"email": 12345678901234567890},
    {"email": True},
    {"email": None},
    {"email": ""},
    {"email": ["a@example.com"]},
    {"email": {"a": "b"}},
    {"email": "null"},
    {"email": "nul@example.com", "nul": "a\0b"},
    {"email": "nul\0in@example.com"},
    {"email": "not-a-number@example.com", "price": float("nan"), "most": float("inf"), "least": float("-inf")},
    {"email": "backslash@example.com", "text": "\\u0000 \\\\ NaN"},
    {"mail": "second@example.com", "email": " "},
    {"phone": "+1 (234) 567-89"},
    {"phone": "١٢٣"},
    {"": "empty name", "email.x": 1, "e\u0301": 2, "é": 3},
    {},
    [],
    [1, "two"],
    "text",
    7,
)
RAW_LINES = (
    # A name twice in one document, spaces between, and numbers in other spellings.
    '{"messageId":"raw1","projectId":"graph","timestamp":"2026-03-02T12:00:00Z","type":"identify","anonymousId":"raw",'
    '"traits":{ "email" : "raw\\u0040example.com" , "n" : 1.10, "m": 1E2, "k": -0 }}',
    '{"messageId":"raw2","projectId":"graph","timestamp":"2026-03-02T12:00:00Z","type":"page","anonymousId":"\\ud83d\\ude00"}',
    '{"messageId":"raw3","projectId":"graph","timestamp":"2026-03-02T12:00:00Z","type":"page","anonymousId":"\\ud83d"}',
    '{"messageId":"raw4","projectId":"graph","timestamp":"2026-03-02T12:00:00Z","type":"page","anonymousId":"a\\u0000"',
    '{"messageId":"","projectId":"graph","timestamp":"2026-03-02T12:00:00Z","type":"page","anonymousId":"a"}',
    "nothing",
    "",
    "[]",
    "null",
)
PROJECTS = ("latest", "first", "device_split", "next_identify", "graph", 'b\'s "ä"')
TOML = """
[projects.latest]
policy = "latest"
[projects.first]
policy = "first"
[projects.device_split]
policy = "device_split"
lookback_days = 1
[projects.next_identify]
policy = "next_identify"
[projects.graph]
policy = "graph"
[projects.graph.identifiers.email]
paths = ["traits.email", "traits.mail", "properties.email"]
normalise = ["trim", "lower"]
[projects.graph.identifiers.phone]
paths = ["traits.phone", "traits.email"]
normalise = ["digits"]
"""
OTHER_TOML = (
    TOML.replace('policy = "first"', 'policy = "device_split"\nmax_users_per_device = 1')
    .replace("[projects.graph]\n", '[projects.graph]\nunique_identifiers = ["email"]\nmax_ids_per_person = 5\n')
    .replace('policy = "latest"', 'policy = "graph"\nlink_on = "identify"')
)
OVERRIDES = (
    "graph,same_person,B,b,",
    'graph,same_person,Ä,"a,b",näher',
    "graph,never_same,ß,ss,",
    "graph,wrong_link,a,B,",
    "first,shared_device,A,,",
    '"b\'s ""ä""",same_person,z,Z,',
)


def hard_events() -> Iterator[Row]:
    """Every id as a device, as a user of its neighbour's device, and as an event's."""
    for number, name in enumerate(IDS):
        for project in ("graph", PROJECTS[number % len(PROJECTS)]):
            neighbour = IDS[(number * 7 + 3) % len(IDS)]
            day = 2 + number % 4
            for event_id, device, user, clock in (
                (f"d{number}", name, None, "12:00"),
                (f"u{number}", name, neighbour, "12:10"),
                (name or "empty", neighbour, None, "23:50"),
            ):
                yield page_view(
                    event_id,
                    f"2026-03-0{day} {clock}",
                    f"2026-03-0{day + 1} 00:00",
                    project_id=project,
                    anonymous_id=device,
                    user_id=user,
                    page_path="/" + name[:50],
                    page_title=name[:50] + "\0",
                    source_session_id=name[:20] if number % 5 == 0 else None,
                    utm_source=name[:20] if number % 3 == 0 else None,
                )


def hard_documents() -> Iterator[Row]:
    """Traits and properties of every shape, each on a device of its own; and the same texts as times."""
    for number, document in enumerate(DOCUMENTS):
        for place in ("traits", "properties"):
            yield {
                **as_jitsu(
                    page_view(
                        f"{place}{number}",
                        "2026-03-03 12:00",
                        project_id="graph",
                        event_type="identify" if number % 2 else "track",
                        event_name="signup",
                        anonymous_id=f"doc-{number % 9}",
                        user_id=f"user-{number}" if number % 4 == 0 else None,
                    )
                ),
                place: document,
            }
    for number, time in enumerate(TIMES):
        for name in ("timestamp", "receivedAt"):
            document = as_jitsu(
                page_view(f"{name}{number}", "2026-03-02 12:00", "2026-03-02 12:00", project_id="graph")
            )
            yield {**document, "anonymousId": f"time-{number % 3}", name: time}
        yield {**document, "messageId": f"both{number}", "timestamp": time, "receivedAt": time}


def ties() -> Iterator[Row]:
    """The same event in two shapes at the same times: which one stays is decided by what they hold."""
    for number, title in enumerate(("b", "B", "ä", "z", "", "\0", "é", "e\u0301")):
        yield page_view(
            f"tie{number // 2}",
            "2026-03-04 12:00",
            "2026-03-04 13:00",
            anonymous_id="tied",
            page_title=title,
            user_id=title or None,
            project_id="latest",
        )
    for number in range(6):  # one moment, one device, several users
        yield page_view(
            f"same{number}", "2026-03-04 12:00", anonymous_id="crowd", user_id=IDS[number], project_id="first"
        )


def conversions() -> Iterator[Row]:
    """Hours and days between them that no decimal fraction ends."""
    for number, time in enumerate(("00:00:00.000001", "00:20:00", "07:07:07.777777", "23:59:59.999999")):
        for name in ("signup", "completed_checkout"):
            yield page_view(
                f"{name}{number}", f"2026-03-05 {time}", anonymous_id="a", event_type="track", event_name=name,
                user_id="ann" if number else None, project_id="device_split",
            )  # fmt: skip


def late_logins() -> list[Row]:
    return [
        page_view(
            f"late{number}", "2026-03-08 09:00", "2026-03-08 09:00:00.000001",
            project_id=project, anonymous_id=IDS[number], user_id=IDS[-number - 20], event_type="identify",
            traits={"email": f"{IDS[number][:9]}@example.com"},
        )
        for project in PROJECTS
        for number in range(0, 50, 5)
    ]  # fmt: skip


def land_everything(warehouse: Warehouse) -> None:
    warehouse.land_events("jitsu/hard.ndjson", hard_events())
    warehouse.land("jitsu/documents.ndjson", [*hard_documents(), *RAW_LINES])
    tied = list(ties())
    warehouse.land_events("jitsu/ties 'ä'.ndjson", tied[::2])
    warehouse.land_events("jitsu/Ties.ndjson", tied[1::2])
    warehouse.land_events("jitsu/again.ndjson", tied)
    warehouse.land_events("jitsu/conversions.ndjson", conversions())


def build_in_full(both: Both) -> None:
    both.do(land_everything)
    both.do(Warehouse.settle)
    both.assert_agree("built in full")


@pytest.mark.slow
def test_hard_ids_documents_and_times(tmp_path: Path) -> None:
    with both_engines(tmp_path, stitch_toml=TOML) as both:
        build_in_full(both)
        # The story is about something.
        found = {row["id"] for row in both.postgres.rows("identifier_links", ["id"])}
        assert {"nul@example.com", "not-a-number@example.com", "ann@example.com"} <= found
        assert len({row["stitched_user_id"] for row in both.postgres.rows("page_views")}) > 50
        assert len(both.postgres.rows("quarantined_events")) > 10


@pytest.mark.slow
def test_hard_ids_as_files_and_rules_change(tmp_path: Path) -> None:
    with both_engines(tmp_path, stitch_toml=TOML) as both:
        build_in_full(both)

        def change_files(warehouse: Warehouse) -> None:
            warehouse.land_events("jitsu/late.ndjson", late_logins())
            warehouse.land_events("jitsu/hard.ndjson", list(hard_events())[::2])
            warehouse.take_away("jitsu/Ties.ndjson")
            warehouse.settle()

        both.do(change_files)
        both.assert_agree("after late logins and a changed file")

        def change_rules(warehouse: Warehouse) -> None:
            warehouse.write_stitch_toml(OTHER_TOML)
            warehouse.write_overrides(OVERRIDES)
            warehouse.settle()

        both.do(change_rules)
        both.assert_agree("after other rules")


def play(found: History, both: Both) -> None:
    for number, step in enumerate(found.steps):
        both.do(History((step,)).play)
        if isinstance(step, Settle):
            both.assert_agree(f"step {number}")
    both.do(Warehouse.settle)
    both.assert_agree("at the end")


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.long) for seed in (2, 3))])
def test_any_history(seed: int, tmp_path: Path) -> None:
    with both_engines(tmp_path) as both:
        play(history(seed, rounds=1), both)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("seed", range(4, 12))
def test_any_long_history(seed: int, tmp_path: Path) -> None:
    with both_engines(tmp_path) as both:
        play(history(seed, rounds=4), both)
