"""The loss of every batch size over examples, steps and seconds: three meanings of "faster"."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from batchlab.printable import counted
from batchlab.records.quantities import VALIDATION_LOSS
from batchlab.report.figures.drawing import MARKS, Drawing, at_most, colour_of, draw, missing, plain_log, thousands
from batchlab.report.figures.shown import Shown
from batchlab.report.tables.groups import device_models
from batchlab.report.tables.study import Study

LOSS = VALIDATION_LOSS.name
AXES = {
    "examples": ("loss_over_examples", "Validation loss over examples seen", "training examples seen"),
    "step": ("loss_over_steps", "Validation loss over optimizer steps", "optimizer steps"),
    "train_seconds": ("loss_over_seconds", "Validation loss over training time", "training seconds"),
}


def loss_curves(study: Study, shown: Shown | None) -> Iterator[Drawing]:
    """Three figures of one configuration, a line for each batch size with the range of its seeds."""
    curves = _curves(study, shown)
    for over, (name, title, label) in AXES.items():
        if shown is None or not curves:
            yield missing(name, title, "No run has a finite validation loss.")
            continue
        sizes = at_most(curves)
        of = f" ({shown.label})" if shown.label else ""
        left_out = "" if len(sizes) == len(curves) else f" {len(sizes)} of {len(curves)} batch sizes are drawn."
        seeds = counted(int(max(curve["seeds"].max() for curve in curves.values())), "seed")
        best = min(sizes, key=lambda size: float(curves[size]["mean"].min()))
        caption = (
            f"One line for each batch size, {', '.join(map(str, sizes))}{of}: the mean of at most {seeds}, "
            f"with a band from the lowest to the highest seed. The lowest point is at batch size {best}, "
            f"{float(curves[best]['mean'].min()):.4g}.{left_out}"
        )
        if over == "train_seconds" and bool(shown.runs["shared_machine"].any()):
            caption += " Some of these runs shared the machine with others, so their times are too long."
        if over == "train_seconds" and len(set(device_models(shown.runs)) - {""}) > 1:
            caption += " These runs were made on several models of device, so their times cannot be compared."

        def paint(axes: Axes, over: str = over, label: str = label, sizes: list[int] = sizes) -> None:
            colours = colour_of(sizes)
            for mark, size in zip(MARKS, sizes, strict=False):
                curve = curves[size]
                if over == "step":  # step 0 does not fit on a logarithmic axis
                    curve = curve[curve["step"] > 0]
                every = max(1, len(curve) // 5)
                axes.plot(
                    *(curve[over], curve["mean"]),
                    color=colours[size],
                    marker=mark,
                    markevery=every,
                    markersize=4,
                    label=f"{size:,}",
                )
                axes.fill_between(curve[over], curve["low"], curve["high"], color=colours[size], alpha=0.18, lw=0)
            if over == "step":
                plain_log(axes, "x")
            else:
                thousands(axes)
            plain_log(axes)
            axes.set(xlabel=label, ylabel="validation loss")

        yield draw(name, title, caption, paint, legend="batch size")


def _curves(study: Study, shown: Shown | None) -> dict[int, pd.DataFrame]:
    """Mean and range over seeds of each batch size's losses at equal examples."""
    if shown is None:
        return {}
    losses = study.measurements[study.measurements["name"] == LOSS]
    losses = losses[losses["run_id"].isin(shown.runs.index) & np.isfinite(losses["value"]) & (losses["value"] > 0)]
    losses = losses.assign(batch_size=losses["run_id"].map(shown.runs["batch_size"]))
    found = {}
    for size, rows in losses.groupby("batch_size"):
        seeds = rows.groupby("examples").agg(
            step=("step", "mean"),
            train_seconds=("train_seconds", "mean"),
            mean=("value", "mean"),
            low=("value", "min"),
            high=("value", "max"),
            seeds=("value", "size"),
        )
        found[int(size)] = seeds.reset_index()
    return found
