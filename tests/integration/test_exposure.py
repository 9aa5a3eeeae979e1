"""No id and no value of an event is in a log line, in run metadata, in an error or in a file beside the warehouse.

Every personal field holds a marker. Runs succeed and fail in every way that quotes values; then everything that they
left and printed is searched for the marker.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from engines import IS_POSTGRES
from rich.console import Console
from warehouses import Warehouse, page_view

from stitch_pipeline.cli.progress import Progress
from stitch_pipeline.landing.parser import write_parquet
from stitch_pipeline.orchestration.jobs import BUILD_JOB, PREVIEW_RULES_JOB, RECONCILE_JOB
from stitch_pipeline.orchestration.run_records import run_request
from stitch_pipeline.orchestration.settle import settle
from stitch_pipeline.planning.days import DayRange
from stitch_pipeline.planning.requests import Request
from stitch_pipeline.warehouse.dbt_project import target_dir

NewWarehouse = Callable[..., Warehouse]

MARKER = "mrk7qz"
IDENTIFIERS = """
[projects.shop]
policy = "graph"
[projects.shop.identifiers.email]
paths = ["traits.email"]
[feeds.custom]
source = "custom"
file_type = "csv"
fields = { event_id = "id", occurred_at = "at", event_type = "kind", anonymous_id = "visitor", user_id = "person" }
"""


def marked(event_id: str, day: int, **fields: Any) -> dict[str, Any]:
    """An event with the marker in every field that may identify somebody."""
    return page_view(
        f"{MARKER}-{event_id}",
        f"2026-03-{day:02} 12:00",
        anonymous_id=f"{MARKER}-device",
        source_session_id=f"{MARKER}-session",
        page_url=f"https://example.com/{MARKER}?who={MARKER}",
        page_path=f"/{MARKER}",
        page_title=MARKER,
        referrer=f"https://example.com/{MARKER}",
        utm_campaign=MARKER,
        traits={"email": f"{MARKER}@example.com", "name": MARKER},
        properties={"query": MARKER},
        **fields,
    )


def land_marked(warehouse: Warehouse) -> None:
    events = [marked("e1", 2), marked("e2", 3, user_id=f"{MARKER}-user"), marked("e3", 5, user_id=f"{MARKER}-other")]
    warehouse.land_events("jitsu/good.ndjson", [*events, marked("e4", 4, user_id=f"guest {MARKER}")])
    warehouse.write_overrides([f"shop,same_person,{MARKER}-user,{MARKER}-other,{MARKER}"])


def land_broken(warehouse: Warehouse) -> None:
    """A file of each kind that cannot be read as a whole or in part."""
    good = {"messageId": f"{MARKER}-5", "type": "page", "timestamp": "2026-03-02T12:00:00Z", "anonymousId": MARKER}
    late = {**good, "messageId": f"{MARKER}-6", "timestamp": MARKER}
    warehouse.land("jitsu/lines.ndjson", [good, late, f'{{"messageId": "{MARKER}', {**good, "userId": {"a": MARKER}}])
    directory = warehouse.settings.landing_dir
    for name, content in {
        "jitsu/list.json": f'[{{"messageId": "{MARKER}", "type": "page"}}, {{"type": {MARKER}}}]'.encode(),
        "jitsu/cut.ndjson.gz": gzip.compress(b'{"messageId": "%s", "type": "page"}\n' % MARKER.encode() * 999)[:-20],
        "jitsu/not.ndjson.gz": MARKER.encode(),
        "jitsu/bytes.parquet": b"PAR1" + MARKER.encode() * 9,
        "custom/rows.csv": f"id,at,kind,visitor,person\n{MARKER},{MARKER},page\n{MARKER},1,2,3,4,5,6\n".encode(),
        "custom/latin.csv": f"id,at,kind,visitor,person\n{MARKER},2026-03-02,page,\xe4{MARKER},x\n".encode("latin-1"),
        "custom/quote.csv": f'id,at,kind,visitor,person\n1,2026-03-02,page,a"{MARKER}"b,"{MARKER}\n'.encode(),
        "custom/header.csv": f"{MARKER},{MARKER},x\n".encode(),
        f"no_feed/{date(2026, 3, 2)}.csv": MARKER.encode(),
    }.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(content)
    path = directory / "jitsu" / "page.parquet"
    columns = {"message_id": "varchar", "type": "varchar", "timestamp": "varchar", "context_ip": "varchar"}
    rows = [
        {"message_id": f"{MARKER}{n}", "type": "page", "timestamp": "2026-03-02", "context_ip": MARKER}
        for n in range(99)
    ]
    write_parquet(rows, columns, path)
    path.write_bytes(path.read_bytes().replace(MARKER[:3].encode(), b"\xff\xfe\xfd"))


def run(warehouse: Warehouse, job_name: str, run_config: Any = None) -> bool:
    days = DayRange(date(2026, 3, 1), date(2026, 3, 6))
    tags = (
        {} if job_name in (RECONCILE_JOB, PREVIEW_RULES_JOB) else dict(run_request(Request(days, "by hand")).tags or {})
    )
    job = warehouse.defs.resolve_job_def(job_name)
    return job.execute_in_process(
        instance=warehouse.instance, tags=tags, run_config=run_config, raise_on_error=False
    ).success


def preview(warehouse: Warehouse) -> bool:
    config = {"ops": {"try_rules": {"config": {"policy": "first", "lookback_days": 0}}}}
    return run(warehouse, PREVIEW_RULES_JOB, config)


def settle_on_terminal(warehouse: Warehouse) -> None:
    console = Console(soft_wrap=True)
    with Progress(console) as progress:
        progress.close(settle(warehouse.settings, lambda: warehouse.defs, warehouse.instance, report=progress.show))


def make_model_fail(warehouse: Warehouse) -> None:
    """The next build of identity_map writes a user id that is refused, and the engine's message quotes it."""
    if IS_POSTGRES:
        warehouse.write("alter table stitch.identity_map add check (event_count > 1000) not valid")
    else:
        columns = warehouse.select_list("identity_map", user_id="cast(null as integer)")
        warehouse.put_in_place("identity_map", f"select {columns} from stitch.identity_map limit 0")
    warehouse.land_events("jitsu/more.ndjson", [marked("e8", 2, user_id=f"{MARKER}-user")])


def make_load_fail(warehouse: Warehouse) -> None:
    columns = warehouse.select_list("raw_events", event_name="cast(null as integer)")
    warehouse.put_in_place("raw_events", f"select {columns} from stitch.raw_events")
    warehouse.land_events("jitsu/named.ndjson", [marked("e9", 2, event_type="track", event_name=MARKER)])


def hits(directory: Path) -> list[str]:
    wanted = (MARKER.encode(), json.dumps(MARKER).encode())
    files = [path for path in directory.rglob("*") if path.is_file()]
    assert files
    return [str(path) for path in files if any(text in path.read_bytes() for text in wanted)]


SAID = (
    {make_model_fail: "new row for relation", make_load_fail: "invalid input syntax for type integer"}
    if IS_POSTGRES
    else dict.fromkeys((make_model_fail, make_load_fail), "Could not convert string")
)
"""The part of the engine's message that comes before a value."""


@pytest.mark.slow
def test_nothing_personal_is_recorded_or_printed(
    new_warehouse_on_disk: NewWarehouse, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    warehouse = new_warehouse_on_disk()
    warehouse.write_stitch_toml(IDENTIFIERS)
    land_marked(warehouse)
    warehouse.settle()
    assert preview(warehouse)
    # The events of two days a second time, which the checks of raw_events and page_views find.
    twice = ("raw_events", "page_views")
    warehouse.write(*(f"insert into stitch.{table} select * from stitch.{table}" for table in twice))
    assert not run(warehouse, BUILD_JOB)
    warehouse.write(
        "create schema aside",
        *(f"create table aside.{table} as select distinct * from stitch.{table}" for table in twice),
        *(f"delete from stitch.{table}" for table in twice),
        *(f"insert into stitch.{table} select * from aside.{table}" for table in twice),
    )
    land_broken(warehouse)
    settle_on_terminal(warehouse)
    run(warehouse, BUILD_JOB)
    for fails, said in SAID.items():
        fails(warehouse)
        assert not run(warehouse, BUILD_JOB)
        settle_on_terminal(warehouse)
        printed = capfd.readouterr()
        assert "settled" in printed.out
        assert said in printed.out, fails
        assert MARKER not in printed.out
        assert MARKER not in printed.err
    run(warehouse, RECONCILE_JOB)
    printed = capfd.readouterr()
    assert MARKER not in printed.out
    assert MARKER not in printed.err
    assert not hits(tmp_path / "dagster1")
    assert not hits(target_dir())
    assert hits(warehouse.directory)  # the marker is what is searched for


@pytest.mark.slow
@pytest.mark.long
def test_one_setting_shows_samples_and_whole_messages(
    new_warehouse_on_disk: NewWarehouse, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    warehouse = new_warehouse_on_disk(show_ids=True)
    land_marked(warehouse)
    warehouse.settle()
    assert not hits(tmp_path / "dagster1")
    assert preview(warehouse)
    assert hits(tmp_path / "dagster1")
    capfd.readouterr()
    make_model_fail(warehouse)
    settle_on_terminal(warehouse)
    said = "Failing row contains (shop, " if IS_POSTGRES else "Could not convert string '"
    assert f"{said}{MARKER}-" in capfd.readouterr().out
