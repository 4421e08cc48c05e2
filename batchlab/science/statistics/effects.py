"""Effects of a batch size over seeds, each with its interval and p value.

Every function takes values in the claim's direction: positive supports the claim. `margin` is the smallest effect
that matters, in the effect's unit.
"""

import math
from collections.abc import Sequence
from math import comb

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtr, stdtrit

from batchlab.science.statistics.samples import difference, sample_share
from batchlab.science.statistics.uncertainty import Interval, mean_interval, median_interval, t_test
from batchlab.science.statistics.verdicts import Effect

ROUNDING = 1e-9  # of the largest: differences that differ by less are equal up to rounding


def paired_effect(differences: ArrayLike, margin: float = 0.0) -> Effect:
    """The mean of one difference per seed, with the paired t test; from 20 seeds its interval is the bootstrap's.

    If all differences are equal, there is no spread to use: values counted in large units (the step of an evaluation,
    one of 360 validation examples) may be equal by chance. Then the signs decide, which takes 6 seeds. For values
    that are equal by nature, such as bytes and counts, use `counted`. Without a seed the effect is nan.
    """
    values = np.asarray(differences, dtype=np.float64).tolist()
    if not values or not all(math.isfinite(value) for value in values):
        return Effect(Interval(math.nan, None, None, len(values)), margin, None)
    if len(values) > 1 and max(values) - min(values) <= ROUNDING * max(map(abs, values)):
        none = max(map(abs, values)) == 0
        return Effect(median_interval(values), margin, 1.0 if none else 2.0 ** (1 - len(values)))
    # A fixed seed, so that the same study always gives the same report.
    return Effect(mean_interval(values, np.random.default_rng(0)), margin, t_test(values))


def slopes(values: ArrayLike, batch_sizes: Sequence[int]) -> NDArray[np.float64]:
    """The least-squares slope of each row of `values` (seeds, batch sizes) per doubling of the batch size, (seeds,).

    Empty for fewer than two batch sizes.
    """
    if len(set(batch_sizes)) < 2:
        return np.empty(0)
    doublings = np.log2(batch_sizes)
    centred = doublings - doublings.mean()
    return np.asarray(np.asarray(values, dtype=np.float64) @ centred / (centred @ centred))


def counted(value: float, margin: float = 0.0, n: int = 1) -> Effect:
    """A fact without spread, which another seed cannot change: steps per epoch, bytes, whether a size fits.

    It is judged as it is, from one seed on; `n` is the number of seeds that agree on it.
    """
    return Effect(Interval(value, value, value, n), margin, 1.0 if value == 0 else 0.0)


def share_effect(hits: int, runs: int, other_hits: int, other_runs: int, margin: float = 0.0) -> Effect:
    """The share of `runs` with an event minus that of `other_runs`, two independent samples.

    Newcombe's interval of exact shares; p is Fisher's exact one (1922, J. R. Stat. Soc. 85, 87-94): of all tables with
    these sums, the share of those that are at most as likely. ValueError without runs.
    """
    if not (runs and other_runs):
        raise ValueError("a share needs runs, and there are none")
    interval = difference(sample_share(hits, runs), sample_share(other_hits, other_runs))
    total = hits + other_hits
    ways = [comb(runs, k) * comb(other_runs, total - k) for k in range(total + 1)]
    return Effect(interval, margin, sum(way for way in ways if way <= ways[hits]) / sum(ways))


def interval_effect(interval: Interval, margin: float = 0.0) -> Effect:
    """An estimate with a given 95% interval (of a fit, of a ratio); its p is that of the interval.

    The arm towards 0 is taken as Student's, with n - 1 degrees of freedom, so that p is 0.05 if the interval ends at 0.
    `interval.n` is the number of seeds, or of other independent draws.
    """
    value, low, high, n = interval.value, interval.low, interval.high, interval.n
    if low is None or high is None or n < 2 or not math.isfinite(value) or math.isnan(low) or math.isnan(high):
        return Effect(Interval(value, None, None, n), margin, None)
    arm = value - low if value > 0 else high - value
    if arm == 0 or value == 0:
        return Effect(interval, margin, 0.0 if value else 1.0)
    t = abs(value) / arm * float(stdtrit(n - 1, 0.975))
    return Effect(interval, margin, 2 * float(stdtr(n - 1, -t)))


def against(effect: Effect) -> Effect:
    """The same effect for the opposite claim."""
    ends = effect.interval
    low, high = None if ends.high is None else -ends.high, None if ends.low is None else -ends.low
    return Effect(Interval(-ends.value, low, high, ends.n), effect.margin, effect.p)
