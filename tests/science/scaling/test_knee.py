"""The throughput knee: the smallest size within 10% of the best, with the uncertainty of the speeds."""

import pytest

from batchlab.science.scaling.knee import throughput_knee
from batchlab.science.statistics.uncertainty import Interval


def speeds(*known: tuple[int, float, float]) -> dict[int, Interval]:
    """Sizes with their speed and the half width of its interval."""
    return {size: Interval(speed, speed - half, speed + half, 7) for size, speed, half in known}


def test_the_knee_is_the_first_within_a_tenth_of_the_best_not_the_best():
    knee = throughput_knee(speeds((1, 100, 0), (8, 500, 0), (16, 899, 0), (32, 900, 0), (64, 1000, 0), (128, 950, 0)))

    assert (knee.size, knee.low, knee.high) == (32, 32, 32)
    assert (knee.best_size, knee.best_speed) == (64, 1000)


def test_uncertain_speeds_leave_the_knee_between_two_sizes():
    knee = throughput_knee(speeds((8, 500, 10), (16, 880, 10), (32, 910, 40), (64, 1000, 20)))

    # 16 may just reach 0.9 x 980; 32 may miss 0.9 x 1020, and 64 certainly reaches it.
    assert (knee.low, knee.size, knee.high) == (16, 32, 64)


def test_a_very_uncertain_best_speed_leaves_the_upper_end_open():
    assert throughput_knee(speeds((8, 500, 10), (16, 1000, 300))).high is None


def test_speeds_without_intervals_give_a_knee_without_one():
    knee = throughput_knee({8: Interval(500, None, None, 2), 16: Interval(520, None, None, 2)})

    assert (knee.size, knee.low, knee.high) == (8, None, None)


def test_nothing_measured_is_no_knee():
    with pytest.raises(ValueError, match="no speed was measured"):
        throughput_knee({})
