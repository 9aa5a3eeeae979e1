"""What a trigger requests: nothing twice, nothing lost, after a failure with growing pauses, and never for ever."""

from datetime import UTC, date, datetime, timedelta

from stitch_pipeline.planning.days import DayRange
from stitch_pipeline.planning.requests import MAX_ATTEMPTS, PastRun, Patience, Plan, RunState, plan_requests

DAY = date(2025, 1, 10)
NOW = datetime(2025, 1, 11, 12, tzinfo=UTC)
DAYS = DayRange(DAY, DAY)
ALWAYS = datetime(1, 1, 1, tzinfo=UTC)


def run(
    state: RunState, ended_seconds_ago: float = 0, key: str = "build:2025-01-10:2025-01-10:s1", **other: bool
) -> PastRun:
    ended_at = NOW - timedelta(seconds=ended_seconds_ago)
    return PastRun(f"{state} {ended_at}", key, DAYS, state, ended_at, **other)


def plan(
    stale: set[date],
    past: list[PastRun] | None = None,
    covered: tuple[DayRange, ...] = (),
    state: str = "s1",
    now: datetime = NOW,
    since: datetime = ALWAYS,
    gives_up: bool = False,
) -> Plan:
    return plan_requests(
        stale,
        kind="build",
        state=lambda days: state,
        covered=covered,
        past=past or [],
        patience=Patience(since, gives_up),
        now=now,
    )


def test_stale_days_become_one_request_per_range() -> None:
    stale = {DAY, DAY + timedelta(days=1), DAY + timedelta(days=5)}
    assert [str(request.days) for request in plan(stale).requests] == ["2025-01-10 to 2025-01-11", "2025-01-15"]


def test_a_thousand_scattered_stale_days_become_few_ranges() -> None:
    stale = {DAY + timedelta(days=n) for n in range(1003) if n not in (300, 301, 700)}
    assert len(plan(stale).requests) == 3


def test_the_same_state_is_not_asked_for_while_its_run_is_on_the_way() -> None:
    assert plan({DAY}, past=[run("waiting")]) == Plan()
    assert plan({DAY}, past=[run("running"), run("failed")]) == Plan()


def test_a_failed_request_is_made_again_under_a_new_key() -> None:
    first, second = plan({DAY}).requests[0], plan({DAY}, past=[run("failed", 60)]).requests[0]
    assert first.base_key == second.base_key
    assert first.run_key != second.run_key


def test_pauses_grow_with_failures_in_a_row_and_have_an_end() -> None:
    for failures, seconds in ((1, 10), (2, 20), (3, 40), (4, 80), (7, 640), (8, 900), (90, 900)):
        past = [run("failed", ago) for ago in range(failures)]
        (paused,) = plan({DAY}, past=past).paused
        assert paused.until == NOW + timedelta(seconds=seconds)
        assert paused.failures == failures
        assert paused.needs_a_person == (failures >= MAX_ATTEMPTS)
        assert len(plan({DAY}, past=past, now=paused.until).requests) == 1


def test_a_success_forgets_the_failures_before_it() -> None:
    past = [run("failed"), run("succeeded", 60, key="another"), *[run("failed", 120)] * 5]
    assert [paused.failures for paused in plan({DAY}, past=past).paused] == [1]


def test_a_run_that_succeeds_and_changes_nothing_counts_as_failed() -> None:
    assert [paused.failures for paused in plan({DAY}, past=[run("succeeded"), run("succeeded", 60)]).paused] == [2]


def test_failures_on_other_days_do_not_count() -> None:
    other = PastRun("other", "k", DayRange(DAY + timedelta(days=1), DAY + timedelta(days=9)), "failed", NOW)
    assert len(plan({DAY}, past=[other]).requests) == 1
    touching = PastRun("other", "k", DayRange(DAY - timedelta(days=3), DAY), "failed", NOW)
    assert len(plan({DAY}, past=[touching]).paused) == 1


def test_a_busy_warehouse_is_not_a_failure() -> None:
    busy = [run("failed", ago, found_warehouse_busy=True) for ago in (0, 60, 120, 180)]
    (paused,) = plan({DAY}, past=busy).paused
    assert (paused.failures, paused.needs_a_person) == (0, False)
    assert paused.until == NOW + timedelta(seconds=10)
    (paused,) = plan({DAY}, past=[*busy, run("failed", 240)]).paused
    assert (paused.failures, paused.until) == (1, NOW + timedelta(seconds=10))


def test_retry_forgets_the_failures_before_it() -> None:
    assert len(plan({DAY}, past=[run("failed", 1)] * 9, since=NOW).requests) == 1


def test_settle_retries_at_once_and_gives_up() -> None:
    for failures in range(MAX_ATTEMPTS):
        assert len(plan({DAY}, past=[run("failed")] * failures, gives_up=True).requests) == 1
    given_up = plan({DAY}, past=[run("failed", found_warehouse_busy=True)] * MAX_ATTEMPTS, gives_up=True)
    assert given_up.requests == ()
    assert [(paused.request.days, paused.until) for paused in given_up.paused] == [(DAYS, None)]


def test_a_new_state_is_a_new_request() -> None:
    assert plan({DAY}, state="s2").requests[0].run_key != plan({DAY}, state="s1").requests[0].run_key


def test_days_that_an_unfinished_run_covers_are_left_to_it() -> None:
    stale = {DAY + timedelta(days=n) for n in range(4)}
    covered = (DayRange(DAY + timedelta(days=1), DAY + timedelta(days=2)),)
    assert [str(request.days) for request in plan(stale, covered=covered).requests] == ["2025-01-10", "2025-01-13"]
