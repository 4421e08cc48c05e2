"""Where a larger batch stops making training faster."""

from collections.abc import Mapping
from dataclasses import dataclass

from batchlab.science.statistics.uncertainty import Interval

WITHIN = 0.9  # of the best speed
LAUNCH_BOUND = 0.7  # share of time that the device is busy; below it the host, which launches kernels, limits the speed


@dataclass(frozen=True)
class Knee:
    """The smallest size, of those measured, within 10% of the best speed; between `low` and `high` given the speeds'
    intervals. `high` is None if no size is surely that fast; both are None if a speed has no interval."""

    size: int
    low: int | None
    high: int | None
    best_size: int
    best_speed: float  # examples per second


def launch_bound(shares: Mapping[int, float]) -> dict[int, float]:
    """The sizes at which training is launch-bound, in order, with the share of time that the device is busy: there a
    larger size saves time on the host, which says nothing about the device."""
    return {size: shares[size] for size in sorted(shares) if shares[size] < LAUNCH_BOUND}


def throughput_knee(speeds: Mapping[int, Interval]) -> Knee:
    """The knee of `speeds`, examples per second with their interval, by size; it is one of the sizes.

    Raises ValueError if nothing was measured.
    """
    if not speeds:
        raise ValueError("no speed was measured")
    sizes = sorted(speeds)
    best_size = max(sizes, key=lambda size: speeds[size].value)
    best = speeds[best_size]
    size = next(size for size in sizes if speeds[size].value >= WITHIN * best.value)
    low = high = None
    if best.low is not None and best.high is not None:
        known = [(s, i.low, i.high) for s, i in sorted(speeds.items()) if i.low is not None and i.high is not None]
        low = next(s for s, _, fastest in known if fastest >= WITHIN * best.low)
        high = next((s for s, slowest, _ in known if slowest >= WITHIN * best.high), None)
    return Knee(size, low, high, best_size, best.value)
