"""Which runs may be compared: those that differ only in batch size and seed, and how their learning rate was set."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from batchlab.config.option_row import ALL_OF_A_RUN
from batchlab.config.options import that_move
from batchlab.records import Unknown
from batchlab.report.fits.to_target import to_target
from batchlab.report.fits.tournament import best_lrs, lrs_tried, tournament
from batchlab.report.tables.groups import POINT, Group, Tuning, Way, as_name, column, distinguishing, tuning_of

TUNED_FROM = 3  # learning rates at a batch size: of two, the better one is always at the grid's edge
# A trend over two batch sizes says little next to one over five: settings with less than this share are left out.
SHARE_OF_SIZES = 0.6

Chosen = tuple[dict[int, float], list[int]]  # the learning rate at each batch size, and where it is at the grid's edge


@dataclass(frozen=True)
class Setting:
    """Runs that differ in batch size and seed, and in the learning rate if it was tuned."""

    label: str  # distinguishes it from the study's other settings; empty if there are none
    tuning: Tuning
    runs: pd.DataFrame  # rows of Study.runs, one at most for each batch size and seed

    @property
    def sizes(self) -> list[int]:
        """Its batch sizes, in order."""
        return sorted({int(size) for size in self.runs["batch_size"]})

    @property
    def plain(self) -> bool:
        """Whether the learning rate at a step does not depend on the length of training."""
        own = "schedule._target_" in self.runs and self.runs["schedule._target_"].notna().any()
        schedules = set(self.runs["schedule"].dropna().astype(str)) if "schedule" in self.runs else set()
        return not own and schedules <= {"constant"} and not (column(self.runs, "warmup").fillna(0.0) > 0).any()


def settings(groups: Sequence[Group], chosen: Callable[[Group], Chosen]) -> list[Setting]:
    """Every setting with two batch sizes or more, the largest first.

    Three learning rates or more become one setting, with the one that is `chosen` at each batch size; of fewer each
    becomes a setting.
    """
    found = [s for group in groups for s in _of_group(group, chosen) if len(s.sizes) >= 2]
    most = max((len(s.sizes) for s in found), default=0)
    return [s for s in found if len(s.sizes) >= SHARE_OF_SIZES * most]


def by_result(group: Group) -> Chosen:
    """The learning rate with the best mean result over seeds, by the tournament."""
    cells = lrs_tried(group)
    played = tournament(group, cells)
    edges = [] if isinstance(played, Unknown) else [best.batch_size for best in played.best if best.at_edge]
    return best_lrs(cells), edges


def by_steps(group: Group) -> Chosen:
    """The learning rate that reaches the target in the fewest steps, by the mean over seeds; else `by_result`."""
    found = to_target(group)
    if isinstance(found, Unknown):
        return by_result(group)
    lrs = {size.batch_size: size.lr for size in found.sizes}
    return lrs, [size.batch_size for size in found.sizes if size.at_edge]


def equal_except(runs: pd.DataFrame, written: pd.DataFrame, options: Collection[str]) -> list[tuple[str, pd.DataFrame]]:
    """Runs in parts that are equal in all but batch size, seed and these options, each part with its label.

    `written` holds the options of each run as text. The largest part comes first.
    """
    if runs.empty:
        return []
    given = written[that_move(map(str, written), ALL_OF_A_RUN, without=(*POINT, *options))]
    given = given[[name for name in given if given[name].nunique() > 1]]
    keys = given.apply(tuple, axis=1) if len(given.columns) else pd.Series([()] * len(given), index=given.index)
    named = distinguishing([str(name) for name in given], list(dict.fromkeys(keys)))
    parts = [(as_name(named[key]), runs.loc[members.index]) for key, members in keys.groupby(keys, sort=False)]
    return sorted(parts, key=lambda part: len(part[1]), reverse=True)


def _of_group(group: Group, chosen: Callable[[Group], Chosen]) -> Iterator[Setting]:
    counts = group.runs.groupby("batch_size")["lr"].nunique()
    if counts.max() == 1:
        yield Setting(group.name, group.tuning, group.runs)
        return
    if counts.max() >= TUNED_FROM:
        lrs, edges = chosen(group)
        runs = group.runs[
            [lrs.get(int(b)) == lr for b, lr in zip(group.runs["batch_size"], group.runs["lr"], strict=True)]
        ]
        at = f" (the best is at the grid's edge at batch size {', '.join(map(str, edges))})" if edges else ""
        yield Setting(group.name, replace(group.tuning, detail=f"{group.tuning.detail}{at}"), runs)
        return
    rule = tuning_of(group.runs)
    for lr in sorted(set(group.runs["lr"])):
        detail = f"at {lr:g}" if rule.way is Way.FIXED else f"{rule.detail} from {lr:g}"
        yield Setting(group.name, replace(rule, detail=detail), group.runs[group.runs["lr"] == lr])
