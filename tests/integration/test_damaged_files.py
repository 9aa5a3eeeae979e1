"""Each kind of damaged or odd file, beside a good one: what it gets (docs/sources.md), and that the good one loads."""

from __future__ import annotations

import codecs
import gzip
import json
import os
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from engines import IS_POSTGRES, OPENED
from test_fuzzed_files import ACCOUNTS, Deployment

from stitch_pipeline.landing.check import Check
from stitch_pipeline.landing.index import LandingIndex
from stitch_pipeline.landing.parser import Parser
from stitch_pipeline.warehouse.port import WarehouseFull

EVENT: dict[str, Any] = {"timestamp": "2026-03-02T12:00:00Z", "type": "page", "anonymousId": "a", "projectId": "shop"}
PAGES = "id,anonymous_id,timestamp,title\n"
SNOWPLOW = "'shop' as app_id, 'struct' as event, '2026-03-02 12:00:00' as derived_tstamp, 'a' as domain_userid"


@pytest.fixture
def zone(tmp_path: Path) -> Deployment:
    """A landing zone with a good file in each of its feeds."""
    zone = Deployment(tmp_path)
    put(zone, "jitsu/good.ndjson", documents("good"))
    put(zone, "segment/good_pages.csv", PAGES + page("good csv"))
    put_parquet(zone, "snowplow/good.parquet", f"select 'good parquet' as event_id, {SNOWPLOW}")
    return zone


GOOD = {"good", "good csv", "good parquet"}


def documents(*ids: str, **fields: Any) -> str:
    return "".join(json.dumps({**EVENT, "messageId": one, **fields}, ensure_ascii=False) + "\n" for one in ids)


def page(event_id: str, title: str = "Home") -> str:
    return f"{event_id},a,2026-03-02 12:00:00,{title}\n"


def put(zone: Deployment, name: str | bytes, content: str | bytes) -> Path:
    path = Path(os.fsdecode(os.fsencode(zone.landing) + b"/" + (name.encode() if isinstance(name, str) else name)))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def put_parquet(zone: Deployment, name: str, query: str) -> Path:
    path = put(zone, name, "")
    with duckdb.connect() as con:
        con.sql(query).write_parquet(str(path.with_name("_written")), compression="uncompressed")
    os.replace(path.with_name("_written"), path)
    return path


def events(zone: Deployment) -> dict[str, str | None]:
    """The titles of the events by id; each event is there once."""
    rows = zone.rows("select event_id, page_title from stitch.raw_events")
    assert len(rows) == len(dict(rows))  # type: ignore[arg-type]
    return dict(rows)  # type: ignore[arg-type]


def quarantined(zone: Deployment) -> set[tuple[Any, ...]]:
    """File, line and code of each row in quarantine; all that is landed is accounted for."""
    for name, row_count, has_problem, in_events, duplicates, bad, whole in zone.rows(ACCOUNTS):
        assert row_count == in_events + duplicates + bad, name  # type: ignore[operator]
        assert (whole == 1) == has_problem, name
    assert not zone.rows("select * from stitch.quarantined_events where reason is null or remedy is null")
    return set(zone.rows("select landing_file, line, problem from stitch.quarantined_events"))


def whole(*names: str) -> set[tuple[Any, ...]]:
    return {(name, None, "unreadable_file") for name in names}


def test_a_gzip_file_that_is_damaged_anywhere_is_not_read(zone: Deployment) -> None:
    """DuckDB reads up to the damage, or beyond it, without a word."""
    text = "".join(documents(f"{number}", title=os.urandom(20).hex()) for number in range(2_000))
    packed = gzip.compress(text.encode(), mtime=0)
    for name, place in (("head", 20), ("middle", len(packed) // 2), ("end", len(packed) - 6)):
        put(zone, f"jitsu/{name}.ndjson.gz", packed[:place] + bytes([packed[place] ^ 0xFF]) + packed[place + 1 :])
    put(zone, "jitsu/cut.ndjson.gz", packed[: len(packed) // 2])
    put(zone, "jitsu/more.ndjson.gz", packed + b"more")
    zone.load()
    assert set(events(zone)) == GOOD
    assert quarantined(zone) == whole(*(f"jitsu/{name}.ndjson.gz" for name in ("head", "middle", "end", "cut", "more")))


def test_a_parquet_page_that_is_damaged_where_only_the_load_reads_it(zone: Deployment) -> None:
    """The index needs no title. Loading fails within a batch with good files, and is done again without it."""
    path = put_parquet(zone, "snowplow/bad.parquet", f"select 'bad' as event_id, {SNOWPLOW}, 'ZZZTITLE' as page_title")
    put_parquet(zone, "snowplow/same.parquet", f"select 'same' as event_id, {SNOWPLOW}, 'Home' as page_title")
    path.write_bytes(path.read_bytes().replace(b"ZZZTITLE", b"ZZZ\xff\xfe\xfdLE"))
    zone.load()
    assert set(events(zone)) == {*GOOD, "same"}
    assert quarantined(zone) == whole("snowplow/bad.parquet")
    assert not zone.index.pending()
    put_parquet(zone, "snowplow/bad.parquet", f"select 'bad' as event_id, {SNOWPLOW}, 'Home' as page_title")
    zone.load()
    assert set(events(zone)) == {*GOOD, "same", "bad"}
    assert quarantined(zone) == set()


def test_a_parquet_page_that_is_damaged_where_nothing_reads_it(zone: Deployment) -> None:
    path = put_parquet(zone, "snowplow/bad.parquet", f"select 'bad' as event_id, {SNOWPLOW}, 'ZZZUNUSED' as unused")
    path.write_bytes(path.read_bytes().replace(b"ZZZUNUSED", b"ZZZ\xff\xfe\xfdSED"))
    zone.load()
    assert set(events(zone)) == {*GOOD, "bad"}
    assert quarantined(zone) == set()


def test_parquet_files_with_bad_rows_that_cannot_be_shown(zone: Deployment) -> None:
    """The raw row of a bad row needs every column, so damage in any of them costs the file."""
    for number in range(3):
        ids = f"(values ('{number}'), (null)) as ids (id)"
        query = f"select id as event_id, {SNOWPLOW}, 'ZZZUNUSED' as unused from {ids}"
        path = put_parquet(zone, f"snowplow/{number}.parquet", query)
        path.write_bytes(path.read_bytes().replace(b"ZZZUNUSED", b"ZZZ\xff\xfe\xfdSED"))
    zone.load()
    assert set(events(zone)) == GOOD
    assert quarantined(zone) == whole(*(f"snowplow/{number}.parquet" for number in range(3)))


def test_a_line_of_more_than_ten_megabytes_costs_itself(zone: Deployment) -> None:
    put(zone, "jitsu/long.ndjson", documents("1") + documents("2", title="x" * 10_000_001) + documents("3"))
    zone.load()
    assert set(events(zone)) == {*GOOD, "1", "3"}
    assert quarantined(zone) == {("jitsu/long.ndjson", 2, "refused_line")}


def test_sources_check_reads_what_the_loader_reads(zone: Deployment) -> None:
    put(zone, "new/a[1].ndjson", documents("1"))
    put(zone, "new/a1.ndjson", documents("2") + documents("3"))
    put(zone, "new/wide.ndjson", ("\ufeff" + documents("4")).encode("utf-16-be"))
    put(zone, "new/cut.ndjson.gz", gzip.compress(documents("5").encode())[:-4])
    (zone.landing / "new" / "nothing.ndjson").symlink_to("gone")
    with Parser() as parser:
        check = Check(parser, zone.settings, zone.landing / "new")
        checked = {file.landing_file: check.look_at(file) for file in check.files}
    counts = {name: one.contents and one.contents.identifiers.events for name, one in checked.items()}
    assert counts == {
        **{"new/a1.ndjson": 2, "new/a[1].ndjson": 1, "new/wide.ndjson": 1},
        **{"new/cut.ndjson.gz": None, "new/nothing.ndjson": None},
    }
    assert checked["new/nothing.ndjson"].problem == "it is a link to nothing"


def test_a_failure_that_no_file_is_the_cause_of_is_raised_and_changes_nothing(
    zone: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    zone.load()
    put(zone, "jitsu/next.ndjson", documents("next"))
    load_events = OPENED.load_events

    def without_room(warehouse: Any, batch: Any) -> None:
        load_events(warehouse, batch)
        raise duckdb.IOException("Could not write file: No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(OPENED, "load_events", without_room)
        full = duckdb.IOException if IS_POSTGRES else WarehouseFull
        with pytest.raises(full, match=r"No space left|no room left"):
            zone.load()
    assert set(events(zone)) == GOOD
    zone.load()
    assert set(events(zone)) == {*GOOD, "next"}


def test_a_first_field_of_more_than_128_kib(zone: Deployment) -> None:
    put(zone, "segment/long_pages.csv", "x" * 140_000 + "," + PAGES + "1," + page("1"))
    recorded = Path(__file__).parent.parent / "fixtures" / "recorded" / "landed" / "snowplow_enriched.tsv"
    first, *others = recorded.read_text().splitlines(keepends=True)
    fields = first.split("\t")
    fields[0] = "x" * 140_000
    put(zone, "snowplow/long.tsv", "\t".join(fields) + "".join(others))
    zone.load()
    assert quarantined(zone) == whole("segment/long_pages.csv")
    assert set(events(zone)) > GOOD, "a file without a header may begin with any field"
    assert zone.rows("select count(*) from stitch.raw_events where length(project_id) = 140000") == [(1,)]


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_names_that_are_patterns_or_not_utf8_are_names(zone: Deployment, suffix: str) -> None:
    names = [
        b"a*",
        b"a?",
        b"a[1]",
        b"a1",
        b"ax",
        b"[ab]",
        b"**",
        b"a\\*b",
        b"a\\b",
        b"n\nl",
        b"caf\xe9",
        b"\xff/[x]/\xfe",
    ]
    names += [b"x=1/line_number=2", b"q'u\"o", b"{a,b}"]
    expected: dict[str, str | None] = {}
    for number, name in enumerate(names):
        text = documents(str(number), context={"page": {"title": str(number)}}).encode()
        put(zone, b"jitsu/" + name + b".ndjson" + suffix.encode(), gzip.compress(text) if suffix else text)
        put(zone, b"segment/" + name + b"_pages.csv", PAGES + page(f"csv {number}", str(number)))
        put(zone, b"jitsu/" + name + b".json", f"[{documents(f'array {number}')}]")
        expected |= {str(number): str(number), f"csv {number}": str(number), f"array {number}": None}
    query = f"select 'odd' as event_id, {SNOWPLOW}"
    for parquet in ("p*.parquet", "p[1].parquet", "p1.parquet", "event=1/p.parquet"):
        put_parquet(zone, f"snowplow/{parquet}", query.replace("odd", parquet))
        expected[parquet] = None
    zone.load()
    assert events(zone) == {**expected, "good": None, "good csv": "Home", "good parquet": None}
    assert quarantined(zone) == set()
    stored = {str(name) for (name,) in zone.rows("select landing_file from stitch.landing_files")}
    assert {"jitsu/caf\\xe9.ndjson" + suffix, "jitsu/a*.ndjson" + suffix} < stored


def test_two_names_that_are_written_alike_are_two_files(zone: Deployment) -> None:
    put(zone, b"jitsu/\xe9.ndjson", documents("1"))
    put(zone, b"jitsu/\\xe9.ndjson", documents("2"))
    zone.load()
    assert set(events(zone)) == {*GOOD, "1", "2"}


def test_what_is_no_file_is_reported_and_never_opened(zone: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    feed = zone.landing / "jitsu"
    (feed / "loop.ndjson").symlink_to("loop.ndjson")
    (feed / "nothing.ndjson").symlink_to("gone.ndjson")
    (feed / "directory").symlink_to("..")
    os.mkfifo(feed / "pipe.ndjson")
    (feed / "device.ndjson").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as opened, monkeypatch.context() as inside:
        inside.chdir(feed)  # because the address of a socket has a hundred characters at most
        opened.bind("socket.ndjson")
    started = time.monotonic()
    zone.load()
    assert time.monotonic() - started < 20
    names = ("loop.ndjson", "nothing.ndjson", "directory", "pipe.ndjson", "device.ndjson", "socket.ndjson")
    assert quarantined(zone) == whole(*(f"jitsu/{name}" for name in names))
    assert set(events(zone)) == GOOD
    for name in names:
        (feed / name).unlink()
    zone.load()
    assert quarantined(zone) == set()


@contextmanager
def as_nobody() -> Iterator[None]:
    """As a user whom permissions concern, if these are the tests of root."""
    if os.geteuid():
        yield
        return
    codecs.lookup("utf-8-sig")  # which that user could not import from root's directory
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def open_zone() -> Iterator[Deployment]:
    """A landing zone in a directory that every user may enter and write."""
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o777)
        with as_nobody():
            zone = Deployment(Path(directory) / "deployment")
            put(zone, "jitsu/good.ndjson", documents("good"))
            yield zone


def test_a_directory_that_may_not_be_read_keeps_what_is_loaded_of_it(open_zone: Deployment) -> None:
    """Nobody knows what is in it, so nothing of it is gone."""
    put(open_zone, "jitsu/closed/a.ndjson", documents("a"))
    open_zone.load()
    closed = open_zone.landing / "jitsu" / "closed"
    closed.chmod(0)
    put(open_zone, "jitsu/next.ndjson", documents("next"))
    open_zone.load()
    assert set(events(open_zone)) == {"good", "a", "next"}
    assert quarantined(open_zone) == whole("jitsu/closed")
    assert not open_zone.index.pending()
    closed.chmod(0o700)
    (closed / "a.ndjson").unlink()
    open_zone.load()
    assert set(events(open_zone)) == {"good", "next"}
    assert quarantined(open_zone) == set()


def test_a_file_in_a_directory_that_is_closed_between_index_and_load_waits(
    open_zone: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(open_zone, "jitsu/closed/a.ndjson", documents("a"))
    closed = open_zone.landing / "jitsu" / "closed"
    pending = LandingIndex.pending

    def closed_meanwhile(index: LandingIndex) -> Any:
        closed.chmod(0)
        return pending(index)

    with monkeypatch.context() as patch:
        patch.setattr(LandingIndex, "pending", closed_meanwhile)
        open_zone.load()
    assert set(events(open_zone)) == {"good"}
    closed.chmod(0o700)
    open_zone.load()
    assert set(events(open_zone)) == {"good", "a"}


def test_a_file_that_may_not_be_read_is_read_once_it_may(open_zone: Deployment) -> None:
    path = put(open_zone, "jitsu/a.ndjson", documents("a"))
    path.chmod(0)
    open_zone.load()
    assert quarantined(open_zone) == whole("jitsu/a.ndjson")
    path.chmod(0o600)
    open_zone.load()
    assert set(events(open_zone)) == {"good", "a"}
    assert quarantined(open_zone) == set()


def test_an_entry_that_the_file_server_does_not_know_any_more(
    zone: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ESTALE, EIO: what ``os.scandir`` and ``stat`` raise on a network that is away."""
    put(zone, "jitsu/away/a.ndjson", documents("a"))
    zone.load()
    scandir = os.scandir

    def stale(path: Any) -> Any:
        if Path(path).name == "away":
            raise OSError(116, "Stale file handle")
        return scandir(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", stale)
        zone.load()
    assert set(events(zone)) == {*GOOD, "a"}
    assert quarantined(zone) == whole("jitsu/away")
    zone.load()
    assert quarantined(zone) == set()


def test_latin_1_in_a_csv_costs_the_line_in_whatever_column(zone: Deployment) -> None:
    header = b"id,anonymous_id,timestamp,title,unused\n"
    rows = (
        b"1,a,2026-03-02 12:00:00,Home,x\n",
        b"2,a,2026-03-02 12:00:00,Caf\xe9,x\n",
        b"3,a,2026-03-02 12:00:00,H,\xe9\n",
    )
    put(zone, "segment/latin_pages.csv", header + b"".join(rows))
    zone.load()
    assert set(events(zone)) == {*GOOD, "1"}
    assert quarantined(zone) == {("segment/latin_pages.csv", line, "refused_line") for line in (3, 4)}


def test_quotes_in_a_csv(zone: Deployment) -> None:
    """A quote within a field is text; a quoted field that goes on after its quote costs its line."""
    put(
        zone,
        "segment/q_pages.csv",
        PAGES + page("1", '5" screen') + page("2", '"5" screen') + page("3", '"5"" screen"'),
    )
    put(zone, "segment/open_pages.csv", PAGES + page("4") + page("5", '"never closed') + page("6"))
    zone.load()
    assert events(zone) | {"good": "", "good csv": ""} == {
        **{"1": '5" screen', "3": '5" screen', "4": "Home"},
        **{"good": "", "good csv": "", "good parquet": None},
    }
    assert quarantined(zone) == {
        ("segment/q_pages.csv", 3, "refused_line"),
        ("segment/open_pages.csv", 3, "refused_line"),
    }


ODD_COLUMNS = (
    *("line_number", "filename", "file_path", "raw_row", "landing_file", "modified_at", "json", "line", "found", "c0"),
    *("records", "picked", "event_id_text", "occurred_at_native", "is_broken", "rowid", "lookup_key", "", "read_path"),
    *("project_id_text", "problem", "\x01file_path", "C1", "*", 'a"b', "a.b", "a'b", "files", "event_date", "source"),
)


def test_columns_with_the_names_that_the_reading_uses_itself(zone: Deployment) -> None:
    names = ",".join('"' + name.replace('"', '""') + '"' for name in ODD_COLUMNS)
    values = ",".join(str(number) for number in range(len(ODD_COLUMNS)))
    put(zone, "segment/odd_pages.csv", f"{names},{PAGES}" + f"{values},{page('1')}{values},{page('')}")
    quoted = ", ".join(f"""'x' as "{name.replace('"', '""')}\"""" for name in ODD_COLUMNS if name)
    put_parquet(
        zone,
        "snowplow/odd.parquet",
        f"select id as event_id, {SNOWPLOW}, {quoted}, 'o' as unstruct_event_ from (values ('2'), (null)) as ids (id)",
    )
    zone.load()
    assert set(events(zone)) == {*GOOD, "1", "2"}
    assert quarantined(zone) == {
        ("segment/odd_pages.csv", 3, "no_event_id"),
        ("snowplow/odd.parquet", 2, "no_event_id"),
    }
    raw_rows = zone.rows("select raw_row from stitch.quarantined_events order by landing_file")
    csv_row, parquet_row = (json.loads(str(raw_row)) for (raw_row,) in raw_rows)
    assert csv_row == {
        **{name: str(number) for number, name in enumerate(ODD_COLUMNS)},
        **{"id": None, "anonymous_id": "a", "timestamp": "2026-03-02 12:00:00", "title": "Home"},
    }
    assert {name: "x" for name in ODD_COLUMNS if name}.items() <= parquet_row.items()


def test_two_thousand_columns_take_seconds(zone: Deployment) -> None:
    many = [f"col_{number}" for number in range(2_000)]
    values = ",".join(["v"] * len(many))
    put(zone, "segment/wide_pages.csv", f"{','.join(many)},{PAGES}" + f"{values},{page('1')}{values},{page('')}")
    wide = ", ".join(f"'v' as unstruct_event_{name}" for name in many)
    put_parquet(zone, "snowplow/wide.parquet", f"select 'wide' as event_id, {SNOWPLOW}, {wide}")
    put(zone, "jitsu/wide.ndjson", documents("3", properties=dict.fromkeys(many, "v")))
    put(zone, "jitsu/flat.ndjson", json.dumps({"message_id": "4", **EVENT, "context": {}, **dict.fromkeys(many, 1)}))
    started = time.process_time()
    zone.load()
    assert time.process_time() - started < 30
    assert {"1", "wide", "3"} < set(events(zone))
    ((properties,),) = zone.rows("select properties from stitch.raw_events where event_id = 'wide'")
    assert len(json.loads(str(properties))) == 2_000


def test_a_json_array_with_a_broken_element_is_one_broken_document(zone: Deployment) -> None:
    first, second = (json.loads(documents(one)) for one in ("1", "2"))
    put(zone, "jitsu/broken.json", f'[{json.dumps(first)}, {{"a": ,}}, {json.dumps(second)}]')
    put(zone, "jitsu/latin.json", f"[{documents('3', userId='é')}]".encode("latin-1"))
    put(zone, "jitsu/cut.json", f"[{json.dumps(first)}, {json.dumps(second)[:-9]}")
    put(zone, "jitsu/mixed.json", json.dumps([first, None, 1, "text", [], {}]))
    zone.load()
    assert set(events(zone)) == {*GOOD, "1"}
    elements = {("jitsu/mixed.json", line, "no_event_id") for line in (2, 3, 4, 5, 6)}
    assert quarantined(zone) == whole("jitsu/broken.json", "jitsu/latin.json", "jitsu/cut.json") | elements
    ((reason,),) = zone.rows("select reason from stitch.quarantined_events where landing_file = 'jitsu/broken.json'")
    assert "in record/value 3" in str(reason)


@pytest.mark.parametrize("codec", ["utf-16-le", "utf-16-be"])
def test_utf_16_in_both_byte_orders_is_read(zone: Deployment, codec: str) -> None:
    mark = "\ufeff"
    text = documents("1", context={"page": {"title": "Grüße 😀 ਊ"}}) + documents("2")
    put(zone, "jitsu/a.ndjson", (mark + text).encode(codec))
    put(zone, "jitsu/a.json", (mark + "[" + documents("3") + "]").encode(codec))
    put(zone, "segment/a_pages.csv", (mark + PAGES + page("4", "Grüße 😀 ਊ")).encode(codec))
    put(zone, "jitsu/zipped.ndjson.gz", gzip.compress((mark + documents("5")).encode(codec)))
    lone = b"\xd8\x00" if codec == "utf-16-be" else b"\x00\xd8"
    broken = (mark + documents("6", title="L") + documents("7")).encode(codec)
    put(zone, "jitsu/lone.ndjson", broken.replace("L".encode(codec), lone) + "x".encode(codec)[:1])
    zone.load()
    assert events(zone) | dict.fromkeys(GOOD) == {
        **{"1": "Grüße 😀 ਊ", "2": None, "3": None, "4": "Grüße 😀 ਊ", "5": None, "7": None},
        **dict.fromkeys(GOOD),
    }
    assert quarantined(zone) == {("jitsu/lone.ndjson", line, "refused_line") for line in (1, 3)}


def test_mixed_ends_of_lines(zone: Deployment) -> None:
    put(
        zone,
        "segment/mixed_pages.csv",
        PAGES + page("1") + page("2").replace("\n", "\r\n") + page("3") + page("4")[:-1] + "\r",
    )
    put(zone, "segment/head_pages.csv", PAGES.replace("\n", "\r\n") + page("5") + page("6"))
    put(zone, "segment/mac_pages.csv", (PAGES + page("7") + page("8")).replace("\n", "\r"))
    put(zone, "jitsu/mixed.ndjson", documents("a") + documents("b").replace("\n", "\r\n") + "\n" + documents("c"))
    zone.load()
    assert set(events(zone)) == {*GOOD, *"12345678", *"abc"}
    assert quarantined(zone) == set()


def test_a_separator_within_a_line_of_json_invents_and_loses_nothing(zone: Deployment) -> None:
    lines = [documents("1").strip() + "\x01" + documents("2").strip(), "\x01", documents("3").strip(), "\x00"]
    put(zone, "jitsu/a.ndjson", "\n".join(lines))
    zone.load()
    assert set(events(zone)) == {*GOOD, "3"}
    assert quarantined(zone) == {("jitsu/a.ndjson", line, "not_json") for line in (1, 2, 4)}


def test_a_file_dated_in_the_future_has_arrived_today(zone: Deployment) -> None:
    now = datetime.now(UTC)
    times = {"past": "2026-03-02T12:00:00Z", "late": (now + timedelta(days=30)).isoformat()}
    for name, ahead in (("a", 86400 * 400), ("b", 1e11)):
        text = "".join(documents(f"{name} {key}", timestamp=time) for key, time in times.items())
        path = put(zone, f"jitsu/{name}.ndjson", text)
        os.utime(path, (now.timestamp() + ahead,) * 2)
    zone.load()
    assert set(events(zone)) == {*GOOD, "a past", "b past"}
    assert quarantined(zone) == {(f"jitsu/{name}.ndjson", 2, "in_the_future") for name in "ab"}
    assert not zone.index.pending()
    zone.load()
    assert set(events(zone)) == {*GOOD, "a past", "b past"}


def test_a_lookup_table_that_cannot_be_read_is_reported_and_its_events_are_loaded(zone: Deployment) -> None:
    put(
        zone,
        "umami/website_event.csv",
        "event_id,website_id,session_id,visit_id,created_at,url_path,event_type\n1,shop,s,v,2026-03-02 12:00:00,/,1\n",
    )
    sessions = "session_id,website_id,visitor_id,distinct_id,created_at,lookup_key\ns,shop,visitor,,2026-03-02,x\n"
    put(zone, "umami/session.csv.gz", gzip.compress(sessions.encode())[:-12])
    zone.load()
    devices = "select anonymous_id from stitch.raw_events where landing_file = 'umami/website_event.csv'"
    assert zone.rows(devices) == [("s",)]
    assert quarantined(zone) == whole("umami/session.csv.gz")
    put(zone, "umami/session.csv.gz", gzip.compress(sessions.encode()))
    zone.load()
    assert zone.rows(devices) == [("visitor",)]
    assert quarantined(zone) == set()


def test_lookup_tables_that_read_alone_also_read_together(zone: Deployment) -> None:
    """A column may have another type in each table, and none of the types may be forced upon the other tables."""
    put(
        zone,
        "umami/website_event.csv",
        "event_id,website_id,session_id,visit_id,created_at,url_path,event_type\n"
        "1,shop,s,v,2026-03-02 12:00:00,/,1\n2,shop,t,v,2026-03-02 12:00:00,/,1\n",
    )
    put(zone, "umami/session.csv", "session_id,website_id,visitor_id,distinct_id\ns,shop,visité,\n")
    put_parquet(
        zone,
        "umami/session.parquet",
        "select 't' as session_id, 'shop' as website_id, 'visitor'::blob as visitor_id, null as distinct_id",
    )
    zone.load()
    devices = "select anonymous_id from stitch.raw_events where landing_file = 'umami/website_event.csv' order by 1"
    assert zone.rows(devices) == [("visitor",), ("visité",)]
    assert quarantined(zone) == set()


def test_a_thousand_damaged_files_beside_a_good_one(zone: Deployment) -> None:
    for number in range(1_000):
        put(zone, f"jitsu/{number}.ndjson.gz", b"\x1f\x8b no gzip")
    started = time.process_time()
    zone.load()
    assert time.process_time() - started < 20
    assert set(events(zone)) == GOOD
    assert len(quarantined(zone)) == 1_000
