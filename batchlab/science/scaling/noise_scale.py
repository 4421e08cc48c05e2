"""The gradient noise scale: the batch size at which the noise of a gradient is as large as its signal.

McCandlish et al. 2018, arXiv:1812.06162. The gradient g_B of a batch of B examples has E|g_B|^2 = |G|^2 + tr(Sigma)/B,
where G is the mean gradient and Sigma the covariance of one example's; B_simple = tr(Sigma)/|G|^2.

All of this holds for any quadratic form g'Mg instead of the squared norm: M = diag(1/(sqrt(v) + eps))^2 gives the noise
scale of Adam's update, and the Hessian as M gives B_noise = tr(H Sigma)/(G'HG), the paper's own.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from batchlab.science.statistics.fieller import ratio_interval
from batchlab.science.statistics.samples import sample_mean
from batchlab.science.statistics.uncertainty import Interval


@dataclass(frozen=True)
class NoiseScale:
    """B_simple = tr(Sigma) / |G|^2 with its uncertainty, over `draws` batches at the same weights."""

    examples: float  # infinite if it is not resolved, nan if a gradient was not finite
    low: float  # 95% interval (Fieller), in examples
    high: float  # infinite: not resolved; the signal may be 0, and the scale anything above `low`
    signal: Interval  # |G|^2, unbiased, so it may be negative
    noise: Interval  # tr(Sigma) of one example's gradient, unbiased

    @property
    def resolved(self) -> bool:
        """Whether the draws bound it on both sides."""
        return math.isfinite(self.high)

    @property
    def draws(self) -> int:
        return self.signal.n


def noise_scale(
    small: Sequence[float] | NDArray[np.float64],
    big: Sequence[float] | NDArray[np.float64],
    *,
    b_small: int,
    b_big: int,
    population: int | None = None,
) -> NoiseScale:
    """The noise scale from squared gradient norms at two batch sizes, one pair for each of two or more draws.

    A draw is a batch of `b_big` examples cut into batches of `b_small`: `big` is the squared norm of its gradient,
    `small` the mean of its parts' squared norms (parts of 1: the examples' own). Signal and noise are averaged over the
    draws before they are divided: a mean of ratios has no expectation. For examples drawn without replacement,
    `population` is their number; G and Sigma are then those of the population.

    About +-20% needs 10 draws and b_big >= B_simple / 4; with much less it is seldom resolved, which the result shows.
    """
    signal, noise = signal_and_noise(small, big, b_small=b_small, b_big=b_big, population=population)
    low, high = ratio_interval(noise, signal)
    # A norm is never below 0, but the Hessian's form can be, and a scale is a number of examples.
    examples = max(0.0, float(noise.mean() / signal.mean())) if math.isfinite(high) else high
    return NoiseScale(examples, low, high, sample_mean(signal), sample_mean(noise))


def signal_and_noise(
    small: ArrayLike, big: ArrayLike, *, b_small: int, b_big: int, population: int | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """|G|^2 and tr(Sigma) of each draw, both unbiased (McCandlish et al. 2018, appendix A.1); any shape.

    Without replacement from N the variance of a mean of B is tr(Sigma) (1/B - 1/N), Sigma with denominator
    N - 1: 1/N cancels in the noise but not in the signal, which would be too small by tr(Sigma)/N without it.
    """
    if not b_small < b_big <= (population or b_big):
        raise ValueError(f"sizes {b_small} and {b_big} out of {population} are not a small and a big batch")
    at_small, at_big = np.asarray(small, dtype=np.float64), np.asarray(big, dtype=np.float64)
    noise = (at_small - at_big) / (1 / b_small - 1 / b_big)
    return at_big - noise * (1 / b_big - (1 / population if population else 0.0)), noise
