"""What no other choice beats in everything."""

import numpy as np
from numpy.typing import ArrayLike


def pareto_front(costs: ArrayLike) -> list[bool]:
    """Which of the points (points, costs), less being better, are beaten by none (Pareto 1906).

    A point is beaten by one that is no worse in any cost and better in one; equals beat each other in nothing, and
    stay. A point with a nan is not compared: it is on no front, and beats none.
    """
    table = np.asarray(costs, dtype=np.float64)
    if table.ndim != 2:
        raise ValueError(f"costs is a table (points, costs), and has shape {table.shape}")
    known = np.array([not np.isnan(point).any() for point in table], dtype=bool)
    front = []
    for point, is_known in zip(table, known, strict=True):
        no_worse = (table <= point).all(axis=1) & known
        better = (table < point).any(axis=1)
        front.append(bool(is_known and not (no_worse & better).any()))
    return front
