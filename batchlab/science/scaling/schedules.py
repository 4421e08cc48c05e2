"""The learning rate over a run, as a function of the fraction of the budget that is used."""

import math
from collections.abc import Callable

SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda done: 1.0,
    "linear": lambda done: 1.0 - done,
    "cosine": lambda done: 0.5 * (1.0 + math.cos(math.pi * done)),
}


def learning_rate(progress: float, *, peak: float, warmup: float, start: float, schedule: str) -> float:
    """The learning rate at `progress` in [0, 1]: a straight line from `start` to `peak` over the first `warmup`
    of the budget (Goyal et al. 2017, arXiv:1706.02677, section 2.2), then the schedule over the rest.

    `progress` and `warmup` are fractions of the budget; nothing here counts steps, so that every batch size
    follows the same curve over the examples.
    """
    if progress < warmup:
        return start + (peak - start) * progress / warmup
    if warmup >= 1:
        return peak
    return peak * SCHEDULES[schedule](min(1.0, (progress - warmup) / (1.0 - warmup)))
