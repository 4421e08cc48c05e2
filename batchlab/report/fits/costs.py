"""What a batch size costs: seconds, bytes, and the Pareto front."""

import math
from dataclasses import dataclass

import pandas as pd

from batchlab.printable import counted
from batchlab.records import Unknown
from batchlab.records.quantities import BUSY, PEAKS, STEP_TIME, TRAINING_SPEED
from batchlab.report.fits.to_target import ToTarget
from batchlab.report.tables.groups import (
    LARGEST,
    Group,
    alone,
    by,
    column,
    completed,
    flag,
    lowest_loss,
    over_seeds,
    trained,
)
from batchlab.science.scaling.critical_batch import best_batch_for_time
from batchlab.science.scaling.knee import Knee, throughput_knee
from batchlab.science.statistics.line import Line, fit_line
from batchlab.science.statistics.pareto import pareto_front
from batchlab.science.statistics.uncertainty import Interval


@dataclass(frozen=True)
class Measured:
    """One number at each size, the mean over its runs."""

    name: str  # the measurement
    sizes: tuple[tuple[int, Interval], ...]
    line: Line | None  # through them; None for a single size
    shared: int  # runs left out because they shared the machine
    runs: tuple[str, ...]
    elsewhere: int = 0  # runs left out because they were made on another model of device than most

    @property
    def left_out(self) -> list[str]:
        """`1 run that shared the machine`, `2 runs on another model of device`, for a list after `without`."""
        counts = {"that shared the machine": self.shared, "on another model of device": self.elsewhere}
        return [f"{counted(count, 'run')} {which}" for which, count in counts.items() if count]


@dataclass(frozen=True)
class TimeToTarget:
    """T(B) = S(B) t(B), and where it is least."""

    sizes: tuple[tuple[int, Interval], ...]  # measured seconds to the target
    modelled: tuple[tuple[int, float], ...]  # (S_min + E_min/B)(a + bB) at the same and the group's other sizes
    fastest: int  # of the sizes measured
    as_fast: tuple[int, ...]  # sizes whose intervals overlap the fastest's: not shown to differ
    best: Interval | None  # sqrt(B_crit a / b), in examples; None if a fit is missing or has no such size
    within: bool  # `best` lies among the sizes measured


@dataclass(frozen=True)
class Choice:
    """One batch size at its best learning rate, with four costs; less is better."""

    batch_size: int
    lr: float
    seconds: float  # of training: to the target if all sizes reached it, otherwise to the end
    device_seconds: float  # seconds times the number of devices, which is one
    memory_bytes: float
    val_loss: float  # best of each run, mean over seeds
    on_front: bool  # no other choice is as good in all and better in one
    runs: tuple[str, ...]


def seconds_per_step(group: Group) -> Measured | Unknown:
    """t(B) = a + b B: `per_unit` is the seconds that each example adds, `at_zero` the fixed cost of a step."""
    runs = trained(group.runs)
    seconds = column(runs, STEP_TIME.final)
    # A run too short for a window has only its total training time, which includes the first steps.
    seconds = seconds.fillna(column(runs, "train_seconds") / column(runs, "steps"))
    return _measured(STEP_TIME.name, runs, "batch_size", seconds, relative=True)


def examples_per_second(group: Group) -> Measured | Unknown:
    """Speed at each batch size; no line is fitted."""
    runs = trained(group.runs)
    speed = column(runs, TRAINING_SPEED.final)
    speed = speed.fillna(column(runs, "examples") / column(runs, "train_seconds"))
    return _measured(TRAINING_SPEED.name, runs, "batch_size", speed, relative=None)


def peak_bytes(group: Group) -> Measured | Unknown:
    """m(B) = m0 + m1 B; here B is the largest micro-batch, as only one forward pass is in memory at a time."""
    runs = trained(group.runs)
    name = peak_name(runs)
    if name is None:
        return Unknown("no run measured its memory")
    return _measured(name, runs, "micro_batch_size", column(runs, f"final.{name}"), relative=False)


def peak_name(runs: pd.DataFrame) -> str | None:
    """The kind of peak that most runs have, the newest kind first: two kinds are never compared."""
    counts = {peak.name: int(column(runs, peak.final).notna().sum()) for peak in PEAKS}
    most = max(counts, key=lambda name: counts[name])  # the first one of a tie
    return most if counts[most] else None


def knee(speeds: Measured) -> Knee | Unknown:
    """The smallest batch size within 10% of the best speed."""
    if len(speeds.sizes) < 2:
        return Unknown("a throughput knee needs two batch sizes")
    return throughput_knee(dict(speeds.sizes))


def busy_shares(runs: pd.DataFrame) -> dict[int, float]:
    """The share of time that the GPU is busy at each batch size, mean over runs; empty if no run measured it."""
    known = runs.assign(share=column(runs, BUSY.final))
    known = known[known["share"].between(0, 1)]
    return {int(size): float(of_it["share"].mean()) for size, of_it in by(known, "batch_size").items()}


def time_to_target(target: ToTarget, per_step: Measured | Unknown) -> TimeToTarget | Unknown:
    """T(B) as measured, and the B at which the two fits place its minimum."""
    measured = tuple((size.batch_size, size.seconds) for size in target.sizes if size.seconds is not None)
    if not measured:
        return Unknown("no batch size reached the target with the machine to itself")
    fastest, least = min(measured, key=lambda entry: entry[1].value)
    as_fast = tuple(size for size, seconds in measured if size != fastest and seconds.overlaps(least))
    line = per_step.line if isinstance(per_step, Measured) else None
    modelled: tuple[tuple[int, float], ...] = ()
    best = None
    if line is not None and target.critical is not None:
        steps, examples = target.critical.steps_min.value, target.critical.examples_min.value
        modelled = tuple(
            (size.batch_size, (steps + examples / size.batch_size) * line.at(size.batch_size)) for size in target.sizes
        )
        critical = target.critical.batch_size
        if line.at_zero.value > 0 and line.per_unit.value > 0 and 0 < critical.value < math.inf:
            best = best_batch_for_time(critical, line.at_zero, line.per_unit)
    sizes = [size.batch_size for size in target.sizes]
    within = best is not None and min(sizes) <= best.value <= max(sizes)
    return TimeToTarget(measured, modelled, fastest, as_fast, best, within)


def pareto(group: Group, lrs: dict[int, float], target: ToTarget | None) -> tuple[Choice, ...] | Unknown:
    """Every batch size at its learning rate in `lrs`, and whether it is on the front; without shared machines."""
    reached = {size.batch_size: size.seconds for size in target.sizes} if target else {}
    to_the_target = bool(reached) and all(reached.get(size) is not None for size in lrs)
    table = []
    peak = peak_name(group.runs)
    for size, lr in lrs.items():
        runs = group.runs[(group.runs["batch_size"] == size) & (group.runs["lr"] == lr)]
        runs = alone(completed(runs))
        peaks = None if peak is None else column(runs, f"final.{peak}")
        seconds = column(runs, "target.train_seconds" if to_the_target else "train_seconds").mean()
        loss = lowest_loss(runs).mean()
        costs = (float(seconds), float(seconds), math.nan if peaks is None else float(peaks.mean()), float(loss))
        if len(runs) and not all(map(math.isnan, costs)):
            table.append((size, lr, costs, tuple(map(str, runs.index))))
    if len(table) < 2:
        return Unknown("fewer than two batch sizes finished with the machine to themselves")
    # A cost that was not measured for all sizes is left out.
    known = [i for i in range(4) if not any(math.isnan(costs[i]) for _, _, costs, _ in table)]
    front = pareto_front([[costs[i] for i in known] for _, _, costs, _ in table])
    return tuple(Choice(size, lr, *costs, on, runs) for (size, lr, costs, runs), on in zip(table, front, strict=True))


def _measured(
    name: str, runs: pd.DataFrame, size: str, values: "pd.Series[float]", *, relative: bool | None
) -> Measured | Unknown:
    """Means over the runs at each size, and the line through them (none if `relative` is None)."""
    known = runs.assign(value=values, **{size: column(runs, size)})
    known = known[(known["value"] > 1 / LARGEST) & (known["value"] < LARGEST) & known[size].between(1, LARGEST)]
    quiet = alone(known)
    if quiet.empty:
        shared = "every run that measured it shared the machine: repeat them with jobs=1 and --force"
        return Unknown(shared if len(known) else f"no run measured {name}")
    sizes = []
    for at, of_size in by(quiet, size).items():
        mean = over_seeds(of_size["value"])
        assert mean is not None  # the values are finite
        sizes.append((int(at), mean))
    line = None
    if relative is not None and len(sizes) >= 2:
        line = fit_line([at for at, _ in sizes], [mean.value for _, mean in sizes], relative=relative)
    shared_by = int(flag(known, "shared_machine").sum())
    elsewhere = len(known) - len(quiet) - shared_by
    return Measured(name, tuple(sizes), line, shared_by, tuple(map(str, quiet.index)), elsewhere)
