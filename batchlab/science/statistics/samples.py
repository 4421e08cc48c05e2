"""Estimates from a sample of examples: means, shares, tails and differences, with intervals."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaincinv, stdtrit

from batchlab.science.statistics.uncertainty import Interval


def sample_mean(sums: ArrayLike, counts: ArrayLike | None = None, *, population: int | None = None) -> Interval:
    """The mean over all terms, `sums.sum() / counts.sum()`, with its t interval over examples.

    `sums` and `counts` (examples,) are the terms of each example, one if `counts` is None. Terms of one example are
    correlated, so examples are the sample (the ratio estimator: Cochran 1977, Sampling Techniques, 3rd ed., 6.3).
    Without replacement from a `population` the interval is narrower, and it is a point if all were drawn.
    """
    totals = np.asarray(sums, dtype=np.float64)
    terms = np.ones_like(totals) if counts is None else np.asarray(counts, dtype=np.float64)
    n, all_terms = len(totals), float(terms.sum())
    mean = float(totals.sum()) / all_terms
    if not math.isfinite(mean) or (n < 2 and population != n):
        return Interval(mean, None, None, n)
    spread = float(np.square(totals - mean * terms).sum()) * n / max(n - 1, 1)
    half = float(stdtrit(max(n - 1, 1), 0.975)) * math.sqrt(spread * _unseen(n, population)) / all_terms
    return Interval(mean, mean - half, mean + half, n)


def positive_mean(values: Sequence[float]) -> Interval:
    """The mean of skewed values, none below 0, with its t interval on the logarithmic scale.

    It covers the mean of exponential values in 93% of samples of 10 and 95% of 100, of squared normal ones in 91% and
    94%; the plain t interval, which may reach below 0, in 90 and 94%, and 86 and 93%. Its coverage is lower for heavier
    tails: log-normal values of sigma 1.5 in 80% and 88%.
    """
    seen = np.asarray(values, dtype=np.float64)
    n, mean = len(seen), float(seen.mean())
    if not math.isfinite(mean) or n < 2:
        return Interval(mean, None, None, n)
    if mean == 0:
        return Interval(0.0, 0.0, 0.0, n)
    width = float(stdtrit(n - 1, 0.975) * seen.std(ddof=1)) / math.sqrt(n) / mean
    return Interval(mean, mean * math.exp(-width), mean * math.exp(width), n)


def sample_share(hits: int, n: int, *, level: float = 0.95, population: int | None = None) -> Interval:
    """The share of `hits` among `n` examples, with the exact interval of Clopper and Pearson (1934).

    It covers the true share in at least `level` of samples, even if all or none were hit. For a finite `population` it
    is shortened as for a mean.
    """
    share, tail = hits / n, (1 - level) / 2
    low = float(betaincinv(hits, n - hits + 1, tail)) if hits > 0 else 0.0
    high = float(betaincinv(hits + 1, n - hits, 1 - tail)) if hits < n else 1.0
    arm = math.sqrt(_unseen(n, population))
    return Interval(share, share - (share - low) * arm, share + (high - share) * arm, n)


def smallest_share(hits: Sequence[int] | NDArray[np.int64], totals: Sequence[int] | NDArray[np.int64]) -> Interval:
    """The smallest of several shares, each of `hits` among its `totals` (above 0); `n` is the total of that one.

    It was selected for being small: with ten classes that are all 90% right in 36 examples each, the interval of the
    worst class alone misses 90% in 20% of samples. This one runs from the smallest lower to the smallest upper end of
    exact intervals that cover all shares at once in 95% of samples (Bonferroni).
    """
    level = 1 - 0.05 / len(hits)
    each = [sample_share(int(hit), int(n), level=level) for hit, n in zip(hits, totals, strict=True)]
    worst = min(each, key=lambda share: share.value)
    lows, highs = [share.low or 0.0 for share in each], [share.high or 0.0 for share in each]
    return Interval(worst.value, min(lows), min(highs), worst.n)


def difference(first: Interval, second: Interval) -> Interval:
    """`first - second` of two independent samples, with an interval combined from theirs; `n` is the smaller.

    On each side the facing arms are added in quadrature (Zou and Donner 2008, Stat. Med. 27, 1693-1702; for shares
    Newcombe 1998, Stat. Med. 17, 873-890), which is right for intervals that are not symmetric.
    """
    n = min(first.n, second.n)
    value = first.value - second.value
    if first.low is None or first.high is None or second.low is None or second.high is None:
        return Interval(value, None, None, n)
    low = value - math.hypot(first.value - first.low, second.high - second.value)
    high = value + math.hypot(first.high - first.value, second.value - second.low)
    return Interval(value, low, high, n)


def tail_mean(values: ArrayLike, share: float) -> Interval:
    """The mean of the largest `share` of values, at least one, with an interval for the mean of that tail.

    With k of n values in the tail and q the smallest of them it is the mean of q + max(x - q, 0) n/k over all values
    (Rockafellar and Uryasev 2000, J. Risk 2(3), 21-41), and the interval is the t interval of that mean with k - 1
    degrees of freedom, as only the tail informs it. `n` is k. It is too narrow for small k: it covers the tail mean of
    exponential values in 94% of samples at k = 36 and 90% at k = 10, of log-normal ones of sigma 1 in 91% and 86%.
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    n = len(ordered)
    k = max(1, round(share * n))
    edge = ordered[n - k]
    lifted = edge + np.maximum(ordered - edge, 0.0) * (n / k)
    mean = float(ordered[n - k :].mean())
    if not math.isfinite(mean) or k < 2:
        return Interval(mean, None, None, k)
    half = float(stdtrit(k - 1, 0.975) * lifted.std(ddof=1)) / math.sqrt(n)
    return Interval(mean, mean - half, mean + half, k)


def _unseen(n: int, population: int | None) -> float:
    """The share of the population that was not drawn, by which the variance of a mean shrinks."""
    return 1.0 if population is None else 1.0 - n / population
