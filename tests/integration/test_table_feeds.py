"""Tables as feeds: what is in a table is read as the same rows in a file, now and after every change."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import duckdb
import engines
import psycopg2
import pytest
from conftest import NewWarehouse
from dagster import DagsterInstance, SensorResult, SkipReason, build_sensor_context
from engines import of_duckdb
from event_tables import address, make_duckdb_table, make_postgres_table, relation_of
from pydantic import SecretStr
from test_recorded_traffic import LAPTOP, RECORDED, USER, expected_journey, journey
from warehouses import REPOSITORY, Row, as_jitsu, comparable, differences, ephemeral_warehouse, ordered, page_view

from stitch_pipeline.cli.main import main
from stitch_pipeline.component import Attributes
from stitch_pipeline.definitions import build_defs
from stitch_pipeline.demo.postgres_server import PostgresServer
from stitch_pipeline.landing.extracts import Looked, look_at_tables, problems, seal_extracts
from stitch_pipeline.landing.parser import Parser
from stitch_pipeline.landing.zone import landed_files, reading_rules
from stitch_pipeline.orchestration.settle import settle
from stitch_pipeline.orchestration.status import status
from stitch_pipeline.orchestration.triggers import FailsAgainAndAgain
from stitch_pipeline.settings import Settings, SettingsError
from stitch_pipeline.settings.environment import in_force
from stitch_pipeline.settings.forgotten import Mode
from stitch_pipeline.stitching.explain import explain
from stitch_pipeline.stitching.forget import Request, add_to_list
from stitch_pipeline.warehouse.engine import engine_of

# Source, and the recorded file by the name of the table that a loader makes of it.
FORMATS: dict[str, tuple[str, dict[str, str]]] = {
    "snowplow": ("snowplow", {"events": "snowplow_events.parquet"}),
    "segment": (
        "segment",
        {name: f"segment_{name}.csv" for name in ("pages", "tracks", "identifies", "product_viewed")},
    ),
    "rudderstack": ("rudderstack", {name: f"rudderstack_{name}.csv" for name in ("pages", "tracks", "identifies")}),
    "jitsu": ("jitsu", {"events": "jitsu_single_table.csv"}),
    "ga4": ("ga4", {"events": "ga4.parquet"}),
    "posthog": ("posthog", {"events": "posthog.parquet"}),
    "posthog_postgres": ("posthog", {"events": "posthog_postgres.csv"}),
    "umami": (
        "umami",
        {
            "website_event": "umami_website_event.parquet",
            "session": "umami_session.parquet",
            "identity_link": "umami_identity_link.parquet",
        },
    ),
    "umami_links": (
        "umami",
        {
            "website_event": "umami_website_event.csv",
            "session": "umami_session.csv",
            "session_link": "umami_session_link.csv",
        },
    ),
    "millimetric": ("millimetric", {"events": "millimetric.ndjson"}),
    "mapped": ("custom", {"clicks": "jitsu_single_table.csv"}),
}
MAPPING = """
load_time = "received_at"
times = "iso8601"
event_types = { login = "identify" }
other_event_type = "track"
[feeds.mapped.fields]
event_id = "message_id"
occurred_at = "timestamp"
received_at = "received_at"
event_type = "type"
anonymous_id = "anonymous_id"
user_id = "user_id"
page_url = "url"
properties = "*"
"""


@pytest.fixture(scope="module")
def server() -> PostgresServer:
    started = engines.server()
    started.rows("create database events", "postgres")
    return started


def settings_of(directory: Path, stitch_toml: str, **settings: Any) -> Settings:
    (directory / "landing").mkdir(parents=True, exist_ok=True)
    (directory / "stitch.toml").write_text(stitch_toml)
    return Settings.load(
        landing_dir=directory / "landing",
        duckdb_path=directory / "warehouse.duckdb",
        project_file=directory / "stitch.toml",
        start_date="2026-01-01",
        **settings,
    )


def look(settings: Settings, **how: Any) -> list[Looked]:
    """Look at the tables, whenever they were looked at before."""
    return look_at_tables(settings, since=None, **{"verify": True, **how})


def events(settings: Settings, but: tuple[str, ...] = ("landing_file",)) -> list[Row]:
    """What would be loaded, as ``raw_events`` has it."""
    rows: list[Row] = []
    with Parser() as parser:
        files = [file for file in landed_files(settings).values() if not file.has_no_events]
        batches, problems = parser.batches(files, reading_rules(settings))
        assert problems == {}
        for batch in batches:
            columns = [name for name, *_ in parser.rows(f"describe {batch.events_sql}")]
            rows += [dict(zip(columns, row, strict=True)) for row in parser.rows(batch.events_sql)]
    return ordered({name: value for name, value in comparable(row).items() if name not in but} for row in rows)


def feeds_toml(connection: str = "", tables: bool = True, feeds: Collection[str] = FORMATS) -> str:
    text = ""
    for feed in feeds:
        source, files = FORMATS[feed]
        named = ", ".join(f'"{feed}.{table}"' for table in files)
        is_table = f"table = [{named}]\n{connection}\n" if tables else ""
        mapping = MAPPING if feed == "mapped" else ""
        if not tables:
            mapping = mapping.replace('load_time = "received_at"\n', "")
        text += f'[feeds.{feed}]\nsource = "{source}"\nproject_id = "{feed}"\n{is_table}{mapping}\n'
    return text


def land_as_files(settings: Settings, feeds: Collection[str] = FORMATS) -> None:
    for feed in feeds:
        (settings.landing_dir / feed).mkdir()
        for table, file in FORMATS[feed][1].items():
            with duckdb.connect() as connection:
                connection.execute("set TimeZone = 'UTC'")
                target = settings.landing_dir / feed / f"{table}.parquet"
                connection.execute(f"copy ({relation_of(RECORDED / file)}) to '{target}'")


@pytest.fixture(scope="module")
def as_files(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    settings = settings_of(tmp_path_factory.mktemp("files"), feeds_toml(tables=False))
    land_as_files(settings)
    return events(settings)


@pytest.mark.parametrize("feed", FORMATS)
def test_a_duckdb_table_is_read_as_the_same_rows_in_a_file(
    feed: str, duckdb_feeds: list[Row], as_files: list[Row]
) -> None:
    assert_same(feed, duckdb_feeds, as_files)


@pytest.mark.parametrize("feed", FORMATS)
def test_a_postgres_table_is_read_as_the_same_rows_in_a_file(
    feed: str, postgres_feeds: list[Row], as_files: list[Row]
) -> None:
    assert_same(feed, postgres_feeds, as_files)


def assert_same(feed: str, actual: list[Row], expected: list[Row]) -> None:
    own = [row for row in expected if row["project_id"] == feed]
    assert len(own) >= 5
    assert differences([row for row in actual if row["project_id"] == feed], own) == {}


@pytest.fixture(scope="module")
def duckdb_tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("duckdb") / "events.duckdb"
    for feed, (_, files) in FORMATS.items():
        for table, file in files.items():
            make_duckdb_table(path, f"{feed}.{table}", RECORDED / file)
    return path


@pytest.fixture(scope="module")
def duckdb_feeds(duckdb_tables: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    settings = settings_of(tmp_path_factory.mktemp("from_duckdb"), feeds_toml(f'connection = "{duckdb_tables}"'))
    assert [one.problem for one in look(settings)] == [None] * len(FORMATS)
    return events(settings)


@pytest.fixture(scope="module")
def postgres_settings(server: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    for feed, (_, files) in FORMATS.items():
        for table, file in files.items():
            make_postgres_table(server, "events", f"{feed}.{table}", RECORDED / file)
    settings = settings_of(tmp_path_factory.mktemp("from_postgres"), feeds_toml(), feeds_url=address(server, "events"))
    assert [one.problem for one in look(settings)] == [None] * len(FORMATS)
    return settings


@pytest.fixture(scope="module")
def postgres_feeds(postgres_settings: Settings) -> list[Row]:
    return events(postgres_settings)


# --- one table, and what happens to it --------------------------------------------------------------------------------

CLICKS = """
[feeds.web]
source = "custom"
project_id = "shop"
table = "{table}"
{more}
[feeds.web.fields]
event_id = "id"
occurred_at = "at"
event_type = "kind"
anonymous_id = "device"
user_id = "member"
properties = "*"
"""


class Clicks:
    """A table of clicks in PostgreSQL, and a deployment whose feed it is."""

    def __init__(self, server: PostgresServer, name: str, directory: Path, more: str = "", columns: str = "") -> None:
        if "sequence" not in more and "whole" not in more:
            more = f'load_time = "loaded_at"\n{more}'
        self.server, self.table = server, f"shop.{name}"
        self.sql("create schema if not exists shop")
        self.sql(
            f"create table {self.table} (id text, at timestamptz, kind text default 'page', device text default 'd', "
            f"member text, loaded_at timestamptz default now() {columns})"
        )
        self.sql(f"create index on {self.table} (loaded_at)")
        toml = CLICKS.format(table=self.table, more=more)
        self.settings = settings_of(directory, toml, feeds_url=address(server, "events"))
        self.directory = self.settings.landing_dir / "web"

    def sql(self, statement: str) -> list[tuple[Any, ...]]:
        return self.server.rows(statement, "events")

    def add(self, event_id: str, loaded_at: str | None = None, **values: str) -> None:
        row = {"id": event_id, "at": "2026-03-01 12:00+00", **values}
        if loaded_at:
            row["loaded_at"] = loaded_at
        names, written = ", ".join(row), ", ".join(f"'{value}'" for value in row.values())
        self.sql(f"insert into {self.table} ({names}) values ({written})")

    @contextmanager
    def session(self) -> Iterator[Any]:
        """A cursor in a transaction of its own."""
        with closing(
            psycopg2.connect(host="127.0.0.1", port=self.server.port, user=self.server.user, dbname="events")
        ) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute("begin")
                yield cursor

    def look(self, verify: bool = False) -> Looked:
        (looked,) = look_at_tables(self.settings, since=datetime.now(UTC), verify=verify)
        return looked

    def files(self) -> dict[str, int]:
        """The rows of each extract."""
        return {path.name: duckdb.read_parquet(str(path)).shape[0] for path in sorted(self.directory.glob("*.parquet"))}

    def ids(self) -> list[str]:
        return sorted(row["event_id"] for row in events(self.settings))


@pytest.fixture
def clicks(server: PostgresServer, tmp_path: Path, request: pytest.FixtureRequest) -> Clicks:
    name = re.sub(r"\W", "_", request.node.name)[:40].lower()
    return Clicks(server, f"t_{name}", tmp_path, getattr(request, "param", ""))


def test_new_rows_are_copied_and_nothing_is_copied_twice(clicks: Clicks) -> None:
    clicks.add("a", "2026-03-01 10:00+00")
    clicks.add("b", "2026-03-03 10:00+00")
    assert clicks.look().files == 2
    assert [name.split(".")[1] for name in clicks.files()] == ["2026-03-01", "2026-03-03"]
    before = {path: path.stat().st_mtime_ns for path in clicks.directory.glob("*.parquet")}
    looked = clicks.look()
    assert (looked.files, looked.problem) == (0, None)
    clicks.add("c", "2026-03-04 10:00+00")
    assert clicks.look().files == 1
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert clicks.ids() == ["a", "b", "c"]


def test_a_transaction_that_commits_late_is_not_skipped(clicks: Clicks) -> None:
    with clicks.session() as slow, clicks.session() as later:
        slow.execute(f"insert into {clicks.table} (id, at) values ('slow', now())")
        with clicks.session() as quick:
            quick.execute(f"insert into {clicks.table} (id, at) values ('quick', now())")
            quick.execute("commit")
        # Its load time is that of its start, and it writes only after the look.
        later.execute("select 1")
        assert clicks.look().problem is None
        assert clicks.ids() == [], "rows that came after a transaction that is still running wait"
        slow.execute("commit")
        clicks.look()
        assert clicks.ids() == ["quick", "slow"]
        later.execute(f"insert into {clicks.table} (id, at) values ('later', now())")
        later.execute("commit")
    clicks.look()
    assert clicks.ids() == ["later", "quick", "slow"]


def test_writers_in_many_transactions_lose_no_row(clicks: Clicks) -> None:
    def write(number: int) -> None:
        random = Random(number)
        with clicks.session() as session:
            for turn in range(15):
                session.execute(f"insert into {clicks.table} (id, at) values ('{number}-{turn}', now())")
                time.sleep(random.random() * 0.03)
                session.execute("commit" if random.random() < 0.8 else "rollback")
                session.execute("begin")

    with ThreadPoolExecutor(4) as writers:
        underway = [writers.submit(write, number) for number in range(4)]
        while not all(one.done() for one in underway):
            clicks.look()
    for one in underway:
        one.result()
    clicks.look()
    assert clicks.ids() == sorted(event_id for (event_id,) in clicks.sql(f"select id from {clicks.table}"))
    assert len(clicks.ids()) > 30


def test_rows_that_vanish_or_come_late_are_found_by_counting(clicks: Clicks) -> None:
    for hour in range(4):
        clicks.sql(
            f"insert into {clicks.table} (id, at, loaded_at) values ('{hour}', now(), now() - interval '{hour} hours')"
        )
    clicks.look()
    clicks.sql(f"delete from {clicks.table} where id = '2'")
    clicks.sql(
        f"insert into {clicks.table} (id, at, loaded_at) values ('late', now(), now() - interval '90 minutes'), "
        "('first', now(), now() - interval '1 hour')"
    )
    assert clicks.look().files >= 1
    assert clicks.ids() == ["0", "1", "3", "first", "late"]


def test_rows_that_change_are_found_by_the_digest_once_a_day(clicks: Clicks) -> None:
    clicks.add("a", "2026-03-01 10:00+00", member="old")
    clicks.add("b", "2026-03-02 10:00+00")
    clicks.add("c", "2026-03-02 11:00+00")
    clicks.look()
    clicks.sql(f"update {clicks.table} set member = 'new' where id = 'a'")
    clicks.sql(f"delete from {clicks.table} where id = 'b'")
    clicks.add("past", "2026-02-01 10:00+00")
    assert clicks.look().files == 0, "no row of the last day changed"
    assert clicks.look(verify=True).files == 3
    assert {row["event_id"]: row["user_id"] for row in events(clicks.settings)} == {"a": "new", "c": None, "past": None}
    clicks.sql(f"delete from {clicks.table} where id = 'past'")
    assert clicks.look(verify=True).files == 1
    assert clicks.ids() == ["a", "c"]


def test_an_extract_that_was_deleted_or_damaged_comes_back(clicks: Clicks) -> None:
    for day in (1, 2, 3):
        clicks.add(f"{day}", f"2026-03-0{day} 10:00+00")
    clicks.look()
    one, two, _ = sorted(clicks.directory.glob("*.parquet"))
    one.unlink()
    two.write_bytes(two.read_bytes()[:100])
    clicks.look(verify=True)
    assert clicks.ids() == ["1", "2", "3"]


@pytest.mark.slow
@pytest.mark.parametrize("clicks", ["rows_per_file = 100"], indirect=True)
def test_a_backfill_runs_in_bounded_ranges_and_goes_on_where_it_stopped(clicks: Clicks) -> None:
    # Sixty days with one row, a day of 950 rows, and 250 rows of one moment.
    clicks.sql(
        f"insert into {clicks.table} (id, at, loaded_at) "
        "select 'day' || i, now(), '2023-06-01 05:00+00'::timestamptz + i * interval '1 day' "
        "from generate_series(1, 60) i union all "
        "select 'busy' || i, now(), '2023-09-01 06:00+00'::timestamptz + i * interval '1 minute' "
        "from generate_series(1, 950) i "
        "union all select 'moment' || i, now(), '2023-10-01 07:00+00' from generate_series(1, 250) i"
    )
    looks = 0
    # Without a budget a look takes one step, however fast the machine is.
    while not look_at_tables(clicks.settings, budget_seconds=0)[0].is_complete:
        looks += 1
    assert looks > 60, "the budget ends a look, and the next one goes on"
    sizes = clicks.files()
    assert sum(sizes.values()) == 60 + 950 + 250
    assert sorted(sizes.values())[-2:] == [100, 250], "rows of one moment stay together"
    assert len(sizes) == pytest.approx(60 + 10 + 2, abs=2)
    assert clicks.look(verify=True).files == 0


def test_a_last_extract_grows_while_it_is_small(server: PostgresServer, tmp_path: Path) -> None:
    clicks = Clicks(server, "growing", tmp_path, "rows_per_file = 40")
    for turn in range(12):
        clicks.sql(f"insert into {clicks.table} (id, at) select {turn} * 5 + i, now() from generate_series(1, 5) i")
        clicks.look()
    # At midnight one more begins.
    assert sum(clicks.files().values()) == 60
    assert len(clicks.files()) in (6, 7), clicks.files()


def test_a_sequence_in_place_of_a_load_time(server: PostgresServer, tmp_path: Path) -> None:
    clicks = Clicks(server, "numbered", tmp_path, 'sequence = "number"\nrows_per_file = 10', ", number bigserial")
    for number in range(25):
        clicks.add(f"e{number}")
    clicks.look()
    assert list(clicks.files().values()) == [10, 10, 5]
    with clicks.session() as slow:
        slow.execute(f"insert into {clicks.table} (id, at) values ('slow', now())")
        clicks.add("after")
        clicks.look()
        assert "after" in clicks.ids()
        slow.execute("commit")
    clicks.look()
    assert "slow" in clicks.ids()
    assert len(clicks.ids()) == 27
    # Of those that were copied long ago, only the ones that were copied again are looked at, each by itself.
    sizes = clicks.files()
    assert sum(sizes.values()) == 27
    clicks.settings = clicks.settings.model_copy(
        update={"feeds": {"web": clicks.settings.feeds["web"].model_copy(update={"overlap_hours": 0.0})}}
    )
    clicks.sql(f"delete from {clicks.table} where id in ('e3', 'e14')")
    assert clicks.look().files == 0
    assert clicks.look(verify=True).files == 2
    assert sum(clicks.files().values()) == 25


def test_rows_without_a_load_time_are_not_lost(clicks: Clicks) -> None:
    clicks.sql(f"alter table {clicks.table} alter loaded_at drop default")
    for event_id, at in (
        ("none", "null"),
        ("never", "'infinity'"),
        ("ever", "'-infinity'"),
        ("rome", "'0044-03-15 BC'"),
    ):
        clicks.sql(f"insert into {clicks.table} (id, at, loaded_at) values ('{event_id}', '2026-03-01', {at})")
    clicks.sql(f"insert into {clicks.table} (id, at, loaded_at) values ('future', now(), now() + interval '1 hour')")
    clicks.look()
    assert clicks.ids() == ["ever", "never", "none", "rome"]
    clicks.sql(f"delete from {clicks.table} where id in ('none', 'ever')")
    clicks.look()
    assert clicks.ids() == ["never", "rome"]


def test_odd_values_and_names_arrive_as_they_are(server: PostgresServer, tmp_path: Path) -> None:
    odd = """, "Upper" text, "we""ird" text, "with space" text, "dot.ted" numeric, exact numeric(30, 4), nan float8,
        list text[], bits bytea, day date, doc jsonb, "upper" text"""
    clicks = Clicks(server, "odd", tmp_path, columns=odd)
    clicks.sql(
        f"insert into {clicks.table} values "
        "('plain', '2026-03-01', 'page', 'd', null, '2026-03-01', 'U', 'q', 's', 12345678901234567890.123456789, "
        "12345678901234567890.1234, 1.5, array['a', 'b,\"c'], '\\x00ff', '2026-03-01', '{\"k\": [1, \"ü\"]}', 'l'), "
        "('odd', '2026-03-01', 'page', E'\\u200d💥\\r\\n\"x\",\\\\N', '', '2026-03-01', '', E'a\\nb', '\\N', 'NaN', "
        "null, '-infinity', '{}', '', '0044-03-15 BC', 'null', null)"
    )
    for event_id, at in (("bc", "0044-03-15 12:00 BC"), ("endless", "infinity"), ("far", "290000-01-01")):
        clicks.add(event_id, "2026-03-01", at=at)
    assert clicks.look().problem is None
    found = {row["event_id"]: row for row in events(clicks.settings)}
    assert sorted(found) == ["odd", "plain"]
    plain, odd_one = (json.loads(found[name]["properties"]) for name in ("plain", "odd"))
    assert plain == {
        "Upper": "U",
        'we"ird': "q",
        "with space": "s",
        "dot.ted": "12345678901234567890.123456789",
        "exact": 12345678901234567890.1234,
        "nan": 1.5,
        "list": ["a", 'b,"c'],
        "bits": "\\x00ff",
        "day": "2026-03-01",
        "doc": {"k": [1, "ü"]},
        "loaded_at": "2026-03-01 00:00:00+00",
        "upper_1": "l",
    }
    assert odd_one["nan"] == "-Infinity" or odd_one["nan"] == "-inf"
    assert odd_one["day"] == "0044-03-15 BC"
    assert odd_one['we"ird'] == "a\nb"
    assert odd_one["with space"] == "\\N"
    assert found["odd"]["anonymous_id"] == '\u200d💥\r\n"x",\\N'


# --- what goes wrong --------------------------------------------------------------------------------------------------


def test_each_failure_is_one_sentence_and_heals_by_itself(server: PostgresServer, tmp_path: Path) -> None:
    clicks = Clicks(server, "failing", tmp_path)
    clicks.add("a", "2026-03-01 10:00+00")
    clicks.look()
    good, files = clicks.settings, clicks.files()
    server.rows("create role reader login password 'se-cret'", "events")

    def problem(url: str = address(server, "events"), toml: str | None = None) -> str:
        written = (tmp_path / "stitch.toml").read_text() if toml is None else toml
        settings = good.model_copy(update={"feeds_url": SecretStr(url)})
        if toml is not None:
            settings = settings_of(tmp_path / "other", written, feeds_url=url)
        (looked,) = look_at_tables(settings, since=datetime.now(UTC))
        assert problems(settings) == {"web": looked.problem}
        assert looked.problem is not None
        assert "cret" not in looked.problem
        assert looked.files == 0
        return looked.problem

    toml = (tmp_path / "stitch.toml").read_text()
    assert "does not listen" in problem("postgresql://reader:se-cret@127.0.0.1:1/events")
    assert "there is no such database" in problem(address(server, "nothing"))
    assert "there is no such database or user" in problem(address(server, "events", "nobody"))
    assert problem("postgresql://reader:se@cret@127.0.0.1:port/events").startswith("The address of the tables is none")
    assert "of no database that can be read" in problem("mysql://reader:se-cret@127.0.0.1/events")
    assert "There is no table shop.other in the database" in problem(toml=toml.replace("shop.failing", "shop.other"))
    assert "has no column arrived" in problem(toml=toml.replace('"loaded_at"', '"arrived"'))
    assert "is VARCHAR and not a timestamp" in problem(toml=toml.replace('"loaded_at"', '"device"'))
    assert "Nothing says which rows" in problem(toml=toml.replace('load_time = "loaded_at"', ""))
    assert "usage on its schema" in problem(address(server, "events", "reader"))
    clicks.sql("grant usage on schema shop to reader")
    assert "The table shop.failing may not be read: grant select" in problem(address(server, "events", "reader"))
    clicks.sql(f"grant select on {clicks.table} to reader")
    with clicks.session() as session:
        session.execute(f"lock table {clicks.table} in access exclusive mode")
        clicks.sql("alter role reader set statement_timeout = '300ms'")
        assert "took longer than reader may" in problem(address(server, "events", "reader"))
    assert problem("nowhere.duckdb").startswith("There is no DuckDB file")
    (tmp_path / "text.duckdb").write_text("a,b\n" * 1000)
    assert "cannot be opened as a file of DuckDB" in problem(str(tmp_path / "text.duckdb"))
    assert clicks.files() == files, "nothing that was copied is touched"
    clicks.settings = good.model_copy(update={"feeds_url": SecretStr(address(server, "events", "reader"))})
    clicks.add("b", "2026-03-02 10:00+00")
    assert clicks.look().problem is None, "select and usage are all that the role needs"
    assert problems(clicks.settings) == {}
    assert clicks.ids() == ["a", "b"]


def test_a_column_that_is_renamed_takes_no_link_away(server: PostgresServer, tmp_path: Path) -> None:
    clicks = Clicks(server, "renamed", tmp_path)
    clicks.add("a", "2026-03-01 10:00+00", member="ann")
    clicks.add("b", "2026-03-02 10:00+00", member="bob")
    clicks.look()
    before = [row["user_id"] for row in events(clicks.settings)]
    assert before == ["ann", "bob"]
    toml = (tmp_path / "stitch.toml").read_text()
    clicks.sql(f"alter table {clicks.table} rename column member to customer")
    for _ in range(2):
        looked = clicks.look(verify=True)
        assert looked.problem == (
            "The table shop.renamed has no column member: correct user_id in [feeds.web.fields], or bring the column "
            "back. What was copied of it stays."
        )
        assert [row["user_id"] for row in events(clicks.settings)] == before
    # The values are the same, so no digest of rows differs.
    clicks.settings = settings_of(tmp_path, toml.replace('"member"', '"customer"'), feeds_url=address(server, "events"))
    assert (clicks.look().problem, clicks.look().files) == (None, 0)
    assert [row["user_id"] for row in events(clicks.settings)] == before
    clicks.sql(f"alter table {clicks.table} rename column customer to member")
    clicks.settings = settings_of(tmp_path, toml, feeds_url=address(server, "events"))
    assert (clicks.look().files, clicks.look().files) == (2, 0)
    assert [row["user_id"] for row in events(clicks.settings)] == before


def test_tables_that_were_never_read_are_left_to_do(clicks: Clicks, tmp_path: Path) -> None:
    clicks.add("a")
    clicks.settings.landing_dir.rmdir()
    with DagsterInstance.ephemeral() as instance:
        assert clicks.look().problem is None, "the landing directory of a new deployment is created"
        shutil.rmtree(clicks.directory)
        said = status(clicks.settings, instance)
        assert said.triggers[0].paused == ["The tables of web were not read yet"]
        assert not said.is_settled


def test_copies_of_a_feed_that_is_gone_say_so(clicks: Clicks, tmp_path: Path) -> None:
    clicks.add("a")
    clicks.look()
    clicks.settings = settings_of(tmp_path, "")
    ((name, file),) = landed_files(clicks.settings).items()
    assert name.startswith("web/")
    assert file.problem == (
        "it is a copy of rows of a table, and no feed is called web any more: bring [feeds.web] with its table back, "
        "or delete this directory"
    )


def test_a_duckdb_file_that_somebody_writes_to_is_read_later(tmp_path: Path) -> None:
    make_duckdb_table(tmp_path / "events.duckdb", "main.pages", RECORDED / "segment_pages.csv")
    toml = '[feeds.web]\nsource = "segment"\ntable = "pages"\nconnection = "events.duckdb"\n'
    settings = settings_of(tmp_path, toml)
    holds = (
        f"import duckdb, sys; c = duckdb.connect('{tmp_path}/events.duckdb'); print(1, flush=True); sys.stdin.read()"
    )
    writer = subprocess.Popen([sys.executable, "-c", holds], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert writer.stdout is not None
    writer.stdout.readline()
    (looked,) = look(settings)
    assert "is open in another program" in (looked.problem or "")
    writer.communicate()
    (looked,) = look(settings)
    assert (looked.problem, looked.rows) == (None, 4)


def test_passwords_do_not_belong_into_stitch_toml(tmp_path: Path) -> None:
    for named in ("postgresql://reader:se-cret@db/events", "host=db password=se-cret"):
        with pytest.raises(SettingsError) as raised:
            settings_of(tmp_path, f'[feeds.jitsu]\ntable = "events"\nconnection = "{named}"\n')
        assert "environment variable" in str(raised.value)
        assert "se-cret" not in str(raised.value)
    settings = settings_of(tmp_path, '[feeds.jitsu]\ntable = "events"\nconnection = "EVENTS_URL"\n')
    (looked,) = look(settings)
    assert "EVENTS_URL, which is not set" in (looked.problem or "")


@pytest.mark.parametrize("password", ["qu@artz", "qu/artz", "qu@ar/tz", "qu?ar@tz"])
def test_a_password_with_the_signs_of_an_address_is_refused_and_not_shown(
    password: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"postgresql://reader:{password}@127.0.0.1:5432/events"
    monkeypatch.setenv("EVENTS_URL", url)
    with_connection = settings_of(tmp_path, '[feeds.jitsu]\ntable = "events"\nconnection = "EVENTS_URL"\n')
    for load in (
        lambda: Settings.load(warehouse=url),
        lambda: Settings.load(feeds_url=url),
        lambda: with_connection.connection_of("jitsu"),
    ):
        with pytest.raises(SettingsError, match="write @ as %40, / as %2F") as raised:
            load()
        assert not {"qu", "ar", "tz"} & set(re.split(r"\W+", str(raised.value)))
    written = url.replace(password, password.replace("@", "%40").replace("/", "%2F").replace("?", "%3F"))
    assert Settings.load(warehouse=written, feeds_url=written).warehouse is not None


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ('table = "a.b.c"', "is no name of a table"),
        ('table = ["a.t", "b.t"]', "names two tables 't'"),
        ('load_time = "x"', "has load_time, which is about a table"),
        ('table = "t"\nload_time = "x"\nsequence = "y"', "more than one of load_time"),
        ('table = "t"\nevery_seconds = 0', "greater than or equal to 1"),
    ],
)
def test_a_wrong_setting_of_a_table_is_one_sentence(table: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=re.escape(message)):
        settings_of(tmp_path, f"[feeds.jitsu]\n{table}\n")


def test_a_table_that_cannot_be_read_does_not_stop_the_others(duckdb_tables: Path, tmp_path: Path) -> None:
    toml = feeds_toml(f'connection = "{duckdb_tables}"', feeds=("segment", "jitsu"))
    settings = settings_of(tmp_path, toml.replace('"segment.pages"', '"segment.nothing", "segment.pages"'))
    jitsu, segment = look(settings)
    assert (jitsu.problem, jitsu.rows) == (None, 8)
    assert segment.problem == "There is no table segment.nothing in the DuckDB file: correct its name."
    assert segment.rows == 10


@pytest.mark.slow
@pytest.mark.long
def test_a_look_that_is_killed_at_any_moment_loses_nothing(server: PostgresServer, tmp_path: Path) -> None:
    clicks = Clicks(server, "killed", tmp_path, "rows_per_file = 50")
    looks = (
        "import sys; sys.path[:0] = ['tests/integration', 'tests']\n"
        "from datetime import UTC, datetime\nfrom pathlib import Path\n"
        "from test_table_feeds import settings_of\n"
        "from stitch_pipeline.landing.extracts import look_at_tables\n"
        f"path = Path({str(tmp_path)!r})\n"
        f"settings = settings_of(path, (path / 'stitch.toml').read_text(), feeds_url={address(server, 'events')!r})\n"
        "print(1, flush=True)\n"
        "while True: look_at_tables(settings, since=datetime.now(UTC))\n"
    )
    random = Random(5)
    for turn in range(12):
        clicks.sql(
            f"insert into {clicks.table} (id, at, loaded_at) select '{turn}-' || i, now(), "
            f"now() - i * interval '7 minutes' from generate_series(1, 150) i"
        )
        if turn % 3 == 2:
            clicks.sql(f"delete from {clicks.table} where id like '%7'")
        process = subprocess.Popen([sys.executable, "-c", looks], stdout=subprocess.PIPE, cwd=REPOSITORY)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(random.random() * 0.6)
        process.kill()
        process.communicate()
    clicks.look(verify=True)
    assert clicks.ids() == sorted(event_id for (event_id,) in clicks.sql(f"select id from {clicks.table}"))
    assert not [path for path in clicks.directory.rglob("*") if path.is_file() and "extract" in str(path.parent.name)]


# --- forgotten --------------------------------------------------------------------------------------------------------

_OF_DELETED = (
    *("project_id", "event_id", "event_date", "occurred_at", "event_type", "anonymous_id", "user_id", "id_kind", "id"),
    "is_forgotten",
)


def as_loaded(settings: Settings) -> list[Row]:
    """What ``raw_events`` and ``forgotten_events`` would get."""
    rows = events(settings, but=("landing_file", "blocked_user_id", "blocked_anonymous_id"))
    return [{name: row[name] for name in _OF_DELETED} if row["is_forgotten"] else row for row in rows]


@pytest.mark.parametrize(
    ("when", "mode", "feeds"),
    [
        ("after", Mode.delete, ("umami",)),
        *(
            pytest.param(when, mode, tuple(FORMATS), marks=[pytest.mark.slow, *marks])
            for when, mode, marks in (
                ("before", Mode.pseudonymise, ()),
                ("after", Mode.delete, (pytest.mark.long,)),
                ("before", Mode.delete, (pytest.mark.long,)),
                ("after", Mode.pseudonymise, (pytest.mark.long,)),
            )
        ),
    ],
)
def test_forgotten_ids_are_in_no_extract_and_nothing_else_changes(
    when: str, mode: Mode, feeds: tuple[str, ...], duckdb_tables: Path, tmp_path: Path
) -> None:
    tables = settings_of(tmp_path / "tables", feeds_toml(f'connection = "{duckdb_tables}"', feeds=feeds))
    files = settings_of(tmp_path / "files", feeds_toml(tables=False, feeds=feeds))
    land_as_files(files, feeds)
    if when == "after":
        look(tables)
    for feed in feeds:
        add_to_list(tables, Request(feed, "user", USER, mode))
        add_to_list(tables, Request(feed, "device", LAPTOP, mode))
    for name in ("forgotten.csv", "forgotten.key"):
        shutil.copy(tmp_path / "tables" / name, tmp_path / "files" / name)
    if when == "after":
        assert seal_extracts(tables, lambda name: True) > len(feeds)
        assert seal_extracts(tables, lambda name: True) == 0
        sealed = as_loaded(tables)
    else:
        assert [one.problem for one in look(tables)] == [None] * len(feeds)
        sealed = as_loaded(tables)
    assert differences(sealed, as_loaded(files)) == {}
    for path in tables.landing_dir.rglob("*.parquet"):
        rows = duckdb.read_parquet(str(path))
        for value in (USER, LAPTOP):
            holds = " or ".join(f"contains(\"{name}\"::varchar, '{value}')" for name in rows.columns)
            mentions = rows.filter(holds).shape[0]
            assert mentions == 0, (path.name, value, rows.filter(holds).fetchall())
    # Looking again copies nothing, and whatever is copied again is sealed again.
    assert sum(one.files for one in look(tables)) == 0
    next(path for path in tables.landing_dir.glob("*/*.parquet") if "session" not in path.name).unlink()
    look(tables)
    assert differences(as_loaded(tables), sealed) == {}


# --- stitched ---------------------------------------------------------------------------------------------------------

CRM = """
[feeds.web]
source = "jitsu"
project_id = "shop"

[feeds.crm]
source = "custom"
project_id = "shop"
table = "backend.customers"
connection = "warehouse.duckdb"
whole = true
event_id_from = ["customer_no", "cookie"]

[feeds.crm.fields]
occurred_at = "signed_up_at"
event_type = "=identify"
anonymous_id = "cookie"
user_id = "customer_no"
traits = "*"

[projects.shop]
policy = "graph"
identifiers.email.paths = "traits.email"
"""


@pytest.mark.slow
@of_duckdb("the table is in the file of the warehouse")
def test_a_table_of_customers_links_devices_that_never_logged_in(new_warehouse: NewWarehouse) -> None:
    warehouse = new_warehouse(stitch_toml=CRM)
    events_of = [page_view(f"e-{d}", "2026-03-01 12:00", anonymous_id=d) for d in ("a", "phone", "tablet", "z")]
    warehouse.land("web/a.ndjson", [as_jitsu(event) for event in events_of])
    with engine_of(warehouse.settings).open():
        pass
    # The backend's table is in the very file of the warehouse.
    with duckdb.connect(str(warehouse.settings.duckdb_path)) as backend:
        backend.execute(
            "create schema backend; create table backend.customers as select * from (values "
            "('c-1', 'a', timestamp '2026-03-02 12:00', 'ann@example.com'), "
            "('c-1', 'phone', timestamp '2026-03-03 12:00', 'ann@example.com'), "
            "(null, 'tablet', timestamp '2026-03-03 12:00', 'ann@example.com'), "
            "('null', 'z', timestamp '2026-03-03 12:00', null)"
            ") as t(customer_no, cookie, signed_up_at, email)"
        )
    warehouse.settle()
    credited = {row["anonymous_id"]: row["stitched_user_id"] for row in warehouse.rows("page_views")}
    assert credited == {"a": "c-1", "phone": "c-1", "tablet": "c-1", "z": "z"}, "blocked ids are blocked here, too"
    explained = explain(warehouse.settings, "shop", "phone")
    assert "crm/customers.parquet" in str(explained)

    with duckdb.connect(str(warehouse.settings.duckdb_path)) as backend:
        backend.execute(
            "update backend.customers set customer_no = 'c-2', email = null where cookie = 'phone'; "
            "delete from backend.customers where customer_no is null"
        )
    warehouse.settle()
    credited = {row["anonymous_id"]: row["stitched_user_id"] for row in warehouse.rows("page_views")}
    assert credited == {"a": "c-1", "phone": "c-2", "tablet": "tablet", "z": "z"}


# --- commands and sensors ---------------------------------------------------------------------------------------------


def stitch(settings: Settings, *arguments: str) -> int:
    with in_force(settings):
        return main(arguments)


def test_the_check_says_what_it_found_and_writes_nothing(clicks: Clicks, capsys: pytest.CaptureFixture[str]) -> None:
    clicks.add("a", "2026-03-01 10:00+00", member="ann")
    clicks.add("b", "2026-03-02 10:00+00", at="2019-01-01")
    clicks.sql(f"insert into {clicks.table} (id, at, loaded_at) values ('c', '2026-03-02', null)")
    assert stitch(clicks.settings, "sources", "check", "--feed", "web") == 0
    said = capsys.readouterr().out
    assert f"{clicks.table}: 6 columns; its newest 3 rows follow" in said
    assert "loaded_at says which rows are new: from 2026-03-01 10:00:00 to 2026-03-02 10:00:00" in said
    assert "1 rows have no value there" in said
    assert "1 row would be quarantined" in said
    assert "1 of 1 devices would stitch" in said
    assert list(clicks.settings.landing_dir.iterdir()) == []
    assert stitch(clicks.settings, "sources", "check", "--feed", "web", "--json") == 0
    (facts,) = json.loads(capsys.readouterr().out)["tables"]
    assert (facts["table"], facts["ordered_by"], facts["sampled"]) == (clicks.table, "loaded_at", 3)
    clicks.add("d", "2999-01-01 10:00+00")
    assert stitch(clicks.settings, "sources", "check", "--feed", "web") == 0
    assert "1 rows have a time there that has not come yet; they wait for it" in capsys.readouterr().out
    clicks.sql(f"drop table {clicks.table}")
    assert stitch(clicks.settings, "sources", "check", "--feed", "web") == 2
    assert "There is no table" in capsys.readouterr().err
    assert stitch(clicks.settings, "sources", "check", "--feed", "app") == 2
    assert "'app' is no feed with a table; these are: web" in capsys.readouterr().err


def test_a_sensor_looks_as_often_as_set_and_fails_where_people_see_it(clicks: Clicks, tmp_path: Path) -> None:
    assert "feeds_sensor" not in names_of_sensors(clicks.settings.model_copy(update={"feeds": {}}))
    assert "feeds_sensor" in names_of_sensors(clicks.settings)
    clicks.add("a", "2026-03-01 10:00+00")
    with DagsterInstance.ephemeral() as instance:
        defs = build_defs(clicks.settings)

        def tick(name: str = "feeds_sensor") -> SensorResult | SkipReason:
            with build_sensor_context(instance, definitions=defs) as context:
                result = defs.get_sensor_def(name)(context)
            assert isinstance(result, SensorResult | SkipReason)
            return result

        result = tick()
        assert isinstance(result, SkipReason)
        assert result.skip_message == "1 files of tables were written"
        clicks.add("b", "2026-03-02 10:00+00")
        tick()
        assert clicks.ids() == ["a"], "its five minutes are not over"
        built = tick("landing_sensor")
        assert isinstance(built, SensorResult)
        assert built.run_requests
        good = clicks.settings
        got = tmp_path / "alert.json"
        script = f"import sys; open({str(got)!r}, 'w').write(sys.stdin.read())"
        clicks.settings = good.model_copy(
            update={
                "feeds": {"web": good.feeds["web"].model_copy(update={"table": ("shop.nothing",)})},
                "alert_command": SecretStr(f'{sys.executable} -c "{script}"'),
            }
        )
        clicks.look()
        defs = build_defs(clicks.settings)
        with pytest.raises(FailsAgainAndAgain, match=r"web: There is no table shop\.nothing"):
            tick()
        alert = json.loads(got.read_text())
        assert alert["trigger"] == "feeds_sensor"
        assert alert["error"].startswith("web: There is no table shop.nothing")
        found = status(clicks.settings, instance)
        assert not found.is_settled
        (of_feeds,) = [trigger for trigger in found.triggers if trigger.name == "feeds_sensor"]
        assert of_feeds.needs_a_person
        assert "There is no table shop.nothing" in of_feeds.paused[0]
        clicks.settings = good
        clicks.look()
        defs = build_defs(good)
        assert isinstance(tick(), SkipReason)
        assert clicks.ids() == ["a", "b"]


def names_of_sensors(settings: Settings) -> set[str]:
    return {sensor.name for sensor in build_defs(settings).sensors or ()}


def test_a_component_takes_a_table_as_a_feed(tmp_path: Path) -> None:
    settings = Settings.load(
        feeds={"web": {"source": "snowplow", "table": "atomic.events", "connection": "EVENTS_URL"}},
        landing_dir=tmp_path,
    )
    assert settings.feed("web").table == ("atomic.events",)
    schema = Attributes.model_json_schema()
    assert {"table", "load_time", "every_seconds"} <= set(
        schema["properties"]["feeds"]["additionalProperties"]["properties"]
    )


@of_duckdb("the file is deleted")
@pytest.mark.slow
def test_tables_are_stitched_and_a_rebuild_needs_their_extracts_only(
    postgres_settings: Settings, as_files: list[Row], tmp_path: Path
) -> None:
    url = postgres_settings.connection_of("ga4")
    with ephemeral_warehouse(tmp_path, stitch_toml=feeds_toml(), feeds_url=url) as warehouse:
        assert warehouse.settle().notices == []
        loaded = [*warehouse.rows("raw_events"), *warehouse.rows("duplicate_events")]
        assert differences(_without(loaded, "landing_file"), _without(as_files, "landing_file")) == {}
        for feed in set(FORMATS) - {"umami", "umami_links", "mapped", "posthog_postgres"}:
            assert journey(warehouse, feed) == expected_journey(feed.replace("ga4", "ga4_parquet")), feed
        assert warehouse.settle().runs == []
        contents = warehouse.contents()
        warehouse.settings.duckdb_path.unlink()
        warehouse.load_settings(feeds_url="postgresql://nobody@127.0.0.1:1/nothing")
        settled = settle(warehouse.settings, lambda: warehouse.defs, warehouse.instance, view_stitching=True)
        assert [problem.split(":")[0] for problem in settled.gave_up] == sorted(FORMATS)
        assert warehouse.contents() == contents


def _without(rows: list[Row], column: str) -> list[Row]:
    return [{name: value for name, value in row.items() if name != column} for row in rows]
