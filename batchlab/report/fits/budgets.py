"""The same runs at equal examples, equal steps, equal time and matched training loss, side by side.

Nothing is interpolated: each run counts with its last measurement at or before the common budget.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from batchlab.records import Unknown
from batchlab.records.quantities import CLEAN_LOSS, OF_VALIDATION, WINDOW_LOSS
from batchlab.report.tables.groups import Group, alone, by, completed, over_seeds
from batchlab.report.tables.study import Study, each_run
from batchlab.science.statistics.uncertainty import Interval

TRAIN_LOSSES = (CLEAN_LOSS.name, WINDOW_LOSS.name)  # in eval mode on unchanged data, otherwise the mean over a window
HELD_EQUAL = {
    "equal examples": ("examples", "examples"),
    "equal steps": ("step", "steps"),
    "equal time": ("train_seconds", "seconds of training"),
}
AXES = ("step", "examples", "train_seconds", "value")

Curve = dict[str, NDArray[np.float64]]  # by AXES


@dataclass(frozen=True)
class AtBudget:
    """One batch size at the common budget."""

    batch_size: int
    lr: float  # as requested
    value: Interval  # mean over seeds
    examples: float  # of that measurement, mean over seeds: never above the budget
    steps: float
    seconds: float
    runs: tuple[str, ...]


@dataclass(frozen=True)
class Budget:
    """One metric with one quantity held equal."""

    held_equal: str  # "equal examples", "equal steps", "equal time", "matched loss"
    amount: float  # the most that every run had
    unit: str  # "examples", "steps", "seconds of training", "of train/loss"
    metric: str
    sizes: tuple[AtBudget, ...]


def budgets(study: Study, group: Group, lrs: dict[int, float]) -> tuple[Budget, ...] | Unknown:
    """Each validation metric of the completed runs at `lrs` (learning rate by batch size), at each common budget.

    Equal time includes only runs that had the machine to themselves. Sizes that diverged or did not fit are missing.
    """
    runs = completed(group.runs)
    runs = runs[[lrs.get(size) == lr for size, lr in zip(runs["batch_size"], runs["lr"], strict=True)]]
    taken = study.measurements[study.measurements["run_id"].isin(runs.index)]
    found: list[Budget] = []
    for metric in sorted({str(name) for name in taken["name"].unique() if str(name).startswith(OF_VALIDATION)}):
        curves = _curves(taken, metric)
        measured = runs[runs.index.isin(curves)]
        for held_equal, (axis, unit) in HELD_EQUAL.items():
            compared = alone(measured) if axis == "train_seconds" else measured
            if compared["batch_size"].nunique() > 1:
                amount = min(float(curves[run][axis].max()) for run in map(str, compared.index))
                limits = dict.fromkeys(map(str, compared.index), amount)
                found.append(Budget(held_equal, amount, unit, metric, _at_limits(compared, curves, axis, limits)))
        if measured["batch_size"].nunique() > 1 and (matched := _matched(taken, measured)):
            loss, level, limits = matched
            sizes = _at_limits(measured, curves, "examples", limits)
            found.append(Budget("matched loss", level, f"of {loss}", metric, sizes))
    return tuple(found) or Unknown("fewer than two batch sizes were completed and validated")


def _matched(taken: pd.DataFrame, runs: pd.DataFrame) -> tuple[str, float, dict[str, float]] | None:
    """The training loss, its lowest level that every run reached, and the examples at which each first did."""
    for loss in TRAIN_LOSSES:
        curves = {run: curve for run, curve in _curves(taken, loss).items() if run in runs.index}
        if set(map(str, runs.index)) <= set(curves):
            level = max(float(curve["value"].min()) for curve in curves.values())
            first = {run: float(c["examples"][c["value"] <= level][0]) for run, c in curves.items()}
            return loss, level, first
    return None


def _at_limits(
    runs: pd.DataFrame, curves: dict[str, Curve], axis: str, limits: dict[str, float]
) -> tuple[AtBudget, ...]:
    """The runs of each batch size at their limits on `axis`."""
    found = []
    for size, of_size in by(runs, "batch_size").items():
        read = pd.DataFrame([_last(curves[run], axis, limits[run]) for run in map(str, of_size.index)])
        value = over_seeds(read["value"])
        if value is not None:
            examples, steps, seconds = (float(read[name].mean()) for name in ("examples", "step", "train_seconds"))
            ids = tuple(map(str, of_size.index))
            lr = float(of_size["lr"].iloc[0])
            found.append(AtBudget(int(size), lr, value, examples, steps, seconds, ids))
    return tuple(found)


def _last(curve: Curve, axis: str, limit: float) -> dict[str, float]:
    """The last measurement at or before `limit`; the first one, before training, is at 0."""
    at = max(0, int(np.searchsorted(curve[axis], limit, side="right")) - 1)
    return {name: float(values[at]) for name, values in curve.items()}


def _curves(taken: pd.DataFrame, name: str) -> dict[str, Curve]:
    """The curve of each run that has a finite measurement of `name`."""
    finite = taken[np.isfinite(taken["value"])]
    return {run: {axis: curve[axis].to_numpy() for axis in AXES} for run, curve in each_run(finite, name)}
