"""Error bars."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtr, stdtrit


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95% interval, which is None on both sides if the sample is too small for one."""

    value: float
    low: float | None
    high: float | None
    n: int

    def overlaps(self, other: "Interval") -> bool:
        """Whether the two are not shown to differ; true if either has no interval."""
        if self.low is None or self.high is None or other.low is None or other.high is None:
            return True
        return self.low <= other.high and other.low <= self.high


def median_interval(values: Sequence[float]) -> Interval:
    """The median with its distribution-free interval from order statistics (sign test; n >= 6, else none).

    The interval runs from the k-th smallest to the k-th largest value, k as large as keeps the coverage
    1 - 2 P(Binomial(n, 1/2) < k) at 95% or more. Raises ValueError on an empty sample, and on a nan.
    """
    if any(math.isnan(value) for value in values):
        raise ValueError("values with a nan have no median")
    ordered = sorted(values)
    n = len(ordered)
    median = statistics.median(ordered)
    k, tail = 0, 0.0
    while k < n // 2 and 2 * (tail + math.comb(n, k) / 2**n) <= 0.05:
        tail += math.comb(n, k) / 2**n
        k += 1
    if k == 0:
        return Interval(median, None, None, n)
    return Interval(median, ordered[k - 1], ordered[n - k], n)


def t_interval(values: Sequence[float]) -> Interval:
    """The mean with Student's 95% interval, None for a single value; for pairs pass their differences.

    For roughly normal values; use logarithms for factors. ValueError on an empty sample, and on a nan.
    """
    if any(math.isnan(value) for value in values):
        raise ValueError("values with a nan have no mean")
    n, mean = len(values), statistics.fmean(values)
    if n < 2:
        return Interval(mean, None, None, n)
    half = float(stdtrit(n - 1, 0.975)) * statistics.stdev(values) / math.sqrt(n)
    return Interval(mean, mean - half, mean + half, n)


def t_test(values: Sequence[float]) -> float | None:
    """Student's two-sided p value for a mean of 0, None for a single value; for pairs pass their differences.

    It is 0.05 if `t_interval` ends at 0. Values that are all equal have p = 0, or 1 if they are 0: the values do not
    show whether they are exact or rounded. ValueError as for `t_interval`.
    """
    interval = t_interval(values)
    if interval.low is None:
        return None
    error = statistics.stdev(values) / math.sqrt(interval.n)
    if error == 0:
        return 1.0 if interval.value == 0 else 0.0
    return 2 * float(stdtr(interval.n - 1, -abs(interval.value) / error))


def bootstrap_interval(values: Sequence[float], rng: np.random.Generator, resamples: int = 4000) -> Interval:
    """The mean with its 95% percentile bootstrap interval (Efron 1979), for 20 values or more.

    With fewer it is too narrow: it misses the mean in 26% of samples of 3, in 10% of samples of 8.
    """
    sample = np.asarray(values, dtype=np.float64)
    means = sample[rng.integers(len(sample), size=(resamples, len(sample)))].mean(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return Interval(float(sample.mean()), float(low), float(high), len(sample))


def mean_interval(values: Sequence[float], rng: np.random.Generator | None = None) -> Interval:
    """The mean with its 95% interval: Student's for fewer than 20 values, otherwise a bootstrap drawn with `rng`."""
    if len(values) < 20:
        return t_interval(values)
    if rng is None:
        raise ValueError(f"the bootstrap interval of {len(values)} values needs a generator")
    return bootstrap_interval(values, rng)
