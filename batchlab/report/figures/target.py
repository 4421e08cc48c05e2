"""Steps, examples and seconds to the target over batch size, with the curves through them."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from matplotlib.axes import Axes

from batchlab.printable import as_sentence
from batchlab.records import Unknown
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
    plain_log,
    points,
)
from batchlab.report.fits.costs import TimeToTarget
from batchlab.report.fits.to_target import SizeToTarget, ToTarget
from batchlab.science.scaling.critical_batch import ESTIMATE, CriticalBatch
from batchlab.science.statistics.uncertainty import Interval

STEPS = ("steps_to_target", "Steps to the target by batch size", "optimizer steps")
EXAMPLES = ("examples_to_target", "Examples to the target by batch size", "training examples")
SECONDS = ("seconds_to_target", "Training time to the target by batch size", "training seconds")


def steps_and_examples(found: ToTarget | Unknown) -> Iterator[Drawing]:
    """Two figures: S(B) = S_min + E_min / B and E(B) = B S(B), with B_crit; also the sizes that never reached it."""
    for name, title, label in (STEPS, EXAMPLES):
        if isinstance(found, Unknown):
            yield missing(name, title, as_sentence(found.why))
            continue
        reached = [size for size in found.sizes if size.reached]
        censored = [size for size in found.sizes if not size.reached]
        if not reached:
            yield missing(name, title, f"No batch size reached {found.metric} {found.value:g} with every seed.")
            continue
        yield _to_target(found, reached, censored, name, title, label)


def _to_target(
    found: ToTarget,
    reached: Sequence[SizeToTarget],
    censored: Sequence[SizeToTarget],
    name: str,
    title: str,
    label: str,
) -> Drawing:
    in_steps = name == STEPS[0]
    values = {size.batch_size: _clipped(size.steps if in_steps else size.examples) for size in reached}
    critical = found.critical
    caption = (
        f"{label.capitalize()} until {found.metric} was {found.value:g}, to {found.resolution:,.0f} examples; at each "
        f"batch size the best learning rate tried; mean of {counted_seeds(values)} with 95% intervals. "
    )
    caption += _curve_sentence(critical) if critical is not None else as_sentence(found.why_not)
    if censored:
        caption += f" Not every seed reached it at {', '.join(f'{size.batch_size:,}' for size in censored)}."

    def paint(axes: Axes) -> None:
        points(axes, values, "measured", BLUE, "o", joined=False)
        sizes = [size.batch_size for size in (*reached, *censored)]
        if critical is not None:
            at = np.geomspace(min(sizes) / 1.2, max(sizes) * 1.2, 200)
            curve = critical.steps_min.value + critical.examples_min.value / at
            axes.plot(
                at,
                curve if in_steps else curve * at,
                color=ORANGE,
                label="S_min + E_min/B" if in_steps else "B S_min + E_min",
                zorder=1,
            )
            _mark(axes, critical, sizes)
        if censored:
            made = [size.budget_steps * (1 if in_steps else size.batch_size) for size in censored]
            at_least = [size.batch_size for size in censored]
            axes.scatter(at_least, made, marker="^", facecolors="none", edgecolors=RED, label="more than", zorder=3)
        batch_size_axis(axes, sizes)
        plain_log(axes)
        axes.set_ylabel(label)

    return draw(name, title, caption, paint)


def _mark(axes: Axes, critical: CriticalBatch, sizes: Sequence[int]) -> None:
    """B_crit as a line with its interval as a band, within the axis."""
    crit = critical.batch_size
    left, right = min(sizes) / 1.25, max(sizes) * 1.25
    low, high = max(crit.low or 0.0, left), min(math.inf if crit.high is None else crit.high, right)
    if low < high:
        axes.axvspan(low, high, color=GREEN, alpha=0.12, lw=0, label="B_crit, 95%")
    if left < crit.value < right:
        axes.axvline(crit.value, color=GREEN, lw=1.2, ls="--", label=f"B_crit {crit.value:,.3g}")
    axes.set_xlim(left, right)


def _curve_sentence(critical: CriticalBatch) -> str:
    crit = critical.batch_size
    span = f"95% interval {crit.low or 0.0:,.3g} to {math.inf if crit.high is None else crit.high:,.3g}"
    text = f"The critical batch size is {crit.value:,.3g} ({span}; {critical.verdict})."
    if critical.verdict != ESTIMATE:
        text += " It is not extrapolated beyond the batch sizes measured."
    return f"{text} The runs deviate by {critical.rms:.0%} from the curve."


def seconds(found: TimeToTarget | Unknown) -> Drawing:
    """T(B): the seconds measured, those from S(B) t(B), and their minimum."""
    name, title, label = SECONDS
    if isinstance(found, Unknown):
        return missing(name, title, as_sentence(found.why))
    if not found.sizes:
        return missing(name, title, "No batch size has a time to the target.")
    values = {size: _clipped(interval) for size, interval in found.sizes}
    caption = f"{label.capitalize()} to the target, mean of {counted_seeds(values)} with 95% intervals. "
    caption += f"Fastest of those measured: batch size {found.fastest:,}."
    others = [size for size in found.as_fast if size != found.fastest]
    if others:
        caption += f" It is not shown to differ from {', '.join(f'{size:,}' for size in others)}."
    best = found.best
    if best is not None:
        span = "" if best.low is None or best.high is None else f" ({best.low:,.3g} to {best.high:,.3g})"
        caption += f" By the fitted curves the minimum is at {best.value:,.3g}{span}."

    def paint(axes: Axes) -> None:
        points(axes, values, "measured", BLUE, "o", joined=False)
        modelled = [(size, value) for size, value in found.modelled if math.isfinite(value) and value > 0]
        if modelled:
            axes.plot(*zip(*modelled, strict=True), color=ORANGE, label="S(B) t(B), fitted", zorder=1)
        sizes = [*values, *(size for size, _ in modelled)]
        if best is not None and min(sizes) / 1.25 < best.value < max(sizes) * 1.25:
            axes.axvline(best.value, color=GREY, lw=1.2, ls="--", label=f"minimum: {best.value:,.3g}")
        batch_size_axis(axes, sizes)
        plain_log(axes)
        axes.set_ylabel(label)

    return draw(name, title, caption, paint)


def _clipped(interval: Interval | None) -> Interval:
    """For a logarithmic axis: an interval that reaches below 0 ends at a hundredth of its value."""
    assert interval is not None
    return interval if interval.low is None else replace(interval, low=max(interval.low, interval.value / 100))
