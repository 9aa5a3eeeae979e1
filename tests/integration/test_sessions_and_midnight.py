"""Sessions at the edges of a partition, and days that lose rows. Times tell what a session is cut by."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import date, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import oracle
import pytest
from histories import as_read
from oracle import Rules
from warehouses import TABLES, Row, Warehouse, at, differences, ephemeral_warehouse, page_view

from stitch_pipeline.orchestration.run_config import models_config

DAYS = [date(2026, 3, day) for day in range(1, 6)]
FILE = "jitsu/all.ndjson"


def visits(device: str, *times: str, number: str | None = None, user: str | None = None) -> list[Row]:
    """Page views at the given times of March 2026, such as ``'1 23:45'``; the last one carries the user."""
    return [
        {
            "event_id": f"{device}@{time}",
            "project_id": "p",
            "occurred_at": _march(time),
            "event_type": "page",
            "anonymous_id": device,
            "source_session_id": number,
            "user_id": user if position == len(times) - 1 else None,
        }
        for position, time in enumerate(times)
    ]


def every(minutes: int, device: str, first: str, last: str, number: str | None = None) -> list[Row]:
    begin, end = _march(first), _march(last)
    count = (end - begin) // timedelta(minutes=minutes) + 1
    times = [begin + n * timedelta(minutes=minutes) for n in range(count)]
    return visits(device, *(f"{time.day} {time:%H:%M:%S}" for time in times), number=number)


def _march(time: str) -> datetime:
    day, clock = time.split(" ")
    return at(f"2026-03-{int(day):02} {clock}")


EVENTS = [
    *visits("owl", "1 23:45", "2 00:05", "2 00:34", user="u1"),  # runs past midnight
    *visits("edge", "1 23:45", "2 00:14:59", "2 00:45", user="u2"),  # a gap of 29:59, then one over 30 minutes
    *visits("exact", "2 23:40", "3 00:10", "3 00:39:59.999999"),  # a gap of exactly 30 minutes ends a session
    *visits("tick", "3 23:59:59.999999", "4 00:00:00"),
    *visits("lark", "4 00:00:00", "4 00:20", "4 00:55"),  # starts with the day
    *every(29, "night-bot", "1 12:00", "2 23:59"),  # fills day 2 from midnight to midnight, but not day 1
    *every(20, "bot", "2 10:00", "5 09:40"),  # fills days 3 and 4
    *every(25, "almost", "3 00:00", "3 23:20"),  # not full: silent before the second midnight
    *visits("almost", "4 00:05"),
    *visits("tabs", "3 10:00", "3 12:00", "3 23:50", "4 00:10", "4 15:00", number="7"),  # gaps do not end it
    *visits("tabs", "3 11:00", "3 11:10", number="8"),  # while another one is under way
    *visits("tabs", "3 10:30", "3 11:30"),  # and without a number
    *visits("sleeper", "2 10:00", "2 22:00", "3 00:20", "3 11:59", number="9"),  # nor does silence over midnight
    *visits("regular", "2 10:00", "3 10:00", "4 10:00", number="9"),  # unless another midnight is nearer
    *visits("noon", "2 12:00", "3 11:59:59", number="9"),  # noon is as near to one as to the other
    *visits("after noon", "2 12:00:00.000001", "3 11:59:59", number="9"),
    *visits("early and late", "2 22:00", "3 00:40", "3 23:20", "4 00:40", number="9"),  # at equal distances
    *visits("early", "2 22:00", "3 00:40", "3 23:19", "4 00:40", number="9"),
    *visits("late", "2 22:00", "3 00:41", "3 23:20", "4 00:40", number="9"),
    *visits("two days on", "2 23:00", "4 01:00", number="9"),
    *visits("full", "2 23:00", "3 00:20", "3 23:35", "4 00:25", number="9"),  # a full day is cut at both midnights
    *visits("numbered-bot", "2 23:50", "3 00:01", "3 12:00", "3 23:59", "4 00:02", number="5"),
]


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Callable[[], Warehouse]]:
    opened: list[AbstractContextManager[Warehouse]] = []

    def new() -> Warehouse:
        context = ephemeral_warehouse(tmp_path / str(len(opened)))
        opened.append(context)
        return context.__enter__()

    yield new
    for context in opened:
        context.__exit__(None, None, None)


@pytest.fixture(scope="module")
def settled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warehouse]:
    with ephemeral_warehouse(tmp_path_factory.mktemp("midnight")) as warehouse:
        warehouse.land_events(FILE, EVENTS)
        warehouse.settle()
        yield warehouse


def sessions_of(warehouse: Warehouse, device: str) -> list[tuple[str, str, int]]:
    rows = warehouse.query(
        f"select started_at, ended_at, event_count, session_date from stitch.sessions "
        f"where anonymous_id = '{device}' order by started_at, ended_at"
    )
    assert all(row["session_date"] == row["started_at"].date() for row in rows)
    return [(_short(row["started_at"]), _short(row["ended_at"]), row["event_count"]) for row in rows]


def _short(time: datetime) -> str:
    return f"{time.day} {time:%H:%M}"


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        ("owl", [("1 23:45", "2 00:34", 3)]),
        ("edge", [("1 23:45", "2 00:14", 2), ("2 00:45", "2 00:45", 1)]),
        ("exact", [("2 23:40", "2 23:40", 1), ("3 00:10", "3 00:39", 2)]),
        ("tick", [("3 23:59", "4 00:00", 2)]),
        ("lark", [("4 00:00", "4 00:20", 2), ("4 00:55", "4 00:55", 1)]),
        ("almost", [("3 00:00", "3 23:20", 57), ("4 00:05", "4 00:05", 1)]),
    ],
)
def test_a_silence_of_the_timeout_ends_a_session_and_midnight_does_not(
    settled: Warehouse, device: str, expected: list[tuple[str, str, int]]
) -> None:
    assert sessions_of(settled, device) == expected


def test_a_bot_is_cut_at_both_midnights_of_the_days_that_it_fills(settled: Warehouse) -> None:
    assert sessions_of(settled, "bot") == [
        ("2 10:00", "2 23:40", 42),
        ("3 00:00", "3 23:40", 72),
        ("4 00:00", "4 23:40", 72),
        ("5 00:00", "5 09:40", 30),
    ]
    night_bot = sessions_of(settled, "night-bot")
    assert [(start[0], end[0]) for start, end, _ in night_bot] == [("1", "1"), ("2", "2")]
    assert sum(count for *_, count in night_bot) == sum(e["anonymous_id"] == "night-bot" for e in EVENTS)


def test_a_tracker_s_session_goes_on_over_silence_within_a_day(settled: Warehouse) -> None:
    assert sessions_of(settled, "tabs") == [
        ("3 10:00", "4 15:00", 5),
        ("3 10:30", "3 10:30", 1),
        ("3 11:00", "3 11:10", 2),
        ("3 11:30", "3 11:30", 1),
    ]
    assert sessions_of(settled, "numbered-bot") == [
        ("2 23:50", "2 23:50", 1),
        ("3 00:01", "3 23:59", 3),
        ("4 00:02", "4 00:02", 1),
    ]


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        ("sleeper", [("2 10:00", "3 11:59", 4)]),
        ("regular", [("2 10:00", "2 10:00", 1), ("3 10:00", "3 10:00", 1), ("4 10:00", "4 10:00", 1)]),
        ("noon", [("2 12:00", "2 12:00", 1), ("3 11:59", "3 11:59", 1)]),
        ("after noon", [("2 12:00", "3 11:59", 2)]),
        ("early and late", [("2 22:00", "2 22:00", 1), ("3 00:40", "3 23:20", 2), ("4 00:40", "4 00:40", 1)]),
        ("early", [("2 22:00", "3 23:19", 3), ("4 00:40", "4 00:40", 1)]),
        ("late", [("2 22:00", "2 22:00", 1), ("3 00:41", "4 00:40", 3)]),
        ("two days on", [("2 23:00", "2 23:00", 1), ("4 01:00", "4 01:00", 1)]),
        ("full", [("2 23:00", "2 23:00", 1), ("3 00:20", "3 23:35", 2), ("4 00:25", "4 00:25", 1)]),
    ],
)
def test_a_tracker_s_session_goes_on_over_the_midnight_that_it_is_nearest_to(
    settled: Warehouse, device: str, expected: list[tuple[str, str, int]]
) -> None:
    assert sessions_of(settled, device) == expected


def test_a_page_view_after_midnight_lies_in_the_session_of_the_day_before(settled: Warehouse) -> None:
    views = settled.query(
        "select v.event_id, v.event_date, s.session_date, s.started_at, v.stitched_user_id "
        "from stitch.page_views v left join stitch.sessions s using (project_id, session_id) "
        "where v.anonymous_id in ('owl', 'edge') order by v.anonymous_id, v.occurred_at"
    )
    assert [
        (v["event_date"].day, v["session_date"].day, _short(v["started_at"]), v["stitched_user_id"]) for v in views
    ] == [
        (1, 1, "1 23:45", "u2"),
        (2, 1, "1 23:45", "u2"),
        (2, 2, "2 00:45", "u2"),
        (1, 1, "1 23:45", "u1"),
        (2, 1, "1 23:45", "u1"),
        (2, 1, "1 23:45", "u1"),
    ]


def _agrees(warehouse: Warehouse, expected: dict[str, list[Row]]) -> None:
    for table, rows in warehouse.contents().items():
        assert not differences(rows, expected[table]), table


ORDERS: dict[str, Callable[[list[date]], list[date]]] = {
    "backward": lambda days: days[::-1],
    "forward": lambda days: days,
    "shuffled": lambda days: Random(4).sample(days, len(days)),
    "inside out": lambda days: [days[n] for n in (2, 3, 1, 4, 0)],
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "order", ["inside out", *(pytest.param(one, marks=pytest.mark.long) for one in ("backward", "forward", "shuffled"))]
)
def test_days_built_one_by_one_in_any_order_hold_the_same_rows(
    settled: Warehouse, deployment: Callable[[], Warehouse], order: str
) -> None:
    warehouse = deployment()
    warehouse.land_events(FILE, EVENTS)
    for day in ORDERS[order](DAYS):
        warehouse.build(day)
    for table in ("raw_events", "identity_map", "sessions"):
        assert not differences(warehouse.rows(table), settled.rows(table)), table
    warehouse.settle()
    _agrees(warehouse, settled.contents())


@pytest.mark.slow
@pytest.mark.parametrize(
    "rebuilt", [pytest.param(False, marks=pytest.mark.long), True], ids=["new tables", "over existing rows"]
)
def test_a_window_built_in_steps_of_a_day_holds_the_same_rows(
    rebuilt: bool, settled: Warehouse, deployment: Callable[[], Warehouse], monkeypatch: pytest.MonkeyPatch
) -> None:
    warehouse = deployment()
    warehouse.land_events(FILE, EVENTS)
    if rebuilt:
        warehouse.build(DAYS[0], DAYS[-1])
    monkeypatch.setattr("stitch_pipeline.stitching.build.EVENTS_PER_STEP", 1)
    changed = warehouse.build(DAYS[0], DAYS[-1])
    expected = settled.contents()
    _agrees(warehouse, expected)
    assert changed["sessions"] == (0 if rebuilt else len(expected["sessions"]))


@pytest.mark.slow
def test_a_view_has_one_session_while_the_day_before_is_still_to_be_built(deployment: Callable[[], Warehouse]) -> None:
    warehouse = deployment()
    before, after, noon = (
        page_view(name, f"2026-03-{time}") for name, time in (("a", "05 23:50"), ("b", "06 00:10"), ("c", "06 12:00"))
    )
    warehouse.land_events("jitsu/one.ndjson", [before, noon])
    warehouse.land_events("jitsu/other.ndjson", [after])
    warehouse.settle()
    past_midnight = warehouse.query("select session_id from stitch.sessions where session_date = date '2026-03-05'")
    warehouse.land_events("jitsu/one.ndjson", [{**before, "occurred_at": at("2026-03-05 20:00")}, noon])
    warehouse.build(date(2026, 3, 6))

    def sessions() -> list[Row]:
        columns = ("started_at", "ended_at")
        return [{name: f"{row[name]:%d %H:%M}" for name in columns} for row in warehouse.rows("sessions")]

    assert {"started_at": "05 23:50", "ended_at": "06 00:10"} in sessions(), "nobody has built that day again"
    of_views = {row["event_id"]: row["session_id"] for row in warehouse.rows("page_views") if row["event_id"] != "a"}
    assert len(warehouse.rows("page_views")) == 3
    assert of_views["b"] not in [row["session_id"] for row in past_midnight]
    warehouse.settle()
    assert {row["started_at"] for row in sessions()} == {"05 20:00", "06 00:10", "06 12:00"}
    assert {row["event_id"]: row["session_id"] for row in warehouse.rows("page_views") if row["event_id"] != "a"} == (
        of_views
    )


def test_each_partition_depends_on_its_neighbours_only(deployment: Callable[[], Warehouse]) -> None:
    """Day 3 alone, with the events of days 2 to 4 and nothing else, holds what it holds among all days."""
    warehouse = deployment()
    warehouse.land_events(FILE, [event for event in EVENTS if 2 <= event["occurred_at"].day <= 4])
    warehouse.build(DAYS[2])
    expected = [
        {"project_id": "p", **{name: value for name, value in row.items() if name != "events"}}
        for row in oracle.sessions([{**as_read(e, FILE), **_blanks(e)} for e in EVENTS], Rules())
        if row["session_date"] == DAYS[2]
    ]
    assert not differences(warehouse.rows("sessions", expected[0].keys()), expected)


def _blanks(event: Row) -> dict[str, Any]:
    absent = ("page_path", "referrer", "utm_source", "utm_medium", "utm_campaign")
    return {"event_date": event["occurred_at"].date(), **dict.fromkeys(absent)}


@pytest.mark.slow
def test_no_stale_row_is_left_when_a_day_loses_rows_or_becomes_empty(deployment: Callable[[], Warehouse]) -> None:
    warehouse = deployment()
    kept = [*visits("owl", "1 23:45", "2 00:05"), *visits("other", "2 09:00")]
    gone = [
        *visits("owl", "2 00:20", "4 12:00", user="u1"),  # the only login of the device, and day 4's only events
        *visits("someone", "4 13:00", user="u2"),
        *visits("owl", "1 23:30"),  # a session that will start later, under another id
    ]
    warehouse.land_events("jitsu/kept.ndjson", kept)
    warehouse.land_events("jitsu/gone.ndjson", gone)
    # An event that is received again later: it waits, and comes in when the first goes away.
    again = {**visits("someone", "4 13:00")[0], "received_at": _march("5 00:00")}
    first = {**again, "received_at": _march("4 13:01"), "occurred_at": _march("4 14:00")}
    warehouse.land_events("jitsu/first.ndjson", [first])
    warehouse.land("jitsu/bad.ndjson", ["not json"])
    warehouse.settle()
    assert {row["stitched_user_id"] for row in warehouse.rows("users")} == {"u1", "someone", "other"}
    assert len(warehouse.rows("quarantined_events")) == 1

    warehouse.land_events("jitsu/gone.ndjson", [again])
    warehouse.land_events("jitsu/bad.ndjson", [])
    warehouse.take_away("jitsu/first.ndjson")
    warehouse.settle()
    landed = [*(as_read(e, "jitsu/kept.ndjson") for e in kept), as_read(again, "jitsu/gone.ndjson")]
    expected = oracle.tables(landed)
    _agrees_with_oracle(warehouse, expected)
    assert {row["stitched_user_id"] for row in expected["users"]} == {"owl", "someone", "other"}

    warehouse.load_settings(max_vanished_share=1)
    warehouse.take_away("jitsu/gone.ndjson")
    warehouse.take_away("jitsu/bad.ndjson")
    warehouse.settle()
    _agrees_with_oracle(warehouse, oracle.tables(landed[:-1]))
    assert {row["stat_date"].day for row in warehouse.rows("visitor_stats")} == {1, 2}

    warehouse.take_away("jitsu/kept.ndjson")
    warehouse.settle()
    assert warehouse.contents() == {table: [] for table in TABLES}


@pytest.mark.slow
def test_an_event_that_moves_to_another_day_takes_its_rows_along(deployment: Callable[[], Warehouse]) -> None:
    """While only the day that it came to is built, it stands on both days; then on one, and never on none."""
    warehouse = deployment()
    early = visits("owl", "3 12:00")[0]
    late = {**early, "occurred_at": _march("4 12:00"), "received_at": _march("4 12:00")}
    warehouse.land_events("jitsu/early.ndjson", [early])
    warehouse.settle()
    warehouse.land_events("jitsu/late.ndjson", [late])  # received first, as far as anybody knows
    warehouse.build(DAYS[3])
    warehouse.settle()
    landed = [as_read(early, "jitsu/early.ndjson"), as_read(late, "jitsu/late.ndjson")]
    _agrees_with_oracle(warehouse, oracle.tables(landed))

    warehouse.take_away("jitsu/late.ndjson")
    warehouse.build(DAYS[2])
    warehouse.settle()
    _agrees_with_oracle(warehouse, oracle.tables(landed[:1]))


@pytest.mark.slow
def test_a_view_on_two_days_keeps_one_answer_when_a_run_does_not_stitch_views(
    deployment: Callable[[], Warehouse],
) -> None:
    warehouse = deployment()
    early, login = visits("owl", "3 12:00", "3 12:01", user="u1")
    late = {**early, "occurred_at": _march("4 12:00"), "received_at": _march("4 12:00")}
    without_views = models_config(view_stitching=False)
    warehouse.land_events("jitsu/early.ndjson", [early, login])
    warehouse.settle()
    warehouse.land_events("jitsu/late.ndjson", [late])
    warehouse.build(DAYS[3], run_config=without_views)
    warehouse.build(DAYS[1], DAYS[4], run_config=without_views)
    views = [(row["event_id"], row["event_date"]) for row in warehouse.rows("page_views")]
    assert sorted(views) == [(early["event_id"], DAYS[3]), (login["event_id"], DAYS[2])]
    warehouse.settle()
    landed = [*(as_read(e, "jitsu/early.ndjson") for e in (early, login)), as_read(late, "jitsu/late.ndjson")]
    _agrees_with_oracle(warehouse, oracle.tables(landed))


def test_without_view_stitching_a_corrected_device_is_the_view_s_own(tmp_path: Path) -> None:
    with ephemeral_warehouse(tmp_path, view_stitching="off") as warehouse:
        view = visits("owl", "3 12:00")[0]
        for device in ("mistaken", "owl"):
            warehouse.land_events(FILE, [{**view, "anonymous_id": device}])
            warehouse.settle()
        (row,) = warehouse.rows("page_views")
        assert (row["anonymous_id"], row["stitched_user_id"], row["stitched_by"]) == ("owl", "owl", "off")


def _agrees_with_oracle(warehouse: Warehouse, expected: dict[str, list[Row]]) -> None:
    with warehouse.reading():
        for table in TABLES:
            rows = warehouse.rows(table, expected[table][0].keys() if expected[table] else None)
            assert not differences(rows, expected[table]), table
