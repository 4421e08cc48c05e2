"""What a batch size costs: examples per second, seconds per step and bytes, with the knee and what did not fit."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from batchlab.report.figures.configurations import Configuration
from batchlab.report.figures.drawing import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    RED,
    Drawing,
    batch_size_axis,
    counted_seeds,
    draw,
    missing,
    over_seeds,
    plain_log,
    points,
)
from batchlab.report.study import Study
from batchlab.science.knee import throughput_knee
from batchlab.science.memory_model import fit
from batchlab.science.uncertainty import Interval

MIB = 2**20
SPEED = "final.speed/examples_per_second"
PEAKS = {
    "final.memory/peak_allocated_bytes": "peak that CUDA allocated",
    "final.memory/peak_resident_bytes": "growth of the process",
    "final.memory/saved_for_backward_bytes": "saved for the backward pass",
}


def cost(study: Study, shown: Configuration | None) -> Iterator[Drawing]:
    """Throughput, seconds per step and memory of one configuration."""
    del study
    runs = shown.runs if shown is not None else pd.DataFrame({"batch_size": [], "status": []})
    did_not_fit = sorted({int(size) for size in runs.loc[runs["status"] == "oom", "batch_size"]})
    yield _throughput(runs, did_not_fit)
    yield _memory(runs, did_not_fit)


def _throughput(runs: pd.DataFrame, did_not_fit: list[int]) -> Drawing:
    name, title = "throughput", "Examples per second by batch size"
    alone, shared = _alone(runs)
    speeds = over_seeds(runs if shared else alone, SPEED)
    if not speeds:
        return missing(name, title, "No run measured its speed.")
    knee = throughput_knee(speeds)
    says = (
        f"Training examples per second, mean of {counted_seeds(speeds)} with 95% intervals; the fastest is batch size "
        f"{knee.best_size:,} with {knee.best_speed:,.0f}; the knee, the smallest within 10% of it, is {knee.size:,}."
        + _limit(did_not_fit)
    )
    if shared:
        says += " No run had the machine to itself, so these speeds are not to be compared."
    elif len(alone) < len(runs):
        says += f" {len(runs) - len(alone)} runs that shared the machine are left out."

    def paint(axes: Axes) -> None:
        points(axes, speeds, "measured", BLUE, "o")
        axes.axhline(0.9 * knee.best_speed, color=GREY, lw=1, ls=":", label="90% of the fastest")
        axes.axvline(knee.size, color=ORANGE, lw=1.2, ls="--", label=f"knee: {knee.size:,}")
        _mark_limit(axes, did_not_fit)
        batch_size_axis(axes, [*speeds, *did_not_fit])
        plain_log(axes)
        axes.set_ylabel("training examples per second")

    return draw(name, title, says, paint)


def _memory(runs: pd.DataFrame, did_not_fit: list[int]) -> Drawing:
    name, title = "memory", "Memory by batch size"
    alone, shared = _alone(runs)
    known = {column: over_seeds(runs if shared else alone, column) for column in PEAKS}
    known = {column: values for column, values in known.items() if values}
    if "final.memory/peak_allocated_bytes" in known:  # CUDA's own count says it better
        known.pop("final.memory/peak_resident_bytes", None)
    if not known:
        return missing(name, title, "No run measured its memory.")
    lines = []
    for column, values in known.items():
        if len(values) > 1 and runs["micro_batch_size"].equals(runs["batch_size"]):
            line = fit(list(values), [interval.value for interval in values.values()])
            lines.append((column, line, _line(line.fixed, line.per_example)))
    says = f"Mean of {counted_seeds(next(iter(known.values())))} with 95% intervals. " + " ".join(
        f"The line through the {PEAKS[column]} is {text}." for column, _, text in lines
    )
    says += _limit(did_not_fit)

    def paint(axes: Axes) -> None:
        colours = dict(zip(PEAKS, (BLUE, BLUE, GREEN), strict=True))
        sizes = sorted({size for values in known.values() for size in values})
        for column, values in known.items():
            in_mib = {size: _scaled(interval, 1 / MIB) for size, interval in values.items()}
            axes.plot([], [], color=colours[column], marker="o" if colours[column] == BLUE else "s")
            points(axes, in_mib, PEAKS[column], colours[column], "o" if colours[column] == BLUE else "s")
        for column, line, text in lines:
            at = np.geomspace(sizes[0], sizes[-1], 100)
            height = [line.bytes_at(size) / MIB for size in at]
            if min(height) > 0:
                axes.plot(at, height, color=colours[column], lw=1, ls="--", label=text)
        _mark_limit(axes, did_not_fit)
        batch_size_axis(axes, [*sizes, *did_not_fit])
        plain_log(axes)
        axes.set_ylabel("MiB")

    return draw(name, title, says.strip(), paint)


def _line(fixed: float, per_example: float) -> str:
    """`1.16 MiB + 3.77 KiB per example`; what is under a byte is rounding."""
    start = f"{fixed / MIB:.3g} MiB + " if abs(fixed) >= 1 else ""
    return f"{start}{per_example / 1024:.3g} KiB per example"


def _alone(runs: pd.DataFrame) -> tuple[pd.DataFrame, bool]:
    """Runs that had the machine to themselves, and whether there is none: then all are all there is."""
    if "shared_machine" not in runs:
        return runs, False
    alone = runs[~runs["shared_machine"].astype(bool)]
    return alone, alone.empty and not runs.empty


def _scaled(interval: Interval, by: float) -> Interval:
    low, high = (None if end is None else end * by for end in (interval.low, interval.high))
    return Interval(interval.value * by, low, high, interval.n)


def _mark_limit(axes: Axes, did_not_fit: list[int]) -> None:
    if did_not_fit:
        axes.axvline(did_not_fit[0], color=RED, lw=1.2, ls="-.", label=f"did not fit: {did_not_fit[0]:,}")


def _limit(did_not_fit: list[int]) -> str:
    return f" Batch size {did_not_fit[0]:,} did not fit into memory." if did_not_fit else ""
