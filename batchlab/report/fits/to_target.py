"""What it took to reach the target, batch size by batch size, and the curve through it."""

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
    """One batch size at its best rate: the least mean over seeds of those at which every seed reached the target."""

    batch_size: int
    lr: float  # as asked; of a size that is not reached, the rate at which most seeds did
    peak_lr: float  # after scaling
    rates: int  # tried at this batch size
    rates_reached: int  # of them every seed reached the target
    at_edge: bool  # the best is the smallest or largest tried, of several: a better one may lie beyond
    seeds: int
    seeds_reached: int
    steps: Interval | None  # over seeds; None where not every seed reached it
    examples: Interval | None
    seconds: Interval | None  # of training, on one model of device; None too where a run shared the machine
    budget_steps: int  # made at most, by which it was not reached where it was not
    runs: tuple[str, ...]

    @property
    def reached(self) -> bool:
        return self.steps is not None


@dataclass(frozen=True)
class ToTarget:
    """Steps, examples and seconds to one target."""

    metric: str
    value: float
    resolution: float  # examples between validations, at its largest: no number below is finer
    sizes: tuple[SizeToTarget, ...]
    critical: CriticalBatch | None  # S(B) = S_min + E_min / B and B_crit
    why_not: str  # of `critical`

    @property
    def first(self) -> SizeToTarget | None:
        """The smallest batch size that reached it."""
        return next((size for size in self.sizes if size.reached), None)


def to_target(group: Group) -> ToTarget | Unknown:
    """Steps and examples to the target of a group's runs, or why there are none.

    A run that diverged did not reach the target in its budget; one that did not fit, or that has no answer yet, says
    nothing of it and is left out.
    """
    ran = trained(group.runs)
    asked = ran[column(ran, "target.value").notna()]
    if asked.empty:
        return Unknown("no finished run had a target: give one, such as target.value=0.15")
    metrics = asked["target.metric"].astype(str)
    targets = pd.DataFrame({"metric": metrics, "value": column(asked, "target.value")}).drop_duplicates()
    if len(targets) > 1:
        return Unknown(f"its runs have {len(targets)} different targets")
    reached = _reached(asked)
    if (column(asked[reached], "target.step") < 1).any():
        return Unknown("the target was met before the first step: choose a harder one")
    chosen = [_size(group, size, runs) for size, runs in by(asked, "batch_size").items()]
    critical, why_not = _critical(group, [size for size in chosen if size is not None])
    return ToTarget(
        metric=str(metrics.iloc[0]),
        value=float(targets["value"].iloc[0]),
        resolution=float(np.nanmax([0.0, *np.maximum(column(asked, "target.resolution"), asked["batch_size"])])),
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
    """The best rate at one batch size; None where all its runs ended before a step was made."""
    rates = by(runs, "lr")
    # Planned but without an answer: until it has one the rate is not tried.
    of_size = group.runs[group.runs["batch_size"] == size]
    waiting = of_size.drop(trained(of_size).index)
    all_reached = [lr for lr, of_rate in rates.items() if _reached(of_rate).all() and not (waiting["lr"] == lr).any()]
    if all_reached:
        lr = min(all_reached, key=lambda rate: column(rates[rate], "target.step").mean())
    else:
        lr = max(rates, key=lambda rate: (_reached(rates[rate]).sum(), column(rates[rate], "steps").max()))
    best = rates[lr]
    budget = column(runs, "steps").max()
    if not 1 <= budget < math.inf:
        return None
    timed = on_one_model(best)
    quiet = 0 < len(timed) == len(alone(best))
    return SizeToTarget(
        batch_size=int(best["batch_size"].iloc[0]),
        lr=lr,
        peak_lr=float(column(best, "lr_scaled").fillna(lr).iloc[0]),
        rates=len(rates),
        rates_reached=len(all_reached),
        at_edge=len(rates) > 1 and lr in (min(rates), max(rates)),
        seeds=len(best),
        seeds_reached=int(_reached(best).sum()),
        steps=over_seeds(column(best, "target.step")) if all_reached else None,
        examples=over_seeds(column(best, "target.examples")) if all_reached else None,
        seconds=over_seeds(column(timed, "target.train_seconds")) if all_reached and quiet else None,
        budget_steps=int(budget),
        runs=tuple(map(str, best.index)),
    )


def _critical(group: Group, sizes: list[SizeToTarget]) -> tuple[CriticalBatch | None, str]:
    """B_crit from the runs at each size's best rate, seed by seed."""
    entries: dict[int, list[tuple[float, float, bool]]] = {}
    for size in sizes:
        runs = group.runs.loc[list(size.runs)]
        # Of a size with several rates and none at which all seeds got there, no seed counts as having: the lucky ones
        # of the luckiest rate would. With one rate nothing was chosen, and each run says what it came to.
        counted = _reached(runs) & (size.reached or size.rates == 1)
        steps = np.where(counted, column(runs, "target.step"), size.budget_steps)
        for seed, made, there in zip(runs["seed"], steps, counted, strict=True):
            entries.setdefault(int(seed), []).append((float(size.batch_size), float(made), bool(there)))
    seeds = [StepsToTarget(*(tuple(part) for part in zip(*of_seed, strict=True))) for of_seed in entries.values()]
    sizes_reached = {size for seed in seeds for size in seed.sizes_reached}
    if len(sizes_reached) < 3:
        return None, f"the curve needs the target reached at 3 batch sizes, and it was at {len(sizes_reached)}"
    try:
        found = critical_batch(seeds, np.random.default_rng(0))
    except (ValueError, OverflowError, np.linalg.LinAlgError) as error:
        return None, f"no curve can be fitted to the steps: {error}"
    if not math.isfinite(found.steps_min.value + found.examples_min.value):
        return None, "the curve through the steps has no finite S_min and E_min"
    return found, ""
