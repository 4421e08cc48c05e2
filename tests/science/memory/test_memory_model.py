"""The line through probes: exact for exact lines, uncertain by its scatter, and refused if it implies nothing."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchlab.science.memory.memory_model import Account, MemoryModel, fit

MIB = 2**20


@given(
    fixed=st.integers(0, 2**36),
    per_example=st.integers(1000, 2**30),
    sizes=st.lists(st.integers(1, 2**12), min_size=2, max_size=6, unique=True),
    largest=st.integers(1, 100_000),
)
def test_a_line_is_found_again_and_its_largest_size_is_the_last_within_the_limit(fixed, per_example, sizes, largest):
    model = fit(sizes, [fixed + per_example * size for size in sizes])
    limit = fixed + per_example * largest

    assert model.per_example == pytest.approx(per_example, rel=1e-6)
    assert model.largest(limit).size == largest
    assert model.largest(limit - per_example // 100).size == largest - 1


def test_two_small_probes_give_a_whole_number_that_is_not_one_off():
    model = fit([2, 16], [10 * MIB + 2 * 1000, 10 * MIB + 16 * 1000])

    assert model.largest(10 * MIB + 5000 * 1000).size == 5000
    assert model.largest(10 * MIB + 5000 * 1000 - 1).size == 4999


def test_two_probes_give_no_error_bars():
    model = fit([2, 16], [100.0, 240.0])

    assert model.scatter is None
    assert (model.largest(1000).low, model.largest(1000).high) == (None, None)


def test_the_fixed_part_may_already_be_too_much():
    assert fit([1, 2], [110, 120]).largest(99).size == 0
    assert fit([1, 2], [110, 120]).largest(110).size == 1


@pytest.mark.parametrize("peaks", [(300.0, 200.0, 100.0), (70.0, 70.0, 70.0)])
def test_memory_that_does_not_grow_predicts_nothing(peaks):
    with pytest.raises(ValueError, match="memory does not grow with the micro-batch"):
        fit([1, 2, 3], peaks).largest(1e9)


def test_one_size_is_not_a_line():
    with pytest.raises(ValueError, match=r"two sizes, not \[4\]"):
        fit([4, 4], [1.0, 2.0])


@pytest.mark.parametrize(("truth", "widest"), [(6000, 6000), (600, 400)])
def test_the_interval_holds_the_size_at_which_a_noisy_probe_meets_the_limit(truth, widest):
    """4,000 draws of five probes and of the probe at the limit: 95% of the intervals contain its size."""
    random = np.random.default_rng(20250301)
    sizes, fixed, per_example, noise = np.array([2, 16, 128, 512, 1024]), 50.0, 0.04, 2.0
    inside, widths = 0, []
    for _ in range(4000):
        peaks = fixed + per_example * sizes + noise * random.standard_normal(len(sizes))
        met = fixed + per_example * truth + noise * random.standard_normal()
        predicted = fit(sizes.tolist(), peaks.tolist()).largest(met)
        inside += predicted.low <= truth <= predicted.high
        widths.append(predicted.high - predicted.low)

    assert abs(inside / 4000 - 0.95) < 4 * math.sqrt(0.95 * 0.05 / 4000)
    assert np.median(widths) < widest  # otherwise an interval from 0 to infinity would pass


def test_a_slope_that_noise_could_have_made_leaves_the_upper_end_open():
    model = fit([1, 2, 3], [100.0, 90.0, 103.0])

    assert model.per_example > 0
    assert model.largest(1000).high == math.inf


def account(**changes: object) -> Account:
    values = {"weights": 100, "buffers": 10, "gradients": 100, "optimizer_state": 200, "data": 90}
    return Account(**{**values, "saved": fit([2, 4, 8], [70, 120, 220]), **changes})  # 20 + 25 per example


@pytest.mark.parametrize(("accumulate", "limit", "most"), [(1, 1420, 40), (1, 1419, 39), (4, 1520, 40), (4, 1519, 39)])
def test_the_count_bounds_the_micro_batch_with_gradients_where_they_are_held_in_the_forward_pass(
    accumulate, limit, most
):
    assert account().at_most(limit, accumulate=accumulate) == most
    assert account().at_least(most, accumulate=accumulate) <= limit
    assert account().at_least(most + 1, accumulate=accumulate) > limit


def test_a_model_that_saves_nothing_is_not_bounded_by_what_it_saves():
    assert account(saved=fit([2, 4], [0, 0])).at_most(1000) == math.inf
    assert account(saved=fit([2, 4], [0, 0])).at_most(399) == 0


def test_probes_off_a_line_are_detected():
    squared = MemoryModel.largest(fit([2, 4, 8], [4.0, 16.0, 64.0]), 1000)

    assert squared.high is not None
    assert squared.low is not None
    assert squared.high - squared.low > squared.size
