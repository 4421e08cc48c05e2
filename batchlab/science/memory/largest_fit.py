"""The largest micro-batch that fits: predicted from small probes, searched for, and run twice.

Pure: the caller runs the probes. Sizes are tried on a fixed grid, so that two searches with the same limit end at the
same size: every size up to 63, then those with six significant bits, 1.6 to 3.1% apart (64, 66, ... 126,
128, 132, ...).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from batchlab.science.memory.memory_model import MemoryModel, Prediction, fit
from batchlab.science.statistics.uncertainty import Interval, median_interval

SIGNIFICANT_BITS = 6
FIRST = 2  # examples of the first probe: BatchNorm cannot train on one
GROWTH = 8  # each small probe is so many times larger than the one before,
REACH = 16  # until the line through them reaches the limit within so many times the last


class Outcome(StrEnum):
    """The outcome of a probe."""

    FITS = "fits"
    OOM = "oom"
    RETRIES = "retries"  # it ran after the allocator emptied its cache to make room: at the limit, and slow
    KERNEL_LIMIT = "kernel_limit"  # too large for a kernel, whatever the memory
    UNCLEAR = "unclear"  # a library found no way to compute: a lack of memory if a smaller size works
    FAILED = "failed"


class SearchStatus(StrEnum):
    """How far a search is, or how it ended."""

    RUNNING = "running"
    INTERRUPTED = "interrupted"
    FAILED = "failed"  # by neither memory nor a kernel's limit
    FOUND = "found"
    NOTHING_FITS = "nothing fits"


@dataclass(frozen=True, kw_only=True)
class Probe:
    """One micro-batch tried: three steps or more and a validation of `size` examples."""

    size: int
    outcome: Outcome
    accumulate: int = 1
    phase: str = ""  # in which it ended, if it did not fit
    reason: str = ""
    allowed_bytes: int | None = None  # what it could use: the limit minus the headroom
    peak_bytes: int | None = None
    peaks: dict[str, int] | None = None  # each kind of memory that was counted
    step_seconds: tuple[float, ...] = ()  # of the steps after the first
    busy_share: float | None = None  # of time that the GPU is busy with the passes; None: not known, or a CPU
    n_train: int | None = None  # examples in the data; if there are fewer than a batch, they are repeated
    n_val: int | None = None
    shared_machine: bool = False

    @property
    def fits(self) -> bool:
        """Whether it ran completely, with headroom, and without a retry of the allocator."""
        return self.outcome is Outcome.FITS


@dataclass(frozen=True)
class Found:
    """The result of a search."""

    probes: tuple[Probe, ...]
    largest: int | None  # ran twice completely; None: no size did
    larger: Probe | None  # the next size, which did not; None: the search reached its bound
    predicted: Prediction | None  # from the small probes only; None: not possible
    predicted_from: tuple[int, ...]
    fault: Probe | None  # the failure that ended the search, if neither memory nor a kernel's limit

    @property
    def status(self) -> SearchStatus:
        """How the search ended."""
        if self.fault is not None:
            return SearchStatus.FAILED
        return SearchStatus.NOTHING_FITS if self.largest is None else SearchStatus.FOUND

    @property
    def error(self) -> float | None:
        """The prediction over the size found, minus 1; None if one of them is missing, or the bound came first."""
        if self.predicted is None or not self.largest or self.larger is None:
            return None
        return self.predicted.size / self.largest - 1

    @property
    def unsteady(self) -> tuple[int, ...]:
        """Sizes that fitted once and did not fit another time."""
        fitted = {probe.size for probe in self.probes if probe.fits}
        return tuple(sorted(fitted & {probe.size for probe in self.probes if not probe.fits}))


def out_of_order(probes: Sequence[Probe]) -> tuple[int, ...]:
    """Sizes that never fitted although a larger one did: memory is not monotone."""
    fitted = {probe.size for probe in probes if probe.fits}
    not_fitted = {probe.size for probe in probes if not probe.fits and probe.outcome is not Outcome.FAILED}
    return tuple(sorted(size for size in not_fitted - fitted if size < max(fitted, default=0)))


def size_at(index: int) -> int:
    """The size at an index of the grid; 0 at index 0, where nothing fits."""
    half = 1 << (SIGNIFICANT_BITS - 1)
    if index < 2 * half:
        return index
    shift, mantissa = divmod(index - half, half)
    return (half + mantissa) << shift


def index_of(size: int) -> int:
    """The index of the largest size on the grid that is not above `size`."""
    shift = max(0, size.bit_length() - SIGNIFICANT_BITS)
    return (shift << (SIGNIFICANT_BITS - 1)) + (size >> shift)


def line_through(probes: Sequence[Probe]) -> MemoryModel | None:
    """The memory model of the probes that fitted; None for fewer than two sizes."""
    known = [(p.size, p.peak_bytes) for p in probes if p.fits and p.peak_bytes is not None]
    if len({size for size, _ in known}) < 2:
        return None
    return fit([size for size, _ in known], [peak for _, peak in known])


def largest_fit(
    try_size: Callable[[int], Probe], *, at_most: int, watch: Callable[[Probe], None] = lambda probe: None
) -> Found:
    """The largest size on the grid, up to `at_most`, that ran twice; `watch` is called with every probe.

    Small probes predict it; from the prediction the search moves in doubling strides until a size fits and a larger
    one does not, and then bisects. The last size runs a second time. A size that ran and then did not is never
    returned: the search steps down, in doubling strides, to one that runs twice. If memory is monotone this is the
    largest on the grid, after at most 2 log2(at_most) + 6 probes.
    """
    search = _Search(try_size, watch, index_of(at_most))
    predicted, small = search.grow()
    search.close_in(predicted)
    largest = search.confirm()
    above = [p for p in search.probes if not p.fits and p.size > (largest or 0) and p is not search.fault]
    return Found(
        probes=tuple(search.probes),
        largest=largest,
        larger=min(above, key=lambda probe: probe.size, default=None),
        predicted=predicted,
        predicted_from=small,
        fault=search.fault,
    )


class _Search:
    """Between `low`, the index of the largest size that ran, and `high`, that of the smallest that did not."""

    def __init__(self, try_size: Callable[[int], Probe], watch: Callable[[Probe], None], top: int) -> None:
        self.try_size, self.watch, self.top = try_size, watch, top
        self.probes: list[Probe] = []
        self.low, self.high = 0, top + 1
        self.fault: Probe | None = None

    @property
    def is_open(self) -> bool:
        """Whether a size is left to try."""
        return self.fault is None and self.high - self.low > 1

    def try_index(self, index: int) -> bool:
        """Whether the size at `index` fits; the probe is recorded."""
        probe = judged(self.try_size(size_at(index)), self.probes)
        self.probes.append(probe)
        self.watch(probe)
        if probe.outcome is Outcome.FAILED:
            self.fault = probe
        elif probe.fits:
            self.low = index
        else:
            self.high = index
        return probe.fits

    def grow(self) -> tuple[Prediction | None, tuple[int, ...]]:
        """Small probes until the line through them reaches the limit nearby: the prediction, and its sizes."""
        predicted: Prediction | None = None
        small: tuple[int, ...] = ()
        self.try_index(min(index_of(FIRST), self.top))
        while self.is_open and self.low and self.high > self.top:
            size = size_at(self.low)
            predicted, small = self._predicted(), tuple(p.size for p in self.probes)
            if predicted is not None and predicted.size <= REACH * size:
                break
            self.try_index(min(index_of(GROWTH * size), self.top))
        return predicted, small if predicted is not None else ()

    def close_in(self, predicted: Prediction | None) -> None:
        """From the prediction in doubling strides until the limit is passed, then by bisection."""
        at = None if predicted is None else min(index_of(predicted.size), self.top)
        halving = at is None or at >= self.high
        went, stride, index = set(), 1, at or 0
        while self.is_open:
            if halving:
                index = (self.low + self.high) // 2
            fitted = self.try_index(min(max(index, self.low + 1), self.high - 1))
            went.add(fitted)
            halving = halving or len(went) == 2
            index, stride = (self.low + stride if fitted else self.high - stride), 2 * stride

    def confirm(self) -> int | None:
        """The largest size that ran twice, downwards from `low`; None if none did."""
        stride = 1
        while self.low and self.fault is None:
            size = size_at(self.low)
            if self._ran(size) >= 2:
                return size
            if not self.try_index(self.low):
                self.low, stride = (max(1, self.high - stride) if self.high > 1 else 0), 2 * stride
        return None

    def _ran(self, size: int) -> int:
        return sum(probe.fits for probe in self.probes if probe.size == size)

    def _predicted(self) -> Prediction | None:
        line, allowed = line_through(self.probes), self.probes[-1].allowed_bytes
        if line is None or allowed is None or line.per_example <= 0:
            return None
        return line.largest(allowed)


def judged(probe: Probe, before: Sequence[Probe]) -> Probe:
    """`probe` with the outcome that follows from the probes before it.

    A library that finds no way to compute, or a kernel that refuses the size, is a limit on the size only if a smaller
    one ran. Otherwise it is a failure.
    """
    if probe.outcome not in (Outcome.UNCLEAR, Outcome.KERNEL_LIMIT):
        return probe
    if not any(other.fits and other.size < probe.size for other in before):
        return replace(probe, outcome=Outcome.FAILED)
    return replace(probe, outcome=Outcome.OOM) if probe.outcome is Outcome.UNCLEAR else probe


def busy_shares(probes: Sequence[Probe]) -> dict[int, float]:
    """The share of time that the GPU is busy at each size that fits; the later of two probes counts."""
    return {probe.size: probe.busy_share for probe in probes if probe.fits and probe.busy_share is not None}


def speeds(probes: Sequence[Probe]) -> dict[int, Interval]:
    """Examples per second of each size that fits, by the median step after the first; the longer of two counts."""
    found: dict[int, Interval] = {}
    for probe in probes:
        if not probe.fits or not probe.step_seconds:
            continue
        step, examples = median_interval(probe.step_seconds), probe.size * probe.accumulate
        if probe.size not in found or step.n > found[probe.size].n:
            low = examples / step.high if step.high else None
            high = examples / step.low if step.low else None
            found[probe.size] = Interval(examples / step.value, low, high, step.n)
    return found
