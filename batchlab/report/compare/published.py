"""Published figures of an experiment, compared with this study's runs."""

import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pandas as pd

from batchlab.config import Published
from batchlab.records import RunStatus, Unknown
from batchlab.report.advice.picks import best_loss_of, runs_at_lrs, shown_runs
from batchlab.report.fits.fits import Fits, GroupFits
from batchlab.report.fits.to_target import SizeToTarget, ToTarget
from batchlab.report.tables.group_noise_scale import at_the_start
from batchlab.report.tables.groups import LARGEST, column, over_seeds
from batchlab.report.tables.study import Study, each_run
from batchlab.science.statistics.uncertainty import Interval


@dataclass(frozen=True)
class ComparedFigure:
    """A published figure with ours, or why we have none."""

    theirs: Published
    ours: Interval | None
    why_not: str  # "" if there is one, or if a study cannot have one
    note: str = ""  # how the other runs ended, and which sizes are not shown to differ from the best


def compare_published(study: Study, fits: Fits) -> tuple[ComparedFigure, ...]:
    """Every published figure of a study with ours, in their order."""
    return tuple(_compared(study, fits, figure) for figure in study.published)


def _compared(study: Study, fits: Fits, figure: Published) -> ComparedFigure:
    if figure.ours is None:
        return ComparedFigure(figure, None, "")
    matching = [group for group in fits.groups if _has_options_of(study, group, figure)]
    if not matching:
        with_it = " ".join(f"{name}={value}" for name, value in figure.where.items())
        return ComparedFigure(figure, None, f"no run with {with_it}" if with_it else "no run")
    size = figure.batch_size
    there = [group for group in matching if size is None or size in group.batch_sizes]
    if not there:
        return ComparedFigure(figure, None, f"no run at batch size {size:,}")
    find = FOUND.get(figure.ours)
    # The first group with a result: groups are ordered by their number of batch sizes.
    for group in there:
        ours = find(study, group, size) if find else _measured(study, group, size, figure.ours)
        if ours is not None:
            return ComparedFigure(figure, ours, "", _note(study, group, figure))
    why_not, lost = f"no completed run has {figure.ours}", _lost(study, there[0], size)
    return ComparedFigure(figure, None, f"{why_not}: {lost}" if lost else why_not)


def _has_options_of(study: Study, group: GroupFits, figure: Published) -> bool:
    """Whether a group's runs have the options of the figure."""
    options = study.requested.loc[group.runs[0]]
    return all(name in options and options[name] == value for name, value in figure.where.items())


def _note(study: Study, group: GroupFits, figure: Published) -> str:
    notes = [_lost(study, group, figure.batch_size)]
    if figure.ours == "best_batch_size" and (best := best_loss_of(study, group, shown_runs(study, group))):
        ties = ", ".join(f"{size:,}" for size in sorted(best.as_good))
        notes = ["by validation loss", f"not shown to differ from {ties}" if ties else "", *notes]
    return "; ".join(filter(None, notes))


def _lost(study: Study, group: GroupFits, size: int | None) -> str:
    """`2 of 5 diverged`: the runs at a batch size and its best learning rate that are in no mean; or ""."""
    runs = [
        str(status)
        for at, of_it in runs_at_lrs(study, group).items()
        if size in (None, at)
        for status in of_it["status"]
    ]
    counts = Counter(runs)
    ended = [status for status in RunStatus if counts[status] and status != RunStatus.COMPLETED]
    each = (f"{counts[status]}{'' if at else f' of {len(runs)}'} {status}" for at, status in enumerate(ended))
    return ", ".join(each)


def _measured(study: Study, group: GroupFits, size: int | None, name: str) -> Interval | None:
    """The mean over seeds of `final.<measurement>`, `best.<metric>` or `start.<measurement>`, at the best lr.

    Without a batch size it is over all of them; a seed's mean over its runs is then one value, since runs of one seed
    are not independent, and are equal at the start.
    """
    chosen = [runs for at, runs in shown_runs(study, group).items() if size in (None, at)]
    if not chosen:
        return None
    runs = pd.concat(chosen)
    kind, _, measurement = name.partition(".")
    if kind == "start":
        taken = study.measurements[study.measurements["run_id"].isin(runs.index)]
        first = {run: float(curve["value"].iloc[0]) for run, curve in each_run(taken, measurement)}
        values = pd.Series(first, index=runs.index, dtype=float)
    else:
        values = column(runs, f"{name}.value" if kind == "best" else name)
    table = runs[["seed", "batch_size"]].assign(value=values).pivot(index="seed", columns="batch_size", values="value")
    # A seed that lacks a size is left out: its mean would not be comparable.
    each = (table if kind == "start" else table.dropna()).mean(axis=1)
    if (each.abs() >= LARGEST).any():
        return Interval(math.inf, None, None, len(each))  # over_seeds would leave out the unresolved ones
    return over_seeds(each)


def _steps(study: Study, group: GroupFits, size: int | None) -> Interval | None:
    return next((s.steps for s in _sizes(group) if s.batch_size == size), None)


def _examples(study: Study, group: GroupFits, size: int | None) -> Interval | None:
    return next((s.examples for s in _sizes(group) if s.batch_size == size), None)


def _sizes(group: GroupFits) -> Iterator[SizeToTarget]:
    if isinstance(group.to_target, ToTarget):
        yield from group.to_target.sizes


def _critical(study: Study, group: GroupFits, size: int | None) -> Interval | None:
    found = group.to_target
    return found.critical.batch_size if isinstance(found, ToTarget) and found.critical is not None else None


def _noise_scale(study: Study, group: GroupFits, size: int | None) -> Interval | None:
    """Over the training of the first run that measured it, at the batch size or the smallest one."""
    if isinstance(group.noise_scales, Unknown):
        return None
    return next((scale.examples for scale in group.noise_scales if size in (None, scale.batch_size)), None)


def _best_size(study: Study, group: GroupFits, size: int | None) -> Interval | None:
    """The batch size with the lowest validation loss; `_note` names those not shown to differ from it."""
    best = best_loss_of(study, group, shown_runs(study, group))
    return None if best is None else Interval(best.batch_size, None, None, best.value.n)


def _noise_at_start(study: Study, group: GroupFits, size: int | None) -> Interval | None:
    chosen = [runs for at, runs in shown_runs(study, group).items() if size in (None, at)]
    return at_the_start(study, pd.concat(chosen)) if chosen else None


def _best_lr(study: Study, group: GroupFits, size: int | None) -> Interval | None:
    """The learning rate, as requested, at which a batch size is best."""
    if size is None or size not in (shown := shown_runs(study, group)):
        return None
    return Interval(dict(group.rates)[size], None, None, len(shown[size]))


# What can be compared with a published figure, other than a measurement at one batch size.
FOUND: dict[str, Callable[[Study, GroupFits, int | None], Interval | None]] = {
    "steps_to_target": _steps,
    "examples_to_target": _examples,
    "critical_batch_size": _critical,
    "noise_scale": _noise_scale,
    "start.noise/scale_examples": _noise_at_start,
    "best_batch_size": _best_size,
    "best_rate": _best_lr,
}
