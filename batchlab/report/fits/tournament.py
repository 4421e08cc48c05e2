"""Which learning rate is best at each batch size, how it changes, and what following a scaling rule would cost."""

import math
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise

import pandas as pd

from batchlab.records import RunStatus, Unknown
from batchlab.report.tables.groups import LARGEST, Group, by, column, flag, lowest_loss, over_seeds, trained
from batchlab.science.scaling.lr_scaling import NOISE_RULES, PLAIN_RULES, Scaled, scaled
from batchlab.science.statistics.line import fit_power
from batchlab.science.statistics.uncertainty import Interval

EXAMPLES, LOSS = "examples to the target", "best val/loss"


class Ended(Counter[str]):
    """How many runs ended with each status; as text `2 completed, 1 diverged`."""

    def __str__(self) -> str:
        return ", ".join(f"{count} {status}" for status, count in self.most_common())


@dataclass(frozen=True)
class Cell:
    """One learning rate at one batch size; a smaller `result` is better."""

    batch_size: int
    lr: float  # as requested
    peak_lr: float  # after scaling
    result: Interval | None  # mean over seeds; None if it does not enter
    enters: bool  # every seed finished, did not diverge, and reached the target if that is the criterion
    by_seed: tuple[tuple[int, float], ...]  # seed and result of each run that has one
    ended: Ended
    runs: tuple[str, ...]


@dataclass(frozen=True)
class Best:
    """The best learning rate of one batch size."""

    batch_size: int
    lr: float
    peak_lr: float
    result: Interval
    rates: int  # learning rates that have a final result
    at_edge: bool  # the smallest or the largest of them: a better one may lie beyond
    as_good: tuple[float, ...]  # other peak learning rates, not shown to differ from it when paired by seed


@dataclass(frozen=True)
class Regret:
    """What following a rule from the reference batch size costs at another one."""

    rule: str
    batch_size: int
    asks: float  # the peak learning rate that the rule gives
    peak_lr: float | None  # the nearest that was tried; None if the rule leaves the grid
    regret: Interval | None  # its result minus the best one's, paired by seed; infinite if it did not enter
    why: str  # there is none, or it is infinite


@dataclass(frozen=True)
class Tournament:
    """Several learning rates at each of several batch sizes, compared by the mean over seeds."""

    by: str  # EXAMPLES, or LOSS
    cells: tuple[Cell, ...]
    best: tuple[Best, ...]
    resolution: float  # largest ratio of neighbouring learning rates
    slope: Interval | None  # of log best learning rate on log batch size: 1 is linear, 1/2 square root, 0 none
    slope_sizes: tuple[int, ...]  # it is fitted to: where the best learning rate is not at the grid's edge
    why_no_slope: str
    reference_batch_size: int | None
    regrets: tuple[Regret, ...]


def lrs_tried(group: Group) -> tuple[Cell, ...]:
    """Every learning rate that has a final result, at each size; a size that did not fit has none."""
    judged_by = _judged_by(group)
    cells = []
    for size, of_size in by(group.runs, "batch_size").items():
        for lr, runs in by(of_size, "lr").items():
            if trained(runs).empty:
                continue
            results = _results(runs, judged_by)
            kept = results.notna()
            by_seed = tuple(zip(runs["seed"][kept].astype(int).tolist(), results[kept].tolist(), strict=True))
            enters = len(by_seed) == len(runs)
            peak = column(runs, "lr_scaled").where(lambda lrs: lrs < LARGEST).fillna(lr).iloc[0]
            result = over_seeds(results) if enters else None
            ids = tuple(map(str, runs.index))
            cells.append(Cell(int(size), lr, float(peak), result, enters, by_seed, Ended(runs["status"]), ids))
    return tuple(cells)


def tournament(group: Group, cells: tuple[Cell, ...], noise_scale: float | None = None) -> Tournament | Unknown:
    """The tournament of a group's `lrs_tried`, or why there is none.

    `noise_scale`, in examples, is for the rules that need one. The best learning rate was selected for its result, so
    regrets are slightly too large if several are about equally good.
    """
    tried = {size: [c for c in cells if c.batch_size == size] for size in sorted({c.batch_size for c in cells})}
    several = {size: of_size for size, of_size in tried.items() if len(of_size) > 1}
    if len(several) < 2:
        at = "1 batch size, and two are needed" if several else "no batch size"
        return Unknown(f"several learning rates were tried at {at}: try batch_size=8,32,128 lr=0.01,0.02,0.05,0.1")
    best = tuple(found for of_size in several.values() if (found := _best(of_size)))
    resolution = _resolution(several)
    slope, sizes, why = _slope(best, resolution)
    reference = _reference(group, best)
    regrets = _regrets(several, best, reference, resolution, noise_scale)
    return Tournament(_judged_by(group), cells, best, resolution, slope, sizes, why, reference, regrets)


def best_lrs(cells: tuple[Cell, ...]) -> dict[int, float]:
    """The learning rate, as requested, at which each batch size is compared with the others: its best or only one."""
    lrs = {}
    for size in sorted({cell.batch_size for cell in cells}):
        of_size = [cell for cell in cells if cell.batch_size == size]
        entering = [cell for cell in of_size if cell.result is not None]
        # If none enters, the one that most seeds completed.
        lrs[size] = (
            min(entering, key=_value) if entering else max(of_size, key=lambda cell: cell.ended[RunStatus.COMPLETED])
        ).lr
    return lrs


def _judged_by(group: Group) -> str:
    """Runs that stop at the target all end with about the same loss, so only the examples they needed differ."""
    stops = flag(group.runs, "stop_at_target").any()
    return EXAMPLES if stops and column(group.runs, "target.examples").notna().any() else LOSS


def _results(runs: pd.DataFrame, judged_by: str) -> "pd.Series[float]":
    """A number for each run, smaller is better; nan if it has none."""
    if judged_by == EXAMPLES:
        found = column(runs, "target.examples").where(flag(runs, "target.reached"))
    else:
        found = lowest_loss(runs)
    return found.where((runs["status"] == RunStatus.COMPLETED) & (found.abs() < LARGEST))


def _best(cells: list[Cell]) -> Best | None:
    entering = [cell for cell in cells if cell.result is not None]
    if not entering:
        return None
    best = min(entering, key=_value)
    lrs = [cell.peak_lr for cell in cells]
    as_good = []
    for cell in entering:
        loss = _paired(cell, best)
        if cell is not best and (loss is None or loss.low is None or loss.low <= 0):
            as_good.append(cell.peak_lr)
    assert best.result is not None  # it entered
    edge = best.peak_lr in (min(lrs), max(lrs))
    return Best(best.batch_size, best.lr, best.peak_lr, best.result, len(cells), edge, tuple(as_good))


def _paired(cell: Cell, best: Cell) -> Interval | None:
    """`cell`'s result minus that of `best`, over the seeds that both have."""
    of_best = dict(best.by_seed)
    return over_seeds([value - of_best[seed] for seed, value in cell.by_seed if seed in of_best])


def _resolution(several: dict[int, list[Cell]]) -> float:
    ratios = []
    for cells in several.values():
        lrs = sorted(cell.peak_lr for cell in cells)
        ratios += [high / low for low, high in pairwise(lrs) if low > 0]
    return max(ratios, default=1.0)


def _slope(best: tuple[Best, ...], resolution: float) -> tuple[Interval | None, tuple[int, ...], str]:
    inside = [one for one in best if not one.at_edge and one.peak_lr > 0]
    sizes = tuple(one.batch_size for one in inside)
    if len(inside) < 2:
        why = f"two batch sizes need their best learning rate inside the grid, and {len(inside)} of {len(best)} have it"
        return None, sizes, f"{why}: try values beyond its edge"
    return fit_power(sizes, [one.peak_lr for one in inside], resolution=resolution), sizes, ""


def _reference(group: Group, best: tuple[Best, ...]) -> int | None:
    """The config's reference batch size if it is among the sizes; otherwise the smallest with a best learning rate."""
    sizes = [one.batch_size for one in best]
    references = set(column(group.runs, "reference_batch_size").dropna())
    return next((size for size in sizes if size in references), min(sizes, default=None))


def _regrets(
    several: dict[int, list[Cell]],
    best: tuple[Best, ...],
    reference: int | None,
    resolution: float,
    noise_scale: float | None,
) -> tuple[Regret, ...]:
    base = next((one.peak_lr for one in best if one.batch_size == reference), None)
    if reference is None or base is None or base <= 0:
        return ()
    # Only rules that change nothing but the learning rate: the grid has no run at other betas or eps.
    rules: dict[str, float | None] = dict.fromkeys(PLAIN_RULES)
    if noise_scale is not None:
        rules |= {name: noise_scale for name, rule in NOISE_RULES.items() if not rule.of_adam}
    found = []
    for rule, scale in rules.items():
        assert (rule in NOISE_RULES) == (scale is not None)
        for one in best:
            asks = scaled(
                rule, Scaled(base), batch_size=one.batch_size, reference_batch_size=reference, noise_scale=scale
            ).lr
            found.append(_regret(rule, asks, several[one.batch_size], one, resolution))
    return tuple(found)


def _regret(rule: str, asks: float, cells: list[Cell], best: Best, resolution: float) -> Regret:
    positive = [cell for cell in cells if cell.peak_lr > 0]
    near = min(positive, key=lambda cell: abs(math.log(cell.peak_lr / asks)))
    if abs(math.log(near.peak_lr / asks)) > math.log(resolution) / 2 + 1e-9:
        lrs = sorted(cell.peak_lr for cell in positive)
        why = f"the rule gives {asks:.3g}, and {lrs[0]:.3g} to {lrs[-1]:.3g} were tried"
        return Regret(rule, best.batch_size, asks, None, None, why)
    if near.result is None:
        lost = Interval(math.inf, None, None, len(near.runs))
        return Regret(rule, best.batch_size, asks, near.peak_lr, lost, str(near.ended))
    winner = next(cell for cell in cells if cell.lr == best.lr)
    regret = _paired(near, winner)
    return Regret(rule, best.batch_size, asks, near.peak_lr, regret, "" if regret else "no seed has both")


def _value(cell: Cell) -> float:
    return math.inf if cell.result is None else cell.result.value
