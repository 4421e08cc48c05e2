"""Effects over seeds against SciPy's tests, against lines whose slope is known, and shares without an effect."""

import math

import numpy as np
import pytest
from scipy import stats

from batchlab.science.statistics.effects import (
    against,
    counted,
    interval_effect,
    paired_effect,
    share_effect,
    slopes,
)
from batchlab.science.statistics.uncertainty import Interval, t_test
from batchlab.science.statistics.verdicts import Effect, Verdict, judge


@pytest.mark.parametrize("n", [2, 3, 8, 19])
def test_the_effect_of_paired_seeds_is_scipys_paired_t_test(n):
    rng = np.random.default_rng(n)
    small, large = rng.normal(1, 1, n), rng.normal(0, 1, n)

    effect = paired_effect(small - large, margin=0.25)

    theirs = stats.ttest_rel(small, large)
    ends = theirs.confidence_interval(0.95)
    assert (effect.interval.low, effect.interval.high) == pytest.approx((ends.low, ends.high), rel=1e-9)
    assert effect.p == pytest.approx(theirs.pvalue, rel=1e-9)
    assert (effect.interval.value, effect.interval.n) == (pytest.approx((small - large).mean()), n)
    assert effect.margin == 0.25


def test_the_p_value_of_one_seed_is_none_and_of_values_that_are_all_the_same_0_or_1():
    assert t_test([2.0]) is None
    assert t_test([2.0, 2.0, 2.0]) == 0
    assert t_test([0.0, 0.0]) == 1
    with pytest.raises(ValueError, match="nan"):
        t_test([1.0, math.nan])


def test_from_twenty_seeds_the_interval_is_a_bootstrap_that_is_the_same_every_time():
    values = np.random.default_rng(4).exponential(size=24)

    effect = paired_effect(values)

    assert effect == paired_effect(values)
    theirs = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=20_000, rng=7).confidence_interval
    assert (effect.interval.low, effect.interval.high) == pytest.approx((theirs.low, theirs.high), rel=0.03)
    assert effect.p == pytest.approx(stats.ttest_1samp(values, 0).pvalue)


@pytest.mark.parametrize(("values", "n"), [([], 0), ([math.nan, 1.0], 2), ([math.inf, 1.0, 2.0], 3)])
def test_without_seeds_or_with_one_that_has_no_number_there_is_no_effect_to_judge(values, n):
    effect = paired_effect(values)

    assert math.isnan(effect.interval.value)
    assert (effect.interval.low, effect.interval.high, effect.interval.n, effect.p) == (None, None, n, None)


@pytest.mark.parametrize(("n", "verdict"), [(2, "inconclusive"), (5, "inconclusive"), (6, "supported")])
def test_equal_differences_are_judged_by_their_signs(n, verdict):
    """Two of two runs better by a step of 1/360 are not evidence, although the spread is 0; six of six are."""
    effect = paired_effect([1 / 360] * n)

    assert judge(effect) == verdict
    assert effect.p == pytest.approx(stats.binomtest(n, n).pvalue)
    assert paired_effect([0.3, 0.1 + 0.2]).p == 0.5  # equal up to rounding
    assert paired_effect([0.0, 0.0]).p == 1


def test_slopes_are_those_of_lines_whatever_the_spacing_of_the_batch_sizes():
    sizes = (3, 8, 20, 512)
    values = [[7 - 0.5 * math.log2(size) for size in sizes], [math.log2(size**1.5) for size in sizes]]

    np.testing.assert_allclose(slopes(values, sizes), [-0.5, 1.5])


def test_a_trend_is_the_t_test_of_numpys_slopes_over_seeds():
    sizes, rng = (8, 16, 64, 128, 512), np.random.default_rng(1)
    values = rng.normal(size=(6, 5)) + 0.3 * np.log2(sizes)

    effect = paired_effect(slopes(values, sizes), 0.1)

    each = [np.polyfit(np.log2(sizes), row, 1)[0] for row in values]
    assert effect.interval.value == pytest.approx(np.mean(each))
    assert effect.p == pytest.approx(stats.ttest_1samp(each, 0).pvalue)
    assert (effect.interval.n, effect.margin) == (6, 0.1)


def test_a_trend_takes_all_batch_sizes_and_not_the_two_ends():
    """The ends are equal, and the values in between decrease."""
    sizes = (8, 16, 32, 64)
    values = np.array([[1, 0.9, 0.4, 1.0]] * 4) + np.random.default_rng(0).normal(0, 0.01, (4, 4))

    assert paired_effect(slopes(values, sizes)).interval.value == pytest.approx(-0.05, abs=0.01)


@pytest.mark.parametrize(("values", "sizes"), [([[1.0], [2.0]], (8,)), (np.empty((0, 0)), ())])
def test_one_batch_size_has_no_trend_and_no_traceback(values, sizes):
    assert math.isnan(paired_effect(slopes(values, sizes)).interval.value)


def test_a_counted_fact_is_judged_from_one_seed_on():
    assert judge(counted(3.5, margin=1)) is Verdict.SUPPORTED
    assert judge(counted(0.5, margin=1)) is Verdict.CONTRADICTED
    assert judge(counted(-3.5, margin=1)) is Verdict.CONTRADICTED
    assert judge(counted(0.0)) is Verdict.CONTRADICTED


@pytest.mark.parametrize(
    ("hits", "runs", "other_hits", "other_runs"),
    [(6, 8, 0, 8), (5, 5, 0, 5), (3, 12, 4, 9), (0, 7, 7, 7), (0, 5, 0, 6), (4, 4, 6, 6), (1, 1, 0, 1), (9, 20, 2, 31)],
)
def test_shares_of_runs_have_fishers_exact_p(hits, runs, other_hits, other_runs):
    effect = share_effect(hits, runs, other_hits, other_runs, margin=0.2)

    theirs = stats.fisher_exact([[hits, runs - hits], [other_hits, other_runs - other_hits]])
    assert effect.p == pytest.approx(theirs.pvalue)
    assert effect.interval.value == pytest.approx(hits / runs - other_hits / other_runs)
    assert (effect.interval.n, effect.margin) == (min(runs, other_runs), 0.2)


def test_no_runs_have_no_share():
    with pytest.raises(ValueError, match="there are none"):
        share_effect(0, 0, 3, 5)


def test_the_interval_of_shares_holds_a_known_difference():
    rng = np.random.default_rng(3)
    held = 0
    for hits, other_hits in zip(rng.binomial(12, 0.8, 300), rng.binomial(16, 0.3, 300), strict=True):
        interval = share_effect(int(hits), 12, int(other_hits), 16).interval
        held += interval.low <= 0.5 <= interval.high
    assert held / 300 >= 0.95
    assert interval.high - interval.low < 1  # otherwise an interval of everything would pass


@pytest.mark.parametrize("n", [3, 8, 40])
def test_an_effect_from_a_students_interval_has_its_p_value(n):
    values = np.random.default_rng(n).normal(0.4, 1, n)
    low, high = stats.t.interval(0.95, n - 1, loc=values.mean(), scale=stats.sem(values))

    effect = interval_effect(Interval(values.mean(), low, high, n), margin=0.1)

    assert effect.p == pytest.approx(stats.ttest_1samp(values, 0).pvalue)


def test_of_an_interval_that_is_not_symmetric_the_arm_towards_0_counts():
    assert interval_effect(Interval(2.0, 0.0, 50.0, 9)).p == pytest.approx(0.05)
    assert interval_effect(Interval(-2.0, -50.0, 0.0, 9)).p == pytest.approx(0.05)
    assert interval_effect(Interval(2.0, -math.inf, 3.0, 9)).p == pytest.approx(1)
    assert interval_effect(Interval(2.0, 2.0, 2.0, 9)).p == 0
    assert interval_effect(Interval(0.0, 0.0, 0.0, 9)).p == 1


@pytest.mark.parametrize("ends", [(None, 1.0, 5), (0.5, 3.0, 1), (math.nan, 1.0, 5)])
def test_an_interval_with_a_missing_end_is_not_judged(ends):
    effect = interval_effect(Interval(1.0, *ends))

    assert (effect.interval.low, effect.interval.high, effect.p) == (None, None, None)


def test_the_opposite_claim_sees_the_effect_mirrored():
    effect = Effect(Interval(2.0, 1.0, 4.0, 5), 0.5, 0.01)

    assert against(effect) == Effect(Interval(-2.0, -4.0, -1.0, 5), 0.5, 0.01)
    assert against(Effect(Interval(2.0, None, None, 1), 0.5, None)).interval == Interval(-2.0, None, None, 1)
