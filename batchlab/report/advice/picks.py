"""Which batch size is best by one criterion, and which others are not shown to differ from it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from batchlab.records import Unknown
from batchlab.report.fits.costs import TimeToTarget
from batchlab.report.fits.fits import GroupFits
from batchlab.report.fits.to_target import ToTarget
from batchlab.report.tables.groups import column, completed, lowest_loss, over_seeds
from batchlab.report.tables.study import Study
from batchlab.science.statistics.uncertainty import Interval


@dataclass(frozen=True)
class Pick:
    """The best batch size by one criterion."""

    batch_size: int
    value: Interval  # of the criterion, over seeds
    as_good: tuple[int, ...]  # other batch sizes, not shown to differ from it


def shown_runs(study: Study, main: GroupFits) -> dict[int, pd.DataFrame]:
    """The completed runs of each batch size at the learning rate at which it is shown."""
    shown = runs_at_lrs(study, main)
    done = {size: completed(shown[size]) for size, _ in main.rates}
    return {size: runs for size, runs in done.items() if len(runs)}


def runs_at_lrs(study: Study, main: GroupFits) -> dict[int, pd.DataFrame]:
    """The runs of each batch size at the learning rate at which it is shown, however they ended; or all its runs."""
    runs = study.runs.loc[list(main.runs)]
    # A run without an unscaled learning rate is grouped by the scaled one.
    lr = column(runs, "lr").fillna(column(runs, "lr_scaled")).fillna(0.0)
    lrs = dict(main.rates)
    chosen = {}
    for size in main.batch_sizes:
        of_it = runs["batch_size"] == size
        chosen[size] = runs[of_it & (lr == lrs[size])] if size in lrs else runs[of_it]
    return chosen


def fastest_of(main: GroupFits) -> Pick | None:
    times = main.time_to_target
    if not isinstance(times, TimeToTarget):
        return None
    return Pick(times.fastest, dict(times.sizes)[times.fastest], times.as_fast)


def cheapest_of(main: GroupFits) -> Pick | None:
    if not isinstance(main.to_target, ToTarget):
        return None
    return _least({s.batch_size: s.examples for s in main.to_target.sizes if s.examples is not None})


def best_loss_of(study: Study, main: GroupFits, shown: Mapping[int, pd.DataFrame]) -> Pick | None:
    """None if runs stop at the target: then all of them end with about the same loss."""
    runs = study.runs.loc[list(main.runs)]
    if "stop_at_target" in runs and runs["stop_at_target"].eq(True).any():
        return None
    return _least({size: mean for size, of_it in shown.items() if (mean := over_seeds(lowest_loss(of_it)))})


def quickest_of(main: GroupFits, loss: Pick | None) -> Pick | None:
    """Of the sizes not shown to differ from the best loss, the one that trained fastest; the best without times."""
    if loss is None or isinstance(main.pareto, Unknown) or loss.value.low is None:
        return loss
    seconds = {choice.batch_size: choice.seconds for choice in main.pareto if not math.isnan(choice.seconds)}
    tied = [size for size in (loss.batch_size, *loss.as_good) if size in seconds]
    return Pick(min(tied, key=lambda size: seconds[size]), loss.value, ()) if tied else loss


def _least(by_size: Mapping[int, Interval]) -> Pick | None:
    if not by_size:
        return None
    best = min(by_size, key=lambda size: by_size[size].value)
    other = tuple(size for size in by_size if size != best and by_size[size].overlaps(by_size[best]))
    return Pick(best, by_size[best], other)
