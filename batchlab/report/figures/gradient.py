"""The gradient noise scale over training, with its uncertainty."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from batchlab.records.quantities import NOISE, SIGNAL
from batchlab.report.figures.drawing import MARKS, Drawing, at_most, colour_of, draw, missing, plain_log, thousands
from batchlab.report.figures.shown import Shown
from batchlab.report.tables.study import Study
from batchlab.science.scaling.noise_over_training import over_training
from batchlab.science.statistics.uncertainty import Interval


def noise_over_training(study: Study, shown: Shown | None) -> Iterator[Drawing]:
    """One figure: the noise scale of every batch size over examples, from the seeds' mean signal and mean noise."""
    name, title = "noise_scale", "Gradient noise scale over training"
    curves = {} if shown is None else _curves(study, shown)
    if not curves:
        why = "No run measured the noise scale: run with instruments=full."
        yield missing(name, title, why)
        return
    sizes = at_most(curves, 6)
    resolved = sum(int(np.isfinite(curves[size]["value"]).sum()) for size in sizes)
    caption = (
        f"Examples at which a gradient is as much signal as noise, for batch sizes {', '.join(map(str, sizes))}, with "
        f"95% intervals; {resolved} of {sum(len(curves[size]) for size in sizes)} points are resolved; a hollow "
        "triangle marks the lower end of one that is not."
    )

    def paint(axes: Axes) -> None:
        colours = colour_of(sizes)
        for mark, size in zip(MARKS, sizes, strict=False):
            curve = curves[size]
            known = curve[np.isfinite(curve["value"])]
            lost = curve[~np.isfinite(curve["value"]) & (curve["low"] > 0)]
            axes.plot(known["examples"], known["value"], color=colours[size], marker=mark, ms=4, label=f"{size:,}")
            bounded = known[np.isfinite(known["high"]) & (known["low"] > 0)]
            axes.fill_between(
                bounded["examples"], bounded["low"], bounded["high"], color=colours[size], alpha=0.18, lw=0
            )
            axes.scatter(lost["examples"], lost["low"], color=colours[size], marker="^", facecolors="none", s=40)
        plain_log(axes)
        thousands(axes)
        axes.set(xlabel="training examples seen", ylabel="noise scale, examples")

    yield draw(name, title, caption, paint, legend="batch size")


def _curves(study: Study, shown: Shown) -> dict[int, pd.DataFrame]:
    """For each batch size: examples, value, low, high."""
    names = {SIGNAL.name, NOISE.name}
    taken = study.measurements
    taken = taken[taken["name"].isin(names) & taken["run_id"].isin(shown.runs.index) & np.isfinite(taken["value"])]
    taken = taken.assign(batch_size=taken["run_id"].map(shown.runs["batch_size"]))
    found: dict[int, list[tuple[float, Interval]]] = {}
    for (size, examples), rows in taken.groupby(["batch_size", "examples"]):
        signal, noise = (_intervals(rows[rows["name"] == name]) for name in (SIGNAL.name, NOISE.name))
        if signal and noise:
            found.setdefault(int(size), []).append((float(examples), over_training(signal, noise)))
    columns = ["examples", "value", "low", "high"]
    return {
        size: pd.DataFrame([[at, i.value, i.low, i.high] for at, i in curve], columns=columns, dtype=float)
        for size, curve in found.items()
    }


def _intervals(rows: pd.DataFrame) -> list[Interval]:
    ends = zip(rows["value"], rows["low"], rows["high"], rows["n"], strict=True)
    return [
        Interval(value, None, None, 1) if np.isnan([low, high, n]).any() else Interval(value, low, high, int(n))
        for value, low, high, n in ends
    ]
