"""The interval of a ratio of two means, whose denominator may not differ from 0."""

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtrit


def ratio_interval(numerators: ArrayLike, denominators: ArrayLike) -> tuple[float, float]:
    """95% interval of E[numerator] / E[denominator], neither below 0, from two or more draws of the pair.

    Fieller's theorem (E. C. Fieller 1954, J. R. Stat. Soc. B 16, 175-185): exact for normal pairs, however they are
    correlated. The upper end is infinite if the mean denominator is not shown to differ from 0; the draws still rule
    out ratios below the lower end. If they exclude all ratios from 0 to infinity, because the denominators are clearly
    negative, the result is (0, inf). nan on both sides if a draw is not finite.
    """
    pairs = np.array([numerators, denominators], dtype=np.float64)
    n = pairs.shape[1]
    if n < 2:
        raise ValueError(f"an interval needs 2 draws or more, not {n}")
    if not np.isfinite(pairs).all():
        return math.nan, math.nan
    # Scaled by the largest: gradients of 1e-20 have squared norms of 1e-40, and the terms below are fourth powers.
    scales = np.abs(pairs).max(axis=1)
    scales[scales == 0] = 1.0
    pairs /= scales[:, None]
    y, x = pairs.mean(axis=1).tolist()
    (yy, xy), (_, xx) = (np.cov(pairs) * stdtrit(n - 1, 0.975) ** 2 / n).tolist()
    # r lies inside where (y - r x)^2 <= t^2 Var(y - r x), which is a r^2 - 2 b r + c <= 0.
    a, b, c = x * x - xx, x * y - xy, y * y - yy
    root = math.sqrt(max(0.0, b * b - a * c))
    unit = float(scales[0] / scales[1])
    if a > 0:
        return (max(0.0, b - root) / a * unit, max(0.0, b + root) / a * unit) if x > 0 else (0.0, math.inf)
    if c <= 0:  # the numerator does not differ from 0 either
        return 0.0, math.inf
    return (c / (b + root) * unit if b + root > 0 else 0.0), math.inf
