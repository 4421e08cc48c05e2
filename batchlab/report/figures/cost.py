"""What a batch size costs: examples per second, seconds per step and bytes, with the knee and what did not fit."""

from collections.abc import Collection, Iterator

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from batchlab.printable import as_sentence
from batchlab.records import RunStatus, Unknown
from batchlab.records.quantities import PEAKS, SAVED_FOR_BACKWARD
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
    each_size,
    missing,
    plain_log,
    points,
)
from batchlab.report.fits.costs import Measured
from batchlab.report.fits.fits import GroupFits
from batchlab.science.scaling.knee import Knee
from batchlab.science.statistics.line import Line
from batchlab.science.statistics.uncertainty import Interval

MIB = 2**20
THROUGHPUT = ("throughput", "Examples per second by batch size")
PER_STEP = ("seconds_per_step", "Seconds per step by batch size")
MEMORY = ("memory", "Memory by batch size")
LABELS = {peak.name: peak.meaning for peak in PEAKS}


def cost(group: GroupFits, runs: pd.DataFrame) -> Iterator[Drawing]:
    """Throughput, seconds per step and memory of one group, whose `runs` are shown."""
    did_not_fit = sorted({size for size, status, _ in group.ended if status is RunStatus.OOM})
    yield _throughput(group.examples_per_second, group.knee, did_not_fit)
    yield _per_step(group.seconds_per_step)
    yield _memory(group.peak_bytes, each_size(runs, SAVED_FOR_BACKWARD.final), did_not_fit)


def _throughput(found: Measured | Unknown, knee: Knee | Unknown, did_not_fit: list[int]) -> Drawing:
    if isinstance(found, Unknown):
        return missing(*THROUGHPUT, as_sentence(found.why))
    speeds = dict(found.sizes)
    caption = f"Training examples per second, mean of {counted_seeds(speeds, 'run')} with 95% intervals."
    if isinstance(knee, Knee):
        caption += (
            f" The fastest is batch size {knee.best_size:,} with {knee.best_speed:,.0f}; the knee, the smallest size "
            f"within 10% of it, is {knee.size:,}."
        )
    caption += _left_out(found) + _limit(did_not_fit)

    def paint(axes: Axes) -> None:
        points(axes, speeds, "measured", BLUE, "o")
        if isinstance(knee, Knee):
            axes.axhline(0.9 * knee.best_speed, color=GREY, lw=1, ls=":", label="90% of the fastest")
            axes.axvline(knee.size, color=ORANGE, lw=1.2, ls="--", label=f"knee: {knee.size:,}")
        _mark_limit(axes, did_not_fit)
        batch_size_axis(axes, [*speeds, *did_not_fit])
        plain_log(axes)
        axes.set_ylabel("training examples per second")

    return draw(*THROUGHPUT, caption, paint)


def _per_step(found: Measured | Unknown) -> Drawing:
    if isinstance(found, Unknown):
        return missing(*PER_STEP, as_sentence(found.why))
    values = {size: _scaled(interval, 1000) for size, interval in found.sizes}
    line = found.line
    caption = f"Milliseconds per optimizer step, mean of {counted_seeds(values, 'run')} with 95% intervals."
    if line is not None:
        text = f"{1000 * line.at_zero.value:.3g} ms + {1000 * line.per_unit.value:.3g} ms per example"
        caption += f" The line through them is {text}."
    caption += _left_out(found)

    def paint(axes: Axes) -> None:
        points(axes, values, "measured", BLUE, "o", joined=False)
        if line is not None:
            _draw_line(axes, line, values, text, by=1000)
        batch_size_axis(axes, values)
        plain_log(axes)
        axes.set_ylabel("milliseconds per step")

    return draw(*PER_STEP, caption, paint)


def _memory(peaks: Measured | Unknown, saved: dict[int, Interval], did_not_fit: list[int]) -> Drawing:
    if isinstance(peaks, Unknown) and not saved:
        return missing(*MEMORY, as_sentence(peaks.why))
    caption, text = "", ""
    series: list[tuple[dict[int, Interval], str, str, str]] = []
    if isinstance(peaks, Unknown):
        caption += f"No peak is shown: {peaks}. "
    else:
        label = LABELS[peaks.name]
        in_mib = {size: _scaled(interval, 1 / MIB) for size, interval in peaks.sizes}
        series.append((in_mib, label, BLUE, "o"))
        caption += f"Peak memory by micro-batch: {label}, mean of {counted_seeds(in_mib, 'run')} with 95% intervals. "
        if peaks.line is not None:
            text = f"{peaks.line.at_zero.value / MIB:.3g} MiB + {peaks.line.per_unit.value / 1024:.3g} KiB per example"
            caption += f"The line through it is {text}.{_left_out(peaks)} "
    if saved:
        in_mib = {size: _scaled(interval, 1 / MIB) for size, interval in saved.items()}
        series.append((in_mib, SAVED_FOR_BACKWARD.meaning, GREEN, "s"))
        caption += "The bytes that a forward pass saves for its backward pass are counted exactly."
    caption = caption.strip() + _limit(did_not_fit)

    def paint(axes: Axes) -> None:
        sizes = {size for values, *_ in series for size in values}
        for values, label, colour, mark in series:
            points(axes, values, label, colour, mark, joined=colour == GREEN)
        if isinstance(peaks, Measured) and peaks.line is not None:
            _draw_line(axes, peaks.line, sizes, text, by=1 / MIB)
        _mark_limit(axes, did_not_fit)
        batch_size_axis(axes, [*sizes, *did_not_fit])
        plain_log(axes)
        axes.set_ylabel("MiB")

    return draw(*MEMORY, caption, paint)


def _draw_line(axes: Axes, line: Line, sizes: Collection[int], text: str, *, by: float) -> None:
    """A fitted line, scaled by `by`, over the batch sizes; on a logarithmic axis only where it is above 0."""
    at = np.geomspace(min(sizes), max(sizes), 100)
    height = np.array([by * line.at(float(size)) for size in at])
    axes.plot(at[height > 0], height[height > 0], color=ORANGE, label=text, zorder=1)


def _left_out(found: Measured) -> str:
    return "".join(f" Without {runs}." for runs in found.left_out)


def _scaled(interval: Interval, by: float) -> Interval:
    low, high = (None if end is None else end * by for end in (interval.low, interval.high))
    return Interval(interval.value * by, low, high, interval.n)


def _mark_limit(axes: Axes, did_not_fit: list[int]) -> None:
    if did_not_fit:
        axes.axvline(did_not_fit[0], color=RED, lw=1.2, ls="-.", label=f"did not fit: {did_not_fit[0]:,}")


def _limit(did_not_fit: list[int]) -> str:
    return f" Batch size {did_not_fit[0]:,} did not fit into memory." if did_not_fit else ""
