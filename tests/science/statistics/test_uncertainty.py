"""The interval of a median, against SciPy's binomial and against samples whose median is known."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from batchlab.science.statistics.uncertainty import (
    Interval,
    bootstrap_interval,
    mean_interval,
    median_interval,
    t_interval,
)


def rank(n: int) -> int:
    """k: the interval runs from the k-th smallest to the k-th largest. 0: no 95% interval."""
    return max((k for k in range(n // 2 + 1) if 2 * stats.binom.cdf(k - 1, n, 0.5) <= 0.05), default=0)


@pytest.mark.parametrize("n", [*range(1, 61), 100, 1500])
def test_the_interval_runs_between_the_order_statistics_of_the_sign_test(n: int) -> None:
    values = np.random.default_rng(n).permutation(n).astype(float)  # the i-th smallest is i - 1

    interval = median_interval(values.tolist())

    k = rank(n)
    assert (interval.low, interval.high) == ((k - 1, n - k) if k else (None, None))
    assert interval.value == (n - 1) / 2
    assert interval.n == n


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_a_sample_under_six_has_a_median_and_no_interval(n: int) -> None:
    interval = median_interval([float(i) for i in range(n)])

    assert (interval.low, interval.high) == (None, None)
    assert interval.value == (n - 1) / 2


@pytest.mark.parametrize("n", [6, 9, 20, 51])
def test_the_interval_holds_the_true_median_with_exactly_its_coverage(n: int) -> None:
    draws = 4000
    samples = np.random.default_rng(7).exponential(size=(draws, n))  # skewed; its median is ln 2

    intervals = [median_interval(sample.tolist()) for sample in samples]

    held = np.mean([(i.low or 0.0) <= math.log(2) <= (i.high or 0.0) for i in intervals])
    exact = 1 - 2 * stats.binom.cdf(rank(n) - 1, n, 0.5)
    assert exact >= 0.95
    assert abs(held - exact) < 4 * math.sqrt(exact * (1 - exact) / draws)


@given(st.lists(st.floats(-1e300, 1e300), min_size=1, max_size=40))
def test_the_median_lies_in_its_interval(values: list[float]) -> None:
    interval = median_interval(values)

    if interval.low is not None and interval.high is not None:
        assert interval.low <= interval.value <= interval.high


def test_an_empty_sample_and_a_nan_have_no_median() -> None:
    with pytest.raises(ValueError, match="median"):
        median_interval([])
    with pytest.raises(ValueError, match="nan"):
        median_interval([1.0, math.nan, 2.0])


@pytest.mark.parametrize("n", [2, 3, 8, 30])
def test_the_t_interval_is_scipys(n: int) -> None:
    values = np.random.default_rng(n).normal(3, 2, size=n)

    interval = t_interval(values.tolist())

    low, high = stats.t.interval(0.95, n - 1, loc=values.mean(), scale=stats.sem(values))
    assert (interval.value, interval.low, interval.high) == pytest.approx((values.mean(), low, high), rel=1e-12)
    assert interval.n == n


def test_one_value_has_no_interval_and_a_nan_has_no_mean() -> None:
    assert t_interval([5.0]) == Interval(5.0, None, None, 1)
    with pytest.raises(ValueError, match="nan"):
        t_interval([1.0, math.nan])
    with pytest.raises(ValueError, match="mean"):
        t_interval([])


def test_the_bootstrap_interval_has_about_its_stated_coverage() -> None:
    rng, draws = np.random.default_rng(5), 600
    samples = rng.normal(size=(draws, 25))

    intervals = [bootstrap_interval(sample.tolist(), rng, resamples=1000) for sample in samples]

    held = np.mean([(i.low or 0.0) <= 0 <= (i.high or 0.0) for i in intervals])
    assert 0.90 < held < 0.97  # with 25 values the percentile bootstrap is slightly narrow: 93.5%
    assert np.mean([(i.high or 0) - (i.low or 0) for i in intervals]) == pytest.approx(2 * 1.96 / 5, rel=0.05)


def test_the_mean_of_few_values_has_students_interval_and_of_many_the_bootstrap() -> None:
    rng = np.random.default_rng(1)
    few, many = rng.normal(size=19).tolist(), rng.normal(size=20).tolist()

    assert mean_interval(few) == t_interval(few)
    assert mean_interval(many, np.random.default_rng(3)) == bootstrap_interval(many, np.random.default_rng(3))
    with pytest.raises(ValueError, match="the bootstrap interval of 20 values needs a generator"):
        mean_interval(many)


@pytest.mark.parametrize(
    ("low", "high", "overlaps"),
    [(1.0, 2.0, True), (2.0, 5.0, True), (2.5, 3.0, True), (4.0, 5.0, True), (0.0, 1.9, False), (4.1, 5.0, False)],
)
def test_intervals_overlap_where_some_number_lies_in_both(low: float, high: float, overlaps: bool) -> None:
    one, other = Interval(3.0, 2.0, 4.0, 5), Interval((low + high) / 2, low, high, 5)
    assert one.overlaps(other) is other.overlaps(one) is overlaps


def test_an_estimate_without_an_interval_is_distinguished_from_no_estimate() -> None:
    one, other = Interval(3.0, 2.0, 4.0, 5), Interval(100.0, None, None, 1)
    assert one.overlaps(other)
    assert other.overlaps(one)
