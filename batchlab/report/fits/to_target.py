"""The steps, examples and seconds to reach the target at each batch size, and the curve through them."""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from batchlab.records import Unknown
from batchlab.report.tables.groups import Group, alone, by, column, flag, on_one_model, over_seeds, trained
from batchlab.science.scaling.critical_batch import CriticalBatch, critical_batch
from batchlab.science.scaling.steps_curve import StepsToTarget
from batchlab.science.statistics.uncertainty import Interval


@dataclass(frozen=True)
class SizeToTarget:
    """One batch size at its best learning rate: the fewest mean steps of those where all seeds reached it."""

    batch_size: int
    lr: float  # as requested; if no learning rate qualifies, the one at which most seeds reached it
    peak_lr: float  # after scaling
    rates: int  # learning rates tried at this batch size
    rates_reached: int  # of them, those at which every seed reached the target
    at_edge: bool  # the best is the smallest or largest of several: a better one may lie beyond
    seeds: int
    seeds_reached: int
    steps: Interval | None  # over seeds; None if not every seed reached it
    examples: Interval | None
    seconds: Interval | None  # of training, on one model of device; also None if a run shared the machine
    budget_steps: int  # the most that a run made; the bound if it was not reached
    runs: tuple[str, ...]

    @property
    def reached(self) -> bool:
        return self.steps is not None


@dataclass(frozen=True)
class ToTarget:
    """Steps, examples and seconds to one target."""

    metric: str
    value: float
    resolution: float  # largest number of examples between validations: no number below is finer
    sizes: tuple[SizeToTarget, ...]
    critical: CriticalBatch | None  # S(B) = S_min + E_min / B and B_crit
    why_not: str  # there is no `critical`

    @property
    def first(self) -> SizeToTarget | None:
        """The smallest batch size that reached it."""
        return next((size for size in self.sizes if size.reached), None)


def to_target(group: Group) -> ToTarget | Unknown:
    """Steps and examples that a group's runs took to the target, or why there are none.

    A run that diverged did not reach the target within its budget; a run that did not fit, or has no final result yet,
    is left out.
    """
    ran = trained(group.runs)
    aimed = ran[column(ran, "target.value").notna()]
    if aimed.empty:
        return Unknown("no finished run had a target: give one, such as target.value=0.15")
    metrics = aimed["target.metric"].astype(str)
    targets = pd.DataFrame({"metric": metrics, "value": column(aimed, "target.value")}).drop_duplicates()
    if len(targets) > 1:
        return Unknown(f"its runs have {len(targets)} different targets")
    reached = _reached(aimed)
    if (column(aimed[reached], "target.step") < 1).any():
        return Unknown("the target was reached before the first step: choose a harder one")
    chosen = [_size(group, size, runs) for size, runs in by(aimed, "batch_size").items()]
    critical, why_not = _critical(group, [size for size in chosen if size is not None])
    return ToTarget(
        metric=str(metrics.iloc[0]),
        value=float(targets["value"].iloc[0]),
        resolution=float(np.nanmax([0.0, *np.maximum(column(aimed, "target.resolution"), aimed["batch_size"])])),
        sizes=tuple(size for size in chosen if size is not None),
        critical=critical,
        why_not=why_not,
    )


def _reached(runs: pd.DataFrame) -> "pd.Series[bool]":
    return (
        flag(runs, "target.reached")
        & np.isfinite(column(runs, "target.step"))
        & np.isfinite(column(runs, "target.examples"))
    )


def _size(group: Group, size: float, runs: pd.DataFrame) -> SizeToTarget | None:
    """The best learning rate at one batch size; None if all its runs ended before the first step."""
    by_lr = by(runs, "lr")
    # Until a planned run has a final result, its learning rate does not count as tried.
    of_size = group.runs[group.runs["batch_size"] == size]
    waiting = of_size.drop(trained(of_size).index)
    all_reached = [lr for lr, of_lr in by_lr.items() if _reached(of_lr).all() and not (waiting["lr"] == lr).any()]
    if all_reached:
        lr = min(all_reached, key=lambda lr: column(by_lr[lr], "target.step").mean())
    else:
        lr = max(by_lr, key=lambda lr: (_reached(by_lr[lr]).sum(), column(by_lr[lr], "steps").max()))
    best = by_lr[lr]
    budget = column(runs, "steps").max()
    if not 1 <= budget < math.inf:
        return None
    timed = on_one_model(best)
    quiet = 0 < len(timed) == len(alone(best))
    return SizeToTarget(
        batch_size=int(best["batch_size"].iloc[0]),
        lr=lr,
        peak_lr=float(column(best, "lr_scaled").fillna(lr).iloc[0]),
        rates=len(by_lr),
        rates_reached=len(all_reached),
        at_edge=len(by_lr) > 1 and lr in (min(by_lr), max(by_lr)),
        seeds=len(best),
        seeds_reached=int(_reached(best).sum()),
        steps=over_seeds(column(best, "target.step")) if all_reached else None,
        examples=over_seeds(column(best, "target.examples")) if all_reached else None,
        seconds=over_seeds(column(timed, "target.train_seconds")) if all_reached and quiet else None,
        budget_steps=int(budget),
        runs=tuple(map(str, best.index)),
    )


def _critical(group: Group, sizes: list[SizeToTarget]) -> tuple[CriticalBatch | None, str]:
    """B_crit from the runs at each size's best learning rate, for each seed."""
    entries: dict[int, list[tuple[float, float, bool]]] = {}
    for size in sizes:
        runs = group.runs.loc[list(size.runs)]
        # If no learning rate of several got all seeds to the target, no seed counts as having reached it: the lucky
        # ones at the luckiest learning rate would bias the curve. With one, nothing was selected, so each run counts.
        counted = _reached(runs) & (size.reached or size.rates == 1)
        steps = np.where(counted, column(runs, "target.step"), size.budget_steps)
        for seed, made, there in zip(runs["seed"], steps, counted, strict=True):
            entries.setdefault(int(seed), []).append((float(size.batch_size), float(made), bool(there)))
    seeds = [StepsToTarget(*(tuple(part) for part in zip(*of_seed, strict=True))) for of_seed in entries.values()]
    sizes_reached = {size for seed in seeds for size in seed.sizes_reached}
    if len(sizes_reached) < 3:
        return None, f"the curve needs 3 batch sizes that reached the target, and {len(sizes_reached)} did"
    try:
        found = critical_batch(seeds, np.random.default_rng(0))
    except (ValueError, OverflowError, np.linalg.LinAlgError) as error:
        return None, f"no curve can be fitted to the steps: {error}"
    if not math.isfinite(found.steps_min.value + found.examples_min.value):
        return None, "the curve through the steps has no finite S_min and E_min"
    return found, ""
