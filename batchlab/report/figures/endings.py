"""The result of training: sharpness of the minimum, at the end and at equal loss, and generalisation."""

import re
from collections.abc import Iterator

import pandas as pd
from matplotlib.axes import Axes

from batchlab.records.quantities import LOSS_GAP, VALIDATION_LOSS
from batchlab.report.figures.drawing import (
    BLUE,
    GREEN,
    MARKS,
    ORANGE,
    PURPLE,
    RED,
    Drawing,
    batch_size_axis,
    counted_seeds,
    draw,
    each_size,
    factors,
    missing,
    plain_log,
    points,
)
from batchlab.report.figures.shown import Shown
from batchlab.report.tables.groups import completed
from batchlab.report.tables.study import Study

COLOURS = (BLUE, ORANGE, GREEN, RED, PURPLE)
AT_THE_END, AT_LOSS = "final.sharpness/", re.compile(r"final\.sharpness_at_loss_([\d.e-]+)/lambda_max")


def endings(study: Study, shown: Shown | None) -> Iterator[Drawing]:
    """Sharpness and generalisation over batch size, of one configuration."""
    del study
    runs = shown.runs if shown is not None else pd.DataFrame({"batch_size": [], "status": []})
    done = completed(runs)
    yield _sharpness(done)
    yield _gap(done)
    yield _best(done)


def _sharpness(runs: pd.DataFrame) -> Drawing:
    name, title = "sharpness", "Largest curvature by batch size"
    lines = {"at the end": each_size(runs, f"{AT_THE_END}lambda_max", interval=factors)}
    matched = [found for column in map(str, runs.columns) if (found := AT_LOSS.fullmatch(column))]
    for found in sorted(matched, key=lambda one: -float(one[1])):
        lines[f"at training loss {found[1]}"] = each_size(runs, found[0], interval=factors)
    lines = {label: values for label, values in lines.items() if values}
    if not lines:
        return missing(name, title, "No run measured sharpness: run with instruments=full.")
    ends = lines.get("at the end", {})
    caption = (
        f"Largest eigenvalue of the Hessian, geometric mean of {counted_seeds(next(iter(lines.values())))} with 95% "
        f"intervals: {', '.join(lines)}."
    )
    if ends:
        caption += (
            " At the end the training losses differ, and with cross-entropy sharpness decreases with the loss: "
            "compare at equal loss."
        )

    def paint(axes: Axes) -> None:
        for i, (label, values) in enumerate(lines.items()):
            points(axes, values, label, COLOURS[i % 5], MARKS[i % 5], shift=1.03 ** (i - len(lines) / 2))
        batch_size_axis(axes, {size for values in lines.values() for size in values})
        if all(interval.value > 0 for values in lines.values() for interval in values.values()):
            plain_log(axes)
        axes.set_ylabel("largest eigenvalue")

    return draw(name, title, caption, paint)


def _gap(runs: pd.DataFrame) -> Drawing:
    name, title = "generalisation_gap", "Validation minus training loss by batch size"
    gaps = each_size(runs, LOSS_GAP.final)
    if not gaps:
        return missing(name, title, "No run measured its loss on clean training data: run with instruments=full.")
    caption = (
        f"At the end of training, mean of {counted_seeds(gaps)} with 95% intervals. A run that has not learnt yet has "
        "no gap: compare it with the loss."
    )

    def paint(axes: Axes) -> None:
        points(axes, gaps, "validation minus training loss, at the end", BLUE, "o")
        axes.axhline(0, color="#999999", lw=0.8)
        batch_size_axis(axes, gaps)
        axes.set_ylabel("loss difference")

    return draw(name, title, caption, paint)


def _best(runs: pd.DataFrame) -> Drawing:
    name, title = "best_loss", "Validation loss by batch size"
    best, last = (each_size(runs, name, interval=factors) for name in (VALIDATION_LOSS.best, VALIDATION_LOSS.final))
    if not best and not last:
        return missing(name, title, "No completed run has a validation loss.")
    budgets = sorted({int(examples) for examples in runs["examples"] + runs["remainder"]})
    budget = f"{budgets[0]:,}" if len(budgets) == 1 else f"{budgets[0]:,} to {budgets[-1]:,}"
    caption = (
        f"Best and last validation loss within {budget} examples, geometric mean of {counted_seeds(best or last)} with "
        "95% intervals."
    )

    def paint(axes: Axes) -> None:
        points(axes, best, "best", BLUE, "o", shift=0.985)
        points(axes, last, "at the end", ORANGE, "s", shift=1.015)
        batch_size_axis(axes, {*best, *last})
        plain_log(axes)
        axes.set_ylabel("validation loss")

    return draw(name, title, caption, paint)
