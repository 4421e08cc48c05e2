"""All numbers of a study, group by group, before any claim is judged.

A part is a value of its type, or an `Unknown` with the reason why the study has none.
"""

from collections.abc import Collection
from dataclasses import dataclass

from batchlab.records import RunStatus, Unknown
from batchlab.report.fits.budgets import Budget, budgets
from batchlab.report.fits.costs import (
    Choice,
    Measured,
    TimeToTarget,
    busy_shares,
    examples_per_second,
    knee,
    pareto,
    peak_bytes,
    seconds_per_step,
    time_to_target,
)
from batchlab.report.fits.to_target import ToTarget, to_target
from batchlab.report.fits.tournament import Tournament, best_lrs, lrs_tried, tournament
from batchlab.report.tables.group_noise_scale import NoiseScale, noise_scales, resolved
from batchlab.report.tables.groups import Group, Tuning, alone, groups
from batchlab.report.tables.study import Study
from batchlab.science.scaling.knee import Knee


@dataclass(frozen=True)
class GroupFits:
    """The fits to runs that differ only in batch size, seed and learning rate."""

    name: str  # options that distinguish it from the study's other groups; "" if it is the only one
    short_name: str  # the same without the options of instruments
    batch_sizes: tuple[int, ...]
    seeds: tuple[int, ...]
    rate: Tuning
    runs: tuple[str, ...]
    ended: tuple[tuple[int, RunStatus, int], ...]  # batch size, status, runs
    rates: tuple[tuple[int, float], ...]  # batch size and its best learning rate, as requested, at which it is shown
    to_target: ToTarget | Unknown  # S(B), E(B), B_crit
    seconds_per_step: Measured | Unknown  # t(B) = a + b B
    examples_per_second: Measured | Unknown
    knee: Knee | Unknown
    busy: tuple[tuple[int, float], ...]  # batch size and the share of time that the GPU is busy, if known
    peak_bytes: Measured | Unknown  # m(B) = m0 + m1 B over micro-batches
    time_to_target: TimeToTarget | Unknown  # T(B)
    pareto: tuple[Choice, ...] | Unknown
    tournament: Tournament | Unknown
    budgets: tuple[Budget, ...] | Unknown
    noise_scales: tuple[NoiseScale, ...] | Unknown


@dataclass(frozen=True)
class Fits:
    """A study's groups, those with the most batch sizes first; empty without runs."""

    groups: tuple[GroupFits, ...]

    @property
    def main(self) -> GroupFits | None:
        """The group with the most batch sizes, then runs: it is shown where there is room for only one."""
        return self.groups[0] if self.groups else None

    def of_most(self, runs: Collection[str]) -> "Fits":
        """The same, the group with most of `runs` first."""
        requested = set(runs)
        return Fits(tuple(sorted(self.groups, key=lambda group: -len(requested.intersection(group.runs)))))


def fits(study: Study) -> Fits:
    """All fits of a study, or why there are none; never fails, however the runs ended."""
    return Fits(tuple(_of_group(study, group) for group in groups(study)))


def _of_group(study: Study, group: Group) -> GroupFits:
    target = to_target(group)
    per_step, speed = seconds_per_step(group), examples_per_second(group)
    tried = lrs_tried(group)
    lrs = best_lrs(tried)
    if isinstance(target, ToTarget):
        # If the steps to the target were tuned, the other costs are shown at the same learning rates.
        lrs |= {size.batch_size: size.lr for size in target.sizes if size.reached}
    scales = noise_scales(study, group)
    ended = group.runs.groupby(["batch_size", "status"]).size().reset_index(name="runs")
    return GroupFits(
        name=group.name,
        short_name=group.short_name,
        batch_sizes=group.batch_sizes,
        seeds=tuple(sorted({int(seed) for seed in group.runs["seed"]})),
        rate=group.tuning,
        runs=tuple(map(str, group.runs.index)),
        ended=tuple(
            (int(size), RunStatus(status), int(count)) for size, status, count in ended.itertuples(index=False)
        ),
        rates=tuple(lrs.items()),
        to_target=target,
        seconds_per_step=per_step,
        examples_per_second=speed,
        knee=knee(speed) if isinstance(speed, Measured) else speed,
        busy=tuple(busy_shares(alone(group.runs)).items()),
        peak_bytes=peak_bytes(group),
        time_to_target=time_to_target(target, per_step) if isinstance(target, ToTarget) else target,
        pareto=pareto(group, lrs, target if isinstance(target, ToTarget) else None),
        tournament=tournament(group, tried, None if isinstance(scales, Unknown) else resolved(scales)),
        budgets=budgets(study, group, lrs),
        noise_scales=scales,
    )
