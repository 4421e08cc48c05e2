"""The noise scale that the runs of a group measured while they trained."""

import math
from dataclasses import dataclass

import pandas as pd

from batchlab.records import Unknown
from batchlab.records.quantities import NOISE, SIGNAL
from batchlab.report.tables.groups import Group, column, completed
from batchlab.report.tables.study import Study, each_run
from batchlab.science.scaling.noise_over_training import over_training
from batchlab.science.statistics.fieller import ratio_interval
from batchlab.science.statistics.uncertainty import Interval


@dataclass(frozen=True)
class NoiseScale:
    """B_simple over the whole of one run's training: sum of tr(Sigma) over sum of |G|^2."""

    batch_size: int
    run: str
    examples: Interval  # infinite where the noise hides the gradient


def noise_scales(study: Study, group: Group) -> tuple[NoiseScale, ...] | Unknown:
    """The noise scale of each completed run that measured it, by batch size; or why there is none."""
    done = completed(group.runs)
    taken = study.measurements[study.measurements["run_id"].isin(done.index)]
    noises, sizes = dict(each_run(taken, NOISE.name)), column(done, "batch_size")
    found = []
    for run, signal in each_run(taken, SIGNAL.name):
        signals, noise = _parts(signal), _parts(noises.get(run, signal.iloc[:0]))
        both = [at for at in signals if at in noise]
        if both:
            scale = over_training([signals[at] for at in both], [noise[at] for at in both])
            found.append(NoiseScale(int(sizes[run]), run, scale))
    if not found:
        return Unknown("no run measured its noise scale: run with instruments=full")
    return tuple(sorted(found, key=lambda scale: (scale.batch_size, scale.run)))


def at_the_start(study: Study, runs: pd.DataFrame) -> Interval | None:
    """B_simple at the start of `runs`: the mean of tr(Sigma) over seeds, divided by that of |G|^2; Fieller's interval.

    Runs of one seed start from the same weights at every batch size, so they are one value. With a single seed the
    interval is over its draws. None if no run measured it.
    """
    taken = study.measurements[study.measurements["run_id"].isin(runs.index)]
    noises = {run: _parts(curve.iloc[:1]) for run, curve in each_run(taken, NOISE.name)}
    pairs: dict[int, tuple[Interval, Interval]] = {}  # by seed
    for run, curve in each_run(taken, SIGNAL.name):
        for at, signal in _parts(curve.iloc[:1]).items():
            if noise := noises.get(run, {}).get(at):
                pairs.setdefault(int(runs["seed"][run]), (signal, noise))
    if not pairs:
        return None
    if len(pairs) == 1:
        signal, noise = next(iter(pairs.values()))
        return over_training([signal], [noise])
    above, below = [noise.value for _, noise in pairs.values()], [signal.value for signal, _ in pairs.values()]
    low, high = ratio_interval(above, below)
    value = max(0.0, sum(above) / sum(below)) if math.isfinite(high) else high
    return Interval(value, low, high, len(pairs))


def resolved(scales: tuple[NoiseScale, ...]) -> float | None:
    """One number for the rules that need one: the geometric mean of the resolved ones; None if there are none."""
    values = [scale.examples.value for scale in scales if 0 < scale.examples.value < math.inf]
    return math.exp(sum(map(math.log, values)) / len(values)) if values else None


def _parts(curve: pd.DataFrame) -> dict[float, Interval]:
    """The finite values of a curve, by the examples at which they were measured."""
    parts = {}
    columns = (curve[name].tolist() for name in ("examples", "value", "low", "high", "n"))
    for at, value, low, high, n in zip(*columns, strict=True):
        if math.isfinite(value):
            bounded = math.isfinite(low) and math.isfinite(high)
            count = 0 if math.isnan(n) else int(n)
            parts[at] = Interval(value, low if bounded else None, high if bounded else None, count)
    return parts
