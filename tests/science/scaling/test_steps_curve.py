"""The hyperbola of steps to a target, against published curves, exact ones, and simulations with a known result."""

import math

import numpy as np
import pytest
from scipy import optimize, stats

from batchlab.science.scaling.steps_curve import StepsToTarget, fit_steps, profile_interval

# Zhang et al. 2024 (arXiv:2410.21676), steps to the target loss at B = 64, 128, ..., 16384: published with their code,
# which fits log S = log(a + b / B). The figures: S_min, E_min, B_crit.
SIZES = [64 * 2**i for i in range(9)]
PUBLISHED = {
    "85M": ([46000, 23000, 13282, 7000, 3840, 2528, 1917, 1600, 1600], 1293.8, 2834258, 2191),
    "151M": ([96000, 49000, 24000, 12000, 7128, 4350, 2940, 2400, 2300], 1752.4, 5677478, 3240),
    "302M": ([196000, 90000, 46000, 23400, 13300, 7224, 4980, 3400, 2879], 2095.3, 11383270, 5433),
    "604M": ([311000, 166000, 81000, 37440, 21320, 11400, 7199, 4700, 3800], 2459.9, 19449689, 7907),
    "1.2B": ([642000, 331000, 176000, 94000, 46500, 25000, 15360, 8900, 6500], 3897.3, 43381129, 11131),
}


def runs(sizes, steps, reached=None) -> StepsToTarget:
    everything = [True] * len(sizes) if reached is None else reached
    return StepsToTarget(tuple(map(float, sizes)), tuple(map(float, steps)), tuple(map(bool, everything)))


@pytest.mark.parametrize("model", PUBLISHED)
def test_the_published_curves_give_the_published_figures(model: str) -> None:
    steps, steps_min, examples_min, critical = PUBLISHED[model]

    curve = fit_steps(runs(SIZES, steps))

    assert f"{curve.steps_min:.1f}" == f"{steps_min:.1f}"
    assert curve.examples_min == pytest.approx(examples_min, rel=5e-6)
    assert round(curve.critical_batch_size) == critical
    assert 0.035 < curve.rms < 0.056


@pytest.mark.parametrize("critical", [3.0, 40.0, 700.0])
@pytest.mark.parametrize("steps_min", [1.0, 1e6])
def test_an_exact_hyperbola_is_recovered_to_rounding(critical: float, steps_min: float) -> None:
    sizes = [2.0**i for i in range(11)]

    curve = fit_steps(runs(sizes, [steps_min * (1 + critical / b) for b in sizes]))

    assert curve.steps_min == pytest.approx(steps_min, rel=1e-10)
    assert curve.examples_min == pytest.approx(steps_min * critical, rel=1e-10)
    assert curve.critical_batch_size == pytest.approx(critical, rel=1e-10)
    assert curve.rms < 1e-12
    assert curve.steps(critical) == pytest.approx(2 * steps_min, rel=1e-10)


def test_the_curve_has_the_least_squares_of_the_logarithm() -> None:
    """Compared with all neighbours of the solution: none is better, whatever the solver."""
    noise = np.random.default_rng(1).normal(scale=0.2, size=12)
    sizes = np.geomspace(4, 4000, 12)
    steps = (50 + 9000 / sizes) * np.exp(noise)

    curve = fit_steps(runs(sizes, steps))

    def misfit(steps_min: float, examples_min: float) -> float:
        return float(np.sum((np.log(steps_min + examples_min / sizes) - np.log(steps)) ** 2))

    found = misfit(curve.steps_min, curve.examples_min)
    assert curve.rms == pytest.approx(math.sqrt(found / 12), rel=1e-12)
    for up, along in [(1.001, 1), (0.999, 1), (1, 1.001), (1, 0.999), (1.001, 0.999), (0.999, 1.001)]:
        assert misfit(curve.steps_min * up, curve.examples_min * along) > found


def test_steps_that_only_fall_as_one_over_b_or_do_not_fall_show_no_bend() -> None:
    sizes = [8, 16, 32, 64, 128]

    perfect = fit_steps(runs(sizes, [80_000 / b for b in sizes]))
    flat = fit_steps(runs(sizes, [500] * 5))

    assert (perfect.bends, perfect.steps_min, perfect.critical_batch_size) == (False, 0.0, math.inf)
    assert perfect.examples_min == pytest.approx(80_000, rel=0.01)
    assert (flat.bends, flat.examples_min, flat.critical_batch_size) == (False, 0.0, 0.0)
    assert flat.steps_min == pytest.approx(500, rel=0.01)


def test_runs_that_stopped_before_the_curve_change_nothing_where_the_others_lie_on_it() -> None:
    sizes = [2.0**i for i in range(10)]
    steps = [10 * (1 + 50 / b) for b in sizes]
    stopped = [4.0, 500.0, 512.0]
    made = [100.0, 10.5, 3.0]  # the curve gives 135, 11, 10.98

    curve = fit_steps(runs([*sizes, *stopped], [*steps, *made], [True] * 10 + [False] * 3))

    assert curve.critical_batch_size == pytest.approx(50, rel=1e-3)
    assert curve.steps_min == pytest.approx(10, rel=1e-3)


def test_a_run_that_continued_past_the_curve_lifts_it() -> None:
    sizes = [2.0**i for i in range(10)]
    steps = [10 * (1 + 50 / b) * (1.05 if i % 2 else 0.95) for i, b in enumerate(sizes)]

    without = fit_steps(runs(sizes, steps))
    lifted = fit_steps(runs([*sizes, 512.0], [*steps, 40.0], [True] * 10 + [False]))

    assert lifted.steps(512) > 1.05 * without.steps(512)


def test_keeping_runs_that_did_not_reach_the_target_reduces_the_bias() -> None:
    """Equal budgets in examples: beyond B = 300 a slightly unlucky run does not reach the target."""
    rng = np.random.default_rng(3)
    sizes = np.repeat([8, 16, 32, 64, 128, 256, 512, 1024], 2).astype(float)
    true_steps, budget = 20 * (1 + 200 / sizes), 20 * (1 + 200 / sizes) * np.where(sizes > 300, 1.02, 9.0)
    kept, dropped, unknown = [], [], 0
    for _ in range(60):
        needed = true_steps * np.exp(rng.normal(scale=0.15, size=sizes.size))
        reached = needed <= budget
        unknown += int((~reached).sum())
        kept.append(fit_steps(runs(sizes, np.minimum(needed, budget), reached)).critical_batch_size)
        dropped.append(fit_steps(runs(sizes[reached], needed[reached])).critical_batch_size)
    assert unknown > 60

    bias = {name: np.mean(np.log(found)) - math.log(200) for name, found in (("kept", kept), ("dropped", dropped))}
    error = np.std(np.log(kept)) / math.sqrt(60)

    assert abs(bias["kept"]) < 4 * error
    assert error < 0.06
    assert bias["dropped"] > 2 * abs(bias["kept"]) + error  # only the lucky ones: too few steps at large batches


SPREAD_SIZES = np.array([8, 16, 32, 64, 128, 256, 512, 1024.0])


def cut_study(rng: np.random.Generator, budget: float) -> StepsToTarget:
    """One seed with B_crit = 90; beyond B = 500 a run ends at `budget` times the steps of the true curve."""
    true_steps = 20 * (1 + 90 / SPREAD_SIZES)
    needed = true_steps * np.exp(rng.normal(scale=0.1, size=8))
    limit = true_steps * np.where(SPREAD_SIZES > 500, budget, 1e9)
    return runs(SPREAD_SIZES, np.minimum(needed, limit), needed <= limit)


@pytest.mark.parametrize("budget", [1e9, 1.05])
def test_the_profile_interval_has_its_stated_coverage(budget: float) -> None:
    rng, draws, held, widths = np.random.default_rng(8), 150, 0, []
    for _ in range(draws):
        observed = cut_study(rng, budget)
        low, high = profile_interval(observed, fit_steps(observed))
        held += low <= 90 <= high
        widths.append(math.log(high / low))

    assert abs(held / draws - 0.95) < 4 * math.sqrt(0.95 * 0.05 / draws)
    assert np.median(widths) < 1.0  # a factor of 2.7 from end to end; otherwise an infinite interval would pass


@pytest.mark.parametrize("budget", [1e9, 0.97])
def test_the_interval_ends_where_the_likelihood_has_fallen_by_students_t(budget: float) -> None:
    observed = cut_study(np.random.default_rng(2), budget)
    reached = np.array(observed.reached)
    assert reached.all() == (budget > 1)
    curve = fit_steps(observed)
    freedom = reached.sum() - 2
    sigma = curve.rms * math.sqrt(reached.sum() / freedom)

    def misfit(critical: float) -> float:
        """-2 log likelihood with its best level."""

        def of(level: float) -> float:
            z = (np.log(observed.steps) - level - np.log(1 + critical / SPREAD_SIZES)) / sigma
            return float((z[reached] ** 2).sum() - 2 * stats.norm.logsf(z[~reached]).sum())

        return float(optimize.minimize_scalar(of, bounds=(0, 6), method="bounded", options={"xatol": 1e-10}).fun)

    for end in profile_interval(observed, curve):
        fallen = misfit(end) - misfit(curve.critical_batch_size)
        assert fallen == pytest.approx(stats.t.ppf(0.975, freedom) ** 2, rel=0.01)


def test_an_interval_is_open_where_the_runs_do_not_bound_it() -> None:
    rng = np.random.default_rng(5)
    sizes = np.array([8, 16, 32, 64.0])
    noise = np.exp(rng.normal(scale=0.05, size=4))

    small = runs(sizes, (1 + 5000 / sizes) * noise)
    large = runs(sizes, 1000 * (1 + 0.05 / sizes) * noise)

    low, high = profile_interval(small, fit_steps(small))
    assert high == math.inf
    assert 64 < low < 5000
    low, high = profile_interval(large, fit_steps(large))
    assert low == 0
    assert 0.05 < high < 8


def test_the_interval_of_an_exact_curve_is_a_point() -> None:
    sizes = [2.0**i for i in range(8)]
    exact = runs(sizes, [3 * (1 + 20 / b) for b in sizes])

    assert profile_interval(exact, fit_steps(exact)) == pytest.approx((20, 20), rel=1e-9)


def test_two_batch_sizes_make_no_curve() -> None:
    with pytest.raises(ValueError, match="3 batch sizes that reached the target, and 2 did"):
        fit_steps(runs([8, 8, 16, 32], [10, 11, 6, 9], [True, True, True, False]))


@pytest.mark.parametrize(
    "arguments",
    [
        ((8.0, 16.0), (1.0,), (True, True)),
        ((8.0,), (0.0,), (True,)),
        ((0.0,), (1.0,), (True,)),
        ((8.0,), (math.nan,), (True,)),
    ],
)
def test_invalid_runs_are_refused(arguments) -> None:
    with pytest.raises(ValueError, match=r"entry for each run|finite and above 0"):
        StepsToTarget(*arguments)
