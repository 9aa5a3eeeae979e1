"""One damaged file never stops the others, nor loses or invents a row: random damage, with good files beside it.

``FUZZ_SECONDS`` is how long the slow test goes on (a minute if unset); ``FUZZ_SEED`` gives other
damage.
"""

from __future__ import annotations

import os
import random
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from engines import engine_settings
from fuzzed_files import RECORDED, FuzzedFile, fuzzed_file, printable

from stitch_pipeline.landing.index import LandingIndex
from stitch_pipeline.landing.parser import Parser
from stitch_pipeline.landing.zone import landed_files, reading_rules
from stitch_pipeline.settings import Settings
from stitch_pipeline.stitching import load as loading
from stitch_pipeline.warehouse.engine import engine_of
from stitch_pipeline.warehouse.tables import create_tables

SECONDS = float(os.environ.get("FUZZ_SECONDS", "60"))
SEED = os.environ.get("FUZZ_SEED", "1")
FILES_AT_ONCE = 20
START = date(2026, 3, 1)
GOOD = {
    "jitsu": ("jitsu.ndjson", "jitsu_single_table.ndjson", "jitsu_single_table.csv"),
    "segment": ("segment.ndjson", "segment_pages.csv", "segment_identifies.csv"),
    "rudderstack": ("rudderstack.ndjson", "rudderstack_tracks.csv"),
    "snowplow": ("snowplow_enriched.tsv", "snowplow_events.csv", "snowplow_events.ndjson", "snowplow_events.parquet"),
    "millimetric": ("millimetric.ndjson",),
    "umami": ("umami_website_event.csv", "umami_website_event.parquet"),
    "ga4": ("ga4.ndjson", "ga4.parquet"),
    "posthog": ("posthog.jsonl", "posthog.parquet", "posthog_postgres.csv"),
}
LOOKUPS = {"umami": ("umami_session.csv", "umami_identity_link.csv", "umami_session.parquet")}


class Deployment:
    """A landing zone and a warehouse, loaded as the landing assets do it, without Dagster."""

    def __init__(self, directory: Path) -> None:
        self.landing = directory / "landing"
        self.landing.mkdir(parents=True)
        (directory / "stitch.toml").touch()
        self.settings = Settings.load(
            max_vanished_share=1,  # many files are taken away again
            landing_dir=self.landing,
            duckdb_path=directory / "warehouse.duckdb",
            project_file=directory / "stitch.toml",
            start_date=START,
            **engine_settings(),
        )
        self.index = LandingIndex(self.settings.index_path)

    def load(self) -> None:
        self.index.refresh(self.settings)
        with engine_of(self.settings).open() as warehouse, Parser() as parser:
            create_tables(warehouse)
            self.index.set_loaded(loading.loaded_files(warehouse))
            loading.load(
                warehouse,
                parser,
                self.index.pending(),
                landed_files(self.settings),
                reading_rules(self.settings),
                report=lambda text: None,
            )
            self.index.set_loaded(loading.loaded_files(warehouse))

    def rows(self, sql: str) -> list[tuple[object, ...]]:
        with engine_of(self.settings).open(read_only=True) as warehouse:
            return warehouse.rows(sql)


ACCOUNTS = """
select
  landing_file, row_count, problem is not null as has_problem,
  coalesce(events, 0) as events, coalesce(duplicates, 0) as duplicates, coalesce(quarantined, 0) as quarantined,
  coalesce(whole, 0) as whole
from stitch.landing_files
left join (select landing_file, count(*) as events from stitch.raw_events group by 1) using (landing_file)
left join (select landing_file, count(*) as duplicates from stitch.duplicate_events group by 1) using (landing_file)
left join (
  select landing_file, count(line) as quarantined, count(*) - count(line) as whole
  from stitch.quarantined_events group by 1
) using (landing_file)
"""


def check(deployment: Deployment, damaged: dict[str, FuzzedFile], good: dict[str, int]) -> None:
    """Every file is accounted for, and the good ones are loaded."""
    accounts = {str(row[0]): row[1:] for row in deployment.rows(ACCOUNTS)}
    assert set(accounts) == set(landed_files(deployment.settings))
    for name, (row_count, has_problem, events, duplicates, quarantined, whole) in accounts.items():
        assert row_count == events + duplicates + quarantined, (name, accounts[name])  # type: ignore[operator]
        assert bool(has_problem) == (whole == 1), (name, accounts[name])
        if name in good:
            assert (row_count, quarantined, whole) == (good[name], 0, 0), (name, accounts[name])
        elif name in damaged and (expected := damaged[name].lines) is not None and not has_problem:
            assert row_count == expected, (name, expected, accounts[name])
    vague = "problem is null or reason is null or remedy is null or field is null or quarantine_date is null"
    assert deployment.rows(f"select landing_file from stitch.quarantined_events where {vague}") == []
    ((events, distinct, first, last),) = deployment.rows(
        "select count(*), count(distinct (project_id, event_id)), min(event_date), max(event_date) "
        "from stitch.raw_events"
    )
    assert events == distinct
    assert first >= START  # type: ignore[operator]
    assert last <= datetime.now(UTC).date() + timedelta(days=1)  # type: ignore[operator]
    for table in ("raw_events", "duplicate_events", "quarantined_events"):
        deployment.rows(f"select * from stitch.{table}")  # every value is one that Python can read


def land_good(deployment: Deployment, feed: str) -> None:
    directory = deployment.landing / feed
    directory.mkdir(exist_ok=True)
    for name in (*GOOD[feed], *LOOKUPS.get(feed, ())):
        shutil.copyfile(RECORDED / name, directory / f"good_{name}" if name in GOOD[feed] else directory / name)


@pytest.fixture
def deployment(tmp_path: Path) -> Deployment:
    return Deployment(tmp_path)


def good_counts(deployment: Deployment) -> dict[str, int]:
    for feed in GOOD:
        land_good(deployment, feed)
    deployment.load()
    counts = {str(name): int(str(count)) for name, count, *_ in deployment.rows(ACCOUNTS) if "/good_" in str(name)}
    assert all(counts.values())
    return counts


def run_case(deployment: Deployment, good: dict[str, int], seed: str) -> list[FuzzedFile]:
    """Damaged files beside good ones of the same feed, all of them new."""
    dice = random.Random(seed)
    feed = dice.choice(list(GOOD))
    land_good(deployment, feed)
    damaged: dict[str, FuzzedFile] = {}
    paths: list[bytes] = []
    for number in range(FILES_AT_ONCE):
        recorded = RECORDED / dice.choice((*GOOD[feed], *LOOKUPS.get(feed, ())))
        file = fuzzed_file(f"{seed}/{number}", recorded)
        path = os.fsencode(deployment.landing / feed) + b"/" + file.name
        with suppress(FileExistsError):
            os.makedirs(os.path.dirname(path))
        with open(path, "wb") as written:
            written.write(file.content)
        os.utime(path, (file.modified, file.modified))
        damaged[os.fsencode(path)[len(os.fsencode(deployment.landing)) + 1 :].decode("utf-8", "backslashreplace")] = (
            file
        )
        paths.append(path)
    try:
        deployment.load()
        check(deployment, damaged, good)
    except Exception as error:
        told = [f"{printable(file.name)}: {file.story}" for file in damaged.values()]
        raise AssertionError(f"seed {seed!r}, feed {feed}: {told}") from error
    for path in paths:
        with suppress(FileNotFoundError):
            os.unlink(path)
        if b"/" in path[len(os.fsencode(deployment.landing / feed)) + 1 :]:
            with suppress(OSError):
                os.rmdir(os.path.dirname(path))
    return list(damaged.values())


def seeds(count: int | None = None) -> Iterator[str]:
    number = 0
    while count is None or number < count:
        number += 1
        yield f"{SEED}-{number}"


def test_some_damaged_files(deployment: Deployment) -> None:
    good = good_counts(deployment)
    for seed in seeds(5):
        run_case(deployment, good, seed)


@pytest.mark.slow
@pytest.mark.long
def test_damaged_files_for_minutes(deployment: Deployment) -> None:
    good = good_counts(deployment)
    until = time.monotonic() + SECONDS
    for seed in seeds():
        run_case(deployment, good, seed)
        if time.monotonic() > until:
            break
