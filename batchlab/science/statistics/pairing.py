"""Runs paired by seed across batch sizes, and what is missing."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NO_VALUE, NOT_RUN = "no value", "not run"
OF_THE_BATCH_SIZE = ("oom", "diverged", NO_VALUE)  # a value missing because of the batch size, not by chance


@dataclass(frozen=True)
class Outcome:
    """The result of one run."""

    batch_size: int
    seed: int
    status: str  # how it ended: "completed", "diverged", "oom", "failed", ...
    value: float | None  # what is compared; None or not finite if a completed run has none


@dataclass(frozen=True)
class Paired:
    """A table of seeds by batch sizes without gaps, cut out of a study."""

    batch_sizes: tuple[int, ...]  # ascending
    seeds: tuple[int, ...]  # ascending
    values: NDArray[np.float64]  # (seeds, batch sizes)
    left_out: tuple[str, ...]  # a sentence for each batch size and seed that is not in it, with the reason


def paired(outcomes: Iterable[Outcome], *, diverged_as: float | None = None) -> Paired:
    """Every seed at every batch size, for the batch sizes and seeds that allow it; possibly none.

    A batch size with a run that did not fit, or completed without a value, is left out with all its seeds: those that
    finished would make it look too good. So is one with a run that diverged, unless `diverged_as` gives a value for
    such a run (the loss before training, say). For values missing by chance (the run failed, was killed or stopped, or
    was never made) the seed or the batch size is left out, whichever lacks the larger share, until nothing is missing.
    ValueError if two outcomes have the same batch size and seed.
    """
    runs: dict[tuple[int, int], Outcome] = {}
    for outcome in outcomes:
        if runs.setdefault((outcome.batch_size, outcome.seed), outcome) is not outcome:
            raise ValueError(f"two outcomes of batch size {outcome.batch_size} and seed {outcome.seed}: choose one")
    sizes, seeds = sorted({size for size, _ in runs}), sorted({seed for _, seed in runs})
    values: dict[tuple[int, int], float] = {}
    lacks: dict[tuple[int, int], str] = {(size, seed): NOT_RUN for size in sizes for seed in seeds}
    for cell, run in runs.items():
        value = run.value if run.status == "completed" else diverged_as if run.status == "diverged" else None
        if value is not None and math.isfinite(value):
            values[cell] = value
            del lacks[cell]
        else:
            lacks[cell] = NO_VALUE if run.status == "completed" else run.status

    left_out = []
    for size in list(sizes):
        if any(lacks.get((size, seed)) in OF_THE_BATCH_SIZE for seed in seeds):
            left_out.append(f"batch size {size}: {_counted(size, seeds, lacks)}")
            sizes.remove(size)
    while holes := [cell for cell in lacks if cell[0] in sizes and cell[1] in seeds]:
        by_size, by_seed = Counter(size for size, _ in holes), Counter(seed for _, seed in holes)
        size, seed = max(sizes, key=by_size.__getitem__), max(seeds, key=by_seed.__getitem__)
        if by_size[size] / len(seeds) > by_seed[seed] / len(sizes):
            left_out.append(f"batch size {size}: {_counted(size, seeds, lacks)}")
            sizes.remove(size)
        else:
            left_out.append(f"seed {seed}: {_listed(seed, sizes, lacks)}")
            seeds.remove(seed)
    if not (sizes and seeds):
        sizes, seeds = [], []
    table = np.array([[values[size, seed] for size in sizes] for seed in seeds], dtype=np.float64)
    return Paired(tuple(sizes), tuple(seeds), table.reshape(len(seeds), len(sizes)), tuple(left_out))


def _counted(size: int, seeds: Sequence[int], lacks: dict[tuple[int, int], str]) -> str:
    """`2 of 3 seeds diverged, 1 failed`."""
    ends = Counter(lacks[size, seed] for seed in seeds if (size, seed) in lacks)
    counts = [f"{count} {why}" for why, count in ends.most_common()]
    return f"of {len(seeds)} seed{'s'[: len(seeds) != 1]} {', '.join(counts)}"


def _listed(seed: int, sizes: Sequence[int], lacks: dict[tuple[int, int], str]) -> str:
    """`failed at 8, 16; not run at 512`."""
    at = defaultdict(list)
    for size in sizes:
        if (size, seed) in lacks:
            at[lacks[size, seed]].append(size)
    return "; ".join(f"{why} at {', '.join(map(str, where))}" for why, where in at.items())
