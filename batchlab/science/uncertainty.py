"""Error bars."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95% interval, which is None on both sides where the sample is too small for one."""

    value: float
    low: float | None
    high: float | None
    n: int


def median_interval(values: Sequence[float]) -> Interval:
    """The median with its distribution-free interval from order statistics (sign test; n >= 6, else none).

    The interval runs from the k-th smallest to the k-th largest value, k as large as keeps the coverage
    1 - 2 P(Binomial(n, 1/2) < k) at 95% or more. Raises ValueError on an empty sample, and on a nan.
    """
    if any(math.isnan(value) for value in values):
        raise ValueError("a nan has no place in an order, and no median")
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
