"""The noise scale of streams with a known one, of populations that can be enumerated, and Fieller's interval."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from batchlab.science.scaling.noise_scale import noise_scale, signal_and_noise
from batchlab.science.statistics.fieller import ratio_interval

EXPERIMENTS = 2000


def squared_norms(rng, *, signal, noise, b_small, b_big, draws, experiments=EXPERIMENTS):
    """Of Gaussian gradients with |G|^2 = `signal` and tr(Sigma) = `noise`, each (experiments, draws): small and big.

    30 directions of unequal variance, G along all of them.
    """
    variances = 1 / np.sqrt(np.arange(1, 31))
    variances *= noise / variances.sum()
    mean = np.full(30, math.sqrt(signal / 30))
    small, big = np.empty((2, experiments, draws))
    for row in range(experiments):
        shape = (draws, b_big // b_small, 30)
        gradients = mean + rng.standard_normal(shape) * np.sqrt(variances / b_small)
        small[row] = np.square(gradients).sum(-1).mean(-1)
        big[row] = np.square(gradients.mean(1)).sum(-1)
    return small, big


@pytest.mark.parametrize(
    ("b_simple", "b_small", "b_big", "draws", "resolved"),
    [
        (300, 64, 512, 10, (0.999, 1.0)),  # two sizes, well above B_simple / 4
        (20, 1, 32, 10, (0.999, 1.0)),  # per example
        (3000, 64, 512, 12, (0.2, 0.9)),  # below it: sometimes lost
        (30000, 32, 256, 10, (0.0, 0.15)),  # hopeless: a clearly negative |G|^2 gives no bound, in 2.5% more
    ],
)
def test_the_interval_holds_a_known_noise_scale_in_95_of_100_draws(b_simple, b_small, b_big, draws, resolved):
    rng = np.random.default_rng(b_simple)
    small, big = squared_norms(rng, signal=2.0, noise=2.0 * b_simple, b_small=b_small, b_big=b_big, draws=draws)

    scales = [noise_scale(s, b, b_small=b_small, b_big=b_big) for s, b in zip(small, big, strict=True)]

    held = np.mean([scale.low <= b_simple <= scale.high for scale in scales])
    assert 0.93 <= held <= (0.97 if b_simple < 30000 else 0.99)
    assert resolved[0] <= np.mean([scale.resolved for scale in scales]) <= resolved[1]
    if resolved[0] > 0.9:  # otherwise an estimator with a huge error bar would pass
        assert np.median([scale.high / scale.low for scale in scales]) < 3
        assert np.median([scale.examples for scale in scales]) == pytest.approx(b_simple, rel=0.1)


def test_it_is_not_resolved_where_there_is_no_signal():
    small, big = squared_norms(np.random.default_rng(0), signal=0.0, noise=600.0, b_small=32, b_big=256, draws=10)

    scales = [noise_scale(s, b, b_small=32, b_big=256) for s, b in zip(small, big, strict=True)]

    lost = [scale for scale in scales if not scale.resolved]
    assert len(lost) / len(scales) >= 0.95
    assert all(scale.examples == scale.high == math.inf and scale.low >= 0 for scale in lost)
    assert {scale.draws for scale in scales} == {10}


def test_signal_and_noise_are_right_on_average_and_so_are_their_error_bars():
    rng = np.random.default_rng(5)
    small, big = squared_norms(rng, signal=2.0, noise=600.0, b_small=32, b_big=256, draws=10, experiments=500)

    scales = [noise_scale(s, b, b_small=32, b_big=256) for s, b in zip(small, big, strict=True)]

    for part, truth in (("signal", 2.0), ("noise", 600.0)):
        found = [getattr(scale, part) for scale in scales]
        values = np.array([interval.value for interval in found])
        assert abs(values.mean() - truth) < 4 * values.std() / math.sqrt(len(values))
        assert 0.91 <= np.mean([interval.low <= truth <= interval.high for interval in found]) <= 0.98


@pytest.mark.parametrize("b_small", [1, 2])
def test_over_all_draws_without_replacement_it_is_exactly_the_populations(b_small):
    gradients = np.random.default_rng(1).normal(0.3, 1.0, size=(7, 3))
    signal = np.square(gradients.mean(0)).sum()
    noise = gradients.var(0, ddof=1).sum()
    orders = [list(order) for order in itertools.permutations(range(7), 4)]
    parts = gradients[orders].reshape(len(orders), 4 // b_small, b_small, 3).mean(2)
    small, big = np.square(parts).sum(-1).mean(-1), np.square(parts.mean(1)).sum(-1)

    corrected = signal_and_noise(small, big, b_small=b_small, b_big=4, population=7)
    plain = signal_and_noise(small, big, b_small=b_small, b_big=4)

    assert [part.mean() for part in corrected] == pytest.approx([signal, noise], rel=1e-12)
    assert [part.mean() for part in plain] == pytest.approx([signal - noise / 7, noise], rel=1e-12)


def test_draws_of_the_whole_population_are_exact():
    gradients = np.random.default_rng(2).normal(0.5, 1.0, size=(20, 4))
    small = np.full(10, np.square(gradients).sum(1).mean())
    big = np.full(10, np.square(gradients.mean(0)).sum())

    scale = noise_scale(small, big, b_small=1, b_big=20, population=20)

    truth = gradients.var(0, ddof=1).sum() / np.square(gradients.mean(0)).sum()
    assert (scale.examples, scale.low, scale.high) == pytest.approx((truth, truth, truth), rel=1e-7)


def test_a_gradient_that_is_not_finite_has_no_noise_scale():
    scale = noise_scale([2.0, math.nan, 2.0], [1.0, 1.0, 1.5], b_small=1, b_big=4)

    assert math.isnan(scale.examples)
    assert math.isnan(scale.low)
    assert not scale.resolved


@pytest.mark.parametrize(("b_small", "b_big", "population"), [(4, 4, None), (8, 4, None), (1, 9, 8)])
def test_sizes_that_are_not_two_are_refused(b_small, b_big, population):
    with pytest.raises(ValueError, match="not a small and a big batch"):
        signal_and_noise([1.0], [1.0], b_small=b_small, b_big=b_big, population=population)


# Fieller's interval


@settings(max_examples=60)
@given(st.integers(3, 12), st.floats(-1.0, 3.0), st.floats(-0.5, 3.0), st.integers(0, 2**32 - 1))
def test_the_interval_is_what_a_t_test_does_not_rule_out(n, over, below, seed):
    rng = np.random.default_rng(seed)
    denominators = below + rng.standard_normal(n)
    numerators = over + rng.standard_normal(n) + 0.5 * denominators

    low, high = ratio_interval(numerators, denominators)

    ratios = np.concatenate([[0.0], np.logspace(-4, 4, 200)])
    differences = numerators[:, None] - ratios * denominators[:, None]
    kept = stats.ttest_1samp(differences, 0.0, axis=0).pvalue >= 0.05
    inside = (ratios >= low) & (ratios <= high)
    assert not (kept & ~inside).any()
    over_clear, below_clear = (stats.ttest_1samp(values, 0.0).pvalue < 0.05 for values in (numerators, denominators))
    positive = min(numerators.mean(), denominators.mean()) > 0
    if (below_clear and positive) or (over_clear and not below_clear):
        assert (kept == inside).all()
    else:  # the interval is wider than the test allows only if almost nothing is excluded
        assert low == 0.0


def test_denominators_below_0_give_no_bounds():
    assert ratio_interval([5.0, 5.5, 4.5, 5.2], [-2.0, -2.1, -1.9, -2.05]) == (0.0, math.inf)


@pytest.mark.parametrize("unit", [1e-150, 1e-40, 1e120])
def test_the_interval_does_not_depend_on_the_unit(unit):
    numerators, denominators = np.array([5.0, 5.5, 4.5, 5.2]), np.array([2.0, 2.3, 1.9, 2.05])
    expected = ratio_interval(numerators, denominators)
    assert ratio_interval(numerators * unit, denominators * unit) == pytest.approx(expected, rel=1e-12)
    assert 2 < expected[0] < expected[1] < 3


def test_no_signal_and_no_noise_is_not_resolved():
    assert ratio_interval([0.0] * 10, [0.0] * 10) == (0.0, math.inf)


def test_one_draw_has_no_interval():
    with pytest.raises(ValueError, match="2 draws or more"):
        ratio_interval([1.0], [1.0])
