"""What a sensor asks for: nothing twice, nothing lost, and not for ever."""

from datetime import date, timedelta

from stitch_pipeline.planning.days import DayRange
from stitch_pipeline.planning.requests import MAX_ATTEMPTS, Plan, RunState, plan_requests

DAY = date(2025, 1, 10)


def plan(
    stale: set[date], past: list[RunState] | None = None, covered: tuple[DayRange, ...] = (), state: str = "s1"
) -> Plan:
    return plan_requests(
        stale, kind="build", state=lambda days: state, covered=covered, past=lambda base_key: past or []
    )


def test_stale_days_become_one_request_per_range() -> None:
    stale = {DAY, DAY + timedelta(days=1), DAY + timedelta(days=5)}
    assert [str(request.days) for request in plan(stale).requests] == ["2025-01-10 to 2025-01-11", "2025-01-15"]


def test_a_thousand_scattered_stale_days_become_few_ranges() -> None:
    stale = {DAY + timedelta(days=n) for n in range(1003) if n not in (300, 301, 700)}
    assert len(plan(stale).requests) == 3


def test_the_same_state_is_not_asked_for_while_its_run_is_on_the_way() -> None:
    assert plan({DAY}, past=["waiting"]).requests == ()
    assert plan({DAY}, past=["failed", "running"]).requests == ()


def test_a_failed_request_is_made_again_under_a_new_key() -> None:
    first, second = plan({DAY}).requests[0], plan({DAY}, past=["failed"]).requests[0]
    assert first.base_key == second.base_key
    assert first.run_key != second.run_key


def test_a_request_that_keeps_failing_is_given_up_and_reported() -> None:
    given_up = plan({DAY}, past=["failed"] * MAX_ATTEMPTS)
    assert given_up.requests == ()
    assert given_up.gave_up == (DayRange(DAY, DAY),)


def test_a_new_state_is_a_new_request() -> None:
    assert plan({DAY}, state="s2").requests[0].run_key != plan({DAY}, state="s1").requests[0].run_key


def test_days_that_an_unfinished_run_covers_are_left_to_it() -> None:
    stale = {DAY + timedelta(days=n) for n in range(4)}
    covered = (DayRange(DAY + timedelta(days=1), DAY + timedelta(days=2)),)
    assert [str(request.days) for request in plan(stale, covered=covered).requests] == ["2025-01-10", "2025-01-13"]
