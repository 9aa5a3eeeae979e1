"""What is PostgreSQL's own: one writer, readers who never wait, lost connections, rights, and names.

Everything else is the same tests with ``ENGINE=postgres`` (``make test-postgres``).
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import date
from hashlib import md5
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import duckdb
import psycopg2
import pytest
from dagster import AssetKey
from engines import holder, new_server, server
from test_broken_warehouse import mounted
from test_engine_macros import macros
from warehouses import Warehouse, ephemeral_warehouse, page_view

from stitch_pipeline.cli.main import main
from stitch_pipeline.deployment import read
from stitch_pipeline.settings import Settings, SettingsError
from stitch_pipeline.stitching.rebuild import start_anew
from stitch_pipeline.warehouse.engine import engine_of
from stitch_pipeline.warehouse.port import WarehouseBusy, WarehouseError, WarehouseFull
from stitch_pipeline.warehouse.postgres import PostgresEngine
from stitch_pipeline.warehouse.tables import create_tables

EVENTS = [
    page_view("e1", "2026-03-01 10:00"),
    {**page_view("e2", "2026-03-01 10:05", user_id="ann"), "event_type": "identify"},
    page_view("e3", "2026-03-02 10:00"),
    page_view("e4", "2026-03-03 10:00", anonymous_id="b"),
]
LATER = [{**page_view("e5", "2026-03-04 10:00", anonymous_id="b", user_id="bob"), "event_type": "identify"}]
CREDITED = [(1, "ann"), (2, "ann"), (3, "b")]


@pytest.fixture
def database() -> str:
    """The address of a database of its own."""
    number = server().rows("select count(*) from pg_database", "postgres")[0][0]
    return server().create_database(f"own{number}")


@pytest.fixture
def warehouse(tmp_path: Path, database: str) -> Iterator[Warehouse]:
    with ephemeral_warehouse(tmp_path, warehouse=database) as warehouse:
        warehouse.land_events("jitsu/a.ndjson", EVENTS)
        yield warehouse


def engine(url: str, schema: str = "stitch", wait: float = 0.5) -> PostgresEngine:
    return PostgresEngine(url, schema, wait)


def credited(warehouse: Warehouse) -> list[tuple[int, str]]:
    rows = warehouse.query("select session_date, stitched_user_id from stitched_sessions order by started_at")
    return [(row["session_date"].day, row["stitched_user_id"]) for row in rows]


def build(warehouse: Warehouse) -> None:
    warehouse.build(date(2026, 3, 1), date(2026, 3, 5))


def build_again_and_again(warehouse: Warehouse) -> None:
    for _ in range(50):
        build(warehouse)


def in_database(url: str, *statements: str) -> list[tuple[Any, ...]]:
    """Run statements as somebody else; returns the rows of the last."""
    connection = psycopg2.connect(url)
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []
    finally:
        connection.close()


def test_there_is_one_writer_who_is_named_and_whose_death_frees_the_warehouse(database: str) -> None:
    with holder("postgres", database, "stitch") as (process, _):
        with pytest.raises(WarehouseBusy) as caught, engine(database).open():
            pass
        assert "is in use by stitch_pipeline on 127.0.0.1 (backend " in str(caught.value)
        assert "within 0.5 seconds: wait for that process or end it, or raise STITCH_LOCK" in str(caught.value)
        with engine(database, "other").open():
            pass  # another schema is another warehouse
        process.kill()
        process.wait()
        with engine(database, wait=10).open() as freed:
            assert freed.rows("select current_schema()") == [("stitch",)]


def test_readers_neither_wait_for_a_run_nor_see_half_of_a_table(warehouse: Warehouse) -> None:
    warehouse.settle()
    with engine(warehouse.settings.warehouse.get_secret_value()).open() as writer, writer.transaction():  # type: ignore[union-attr]
        writer.execute("delete from stitched_sessions")
        began = time.monotonic()
        assert credited(warehouse) == CREDITED
        assert time.monotonic() - began < 5
        writer.execute("insert into stitched_sessions select * from stitched_sessions")
        assert credited(warehouse) == CREDITED
        assert warehouse.query("select count(*) as rows from users") == [{"rows": 2}]
    assert credited(warehouse) == []


@pytest.mark.parametrize("role_of", ["stitch_pipeline", "dbt"])
def test_a_connection_that_is_lost_leaves_nothing_half_done(warehouse: Warehouse, database: str, role_of: str) -> None:
    """The server ends a connection of the run, ours or dbt's; the next run goes on."""
    warehouse.settle()
    warehouse.land_events("jitsu/b.ndjson", LATER)
    ended: list[object] = []
    is_held = threading.Event()

    def end_connections() -> None:
        # Held up at a table, dbt's connection waits and ours, which holds the writer's lock, is idle.
        waiting = "select pid from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
        ours = (
            "select pid from pg_locks inner join pg_database on pg_database.oid = pg_locks.database "
            f"where datname = current_database() and locktype = 'advisory' and exists ({waiting})"
        )
        with closing(psycopg2.connect(database)) as another, another.cursor() as cursor:
            cursor.execute("lock table stitch.stitched_sessions in exclusive mode")
            is_held.set()
            deadline = time.monotonic() + 60
            while not ended and time.monotonic() < deadline:
                wanted = ours if role_of == "stitch_pipeline" else waiting
                ended.extend(in_database(database, f"select pg_terminate_backend(pid) from ({wanted}) as found"))

    thread = threading.Thread(target=end_connections)
    thread.start()
    assert is_held.wait(60)
    with pytest.raises(Exception, match=r"cannot be reached or ended the connection") as caught:
        build(warehouse)
    thread.join()
    assert ended
    assert "cannot be reached or ended the connection" in f"{caught.value} {caught.value.__cause__}"
    warehouse.settle()
    assert credited(warehouse) == [(1, "ann"), (2, "ann"), (3, "bob"), (4, "bob")]


@pytest.mark.slow
def test_a_server_that_restarts_in_the_middle_is_one_sentence_and_heals(warehouse: Warehouse) -> None:
    warehouse.settle()
    warehouse.land_events("jitsu/b.ndjson", LATER)
    found, seen = server(), []

    def restart() -> None:
        time.sleep(1.0)
        found.control("-m", "immediate", "stop")
        seen.append("stopped")

    thread = threading.Thread(target=restart)
    thread.start()
    with pytest.raises(Exception, match="cannot be reached or ended the connection"):
        build_again_and_again(warehouse)
    thread.join()
    with pytest.raises(WarehouseBusy, match="cannot be reached or ended the connection"):
        engine_of(warehouse.settings).exists()
    found.control("-o", found.options, "-l", os.devnull, "start")
    warehouse.settle()
    assert credited(warehouse) == [(1, "ann"), (2, "ann"), (3, "bob"), (4, "bob")]


def test_limits_of_a_role_for_interactive_queries_do_not_end_a_run(warehouse: Warehouse, database: str) -> None:
    limits = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
    in_database(
        database,
        *(f"alter role postgres in database {database.rsplit('/', 1)[1]} set {name} = '5ms'" for name in limits),
    )
    warehouse.settle()
    assert credited(warehouse) == CREDITED


def test_a_role_needs_its_own_schemas_and_nothing_else(tmp_path: Path, database: str) -> None:
    name = database.rsplit("/", 1)[1]
    role = f"role_{name}"
    in_database(
        database,
        f"create role {role} login",
        f"revoke all on database {name} from public",
        f"grant connect, temporary on database {name} to {role}",
    )
    url = database.replace("postgres@", f"{role}@")
    with pytest.raises(WarehouseError) as caught, engine(url).open():
        pass
    assert f"does not allow it (permission denied for database {name}): the role must own the schema 'stitch'" in str(
        caught.value
    )
    # What docs/postgres.md tells an administrator to run.
    in_database(
        database, f"create schema stitch authorization {role}", f"create schema stitch_trial authorization {role}"
    )
    with ephemeral_warehouse(tmp_path, warehouse=url, show_ids=True) as warehouse:
        warehouse.land_events("jitsu/a.ndjson", EVENTS)
        warehouse.settle()
        assert credited(warehouse) == CREDITED
        # A trial too, which has a schema of its own.
        assert warehouse.persons_from_nothing() == []
        warehouse.settle(reconcile=True)
    assert in_database(database, "select count(*) from pg_tables where schemaname = 'stitch_trial'") == [(0,)]


def test_a_read_only_server_is_said_to_be_one(database: str) -> None:
    name = database.rsplit("/", 1)[1]
    with engine(database).open() as opened:
        create_tables(opened)
    in_database(database, f"alter database {name} set default_transaction_read_only = on")
    with engine(database).open() as opened, pytest.raises(psycopg2.Error) as caught:
        opened.execute("delete from users")
    problem = engine(database).problem(str(caught.value))
    assert problem is not None
    assert (
        "is read-only (cannot execute DELETE in a read-only transaction): set STITCH_WAREHOUSE to the primary"
        in str(problem)
    )


@pytest.mark.slow
def test_a_full_disk_is_one_sentence_and_heals(tmp_path: Path) -> None:
    place = Path(mkdtemp())  # not below a directory that only this user may enter
    place.chmod(0o755)
    number = server().rows("select count(*) from pg_tablespace", "postgres")[0][0]
    with mounted(place, "size=24m"):
        ((data,),) = server().rows("show data_directory", "postgres")
        os.chown(place, Path(str(data)).stat().st_uid, -1)
        server().rows(f"create tablespace small{number} location '{place}'", "postgres")
        server().rows(
            f"create database small{number} template template0 encoding 'UTF8' locale 'C.UTF-8' "
            f"tablespace small{number}",
            "postgres",
        )
        url = server().url(f"small{number}")
        with ephemeral_warehouse(tmp_path, warehouse=url) as warehouse:
            warehouse.land_events("jitsu/a.ndjson", EVENTS)
            warehouse.settle()
            in_database(url, "create table filler as select repeat('x', 1000) as text from generate_series(1, 1)")
            with pytest.raises(psycopg2.Error):
                in_database(url, "insert into filler select text from filler, generate_series(1, 100000)")
            in_database(url, "create table rest (number int)")
            with pytest.raises(psycopg2.Error):
                in_database(url, *["insert into rest select generate_series(1, 2000)"] * 4000)
            warehouse.land_events("jitsu/b.ndjson", LATER)
            with (
                pytest.raises(WarehouseFull, match=r"has no room left on the server .*free some space there"),
                engine(url).open() as opened,
            ):
                opened.execute("create table more as select repeat('y', 100) as text from generate_series(1, 1000000)")
            assert credited(warehouse) == CREDITED
            in_database(url, "drop table rest", "drop table filler")
            warehouse.settle()
            assert credited(warehouse) == [(1, "ann"), (2, "ann"), (3, "bob"), (4, "bob")]
        server().rows(f"drop database small{number}", "postgres")
        server().rows(f"drop tablespace small{number}", "postgres")


@pytest.mark.slow
def test_two_deployments_in_one_database_do_not_meet(tmp_path: Path, database: str) -> None:
    with (
        ephemeral_warehouse(tmp_path / "one", warehouse=database) as one,
        ephemeral_warehouse(tmp_path / "two", warehouse=database, warehouse_schema="marketing") as two,
    ):
        one.land_events("jitsu/a.ndjson", EVENTS)
        two.land_events("jitsu/a.ndjson", [{**event, "user_id": event.get("user_id") and "zoe"} for event in EVENTS])
        one.settle()
        two.settle()
        assert credited(one) == CREDITED
        assert credited(two) == [(1, "zoe"), (2, "zoe"), (3, "b")]
        kept = start_anew(two.settings)
        assert kept.kept_as.split("schema ")[1].startswith("marketing.set-aside-")
        assert credited(one) == CREDITED
        two.settle()
        assert credited(two) == [(1, "zoe"), (2, "zoe"), (3, "b")]


def test_a_newer_version_of_the_tables_is_refused(warehouse: Warehouse, database: str) -> None:
    warehouse.settle()
    in_database(database, "update stitch.schema_version set version = 99")
    with (
        engine(database).open() as opened,
        pytest.raises(WarehouseError, match="A newer version of this project wrote"),
    ):
        create_tables(opened)


def test_the_password_is_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    url = "postgresql://ann:s3cret@127.0.0.1:1/nowhere"
    monkeypatch.setenv("STITCH_WAREHOUSE", url)
    monkeypatch.setenv("STITCH_LANDING_DIR", str(tmp_path))
    monkeypatch.setenv("STITCH_DUCKDB_PATH", str(tmp_path / "w.duckdb"))
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    settings = Settings.load()
    texts = [repr(settings), str(settings), repr(engine_of(settings)), engine_of(settings).place]
    for command in (["status"], ["settle"], ["query", "select 1"], ["settings"], ["settings", "--json"]):
        main(command)
        printed = capsys.readouterr()
        texts += [printed.out, printed.err]
    assert not any("s3cret" in text for text in texts)
    assert any("cannot be reached or ended the connection" in text for text in texts)
    with pytest.raises(SettingsError) as caught:
        Settings.load(warehouse="mysql://ann:s3cret@host/db")
    assert "s3cret" not in str(caught.value)
    assert "is not an address such as postgresql://user:password@host/database" in str(caught.value)


@pytest.mark.slow
def test_a_standby_is_read_and_not_written(tmp_path: Path) -> None:
    data = Path(mkdtemp(prefix="stitch-postgres-")) / "data"
    with new_server(data) as own, ephemeral_warehouse(tmp_path, warehouse=own.create_database("own")) as warehouse:
        warehouse.land_events("jitsu/a.ndjson", EVENTS[:3])
        warehouse.settle()
        sessions = warehouse.rows("stitched_sessions")
        own.control("-m", "fast", "stop")
        (data / "standby.signal").touch()
        own.control("-o", own.options, "-l", str(data / "log"), "start")
        assert own.rows("select pg_is_in_recovery()", "own") == [(True,)]
        assert warehouse.rows("stitched_sessions") == sessions
        warehouse.land_events("jitsu/b.ndjson", EVENTS[3:])
        with pytest.raises(AssertionError, match=r"is read-only \(.*\): set STITCH_WAREHOUSE to the primary server"):
            warehouse.settle()
        # It is promoted, or the address becomes the primary's.
        own.control("promote")
        warehouse.settle()
        assert len(warehouse.rows("stitched_sessions")) > len(sessions)


def test_a_password_of_the_environment_is_that_of_dbt_too(
    warehouse: Warehouse, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = database.rpartition("/")[2]
    ((rules,),) = server().rows("show hba_file", "postgres")
    file = Path(str(rules))
    trusted = file.read_text()
    server().rows("create role needs_one login superuser password 's3cret'", "postgres")
    file.write_text(f"host all needs_one 127.0.0.1/32 scram-sha-256\n{trusted}")
    try:
        server().rows("select pg_reload_conf()", "postgres")
        monkeypatch.setenv("PGPASSWORD", "s3cret")
        warehouse.load_settings(warehouse=f"postgresql://needs_one@127.0.0.1:{server().port}/{name}")
        warehouse.settle()
        assert warehouse.rows("stitched_sessions")
        monkeypatch.setenv("PGPASSWORD", "wrong")
        with pytest.raises(WarehouseError, match="refuses the login"), engine_of(warehouse.settings).open():
            pass
    finally:
        file.write_text(trusted)
        server().rows("select pg_reload_conf()", "postgres")


def test_definitions_load_while_the_server_is_away(tmp_path: Path) -> None:
    with ephemeral_warehouse(tmp_path, warehouse="postgresql://ann@127.0.0.1:1/away") as away:
        assert away.defs.resolve_job_def("build_job").name == "build_job"
        assets = away.defs.resolve_asset_graph()
        key = AssetKey("stitched_sessions")
        assert assets.get(key).metadata["dagster/table_name"] == "away.stitch.stitched_sessions"
        assert assets.get(key).kinds >= {"postgres"}


def test_tables_are_queried_and_read_where_they_are(
    warehouse: Warehouse, database: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    warehouse.settle()
    monkeypatch.setenv("STITCH_WAREHOUSE", database)
    monkeypatch.setenv("STITCH_DUCKDB_PATH", str(warehouse.settings.duckdb_path))
    assert main(["query", "--csv", "select stitched_user_id, session_count from users order by 1"]) == 0
    assert capsys.readouterr().out == "stitched_user_id,session_count\nann,2\nb,1\n"
    assert main(["query", "delete from users"]) == 1
    assert "cannot execute DELETE in a read-only transaction" in capsys.readouterr().err
    frame = read("stitched_sessions", since="2026-03-02", columns=["session_date", "stitched_user_id"])
    assert list(frame.itertuples(index=False, name=None)) == [(date(2026, 3, 2), "ann"), (date(2026, 3, 3), "b")]


def test_a_nul_character_becomes_the_replacement_character(warehouse: Warehouse) -> None:
    """DuckDB's text may hold one, and PostgreSQL's may not."""
    warehouse.land_events("jitsu/b.ndjson", [{**page_view("e\0x", "2026-03-05 10:00"), "page_title": "a\0b"}])
    warehouse.settle()
    assert [
        row["page_title"]
        for row in warehouse.query("select page_title from raw_events where event_date = '2026-03-05'")
    ] == ["a\ufffdb"]


@pytest.mark.slow
def test_plans_do_not_fall_over_without_statistics(warehouse: Warehouse, database: str) -> None:
    """A table without statistics looks small, and one with old ones looks as it did."""
    warehouse.settle()
    many = [
        event
        for number in range(3000)
        for event in (
            page_view(f"v{number}", "2026-03-02 12:00", anonymous_id=f"d{number}"),
            {
                **page_view(f"i{number}", "2026-03-03 12:00", anonymous_id=f"d{number}", user_id=f"u{number}"),
                "event_type": "identify",
            },
        )
    ]
    warehouse.land_events("jitsu/many.ndjson", many)
    in_database(
        database,
        *(
            f"alter table stitch.{table} set (autovacuum_enabled = off)"
            for table in ("raw_events", "sessions", "identity_map", "pending_devices", "stitched_sessions")
        ),
    )
    warehouse.settle()
    assert len([row for row in credited(warehouse) if row[1].startswith("u")]) == 6000


TIMES = (
    "0001-01-01 00:00:00",
    "1969-12-31 23:59:59.999999",
    "1970-01-01 00:00:00",
    "2026-03-01 10:00:00.000001",
    "2026-03-01 23:59:59.999999",
    "2099-07-04 12:34:56.789013",
    "9999-12-31 23:59:59.999999",
)


def test_places_in_time_and_durations_are_those_of_duckdb(database: str) -> None:
    """PostgreSQL computes them with floats, and they must be exact to the microsecond."""
    times = [
        *TIMES,
        *(f"2026-03-{number % 28 + 1:02} {number % 24:02}:17:33.{number * 7919 % 10**6:06}" for number in range(500)),
    ]
    listed = ", ".join(f"(timestamp '{time}')" for time in times)
    others = f"(timestamp '{TIMES[1]}'), (timestamp '{TIMES[3]}')"
    found = []
    for name in ("postgres", "duckdb"):
        place = macros(name)["place_in_time"]("moment", "'e'")
        apart = macros(name)["microseconds_between"]("least(moment, other)", "greatest(moment, other)")
        places = f"select moment, {place} from (values {listed}) as times (moment) order by moment"
        durations = (
            f"select moment, other, {apart} from (values {listed}) as times (moment) "
            f"cross join (values {others}) as others (other) "
            "where moment between '1969-01-01' and '2100-01-01' order by moment, other"
        )
        if name == "postgres":
            found.append([in_database(database, query) for query in (places, durations)])
        else:
            with duckdb.connect() as connection:
                found.append([connection.execute(query).fetchall() for query in (places, durations)])
    assert found[0] == found[1]


def reads_all_of(plan: dict[str, Any], table: str) -> bool:
    """Whether a plan reads every row of a table."""
    is_read = plan["Node Type"] == "Seq Scan" and plan.get("Relation Name") == table
    return is_read or any(reads_all_of(part, table) for part in plan.get("Plans", ()))


@pytest.mark.slow
def test_what_is_asked_of_one_device_reads_the_rows_of_one_device(warehouse: Warehouse, database: str) -> None:
    alias = {**page_view("alias", "2026-03-04 10:00", anonymous_id="d7", user_id="u7"), "event_type": "alias"}
    warehouse.land_events(
        "jitsu/many.ndjson",
        [page_view(f"v{number}", "2026-03-02 12:00", anonymous_id=f"d{number % 3000}") for number in range(12000)]
        + [{**alias, "previous_id": "d8"}],
    )
    warehouse.settle()
    in_database(database, "analyze")
    for view, least in (("stitching_reasons", 4), ("stitched_events", 4), ("user_mapping", 1)):
        of_device = f"select * from stitch.{view} where project_id = 'shop' and anonymous_id = 'd8'"
        settings = "set enable_nestloop = off; set enable_mergejoin = off;"
        ((explained,),) = in_database(database, f"{settings} explain (format json) {of_device}")
        for table in ("raw_events", "sessions", "page_views", "stitched_sessions"):
            assert not reads_all_of(explained[0]["Plan"], table), (view, table)
        found = warehouse.query(f"select * from {view} where anonymous_id = 'd8'")
        every = [row for row in warehouse.query(f"select * from {view}") if row["anonymous_id"] == "d8"]
        assert sorted(map(repr, found)) == sorted(map(repr, every))
        assert len(found) >= least
    # And a run reads a day by the day, though the other index has the rows in the order in which it needs them.
    with engine(database).open() as stored:
        ((explained,),) = stored.rows(
            "explain (format json) select lag(occurred_at) over (partition by anonymous_id order by occurred_at) "
            "from raw_events where anonymous_id is not null and event_date = '2026-03-04'"
        )
    assert "raw_events_by_anonymous_id" not in str(explained)
    sessions = warehouse.query("select distinct stitched_user_id from stitched_sessions where anonymous_id = 'd8'")
    assert sessions == [{"stitched_user_id": "u7"}]


NAMES_OF_INDEXES = "select indexname from pg_indexes where schemaname = 'stitch' and indexname like '%_by_%' order by 1"


def test_an_index_that_was_dropped_is_missed_by_no_run_and_comes_back(warehouse: Warehouse, database: str) -> None:
    warehouse.settle()
    before = in_database(database, NAMES_OF_INDEXES)
    assert {("page_views_by_anonymous_id",), ("raw_events_by_previous_id",)} <= set(before)
    in_database(database, *(f"drop index stitch.{name}" for (name,) in before))
    warehouse.land_events("jitsu/b.ndjson", LATER)
    warehouse.settle()
    assert credited(warehouse) == [(1, "ann"), (2, "ann"), (3, "bob"), (4, "bob")]
    assert in_database(database, NAMES_OF_INDEXES) == before


@pytest.mark.parametrize("comes", ["first", "later"])
def test_an_id_that_no_index_holds_is_stitched_without_one(comes: str, warehouse: Warehouse, database: str) -> None:
    device = "".join(md5(str(number).encode()).hexdigest() for number in range(200))  # hard to compress
    if comes == "later":
        warehouse.settle()
        assert in_database(database, NAMES_OF_INDEXES)
    warehouse.land_events(
        "jitsu/long.ndjson",
        [
            page_view("long1", "2026-03-02 12:00", anonymous_id=device),
            {**page_view("long2", "2026-03-03 12:00", anonymous_id=device, user_id="eve"), "event_type": "identify"},
            page_view("long\0", "2026-03-03 12:10", anonymous_id=device),
        ],
    )
    warehouse.settle()
    assert sorted(credited(warehouse)) == sorted([*CREDITED, (2, "eve"), (3, "eve")])
    assert in_database(database, NAMES_OF_INDEXES) == [("raw_events_by_id_hash",)]
    warehouse.land_events("jitsu/b.ndjson", LATER)
    warehouse.settle()
    assert (4, "bob") in credited(warehouse)


@pytest.mark.slow
def test_a_file_costs_no_look_at_events_of_other_days(warehouse: Warehouse, database: str) -> None:
    """Whether it is new, repeats stored events, is changed, or goes: the stored events of other days are not read."""
    events = [
        page_view(
            f"v{number}", f"2026-03-{number % 20 + 1:02} 12:00", anonymous_id=f"d{number % 3000}", page_url="u" * 99
        )
        for number in sorted(range(20000), key=lambda number: number % 20)
    ]
    warehouse.land_events("jitsu/many.ndjson", events)
    warehouse.settle()
    in_database(database, "vacuum analyze stitch.raw_events")
    read = "select seq_tup_read from pg_stat_user_tables where schemaname = 'stitch' and relname = 'raw_events'"
    copies = [{**event, "received_at": event["occurred_at"]} for event in events[:50]]
    added = [page_view(f"w{number}", "2026-03-21 12:00", anonymous_id=f"d{number}") for number in range(200)]
    # The copies were received, which the stored ones do not say: they take the others' places until they go.
    for rows, stored in (([*added, *copies], (50, 20154)), (added[:150], (0, 20154)), ([], (0, 20004))):
        ((before,),) = in_database(database, read)
        if rows:
            warehouse.land_events("jitsu/more.ndjson", rows)
        else:
            warehouse.take_away("jitsu/more.ndjson")
        warehouse.settle()
        ((after,),) = in_database(database, read)
        assert after - before < 1000
        assert in_database(
            database,
            "select count(*) filter (where event_id like 'v%' and landing_file like '%more%'), "
            "count(*) filter (where landing_file not like '%more%' or event_id not like 'v%') from stitch.raw_events",
        ) == [stored]
