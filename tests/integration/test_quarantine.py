"""Rows and files that cannot be events: a code for programs, a time where there is one, sentences for people."""

from __future__ import annotations

import json
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from conftest import NewWarehouse
from warehouses import Warehouse

from stitch_pipeline.landing import problems
from stitch_pipeline.landing.index import LandingIndex
from stitch_pipeline.landing.parser import Parser
from stitch_pipeline.landing.zone import landed_files, reading_rules
from stitch_pipeline.stitching import load as loading
from stitch_pipeline.warehouse.engine import engine_of
from stitch_pipeline.warehouse.tables import create_tables

NOON = datetime(2026, 3, 2, 12)
EVENT: dict[str, Any] = {"messageId": "1", "type": "page", "anonymousId": "a", "projectId": "shop"}
EVENT |= {"timestamp": "2026-03-02T13:00:00+01:00", "receivedAt": "2026-03-02T12:00:01Z"}
BAD_LINES: list[tuple[str | bytes, str, datetime | None]] = [
    (json.dumps(EVENT)[:-1], "not_json", None),
    (json.dumps({**EVENT, "messageId": ""}), "no_event_id", NOON),
    (json.dumps({**EVENT, "timestamp": None}), "no_event_time", None),
    (json.dumps({**EVENT, "timestamp": "soon"}), "unreadable_event_time", None),
    (json.dumps({**EVENT, "timestamp": "2025-12-31 10:00:00"}), "before_start_date", datetime(2025, 12, 31, 10)),
    (json.dumps({**EVENT, "timestamp": 1772625600}), "in_the_future", datetime(2026, 3, 4, 12)),
    (json.dumps({**EVENT, "type": None}), "no_event_type", NOON),
    (json.dumps({**EVENT, "messageId": {"id": 1}}), "event_id_is_structure", NOON),
    (json.dumps({**EVENT, "userId": ["u"]}), "user_id_is_structure", NOON),
    (json.dumps({**EVENT, "anonymousId": {"id": 1}}), "anonymous_id_is_structure", NOON),
    (json.dumps({**EVENT, "event": "Café"}, ensure_ascii=False).encode("latin-1"), "refused_line", None),
]


def put(warehouse: Warehouse, landing_file: str, *lines: str | bytes) -> Path:
    path = warehouse.settings.landing_dir / landing_file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join((line if isinstance(line, bytes) else line.encode()) + b"\n" for line in lines))
    return path


def load(warehouse: Warehouse) -> None:
    """What the landing assets do, without Dagster."""
    settings = warehouse.settings
    index = LandingIndex(settings.index_path)
    index.refresh(settings)
    with engine_of(settings).open() as stored, Parser() as parser:
        create_tables(stored)
        loading.load(
            stored,
            parser,
            index.pending(),
            landed_files(settings),
            reading_rules(settings),
            report=lambda text: None,
        )


def test_each_problem_has_its_code_and_the_time_where_it_could_be_read(new_warehouse: NewWarehouse) -> None:
    warehouse = new_warehouse()
    put(warehouse, "jitsu/a.ndjson", json.dumps(EVENT), *(line for line, _, _ in BAD_LINES))
    put(warehouse, "jitsu/a.xml", "<a/>")
    load(warehouse)
    rows = warehouse.query("select * from stitch.quarantined_events order by landing_file, line")
    found = [(row["line"], row["problem"], row["occurred_at"]) for row in rows]
    bad_lines = [(line, code, at) for line, (_, code, at) in enumerate(BAD_LINES, start=2)]
    assert found == [*bad_lines, (None, "unreadable_file", None)]
    assert all(row["reason"] and row["remedy"] and row["field"] for row in rows)
    declared = {value for name, value in vars(problems).items() if name.isupper() and value == name.lower()}
    assert {row["problem"] for row in rows} == declared
    assert len(warehouse.rows("raw_events")) == 1


def test_a_file_with_more_bad_rows_than_events_loads_in_seconds(new_warehouse: NewWarehouse) -> None:
    """Half are refused by the reader, so each of the others has to be put back to its line."""
    warehouse = new_warehouse()
    early = json.dumps({**EVENT, "timestamp": "2020-01-01T00:00:00Z"})
    refused = json.dumps({**EVENT, "event": "Café"}, ensure_ascii=False).encode("latin-1")
    lines: list[str | bytes] = [early, refused]
    put(warehouse, "jitsu/a.ndjson", *(lines * 100_000))
    started = time.process_time()
    load(warehouse)
    assert time.process_time() - started < 20
    assert warehouse.query(
        "select problem, count(distinct line) as rows, sum(line % 2) as odd from stitch.quarantined_events "
        "group by problem order by problem"
    ) == [
        {"problem": "before_start_date", "rows": 100_000, "odd": 100_000},
        {"problem": "refused_line", "rows": 100_000, "odd": 0},
    ]


def test_a_file_that_changes_after_it_was_indexed_is_counted_as_it_was_read(
    new_warehouse: NewWarehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The zone is listed again before a load: what it finds then need not be what the index knows."""
    warehouse = new_warehouse()
    path = put(warehouse, "jitsu/a.ndjson", json.dumps(EVENT))
    pending = LandingIndex.pending

    def grown_meanwhile(index: LandingIndex) -> list[Any]:
        path.write_text(f"{json.dumps(EVENT)}\n{json.dumps({**EVENT, 'messageId': '2'})}\n")
        return pending(index)

    monkeypatch.setattr(LandingIndex, "pending", grown_meanwhile)
    load(warehouse)
    with engine_of(warehouse.settings).open() as stored:
        accounts = loading.row_accounts(stored)
        assert accounts == {"rows_landed": 2, "events": 2, "duplicates": 0, "quarantined": 0, "forgotten": 0}


def test_a_warehouse_of_version_0_1_gets_the_columns_it_lacks(new_warehouse: NewWarehouse) -> None:
    warehouse = new_warehouse()
    warehouse.write(
        "create schema if not exists stitch",
        "create table stitch.quarantined_events (quarantine_date date not null, landing_file varchar not null, "
        "line bigint, field varchar, reason varchar not null, remedy varchar, raw_row varchar)",
        "insert into stitch.quarantined_events values ('2026-03-01', 'jitsu/b', 1, 'f', 'r', 'm', '{')",
    )
    put(warehouse, "jitsu/a.ndjson", "{")
    put(warehouse, "jitsu/a.xml", "<a/>")
    load(warehouse)
    assert warehouse.query("select landing_file, problem, raw_row from stitch.quarantined_events order by 1") == [
        {"landing_file": "jitsu/a.ndjson", "problem": "not_json", "raw_row": "{"},
        {"landing_file": "jitsu/a.xml", "problem": "unreadable_file", "raw_row": None},
        {"landing_file": "jitsu/b", "problem": None, "raw_row": "{"},
    ]
