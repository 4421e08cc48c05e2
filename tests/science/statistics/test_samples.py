"""Estimates from samples, against scipy, pandas, and simulations with a known truth."""

import math

import numpy as np
import pytest
from scipy import stats

from batchlab.science.statistics.samples import (
    difference,
    positive_mean,
    sample_mean,
    sample_share,
    smallest_share,
    tail_mean,
)
from batchlab.science.statistics.uncertainty import Interval

DRAWS = 2000


def coverage(intervals, truth):
    """The share of intervals that contain `truth`; the standard error of a true 95% is 0.005."""
    return float(np.mean([interval.low <= truth <= interval.high for interval in intervals]))


# means


def test_a_mean_has_scipys_t_interval():
    values = np.random.default_rng(0).normal(3.0, 2.0, 17)

    seen = sample_mean(values)

    expected = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert (seen.value, seen.n) == (pytest.approx(values.mean()), 17)
    assert (seen.low, seen.high) == pytest.approx((expected.low, expected.high))


def test_tokens_of_one_example_go_together():
    # All tokens of an example are equal: for 400 examples of 1 to 20 tokens a t interval over tokens would be 3 times
    # too narrow.
    rng = np.random.default_rng(1)
    seen = []
    for _ in range(DRAWS):
        counts = rng.integers(1, 21, 400)
        seen.append(sample_mean(rng.normal(1.0, 1.0, 400) * counts, counts))

    assert coverage(seen, 1.0) == pytest.approx(0.95, abs=0.02)
    assert np.mean([s.high - s.low for s in seen]) < 0.25


def test_a_mean_of_ragged_examples_is_that_of_their_terms():
    assert sample_mean([3.0, 5.0], [3, 1]).value == 2.0


def test_examples_that_differ_only_in_length_add_no_uncertainty():
    assert sample_mean([2.0, 6.0, 14.0], [1, 3, 7]) == Interval(2.0, 2.0, 2.0, 3)


@pytest.mark.parametrize("n", [50, 190])
def test_a_sample_of_a_finite_set_has_a_narrower_interval(n):
    rng = np.random.default_rng(2)
    everybody = rng.normal(0.0, 1.0, 200)
    seen = [sample_mean(rng.choice(everybody, n, replace=False), population=200) for _ in range(DRAWS)]

    assert coverage(seen, everybody.mean()) == pytest.approx(0.95, abs=0.02)


def test_a_whole_finite_set_has_a_point_as_interval():
    seen = sample_mean([1.0, 2.0, 6.0], population=3)

    assert (seen.value, seen.low, seen.high, seen.n) == (3.0, 3.0, 3.0, 3)
    assert sample_share(2, 4, population=4) == Interval(0.5, 0.5, 0.5, 4)


def test_one_value_and_values_that_are_not_finite_have_no_interval():
    assert sample_mean([2.0]) == Interval(2.0, None, None, 1)
    for values in ([1.0, math.inf], [1.0, math.nan]):
        for interval in (sample_mean(values), positive_mean(values), tail_mean(values, 1.0)):
            assert not math.isfinite(interval.value)
            assert (interval.low, interval.high) == (None, None)


# means of skewed values


@pytest.mark.parametrize(
    ("power", "n", "at_least"), [("exponential", 10, 0.93), ("exponential", 100, 0.94), ("chi-squared", 10, 0.90)]
)
def test_the_mean_of_skewed_values_is_held_and_never_below_0(power, n, at_least):
    rng = np.random.default_rng(3)
    draw = {"exponential": lambda: rng.exponential(5.0, n), "chi-squared": lambda: 5 * rng.normal(size=n) ** 2}[power]
    seen = [positive_mean(draw()) for _ in range(DRAWS)]

    assert at_least <= coverage(seen, 5.0) <= 0.97
    assert all(interval.low > 0 for interval in seen)
    assert np.median([interval.high / interval.low for interval in seen]) < (1.6 if n == 100 else 8.0)


def test_values_that_are_all_0_have_a_certain_mean_of_0():
    assert positive_mean([0.0] * 10) == Interval(0.0, 0.0, 0.0, 10)


# shares


@pytest.mark.parametrize(("hits", "n"), [(0, 12), (12, 12), (5, 12), (350, 360)])
def test_a_share_has_scipys_exact_interval(hits, n):
    seen = sample_share(hits, n)

    expected = stats.binomtest(hits, n).proportion_ci(0.95, method="exact")
    assert (seen.value, seen.n) == (hits / n, n)
    assert (seen.low, seen.high) == pytest.approx((expected.low, expected.high))


def test_the_smallest_of_equal_shares_is_held_though_it_was_picked():
    rng = np.random.default_rng(4)
    totals = np.full(10, 36)
    hits = [rng.binomial(totals, 0.9) for _ in range(DRAWS)]

    assert coverage([smallest_share(h, totals) for h in hits], 0.9) >= 0.95
    alone = coverage([sample_share(int(h.min()), 36) for h in hits], 0.9)
    assert alone == pytest.approx(0.81, abs=0.03)  # so it cannot be the interval of that class
    assert np.mean([s.high - s.low for s in (smallest_share(h, totals) for h in hits)]) < 0.4


def test_the_smallest_share_has_its_own_total():
    seen = smallest_share([9, 3, 40], [10, 4, 41])

    assert (seen.value, seen.n) == (0.75, 4)


def test_a_large_class_bounds_the_smallest_share_from_above_though_a_tiny_one_looks_worse():
    seen = smallest_share([0, 10], [2, 100])

    assert (seen.value, seen.n, seen.low) == (0.0, 2, 0.0)
    assert seen.high == pytest.approx(stats.binomtest(10, 100).proportion_ci(0.975, method="exact").high)


# differences


def test_the_difference_of_two_shares_is_held_even_near_1():
    rng = np.random.default_rng(5)
    seen = [
        difference(sample_share(int(a), 360), sample_share(int(b), 360))
        for a, b in zip(rng.binomial(360, 0.995, DRAWS), rng.binomial(360, 0.96, DRAWS), strict=True)
    ]

    assert 0.95 <= coverage(seen, 0.995 - 0.96) <= 0.995
    assert np.mean([s.high - s.low for s in seen]) < 0.07


def test_the_difference_of_two_means_is_held():
    rng = np.random.default_rng(6)
    seen = [
        difference(sample_mean(rng.normal(2.0, 3.0, 80)), sample_mean(rng.normal(0.5, 1.0, 40))) for _ in range(DRAWS)
    ]

    assert coverage(seen, 1.5) == pytest.approx(0.95, abs=0.02)
    assert {s.n for s in seen} == {40}


def test_each_end_of_a_difference_has_the_arms_that_face_it():
    seen = difference(Interval(5.0, 4.0, 7.0, 9), Interval(2.0, 1.0, 6.0, 8))

    assert (seen.value, seen.n) == (3.0, 8)
    assert seen.low == pytest.approx(3 - math.hypot(1, 4))
    assert seen.high == pytest.approx(3 + math.hypot(2, 1))


def test_a_difference_with_a_side_without_interval_has_none():
    assert difference(Interval(3.0, None, None, 1), Interval(1.0, 0.5, 1.5, 9)) == Interval(2.0, None, None, 1)


# tails


def test_the_tail_of_twenty_values_by_hand():
    values = [0.1] * 18 + [3.0, 5.0]

    assert tail_mean(values[::-1], 0.1).value == 4.0
    assert tail_mean(values, 0.1).n == 2
    assert tail_mean([1.0, 7.0, 2.0], 0.1) == Interval(
        7.0, None, None, 1
    )  # a tenth of three is less than one: the largest


def test_the_whole_is_a_tail_whose_mean_has_the_t_interval():
    values = np.random.default_rng(7).exponential(1.0, 30)

    whole, mean = tail_mean(values, 1.0), sample_mean(values)
    assert (whole.value, whole.low, whole.high) == pytest.approx((mean.value, mean.low, mean.high))


def test_the_tail_of_exponential_values_is_held():
    # The exponential distribution is memoryless: its mean beyond the 0.9 quantile, log 10, is log 10 + 1.
    rng = np.random.default_rng(8)
    seen = [tail_mean(rng.exponential(1.0, 360), 0.1) for _ in range(DRAWS)]

    assert coverage(seen, math.log(10) + 1) == pytest.approx(0.95, abs=0.03)
    assert np.mean([s.high - s.low for s in seen]) < 1.2
