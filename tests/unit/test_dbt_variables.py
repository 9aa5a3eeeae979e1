"""How a long window is cut into the steps that the models take."""

from datetime import date

import pytest

from stitch_pipeline.planning.days import DayRange
from stitch_pipeline.planning.dbt_variables import days_per_step

TEN_DAYS = DayRange(date(2026, 3, 1), date(2026, 3, 10))


@pytest.mark.parametrize(
    ("events", "days"),
    [
        (0, 10),  # nothing to divide
        (1_000, 10),
        (2_000, 5),
        (3_000, 3),
        (10_000, 1),
        (1_000_000, 1),  # a day is the least
    ],
)
def test_a_step_has_about_so_many_events(events: int, days: int) -> None:
    assert days_per_step(TEN_DAYS, events, events_per_step=1_000) == days
