"""How much memory a micro-batch needs: bytes = fixed + per_example x micro-batch (SCIENCE 6)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

CONFIDENCE = 0.95
ROUNDING = 1e-6  # of an example: the error that rounding may leave in a whole number


@dataclass(frozen=True)
class Prediction:
    """The largest micro-batch that fits within a limit, in examples; 0: not even the fixed part fits.

    `low` and `high` bound it with 95% confidence; None: two probes give no error bars. `high` is infinite if the
    probes do not even show that memory grows with the micro-batch.
    """

    size: int
    low: float | None
    high: float | None


@dataclass(frozen=True)
class MemoryModel:
    """A line through the peak bytes of probes, by least squares.

    Valid if every kind of memory is linear in the micro-batch: a loss over all pairs of examples is not, and shows as
    `scatter`.
    """

    fixed: float  # bytes at any micro-batch: weights, gradients, optimizer state, data
    per_example: float  # bytes that each example of a micro-batch adds
    scatter: float | None  # standard deviation of a probe about the line, in bytes; None for two sizes
    probes: int
    centre: float  # mean micro-batch of the probes
    spread: float  # sum of their squared distances from it

    def bytes_at(self, size: float) -> float:
        """Peak bytes of a micro-batch of `size` examples."""
        return self.fixed + self.per_example * size

    def largest(self, limit: float) -> Prediction:
        """The largest micro-batch that stays within `limit` bytes, with the interval in which a probe would reach it.

        Calibration: the sizes whose 95% prediction interval for one more probe contains the limit (Fieller's form).
        Raises ValueError if the bytes do not grow with the micro-batch: then a limit implies nothing.
        """
        if self.per_example <= 0:
            raise ValueError(f"memory does not grow with the micro-batch ({self.per_example:.3g} bytes per example)")
        size = max(0, math.floor((limit - self.fixed) / self.per_example + ROUNDING))
        if self.scatter is None:
            return Prediction(size, None, None)
        low, high = self._interval(limit)
        return Prediction(size, max(0.0, low), max(0.0, high))

    def _interval(self, limit: float) -> tuple[float, float]:
        """Where (limit - line)^2 <= t^2 scatter^2 (1 + 1/n + d^2/spread), d the distance from the centre."""
        assert self.scatter is not None
        from scipy.special import (
            stdtrit,
        )  # here: the main process of a sweep imports this module, and SciPy takes half a second

        variance = (float(stdtrit(self.probes - 2, (1 + CONFIDENCE) / 2)) * self.scatter) ** 2
        above = limit - self.bytes_at(self.centre)
        a = self.per_example**2 - variance / self.spread
        b = self.per_example * above
        c = above**2 - variance * (1 + 1 / self.probes)
        root = math.sqrt(max(0.0, b * b - a * c))
        if a <= 0:  # the slope may be zero
            return 0.0, math.inf
        return self.centre + (b - root) / a, self.centre + (b + root) / a


def fit(sizes: Sequence[int], peaks: Sequence[float]) -> MemoryModel:
    """The line through probes of `sizes` examples that took `peaks` bytes; at least two different sizes."""
    n = len(sizes)
    if len(set(sizes)) < 2 or len(peaks) != n:
        raise ValueError(f"a line needs probes of two sizes, not {sorted(set(sizes))}")
    centre, middle = fmean(sizes), fmean(peaks)
    spread = sum((x - centre) ** 2 for x in sizes)
    slope = sum((x - centre) * (y - middle) for x, y in zip(sizes, peaks, strict=True)) / spread
    fixed = middle - slope * centre
    left = sum((y - fixed - slope * x) ** 2 for x, y in zip(sizes, peaks, strict=True))
    scatter = math.sqrt(left / (n - 2)) if len(set(sizes)) > 2 else None
    return MemoryModel(fixed, slope, scatter, n, centre, spread)


@dataclass(frozen=True)
class Account:
    """The memory of a training step, counted in bytes from the tensors themselves: exact, without a GPU.

    It excludes temporaries, workspaces and allocator overhead, so it bounds the micro-batch from above.
    """

    weights: int
    buffers: int
    gradients: int
    optimizer_state: int
    data: int  # the training and the validation set, if they are on the device
    saved: MemoryModel  # bytes that autograd keeps between forward and backward, over the micro-batch

    def at_least(self, size: int, *, accumulate: int = 1) -> float:
        """Bytes that are certainly in memory at once in the second step, with micro-batches of `size` examples.

        At the end of a forward pass there are saved tensors, and gradients only from the second micro-batch on.
        """
        held = self.weights + self.buffers + self.optimizer_state + self.data
        saved = self.saved.bytes_at(size)
        return held + (saved + self.gradients if accumulate > 1 else max(saved, self.gradients))

    def at_most(self, limit: float, *, accumulate: int = 1) -> float:
        """The micro-batch, in examples, above which nothing can fit into `limit` bytes; infinite: no bound."""
        if self.at_least(0, accumulate=accumulate) > limit:
            return 0
        if self.saved.per_example <= 0:
            return math.inf
        held = self.weights + self.buffers + self.optimizer_state + self.data
        available = limit - held - (self.gradients if accumulate > 1 else 0)
        return max(0, math.floor((available - self.saved.fixed) / self.saved.per_example))
