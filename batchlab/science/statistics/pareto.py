"""The Pareto front."""

import numpy as np
from numpy.typing import ArrayLike


def pareto_front(costs: ArrayLike) -> list[bool]:
    """Which of the points (points, costs) no other point dominates; smaller costs are better (Pareto 1906).

    A point is dominated by one that is no worse in any cost and better in one; equal points both stay. A point with a
    nan is not compared: it is not on the front and dominates none.
    """
    table = np.asarray(costs, dtype=np.float64)
    if table.ndim != 2:
        raise ValueError(f"costs must be a table (points, costs), not of shape {table.shape}")
    known = np.array([not np.isnan(point).any() for point in table], dtype=bool)
    front = []
    for point, is_known in zip(table, known, strict=True):
        no_worse = (table <= point).all(axis=1) & known
        better = (table < point).any(axis=1)
        front.append(bool(is_known and not (no_worse & better).any()))
    return front
