"""Killed at any moment, in whatever it did: a plain ``settle`` then gives what an undisturbed build gives.

By default a few kills per scenario. ``KILLS=600`` spreads 600 over the scenarios, and a fifth of them at random
times instead of points; it takes about an hour.
"""

from __future__ import annotations

import os
import pickle
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from engines import of_duckdb
from kills import (
    HISTORIES,
    SCENARIOS,
    ForkServer,
    build_from_nothing,
    prepare,
    run_what_is_killed,
    settle_plainly_twice,
)
from warehouses import Row, differences

pytestmark = [pytest.mark.slow, pytest.mark.long, of_duckdb("the copies that are killed are files")]

KILLS = int(os.environ.get("KILLS", "25"))
SEED = int(os.environ.get("KILLS_SEED", "1"))
# In memory, where SQLite does not wait for a disk: what a killed process has written is there all the same.
IN_MEMORY = Path("/dev/shm")


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    server = ForkServer()
    yield server
    server.close()


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    if not IN_MEMORY.is_dir():
        yield tmp_path
        return
    with TemporaryDirectory(dir=IN_MEMORY, prefix="stitch-kills-") as found:
        yield Path(found)


def sampled(points: list[str], count: int, random: Random) -> list[int]:
    """``count`` of the points, counted from 1: of each kind as evenly as the numbers of a kind allow."""
    by_kind: dict[str, list[int]] = {}
    for number, point in enumerate(points, start=1):
        by_kind.setdefault(point, []).append(number)
    for numbers in by_kind.values():
        random.shuffle(numbers)
    # Kind by kind, over and over. The kinds in a random order, because there may be fewer kills than kinds.
    kinds = sorted(by_kind)
    random.shuffle(kinds)
    found: list[int] = []
    while len(found) < min(count, len(points)):
        for kind in kinds:
            if by_kind[kind] and len(found) < count:
                found.append(by_kind[kind].pop())
    return found


def is_as(actual: dict[str, list[Row]], expected: dict[str, list[Row]]) -> dict[str, Any]:
    """The numbers of differing rows by table, with one example of each; empty if all is equal."""
    return {
        table: {kind: (len(rows), rows[0]) for kind, rows in found.items()}
        for table, rows in expected.items()
        if actual[table] != rows and (found := differences(actual[table], rows))
    }


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_killed_at_any_moment_a_plain_settle_completes_it(scenario: str, directory: Path, server: ForkServer) -> None:
    prepared = directory / "prepared"
    found = server.run(prepare, prepared, scenario)
    assert found.error is None, found.error
    fresh = server.run(build_from_nothing, directory / "fresh", scenario)
    assert fresh.error is None, fresh.error
    expected = {name: rows for name, rows in contents_of(directory / "fresh").items() if name not in HISTORIES}

    undisturbed = directory / "undisturbed"
    shutil.copytree(prepared, undisturbed)
    run = server.run(run_what_is_killed, undisturbed, scenario)
    assert run.error is None, run.error
    settled = server.run(settle_plainly_twice, undisturbed, scenario)
    assert settled.error is None, settled.error
    lived = contents_of(undisturbed)
    assert not is_as(lived, expected), "the scenario itself does not give what a build from nothing gives"
    # The histories tell what was known when, so they are those of the same changes, and not of a build from nothing.
    expected = {**expected, **{table: lived[table] for table in HISTORIES}}

    random = Random(f"{SEED} {scenario}")
    position = list(SCENARIOS).index(scenario)
    count = KILLS * (position + 1) // len(SCENARIOS) - KILLS * position // len(SCENARIOS)
    at_random = count // 5
    kills: list[dict[str, Any]] = [{"kill_at": n} for n in sampled(run.points, count - at_random, random)]
    kills += [{"kill_after": random.uniform(0, run.seconds)} for _ in range(at_random)]
    failures = Failures()
    killed = Counter[bool]()
    for kill in kills:
        point = run.points[kill["kill_at"] - 1] if "kill_at" in kill else "a random moment"
        copy = directory / "copy"
        shutil.copytree(prepared, copy)
        ended = server.run(run_what_is_killed, copy, scenario, **kill)
        killed[ended.was_killed] += 1
        if ended.error is not None:
            failures.append(f"{kill} ({point}), before the kill: {ended.error}")
        settled = server.run(settle_plainly_twice, copy, scenario)
        if settled.error is not None:
            failures.append(f"{kill} ({point}): {settled.error}")
        elif wrong := is_as(contents_of(copy), expected):
            failures.append(f"{kill} ({point}): {wrong}")
        shutil.rmtree(copy)
        print(f"{scenario}: {kill} ({point}) {len(failures)} failures", flush=True)
    print(f"\n{scenario}: {len(run.points)} points, {killed[True]} kills, {killed[False]} ended before")
    assert not failures, f"{len(failures)} of {len(kills)}:\n" + "\n".join(failures)
    assert killed[True] >= 0.9 * (count - at_random)


class Failures(list[str]):
    """Prints a failure at once, because the next kills take a while."""

    def append(self, failure: str) -> None:
        print(failure, flush=True)
        super().append(failure)


def contents_of(directory: Path) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = pickle.loads(directory.with_suffix(".contents").read_bytes())
    return found
