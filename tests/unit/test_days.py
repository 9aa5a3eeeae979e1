"""Days join into the fewest ranges, and a changed day reaches exactly the partitions that read it."""

from datetime import date, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stitch_pipeline.planning.days import DayRange, days_to_rebuild, ranges, settled_by

FIRST, LAST = date(2025, 1, 1), date(2025, 12, 31)
days_of_2025 = st.sets(st.integers(0, 364).map(lambda n: FIRST + timedelta(days=n)), max_size=40)


@given(days_of_2025)
def test_ranges_hold_exactly_the_days_and_do_not_touch(days: set[date]) -> None:
    found = ranges(days)
    assert {day for each in found for day in each} == days
    for earlier, later in pairwise(found):
        assert (later.first - earlier.last).days > 1


def test_a_thousand_consecutive_days_are_one_range() -> None:
    days = [FIRST + timedelta(days=n) for n in range(1000)]
    assert ranges(days) == [DayRange(days[0], days[-1])]


def test_a_range_that_ends_before_it_starts_is_refused() -> None:
    with pytest.raises(ValueError, match="2025-01-02 to 2025-01-01"):
        DayRange(date(2025, 1, 2), date(2025, 1, 1))


def test_a_change_reaches_the_day_before_and_two_days_after() -> None:
    assert days_to_rebuild([date(2025, 3, 10)], FIRST, LAST) == {date(2025, 3, n) for n in (9, 10, 11, 12)}


def test_days_without_a_partition_are_not_rebuilt() -> None:
    assert days_to_rebuild([FIRST], FIRST, LAST) == {date(2025, 1, n) for n in (1, 2, 3)}
    assert days_to_rebuild([LAST], FIRST, LAST) == {date(2025, 12, 30), LAST}
    assert days_to_rebuild([LAST + timedelta(days=1)], FIRST, LAST) == {LAST}
    assert days_to_rebuild([LAST + timedelta(days=5)], FIRST, LAST) == set()


def test_a_change_is_settled_only_when_all_it_reaches_was_built() -> None:
    changed = [date(2025, 3, 10), date(2025, 3, 12)]
    assert settled_by(changed, DayRange(date(2025, 3, 9), date(2025, 3, 12)), FIRST, LAST) == {date(2025, 3, 10)}
    assert settled_by(changed, DayRange(date(2025, 3, 10), date(2025, 3, 12)), FIRST, LAST) == set()
    assert settled_by(changed, DayRange(date(2025, 3, 1), date(2025, 3, 31)), FIRST, LAST) == set(changed)


def test_a_change_of_a_day_to_come_is_not_settled_before_the_day_has_a_partition() -> None:
    tomorrow = LAST + timedelta(days=2)
    assert settled_by([tomorrow], DayRange(FIRST, LAST), FIRST, LAST) == set()
