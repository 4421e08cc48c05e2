"""Lines through sizes, with intervals of the stated coverage."""

import math

import numpy as np
import pytest
import scipy.stats

from batchlab.science.statistics.line import fit_line, fit_power

SIZES = [4.0, 8.0, 16.0, 32.0, 64.0, 128.0]


def test_an_absolute_line_is_that_of_linear_regression() -> None:
    values = [3.1, 3.9, 7.2, 12.0, 25.5, 47.9]

    line = fit_line(SIZES, values, relative=False)

    oracle = scipy.stats.linregress(SIZES, values)
    t = scipy.stats.t.ppf(0.975, 4)
    assert line.per_unit.value == pytest.approx(oracle.slope)
    assert line.per_unit.low == pytest.approx(oracle.slope - t * oracle.stderr)
    assert line.at_zero.value == pytest.approx(oracle.intercept)
    assert line.at_zero.high == pytest.approx(oracle.intercept + t * oracle.intercept_stderr)
    assert line.at(10) == pytest.approx(oracle.intercept + 10 * oracle.slope)
    assert (line.at_zero.n, line.per_unit.n) == (6, 6)


def test_relative_errors_give_small_sizes_their_weight() -> None:
    """Seconds with 3% noise: 95% of intervals contain the truth, and those of an absolute fit are wider."""
    rng = np.random.default_rng(1)
    a, b, held, narrower = 1e-3, 2e-5, 0, 0
    for _ in range(1000):
        seconds = [(a + b * size) * rng.normal(1, 0.03) for size in (*SIZES, 512.0, 2048.0)]
        line = fit_line([*SIZES, 512.0, 2048.0], seconds, relative=True)
        plain = fit_line([*SIZES, 512.0, 2048.0], seconds, relative=False)
        assert line.at_zero.low is not None
        assert line.at_zero.high is not None
        assert plain.at_zero.low is not None
        assert plain.at_zero.high is not None
        held += line.at_zero.low < a < line.at_zero.high
        narrower += line.at_zero.high - line.at_zero.low < plain.at_zero.high - plain.at_zero.low
    assert 950 - 3 * 7 <= held <= 950 + 3 * 7  # 3 standard errors of 1000 draws
    assert narrower > 900


def test_two_sizes_have_a_line_and_no_interval() -> None:
    line = fit_line([8, 32], [3.0, 9.0], relative=True)

    assert (line.at_zero.value, line.per_unit.value) == (pytest.approx(1.0), pytest.approx(0.25))
    assert line.at_zero.low is None is line.per_unit.high
    assert line.rms == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("sizes", "values", "message"),
    [([8], [1.0], "two sizes"), ([8, 8], [1.0, 2.0], "one value each"), ([8, 16], [0.0, 1.0], "above 0")],
)
def test_what_has_no_line_is_refused(sizes: list[float], values: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit_line(sizes, values, relative=True)


def test_a_power_is_never_more_precise_than_the_grid_of_its_values() -> None:
    exact = fit_power(SIZES, [0.01 * size**0.5 for size in SIZES])
    picked = fit_power(SIZES, [0.01 * size**0.5 for size in SIZES], resolution=2)

    assert exact.value == picked.value == pytest.approx(0.5)
    assert exact.low == pytest.approx(0.5)
    spread = math.sqrt(sum((math.log(s) - math.log(16 * math.sqrt(2) * 1)) ** 2 for s in SIZES))
    half = scipy.stats.t.ppf(0.975, 4) * math.log(2) / math.sqrt(12) / spread
    assert picked.high == pytest.approx(0.5 + half)


def test_the_power_of_learning_rates_rounded_to_a_grid_lies_in_its_interval() -> None:
    rng = np.random.default_rng(2)
    held = 0
    for _ in range(500):
        p, shift = rng.uniform(0, 1), rng.uniform(0, 1)
        lrs = [2.0 ** round(p * math.log2(size) + shift) for size in SIZES]
        slope = fit_power(SIZES, lrs, resolution=2)
        assert slope.low is not None
        assert slope.high is not None
        held += slope.low <= p <= slope.high
    assert held >= 475 - 3 * 5


def test_a_power_law_needs_positive_values() -> None:
    with pytest.raises(ValueError, match="above 0"):
        fit_power([8, 16], [0.0, 1.0])
