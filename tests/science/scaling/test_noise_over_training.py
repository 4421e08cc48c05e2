"""One noise scale for a run, against the learning rate that is best over all of it and simulated measurements."""

import math

import numpy as np
import pytest

from batchlab.science.scaling.noise_over_training import over_training
from batchlab.science.statistics.uncertainty import Interval


def exactly(value: float) -> Interval:
    return Interval(value, value, value, 10)


def measured(values: np.ndarray) -> Interval:
    """A measurement at one time: the mean over 10 draws, with its t interval."""
    mean, half = float(values.mean()), 2.262157 * float(values.std(ddof=1)) / math.sqrt(10)  # t of 9 degrees
    return Interval(mean, mean - half, mean + half, 10)


def test_the_best_constant_learning_rate_of_a_run_follows_this_noise_scale() -> None:
    signal, noise = [9.0, 3.0, 1.0, 0.2, 0.01], [40.0, 60.0, 50.0, 30.0, 20.0]  # |G|^2 and tr(Sigma) as it trains
    lrs = np.linspace(1e-5, 2, 400_000)

    def best(batch_size: float) -> float:
        """The learning rate with which all steps together lower the loss most; the Hessian is the identity."""
        lowered = sum(lrs * g - 0.5 * lrs**2 * (g + s / batch_size) for g, s in zip(signal, noise, strict=True))
        return float(lrs[np.argmax(lowered)])

    found = over_training([exactly(g) for g in signal], [exactly(s) for s in noise]).value

    for batch_size in (1, 8, 64):
        assert best(batch_size) / best(1e12) == pytest.approx(1 / (1 + found / batch_size), rel=1e-3)


def test_the_interval_contains_the_truth_and_is_finite() -> None:
    rng, draws, held, widths = np.random.default_rng(4), 400, 0, []
    signal, noise = np.array([4.0, 2.0, 1.0]), np.array([100.0, 200.0, 300.0])
    for _ in range(draws):
        found = over_training(
            [measured(rng.normal(g, 0.8, size=10)) for g in signal],
            [measured(rng.normal(s, 30, size=10)) for s in noise],
        )
        low, high = found.low or 0.0, found.high or math.inf
        held += low <= noise.sum() / signal.sum() <= high
        widths.append(high / low)

    assert held / draws > 0.95
    assert np.median(widths) < 1.7


def test_a_time_at_which_the_signal_was_lost_does_no_harm() -> None:
    found = over_training([exactly(2.0), Interval(-0.1, -0.3, 0.1, 10)], [exactly(100.0), exactly(90.0)])

    assert found.value == pytest.approx(190 / 1.9)
    assert found.high is not None
    assert found.value < found.high < 1.2 * found.value
    assert found.n == 2


def test_a_signal_not_shown_to_differ_from_0_is_not_resolved() -> None:
    found = over_training([Interval(0.1, -0.2, 0.4, 10)], [Interval(50.0, 40.0, 60.0, 10)])

    assert (found.value, found.high) == (math.inf, math.inf)
    assert found.low == pytest.approx(40 / 0.4, rel=1e-9)


def test_parts_without_an_interval_are_not_resolved() -> None:
    found = over_training([Interval(1.0, None, None, 1)], [exactly(50.0)])

    assert (found.value, found.low, found.high) == (math.inf, 0.0, math.inf)


def test_tiny_gradients_have_an_interval_too() -> None:
    one = over_training([Interval(2.0, 1.0, 3.0, 9)] * 3, [Interval(50.0, 40.0, 60.0, 9)] * 3)
    tiny = over_training([Interval(2e-80, 1e-80, 3e-80, 9)] * 3, [Interval(50e-80, 40e-80, 60e-80, 9)] * 3)

    assert (tiny.value, tiny.low, tiny.high) == pytest.approx((one.value, one.low, one.high), rel=1e-9)


def test_a_run_without_measurements_has_none() -> None:
    with pytest.raises(ValueError, match="one measurement or more"):
        over_training([], [])
