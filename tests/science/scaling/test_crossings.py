"""When a target counts as reached."""

import math

import pytest

from batchlab.science.scaling.crossings import reaches


@pytest.mark.parametrize(
    ("value", "higher_is_better", "reached"),
    [
        (0.9, True, True),
        (0.91, True, True),
        (0.89, True, False),
        (0.9, False, True),
        (0.89, False, True),
        (0.91, False, False),
        (math.inf, True, True),
        (math.inf, False, False),
        (-math.inf, False, True),
    ],
)
def test_a_target_is_reached_at_its_value_or_beyond(value: float, higher_is_better: bool, reached: bool) -> None:
    assert reaches(value, 0.9, higher_is_better=higher_is_better) is reached


@pytest.mark.parametrize("higher_is_better", [True, False])
def test_a_nan_never_reaches_anything(higher_is_better: bool) -> None:
    assert not reaches(math.nan, 0.9, higher_is_better=higher_is_better)
