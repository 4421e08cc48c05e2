"""One noise scale for a whole run, from those measured during training."""

import math
from collections.abc import Sequence

from scipy.special import stdtrit

from batchlab.science.statistics.uncertainty import Interval


def over_training(signal: Sequence[Interval], noise: Sequence[Interval]) -> Interval:
    """The noise scale for a learning rate that is constant over training: sum of tr(Sigma) over sum of |G|^2.

    The learning rate that lowers a quadratic loss most over many steps is proportional to 1 / (1 + Bn/B) with this Bn,
    as each step gains lr |G|^2 - lr^2 h/2 (|G|^2 + tr(Sigma)/B) (McCandlish et al. 2018, arXiv:1812.06162, section
    2.2, summed; h is the curvature). So steps with a large gradient, which lower the loss most, count most, and times
    at which the signal was lost in the noise do no harm. The last value alone would describe only the end.

    `signal` (|G|^2) and `noise` (tr(Sigma)) are the values at each time, equally spaced in examples, with a 95% t
    interval over `n` draws. The interval runs from the least noise over the most signal to the reverse, as the two
    come from the same draws and their correlation is not recorded; it covers more than 95%. Its upper end is infinite
    if the summed signal is not shown to differ from 0: not resolved, and the value is infinite too.
    """
    over, below = _mean(noise), _mean(signal)
    low = max(0.0, over.low or 0.0) / below.high if below.high and below.high > 0 else 0.0
    if below.low is None or below.low <= 0 or over.high is None:
        return Interval(math.inf, low, math.inf, below.n)
    return Interval(max(0.0, over.value / below.value), low, max(0.0, over.high / below.low), below.n)


def _mean(parts: Sequence[Interval]) -> Interval:
    """The mean of independent estimates, with the degrees of freedom of Welch and Satterthwaite."""
    if not parts:
        raise ValueError("a mean over training needs one measurement or more")
    mean = sum(part.value for part in parts) / len(parts)
    if any(part.low is None or part.high is None or part.n < 2 for part in parts):
        return Interval(mean, None, None, len(parts))
    # Scaled by the largest: squared norms of 1e-40 have variances of 1e-80, which are squared below.
    widths = [(part.high or 0.0) - (part.low or 0.0) for part in parts]
    unit = max(widths)
    if unit == 0:
        return Interval(mean, mean, mean, len(parts))
    variances = [
        (width / unit / 2 / stdtrit(part.n - 1, 0.975)) ** 2 for width, part in zip(widths, parts, strict=True)
    ]
    freedom = sum(variances) ** 2 / sum(v**2 / (part.n - 1) for v, part in zip(variances, parts, strict=True))
    half = float(stdtrit(float(freedom), 0.975)) * math.sqrt(sum(variances)) * unit / len(parts)
    return Interval(mean, mean - half, mean + half, len(parts))
