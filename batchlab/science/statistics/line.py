"""A straight line through measurements at several sizes: t(B) = a + b B, m(B) = m0 + m1 B."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from batchlab.science.statistics.uncertainty import Interval


@dataclass(frozen=True)
class Line:
    """value = at_zero + per_unit x size, with 95% t intervals, which are None for two sizes."""

    at_zero: Interval
    per_unit: Interval
    rms: float  # root mean square of the residuals: of value, or of value over the line if `relative`
    relative: bool

    def at(self, size: float) -> float:
        return self.at_zero.value + self.per_unit.value * size


def fit_line(sizes: Sequence[float], values: Sequence[float], *, relative: bool) -> Line:
    """Least squares on the values or, if their errors are proportional (seconds), on values over the line.

    One value per size, the mean over its runs: a machine's deviation from the line repeats in all runs of a size, so
    single runs would hide it. `relative` weights by 1/value, so values must be above 0.
    ValueError if there are fewer than two sizes, a size occurs twice, or a value is not finite.
    """
    x, y = np.asarray(sizes, dtype=np.float64), np.asarray(values, dtype=np.float64)
    n = len(x)
    if n < 2 or len(set(sizes)) != n:
        raise ValueError(f"a line needs two sizes or more with one value each, not {list(sizes)}")
    if not (np.isfinite(y).all() and (not relative or (y > 0).all())):
        raise ValueError("a line needs finite values, above 0 for relative errors")
    scale = 1 / y if relative else np.ones(n)
    design = np.stack([np.ones(n), x], axis=1) * scale[:, None]
    # Columns of one scale: squares of 4096 next to 1 would lose half the digits.
    norms = np.linalg.norm(design, axis=0)
    solution, *_ = np.linalg.lstsq(design / norms, y * scale)
    left = y * scale - design / norms @ solution
    value = solution / norms
    rms = float(np.sqrt(np.mean(left**2)))
    if n == 2:
        ends: list[tuple[float | None, float | None]] = [(None, None)] * 2
    else:
        covariance = np.linalg.inv((design / norms).T @ (design / norms)) * float(left @ left) / (n - 2)
        half = float(stdtrit(n - 2, 0.975)) * np.sqrt(np.diag(covariance)) / norms
        ends = [(float(v - h), float(v + h)) for v, h in zip(value, half, strict=True)]
    at_zero, per_unit = (Interval(float(v), *end, n=n) for v, end in zip(value, ends, strict=True))
    return Line(at_zero, per_unit, rms, relative)


def fit_power(sizes: Sequence[float], values: Sequence[float], *, resolution: float = 0.0) -> Interval:
    """The exponent p of value ~ size^p: the slope of log value on log size, with its 95% t interval over sizes.

    `resolution` is the ratio of neighbours if values come from a grid (2 for powers of 2): rounding to it leaves a
    spread of log(resolution) / sqrt(12) even if all lie on a line, and the interval is never narrower.
    No interval for two sizes. ValueError as in `fit_line`.
    """
    if any(not 0 < value < math.inf for value in (*sizes, *values)):
        raise ValueError("a power law needs finite sizes and values above 0")
    x = np.log(np.asarray(sizes, dtype=np.float64))
    line = fit_line([float(v) for v in x], [math.log(value) for value in values], relative=False)
    slope, n = line.per_unit, len(x)
    if slope.low is None or resolution <= 1:
        return slope
    rounding = math.log(resolution) / math.sqrt(12)
    variance = max(line.rms**2 * n / (n - 2), rounding**2) / float(((x - x.mean()) ** 2).sum())
    half = float(stdtrit(n - 2, 0.975)) * math.sqrt(variance)
    return Interval(slope.value, slope.value - half, slope.value + half, n)
