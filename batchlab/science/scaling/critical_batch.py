"""The critical batch size, over seeds: up to it a larger batch saves steps, beyond it examples are wasted.

Two definitions are in use, which differ by a factor of about five: B_crit = E_min / S_min (McCandlish et al. 2018,
arXiv:1812.06162), where a run takes twice S_min steps and twice E_min examples; and the batch size that takes 20%
more examples than a reference batch size does (Zhang et al. 2024, arXiv:2410.21676).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
from scipy.special import stdtrit

from batchlab.science.scaling.steps_curve import StepsCurve, StepsToTarget, fit_steps, profile_interval
from batchlab.science.statistics.uncertainty import Interval, mean_interval

ESTIMATE, LOWER, UPPER, UNRESOLVED = "estimate", "lower bound", "upper bound", "not resolved"


@dataclass(frozen=True)
class CriticalBatch:
    """S(B) = S_min + E_min / B and its B_crit, with 95% intervals; `n` of an interval is its number of seeds, or of
    runs if it is based on their scatter about one curve."""

    batch_size: Interval  # E_min / S_min, in examples; 0 and inf: the runs do not bound that end
    steps_min: Interval
    examples_min: Interval
    verdict: str  # ESTIMATE, or only the lower end of batch_size holds, only the upper end, or neither
    rms: float  # root mean square of the log residuals: 0.05 is 5% about the curve
    runs: int
    censored: int  # of these did not reach the target

    def overhead_batch_size(self, reference: float, overhead: float = 0.2) -> Interval:
        """The batch size that needs `overhead` more examples to the target than `reference`; Zhang's is 0.2."""
        crit, least = self.batch_size, (1 + overhead) * reference
        low, high = (None if end is None else overhead * end + least for end in (crit.low, crit.high))
        return Interval(overhead * crit.value + least, low, high, crit.n)


def critical_batch(seeds: Sequence[StepsToTarget], rng: np.random.Generator | None = None) -> CriticalBatch:
    """B_crit from the runs of one or more seeds; `rng` draws the bootstrap, from 20 seeds.

    Each seed's curve is fitted separately, and the interval is that of the mean of log B_crit over seeds: it includes
    all variation between seeds, and a factor has the same weight up and down. With one seed, or if one of them shows
    no bend, all runs are fitted together, and the interval is that of their scatter (`profile_interval`).

    B_crit is an estimate if runs reached the target on both sides of it; otherwise the verdict says which end of the
    interval holds: it is not extrapolated beyond the largest or below the smallest of these batch sizes.
    ValueError if fewer than three batch sizes reached the target in all seeds together.
    """
    together = StepsToTarget(
        *(
            tuple(chain.from_iterable(getattr(seed, name) for seed in seeds))
            for name in ("batch_sizes", "steps", "reached")
        )
    )
    counts = {"runs": len(together.reached), "censored": together.reached.count(False)}
    curves = [fit_steps(seed) for seed in seeds if len(seed.sizes_reached) >= 3]
    if len(seeds) >= 2 and len(curves) == len(seeds) and all(curve.bends for curve in curves):
        sizes, steps, examples = (
            _geometric(values, rng)
            for values in zip(*((c.critical_batch_size, c.steps_min, c.examples_min) for c in curves), strict=True)
        )
        rms = math.sqrt(sum(curve.rms**2 for curve in curves) / len(curves))
    else:
        curve = fit_steps(together)
        sizes = Interval(curve.critical_batch_size, *profile_interval(together, curve), n=counts["runs"])
        steps, examples = _of_one_curve(together, curve)
        rms = curve.rms
    bounded, verdict = _bounded(sizes, together)
    return CriticalBatch(bounded, steps, examples, verdict, rms, **counts)


def best_batch_for_time(critical: Interval, seconds_per_step: Interval, seconds_per_example: Interval) -> Interval:
    """The batch size that reaches the target fastest: B* = sqrt(B_crit a / b), the minimum of S(B) t(B).

    A step takes t(B) = a + b B seconds: a = `seconds_per_step` is its fixed cost, b the cost of each example. Valid
    as far as the memory and the line reach. The errors of the three are independent and add in logarithms.
    """
    parts = (critical, seconds_per_step, seconds_per_example)
    # 1/b is smallest where b is largest.
    lows = (critical.low, seconds_per_step.low, seconds_per_example.high)
    highs = (critical.high, seconds_per_step.high, seconds_per_example.low)
    value = math.sqrt(max(0.0, critical.value * seconds_per_step.value) / seconds_per_example.value)
    n = min(part.n for part in parts)
    if None in (*lows, *highs):
        return Interval(value, None, None, n)
    down = math.hypot(*(_log_ratio(part.value, end) for part, end in zip(parts, lows, strict=True)))
    up = math.hypot(*(_log_ratio(part.value, end) for part, end in zip(parts, highs, strict=True)))
    return Interval(value, value * math.exp(-down / 2), value * math.exp(up / 2) if up < 1400 else math.inf, n)


def _log_ratio(value: float, end: float | None) -> float:
    """|log(value / end)|; infinite if either is 0 or infinite."""
    ends = (value, end or 0.0)
    return abs(math.log(value / ends[1])) if all(0 < x < math.inf for x in ends) else math.inf


def _geometric(values: Sequence[float], rng: np.random.Generator | None) -> Interval:
    """The geometric mean with its interval."""
    mean = mean_interval([math.log(value) for value in values], rng)
    low, high = (None if end is None else math.exp(end) for end in (mean.low, mean.high))
    return Interval(math.exp(mean.value), low, high, mean.n)


def _bounded(sizes: Interval, runs: StepsToTarget) -> tuple[Interval, str]:
    """B_crit's interval and verdict, limited to the range of the runs."""
    low, high = sizes.low or 0.0, math.inf if sizes.high is None else sizes.high
    smallest, largest = runs.sizes_reached[0], runs.sizes_reached[-1]
    if sizes.value >= largest or high == math.inf:
        low, high = min(low, largest), math.inf
    elif sizes.value <= smallest or low == 0:
        low, high = 0.0, max(high, smallest)
    verdict = (
        UNRESOLVED if (low, high) == (0, math.inf) else LOWER if high == math.inf else UPPER if low == 0 else ESTIMATE
    )
    return replace(sizes, low=low, high=high), verdict


def _of_one_curve(runs: StepsToTarget, curve: StepsCurve) -> tuple[Interval, Interval]:
    """S_min and E_min with the intervals of linear regression about the curve, in logarithms."""
    n = sum(runs.reached)
    if not curve.bends:
        ends = [(0.0, math.inf) if value == 0 else (0.0, value) for value in (curve.steps_min, curve.examples_min)]
        return Interval(curve.steps_min, *ends[0], n=n), Interval(curve.examples_min, *ends[1], n=n)
    share = np.array(
        [curve.steps_min / curve.steps(b) for b, reached in zip(runs.batch_sizes, runs.reached, strict=True) if reached]
    )
    slopes = np.stack([share, 1 - share], axis=1)  # of log S by log S_min and log E_min
    errors = np.sqrt(np.diag(np.linalg.inv(slopes.T @ slopes)) * curve.rms**2 * n / (n - 2))
    steps, examples = (float(half) for half in np.exp(stdtrit(n - 2, 0.975) * errors))
    return (
        Interval(curve.steps_min, curve.steps_min / steps, curve.steps_min * steps, n),
        Interval(curve.examples_min, curve.examples_min / examples, curve.examples_min * examples, n),
    )
