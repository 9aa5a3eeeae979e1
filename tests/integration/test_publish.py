"""The published copy: what readers find while runs write, and after whatever happened to a run or to the files."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import duckdb
import pytest
from conftest import NewWarehouse
from engines import of_duckdb
from warehouses import REPOSITORY, START, Warehouse, ephemeral_warehouse, page_view

import stitch_pipeline
from stitch_pipeline.cli.main import main
from stitch_pipeline.orchestration.run_config import models_config
from stitch_pipeline.stitching.forget import Request, add_to_list
from stitch_pipeline.stitching.forget import forget as use_case
from stitch_pipeline.stitching.prove import prove
from stitch_pipeline.stitching.publish import DAY_COLUMNS, TABLES, VIEWS, publish, queue_what_differs
from stitch_pipeline.stitching.published import NotPublished
from stitch_pipeline.warehouse.engine import engine_of

pytestmark = of_duckdb("from PostgreSQL nothing is published")

FIRST_DAYS = [
    page_view("e1", "2026-03-01 12:00"),
    page_view("e2", "2026-03-02 12:00", referrer="https://a.example/?x=1"),
    page_view("e3", "2026-03-03 12:00", anonymous_id="b", user_id="bob", event_name="signup"),
    page_view("e4", "2026-03-04 12:00", anonymous_id="c"),
]
LOGIN = [page_view("l1", "2026-03-05 12:00", user_id="ann", traits={"email": "ann@example.com"})]
KILLED = """
import os, signal, sys
from stitch_pipeline.stitching import publish
from stitch_pipeline.cli.main import main

write, left = publish._Copy.write, int(sys.argv[1])

def write_and_die(*arguments):
    global left
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    left -= 1
    write(*arguments)

publish._Copy.write = write_and_die
main(["settle", "--view-stitching"])
"""


def copy_of(warehouse: Warehouse) -> Path:
    assert warehouse.settings.publishes_to is not None
    return warehouse.settings.publishes_to


def files_of(warehouse: Warehouse) -> dict[str, int]:
    """Each published file with its inode, which changes when the file is replaced."""
    root = copy_of(warehouse)
    return {str(path.relative_to(root)): path.stat().st_ino for path in root.rglob("*") if path.is_file()}


def replaced_since(warehouse: Warehouse, before: dict[str, int]) -> set[str]:
    return {name for name, inode in files_of(warehouse).items() if before.get(name) != inode} - {"published.json"}


def environment_of(warehouse: Warehouse, home: Path) -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": str(REPOSITORY),
        "DAGSTER_HOME": str(home),
        "STITCH_LANDING_DIR": str(warehouse.settings.landing_dir),
        "STITCH_DUCKDB_PATH": str(warehouse.settings.duckdb_path),
        "STITCH_PROJECT_FILE": str(warehouse.settings.project_file),
        "STITCH_START_DATE": str(START),
    }


@pytest.fixture(scope="module")
def settled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A deployment whose first days are settled and published, and a copy of it as it was."""
    directory = tmp_path_factory.mktemp("settled") / "deployment"
    with ephemeral_warehouse(directory, published_dir=None) as made:
        made.land_events("jitsu/a.ndjson", FIRST_DAYS)
        made.settle()
    return directory, Path(shutil.copytree(directory, directory.with_name("copy")))


@pytest.fixture
def warehouse(settled: tuple[Path, Path]) -> Iterator[Warehouse]:
    """The settled deployment, in its place again."""
    directory, copy = settled
    shutil.rmtree(directory)
    shutil.copytree(copy, directory)
    with ephemeral_warehouse(directory, published_dir=None) as made:
        yield made


@pytest.fixture(scope="module")
def reading(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warehouse]:
    """A published deployment that tests only read."""
    directory = tmp_path_factory.mktemp("reading")
    with ephemeral_warehouse(directory / "odd [name]*", published_dir=None) as made:
        made.land_events("jitsu/a.ndjson", FIRST_DAYS + LOGIN)
        made.land("jitsu/bad.ndjson", ["{}"])
        made.settle()
        yield made


def test_every_table_and_view_is_published_by_day(reading: Warehouse) -> None:
    reading.assert_is_published()
    assert reading.rows("stitched_events")
    assert reading.rows("quarantined_events")
    days = [f"2026-03-0{number}.parquet" for number in (1, 2, 3, 4, 5)]
    assert sorted(os.listdir(copy_of(reading) / "stitched_sessions")) == [*days, "_columns.parquet"]
    assert sorted(os.listdir(copy_of(reading) / "users")) == ["_columns.parquet", "all.parquet"]
    assert not (copy_of(reading) / ".writing").exists()


def test_columns_have_the_types_of_the_warehouse_also_without_a_row(reading: Warehouse) -> None:
    kinds = "select column_name, data_type from information_schema.columns where table_name = '{}' order by 1"
    assert not reading.rows("identifier_links")
    with duckdb.connect(str(copy_of(reading) / "views.duckdb"), read_only=True) as reader:
        for table in TABLES:
            found = dict(reader.execute(kinds.format(table)).fetchall())
            assert found == {row["column_name"]: row["data_type"] for row in reading.query(kinds.format(table))}
        assert reader.execute("select count(*) from stitch.identifier_links").fetchall() == [(0,)]


@pytest.mark.slow
def test_whoever_may_read_the_warehouse_may_read_the_copy(warehouse: Warehouse) -> None:
    shutil.rmtree(copy_of(warehouse))
    warehouse.directory.chmod(0o750)
    warehouse.settings.duckdb_path.chmod(0o640)
    warehouse.build(START)
    root = copy_of(warehouse)
    assert {path.stat().st_mode & 0o777 for path in (root, root / "users")} == {0o750}
    assert {path.stat().st_mode & 0o777 for path in root.rglob("*.parquet")} == {0o640}
    assert (root / "views.duckdb").stat().st_mode & 0o777 == 0o440


@pytest.mark.slow
def test_only_the_files_of_days_that_changed_are_replaced(warehouse: Warehouse) -> None:
    before = files_of(warehouse)
    warehouse.land_events("jitsu/login.ndjson", LOGIN)
    warehouse.settle()
    warehouse.assert_is_published()
    days = {"identity_map": {5}, "raw_events": {5}, "sessions": {5}, "stitched_sessions": {1, 2, 5}}
    replaced = replaced_since(warehouse, before)
    for table, numbers in days.items():
        expected = {f"{table}/2026-03-0{number}.parquet" for number in numbers}
        assert {name for name in replaced if name.startswith(f"{table}/")} == expected
    assert not {name for name in replaced if name.startswith(("views", "project_settings", "conversion_events"))}
    before = files_of(warehouse)
    warehouse.build(START)
    assert files_of(warehouse) == before, "a run that changes nothing publishes nothing"


def test_a_day_that_became_empty_keeps_a_file_without_rows(warehouse: Warehouse) -> None:
    warehouse.land_events("jitsu/a.ndjson", FIRST_DAYS[1:])
    warehouse.settle()
    warehouse.assert_is_published()
    assert len(stitch_pipeline.read("stitched_sessions", until="2026-03-01", directory=copy_of(warehouse))) == 0
    assert (copy_of(warehouse) / "stitched_sessions" / "2026-03-01.parquet").exists()


@pytest.mark.slow
def test_changed_rules_and_decisions_are_published(warehouse: Warehouse) -> None:
    warehouse.land_events("jitsu/login.ndjson", LOGIN)
    before = files_of(warehouse)
    warehouse.write_stitch_toml('[projects.shop]\npolicy = "first"\nconversion_events = ["signup", "other"]\n')
    warehouse.write_overrides(["shop,same_person,ann,bob,"])
    warehouse.settle()
    warehouse.assert_is_published()
    assert {"conversion_events/all.parquet", "decisions/all.parquet"} <= replaced_since(warehouse, before)


@pytest.mark.slow
def test_a_run_with_an_exception_publishes_what_it_stored(warehouse: Warehouse) -> None:
    warehouse.land_events("jitsu/login.ndjson", LOGIN)
    warehouse.build(START, date(2026, 3, 6), models_config(lookback_days=0))
    warehouse.assert_is_published()
    warehouse.settle(reconcile=True)
    warehouse.assert_is_published()
    assert {row["stitched_user_id"] for row in warehouse.published_rows("users")} == {"ann", "bob", "c"}


@pytest.mark.slow
def test_a_copy_that_cannot_be_written_fails_no_run_and_is_written_by_the_next(warehouse: Warehouse) -> None:
    """Nor after a run that was killed between its last commit and its first file, which leaves the same."""
    (warehouse.directory / "a file").write_text("")
    warehouse.load_settings(published_dir=warehouse.directory / "a file")
    warehouse.land_events("jitsu/login.ndjson", LOGIN)
    warehouse.settle()
    warehouse.load_settings(published_dir=None)
    assert len(warehouse.published_rows("raw_events")) == 4
    before = files_of(warehouse)
    warehouse.build(START)
    warehouse.assert_is_published()
    assert "raw_events/2026-03-04.parquet" not in replaced_since(warehouse, before)


@pytest.mark.slow
@pytest.mark.parametrize("files", [14, *(pytest.param(one, marks=pytest.mark.long) for one in (0, 3, 30))])
def test_a_publisher_that_is_killed_leaves_nothing_wrong_for_ever(
    files: int, new_warehouse: NewWarehouse, tmp_path: Path
) -> None:
    warehouse = new_warehouse(published_dir=None)
    warehouse.land_events("jitsu/a.ndjson", FIRST_DAYS)
    home = tmp_path / "home"
    shutil.copytree(REPOSITORY / "dagster_home", home, ignore=lambda directory, names: {*names} - {"dagster.yaml"})
    environment = environment_of(warehouse, home)
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(files)], env=environment, capture_output=True, timeout=120, check=False
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert (copy_of(warehouse) / ".writing").exists()
    subprocess.run(
        [sys.executable, "-m", "stitch_pipeline", "settle"], env=environment, check=True, timeout=120, cwd=REPOSITORY
    )
    warehouse.assert_is_published()
    assert not (copy_of(warehouse) / ".writing").exists()


@pytest.mark.slow
def test_lost_files_and_an_older_warehouse_are_published_anew(warehouse: Warehouse) -> None:
    warehouse.load_settings(max_vanished_share=1)
    path = warehouse.settings.duckdb_path
    older = path.with_suffix(".older")
    shutil.copy(path, older)
    warehouse.land_events("jitsu/login.ndjson", LOGIN)
    warehouse.land_events("jitsu/more.ndjson", [page_view("m", "2026-03-09 12:00", anonymous_id="m")])
    warehouse.settle()
    # An older copy of the warehouse, whose queue knows nothing of the newer files.
    older.replace(path)
    warehouse.take_away("jitsu/login.ndjson")
    warehouse.take_away("jitsu/more.ndjson")
    warehouse.build(START)
    assert len(warehouse.rows("raw_events")) == 4
    warehouse.assert_is_published()

    shutil.rmtree(copy_of(warehouse) / "sessions")
    (copy_of(warehouse) / "views.duckdb").unlink()
    warehouse.build(START)
    warehouse.assert_is_published(("sessions", "user_mapping"))

    # The nightly reconcile mends single files.
    (copy_of(warehouse) / "sessions" / "2026-03-02.parquet").unlink()
    (copy_of(warehouse) / "raw_events" / "2026-03-02.parquet").write_text("nonsense")
    (copy_of(warehouse) / "users" / "all.parquet").unlink()
    before = files_of(warehouse)
    warehouse.settle(reconcile=True)
    warehouse.assert_is_published(("sessions", "raw_events", "users"))
    mended = {"sessions/2026-03-02.parquet", "raw_events/2026-03-02.parquet", "users/all.parquet"}
    assert {name for name in replaced_since(warehouse, before) if name.endswith(".parquet")} == mended

    # A directory that is deleted, or another one.
    warehouse.load_settings(published_dir=warehouse.directory / "elsewhere")
    warehouse.build(START)
    warehouse.assert_is_published()


def test_the_reconcile_mends_every_file_and_ignores_those_of_others(warehouse: Warehouse) -> None:
    root = copy_of(warehouse)
    others = root / "users" / "2026-03-01.parquet", root / "raw_events" / "backup.parquet"
    for path in others:
        shutil.copy(root / "raw_events" / "2026-03-01.parquet", path)
    assert not warehouse.rows("decisions"), "a table without a row"
    mended = ("decisions/all.parquet", "sessions/_columns.parquet", "sessions/2026-03-01.parquet")
    for name in mended:
        (root / name).write_text("nonsense")
    with engine_of(warehouse.settings).open() as opened:
        queue_what_differs(opened, warehouse.settings)
        publish(opened, warehouse.settings)
    for path in others:
        path.unlink()
    warehouse.assert_is_published(("decisions", "sessions", "users", "raw_events"))


def test_a_directory_of_another_warehouse_is_left_alone(warehouse: Warehouse, new_warehouse: NewWarehouse) -> None:
    other = new_warehouse(published_dir=copy_of(warehouse))
    other.land_events("jitsu/other.ndjson", [page_view("o", "2026-03-02 12:00", anonymous_id="other")])
    before = files_of(warehouse)
    run = other.settle().runs[0]
    assert files_of(warehouse) == before
    logged = other.instance.all_logs(run.run_id)
    assert any("is the published copy of another warehouse" in (entry.user_message or "") for entry in logged)
    assert "give each a STITCH_PUBLISHED_DIR of its own" in " ".join(entry.user_message or "" for entry in logged)


def test_off_publishes_nothing(warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(copy_of(warehouse))
    warehouse.load_settings(published_dir="off")
    warehouse.build(START)
    assert not list(warehouse.directory.glob("*.published"))
    monkeypatch.setenv("STITCH_PUBLISHED_DIR", "off")
    with pytest.raises(NotPublished, match="'off'"):
        stitch_pipeline.read("users")


@pytest.mark.slow
def test_readers_neither_fail_nor_see_half_a_day(warehouse: Warehouse) -> None:
    """Readers hold the file of views open and query all the time, while rows of every day are replaced."""
    problems: list[str] = []
    seen: set[tuple[int, str]] = set()
    done = threading.Event()

    def look() -> None:
        with duckdb.connect(str(copy_of(warehouse) / "views.duckdb"), read_only=True) as connection:
            while not done.is_set():
                try:
                    for row in connection.execute(
                        "select count(*), string_agg(distinct user_id) from stitch.stitched_sessions "
                        "where session_date = '2026-03-07'"
                    ).fetchall():
                        seen.add(row)
                    connection.execute("select count(*) from stitch.user_devices").fetchall()
                    time.sleep(0.02)
                except duckdb.Error as error:
                    problems.append(str(error))

    reader = threading.Thread(target=look)
    reader.start()
    try:
        for user in ("ann", "bob"):
            warehouse.land_events(
                "jitsu/day.ndjson",
                [page_view(f"d{n}", "2026-03-07 12:00", anonymous_id=f"d{n}", user_id=user) for n in range(50)],
            )
            warehouse.settle()
            time.sleep(0.2)
    finally:
        done.set()
        reader.join()
    assert not problems
    # Without the file of the day, or with all of its rows.
    assert seen <= {(0, None), (50, "ann"), (50, "bob")}
    assert (50, "bob") in seen
    warehouse.assert_is_published()


@pytest.mark.slow
def test_a_forgotten_id_is_in_no_published_file(warehouse: Warehouse) -> None:
    warehouse.land_events("jitsu/login.ndjson", [page_view("l1", "2026-03-05 12:00", user_id="ann-7f3c")])
    warehouse.settle()
    # What a run leaves that dies while it writes.
    leftover = copy_of(warehouse) / ".writing" / "raw_events-2026-03-05.parquet"
    leftover.parent.mkdir()
    shutil.copy(copy_of(warehouse) / "raw_events" / "2026-03-05.parquet", leftover)
    request = Request("shop", "user", "ann-7f3c")
    add_to_list(warehouse.settings, request)
    with engine_of(warehouse.settings).open() as opened:
        use_case(opened, warehouse.settings, [request])
    certificate = prove(warehouse.settings, request, [])
    found = {Path(name).parent.name for name, _, hits in certificate.tables if hits}
    assert {".writing", "raw_events", "identity_map", "users", "page_views"} <= found
    assert not certificate.is_clean

    warehouse.settle()
    certificate = prove(warehouse.settings, request, [])
    assert certificate.is_clean, "\n".join(certificate.lines())
    searched = [name for name, _, _ in certificate.tables if name.endswith(".parquet")]
    assert len(searched) > len(DAY_COLUMNS)
    assert {str(file.path) for file in certificate.files} >= {*searched, str(copy_of(warehouse) / "views.duckdb")}
    warehouse.assert_is_published()

    # A copy that was left behind when publishing was switched off is searched too.
    shutil.copy(copy_of(warehouse) / "users" / "all.parquet", copy_of(warehouse) / "left.parquet")
    warehouse.load_settings(published_dir="off")
    assert any(name.endswith("left.parquet") for name, _, _ in prove(warehouse.settings, request, []).tables)


def test_a_copy_elsewhere_that_is_not_written_any_more_is_proven_too(warehouse: Warehouse) -> None:
    elsewhere = warehouse.directory / "elsewhere"
    warehouse.load_settings(published_dir=elsewhere)
    with engine_of(warehouse.settings).open() as opened:
        publish(opened, warehouse.settings)
    warehouse.load_settings(published_dir="off")
    request = Request("shop", "user", "bob")
    add_to_list(warehouse.settings, request)
    with engine_of(warehouse.settings).open() as opened:
        use_case(opened, warehouse.settings, [request])
    certificate = prove(warehouse.settings, request, [])
    assert str(elsewhere / "users" / "all.parquet") in {name for name, _, hits in certificate.tables if hits}


@pytest.mark.parametrize("by_path", [True, False])
def test_read_gives_the_rows_of_the_days(reading: Warehouse, by_path: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STITCH_DUCKDB_PATH", str(reading.settings.duckdb_path))
    where = copy_of(reading) if by_path else None
    frame = stitch_pipeline.read("stitched_sessions", since="2026-03-02", until=date(2026, 3, 4), directory=where)
    assert sorted(frame["stitched_user_id"]) == ["ann", "bob", "c"]
    assert str(frame["session_date"].dtype).startswith("datetime64")
    whole = stitch_pipeline.read("users", columns=["stitched_user_id", "event_count"], directory=where)
    assert whole.sort_values("stitched_user_id").to_dict("list") == {
        "stitched_user_id": ["ann", "bob", "c"],
        "event_count": [3, 1, 1],
    }
    assert len(stitch_pipeline.read("stitched_events", since="2026-03-04", directory=where)) == 2
    assert len(stitch_pipeline.read("user_mapping", directory=where)) == 3
    assert stitch_pipeline.read("identifier_links", since="2026-03-01", directory=where).columns[0] == "project_id"


def test_read_opens_only_the_files_of_the_days(warehouse: Warehouse) -> None:
    (copy_of(warehouse) / "raw_events" / "2026-03-01.parquet").write_text("nonsense")
    assert len(stitch_pipeline.read("raw_events", since="2026-03-02", directory=copy_of(warehouse))) == 3
    with pytest.raises(NotPublished, match=r"cannot be read.*2026-03-01\.parquet"):
        stitch_pipeline.read("raw_events", directory=copy_of(warehouse))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"table": "stiched_sessions"}, r"'stiched_sessions' is not published; did you mean 'stitched_sessions'\?"),
        ({"table": "users", "columns": ["user"]}, r"There is no column 'user'.* There are: project_id, "),
        ({"table": "users", "since": "2026-03-01"}, r"'users' is not by day: leave out since"),
        ({"table": "sessions", "since": "March"}, r"since='March' is not a day: write it as '2025-01-31'"),
    ],
)
def test_read_says_what_is_wrong(reading: Warehouse, arguments: dict[str, str], message: str) -> None:
    with pytest.raises(NotPublished, match=message):
        stitch_pipeline.read(**arguments, directory=copy_of(reading))


@pytest.fixture
def as_set(reading: Warehouse, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STITCH_DUCKDB_PATH", str(reading.settings.duckdb_path))


@pytest.mark.usefixtures("as_set")
def test_query_prints_a_table_json_or_csv(capsys: pytest.CaptureFixture[str]) -> None:
    sql = "select session_date, stitched_user_id, user_id, event_count from {} order by all limit 2"
    assert main(["query", sql.format("stitched_sessions")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["session_date", "stitched_user_id", "user_id", "event_count"]
    assert lines[1].split() == ["2026-03-01", "ann", "1"]
    assert lines[-1] == "2 rows"
    assert main(["query", "--json", sql.format("stitch.stitched_sessions")]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert rows[0] == {"session_date": "2026-03-01", "stitched_user_id": "ann", "user_id": None, "event_count": 1}
    assert main(["query", "--csv", sql.format("stitched_sessions")]) == 0
    assert capsys.readouterr().out == (
        "session_date,stitched_user_id,user_id,event_count\n2026-03-01,ann,,1\n2026-03-02,ann,,1\n"
    )
    assert main(["query", "--json", "select timestamp '2026-03-01 12:00:00' as at"]) == 0
    assert json.loads(capsys.readouterr().out) == [{"at": "2026-03-01T12:00:00"}], "as all JSON of the commands"
    assert main(["query", "--json", "select 1 from users where false"]) == 0
    assert capsys.readouterr().out == "[]\n"
    assert main(["query", "--limit", "1", "from users"]) == 0
    assert "1 row; there are more" in capsys.readouterr().out


@pytest.mark.usefixtures("as_set")
def test_query_prints_a_field_per_line_where_a_table_does_not_fit(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    assert main(["query", "select 'x' as short, null as nothing, '[b]' || repeat('y', 50) as long, 7 as n"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        *(" short    x", " nothing", f" long     [b]{'y' * 50}", " n        7", "1 row"),
    ]
    assert main(["query", "select i as n, repeat('y', 50) as long from range(2) as numbers(i)"]) == 0
    assert capsys.readouterr().out.splitlines()[3:5] == [" -- 2 --", " n     1"]


@pytest.mark.usefixtures("as_set")
def test_query_says_what_is_wrong(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert main(["query", "from landing_files"]) == 1
    error = capsys.readouterr().err
    assert "landing_files does not exist" in error
    assert "Published are: activity_without_device, conversion_events, decisions, device_pairs, " in error
    assert main(["query", "select usr from users"]) == 1
    assert 'Referenced column "usr" not found' in capsys.readouterr().err
    monkeypatch.setenv("STITCH_DUCKDB_PATH", str(tmp_path / "none.duckdb"))
    assert main(["query", "from users"]) == 1
    assert "Nothing is published in" in capsys.readouterr().err


def test_query_answers_while_a_run_writes(warehouse: Warehouse, tmp_path: Path) -> None:
    """Another process has the warehouse open for writing, as a run has, and the file of views as well."""
    environment = environment_of(warehouse, tmp_path / "home")
    hold = "import sys; from pathlib import Path; import duckdb; "
    hold += "c = [duckdb.connect(path) for path in sys.argv[1:]]; print('open', flush=True); sys.stdin.read()"
    paths = [str(warehouse.settings.duckdb_path), str(copy_of(warehouse) / "views.duckdb")]
    with subprocess.Popen(
        [sys.executable, "-c", hold, *(paths if os.access(paths[1], os.W_OK) else paths[:1])],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "open\n"
        answered = subprocess.run(
            [sys.executable, "-m", "stitch_pipeline", "query", "--csv", "select count(*) as n from stitched_events"],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        holder.communicate("")
    assert answered.stdout == "n\n4\n", answered.stderr


@pytest.mark.slow
def test_duckdb_1_2_opens_the_views(reading: Warehouse, tmp_path: Path) -> None:
    uv, python = Path(sys.executable).with_name("uv"), tmp_path / "venv" / "bin" / "python"
    subprocess.run([uv, "--quiet", "venv", "--python", sys.executable, tmp_path / "venv"], check=True, timeout=120)
    install = [str(uv), "--quiet", "pip", "install", "--python", str(python), "duckdb==1.2.0"]
    subprocess.run(install, check=True, timeout=300)
    relations = sorted((*TABLES, *VIEWS))
    program = (
        "import sys, duckdb; assert duckdb.__version__ == '1.2.0'; con = duckdb.connect(sys.argv[1], read_only=True)\n"
        "con.execute('set enable_progress_bar = false')\n"
        "for name in sys.argv[2:]: print(name, con.execute(f'select count(*) from stitch.{name}').fetchone()[0])"
    )
    counted = subprocess.run(
        [python, "-c", program, copy_of(reading) / "views.duckdb", *relations],
        check=True,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert counted.stdout.splitlines() == [f"{name} {len(reading.rows(name))}" for name in relations]


@pytest.mark.slow
def test_the_documented_sources_work_in_another_dbt_project(warehouse: Warehouse, tmp_path: Path) -> None:
    documented = re.findall(r"```yaml\n(.*?)```", (REPOSITORY / "docs" / "reading.md").read_text("utf-8"), re.DOTALL)
    files, profile, views = documented
    project = tmp_path / "project"
    (project / "models").mkdir(parents=True)
    (project / "models" / "files.yml").write_text(files)
    (project / "models" / "views.yml").write_text(views)
    (project / "profiles.yml").write_text(profile)
    (project / "dbt_project.yml").write_text("name: other\nversion: '1.0'\nprofile: other_project\n")
    (project / "models" / "people.sql").write_text(
        "{{ config(materialized='table') }} select users.stitched_user_id, users.event_count, mapping.anonymous_id "
        "from {{ source('stitch', 'users') }} as users "
        "inner join {{ source('stitch_views', 'user_mapping') }} as mapping using (project_id, stitched_user_id)"
    )
    ended = subprocess.run(
        [Path(sys.executable).with_name("dbt"), "--quiet", "build"],
        cwd=project,
        env={**os.environ, "DBT_PROFILES_DIR": str(project), "STITCH_PUBLISHED_DIR": str(copy_of(warehouse))},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout
    with duckdb.connect(str(project / "other.duckdb"), read_only=True) as built:
        found = built.execute("select * from people order by all").fetchall()
    assert found == [("a", 2, "a"), ("bob", 1, "b"), ("c", 1, "c")]
