"""B_crit over seeds, against published figures and simulated studies whose B_crit is known."""

import math

import numpy as np
import pytest
from test_steps_curve import PUBLISHED, SIZES, runs

from batchlab.science.scaling.critical_batch import (
    ESTIMATE,
    LOWER,
    UNRESOLVED,
    UPPER,
    CriticalBatch,
    best_batch_for_time,
    critical_batch,
)
from batchlab.science.scaling.steps_curve import StepsToTarget
from batchlab.science.statistics.uncertainty import Interval

TWENTY_PERCENT = {"85M": 745.3, "151M": 955.2, "302M": 1393.7, "604M": 1888.5, "1.2B": 2533.4}


def study(
    rng: np.random.Generator, critical: float, seeds: int, *, sizes=(8, 16, 32, 64, 128, 256, 512, 1024), spread=0.1
) -> list[StepsToTarget]:
    """Seeds that differ in S_min and B_crit by 5% and 10%, and scatter about their curve by `spread`."""
    found = []
    for _ in range(seeds):
        own = critical * math.exp(rng.normal(scale=0.1))
        level = 20 * math.exp(rng.normal(scale=0.05))
        found.append(runs(sizes, [level * (1 + own / b) * math.exp(rng.normal(scale=spread)) for b in sizes]))
    return found


@pytest.mark.parametrize("model", PUBLISHED)
def test_the_published_curves_give_the_published_twenty_percent(model: str) -> None:
    steps, steps_min, examples_min, critical = PUBLISHED[model]

    found = critical_batch([runs(SIZES, steps)])

    assert f"{found.overhead_batch_size(256).value:.1f}" == f"{TWENTY_PERCENT[model]:.1f}"
    assert (found.runs, found.censored, found.verdict) == (9, 0, ESTIMATE)
    # One curve each: the interval is that of nine points within 6% of it.
    low, high = found.batch_size.low or 0, found.batch_size.high or math.inf
    assert 0.7 * critical < low < critical < high < 1.4 * critical
    for part, value in ((found.steps_min, steps_min), (found.examples_min, examples_min)):
        assert 0.8 * value < (part.low or 0) < value < (part.high or 0) < 1.25 * value


def test_the_twenty_percent_batch_takes_twenty_percent_more_examples() -> None:
    sizes = [2.0**i for i in range(10)]
    found = critical_batch([runs(sizes, [10 * (1 + 300 / b) for b in sizes])])

    at = found.overhead_batch_size(reference=16).value

    examples = {b: b * 10 * (1 + 300 / b) for b in (16, at)}
    assert examples[at] == pytest.approx(1.2 * examples[16], rel=1e-9)


@pytest.mark.parametrize("seeds", [3, 5])
def test_the_interval_over_seeds_has_its_stated_coverage(seeds: int) -> None:
    rng, draws, held, widths = np.random.default_rng(seeds), 120, 0, []
    for _ in range(draws):
        found = critical_batch(study(rng, 100, seeds))
        low, high = found.batch_size.low or 0, found.batch_size.high or math.inf
        held += low <= 100 <= high
        widths.append(math.log(high / low))
        assert found.batch_size.n == seeds

    assert held / draws > 0.95 - 3 * math.sqrt(0.95 * 0.05 / draws)
    assert np.median(widths) < {3: 1.4, 5: 0.6}[seeds]


def test_from_twenty_seeds_the_interval_is_a_bootstrap_drawn_from_the_generator() -> None:
    seeds = study(np.random.default_rng(0), 100, 20)

    one, same, other = (critical_batch(seeds, np.random.default_rng(seed)).batch_size for seed in (1, 1, 2))

    assert one == same
    assert (other.low, other.high) != (one.low, one.high)
    assert one.value == other.value
    assert 85 < (one.low or 0) < one.value < (one.high or 0) < 118
    with pytest.raises(ValueError, match="needs a generator"):
        critical_batch(seeds)


def test_the_parts_of_the_curve_go_together() -> None:
    found = critical_batch(study(np.random.default_rng(2), 100, 4))

    assert found.batch_size.value == pytest.approx(found.examples_min.value / found.steps_min.value, rel=1e-12)
    assert (found.runs, found.censored) == (32, 0)
    assert 0.05 < found.rms < 0.15


@pytest.mark.parametrize(
    ("sizes", "critical", "verdict"),
    [
        ((8, 16, 32, 64, 128), 40, ESTIMATE),
        ((8, 16, 32, 64), 2000, LOWER),
        ((256, 512, 1024, 2048), 20, UPPER),
    ],
)
@pytest.mark.parametrize("seeds", [1, 4])
def test_b_crit_is_estimated_only_between_runs(sizes, critical: float, verdict: str, seeds: int) -> None:
    found = critical_batch(study(np.random.default_rng(6), critical, seeds, sizes=sizes, spread=0.02))

    low, high = found.batch_size.low, found.batch_size.high
    assert found.verdict == verdict
    assert low is not None
    assert high is not None
    assert low <= critical <= high
    if verdict == LOWER:
        assert high == math.inf
        assert 0 < low <= 64
    elif verdict == UPPER:
        assert low == 0
        assert 256 <= high < math.inf
    else:
        assert high / low < 2.5


def test_steps_that_are_all_noise_are_not_resolved() -> None:
    rng = np.random.default_rng(9)

    found = critical_batch([runs([8, 16, 32, 64], np.exp(rng.normal(scale=2.0, size=4)))])

    assert found.verdict == UNRESOLVED
    assert (found.batch_size.low, found.batch_size.high) == (0, math.inf)


def test_seeds_that_did_not_reach_the_target_are_counted_and_not_left_out() -> None:
    rng = np.random.default_rng(4)
    seeds = study(rng, 100, 3)
    cut = [
        StepsToTarget(s.batch_sizes, (*s.steps[:-1], 19.0), (*s.reached[:-1], False)) if i else s
        for i, s in enumerate(seeds)
    ]

    found, without = critical_batch(cut), critical_batch(seeds)

    assert (found.runs, found.censored) == (24, 2)
    assert found.batch_size.value == pytest.approx(without.batch_size.value, rel=0.15)


def test_a_seed_with_too_few_results_is_fitted_together_with_the_others() -> None:
    seeds = study(np.random.default_rng(7), 100, 3)
    nearly_none = StepsToTarget((8.0, 16.0), (300.0, 100.0), (True, False))

    found = critical_batch([*seeds, nearly_none])

    assert found.batch_size.n == found.runs == 26
    assert (found.batch_size.low or 0) < 100 < (found.batch_size.high or 0)


def test_the_best_batch_for_time_takes_the_least_time() -> None:
    critical, a, b = 300.0, 0.004, 0.00005

    best = best_batch_for_time(*(Interval(value, value, value, 5) for value in (critical, a, b)))

    def seconds(batch_size: float) -> float:
        return (1 + critical / batch_size) * (a + b * batch_size)

    sizes = np.geomspace(1, 1e5, 200_001)
    assert best.value == pytest.approx(sizes[np.argmin([seconds(size) for size in sizes])], rel=1e-4)
    assert (best.low, best.high) == pytest.approx((best.value, best.value))


def test_the_best_batch_for_time_has_the_error_of_all_three() -> None:
    rng = np.random.default_rng(0)
    spread = {"critical": 0.3, "step": 0.1, "example": 0.2}
    truth = {"critical": 300.0, "step": 0.004, "example": 0.00005}
    best = math.sqrt(300 * 0.004 / 0.00005)
    held, draws = 0, 2000
    for _ in range(draws):
        parts = []
        for name, value in truth.items():
            seen = value * math.exp(rng.normal(scale=spread[name]))
            factor = math.exp(1.959964 * spread[name])
            parts.append(Interval(seen, seen / factor, seen * factor, 9))
        found = best_batch_for_time(*parts)
        held += (found.low or 0) <= best <= (found.high or 0)

    assert abs(held / draws - 0.95) < 4 * math.sqrt(0.95 * 0.05 / draws)


@pytest.mark.parametrize(
    ("critical", "step", "example", "low", "high"),
    [
        ((50, math.inf), (1.0, 1.0), (1.0, 1.0), math.sqrt(50), math.inf),
        ((0.0, 200), (1.0, 1.0), (1.0, 1.0), 0, math.sqrt(200)),
        ((100, 100), (-0.5, 4.0), (1.0, 1.0), 0, 20),
        ((100, 100), (1.0, 1.0), (0.25, 1.0), 10, 20),  # cheaper examples: a larger batch
        ((100, 100), (None, None), (1.0, 1.0), None, None),
    ],
)
def test_an_end_that_is_not_known_stays_unknown(critical, step, example, low, high) -> None:
    parts = ((100, critical), (1.0, step), (1.0, example))

    best = best_batch_for_time(*(Interval(value, *ends, 3) for value, ends in parts))

    assert best.value == 10
    assert (best.low, best.high) == (pytest.approx(low), pytest.approx(high))


def test_the_result_is_frozen() -> None:
    found = critical_batch([runs(SIZES, PUBLISHED["85M"][0])])

    assert isinstance(found, CriticalBatch)
    with pytest.raises(AttributeError):
        found.rms = 0.0  # type: ignore[misc]
