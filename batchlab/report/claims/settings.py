"""Which runs may be compared: those that differ in batch size and seed alone, and how their rate was set."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import pandas as pd

from batchlab.printable import printable
from batchlab.report.claims.curves import Curves
from batchlab.report.groups import FREE, Group, column

TUNED_FROM = 3  # rates at a batch size: of two, the better one is at the grid's edge always
# A trend over two batch sizes says little beside one over five: settings with fewer than this share are left out.
SHARE_OF_SIZES = 0.6


@dataclass(frozen=True)
class Setting:
    """Runs that differ in batch size and seed, and in the rate where it was tuned."""

    label: str  # what tells it from the study's other settings; empty where there are none
    rate: str  # "fixed", "scaled by linear", "tuned over 5 rates"
    runs: pd.DataFrame  # rows of Study.runs, a row at most for each batch size and seed

    @property
    def sizes(self) -> list[int]:
        """Its batch sizes, in order."""
        return sorted({int(size) for size in self.runs["batch_size"]})

    @property
    def completed(self) -> pd.DataFrame:
        return self.runs[self.runs["status"] == "completed"]

    @property
    def plain(self) -> bool:
        """Whether its rate at a step does not depend on how long it was going to train."""
        schedules = set(self.runs["schedule"].dropna().astype(str)) if "schedule" in self.runs else set()
        return schedules <= {"constant"} and not (column(self.runs, "warmup").fillna(0.0) > 0).any()


def settings(study: Curves) -> list[Setting]:
    """Every setting with two batch sizes or more, the largest first.

    Several rates at every batch size become one setting, with the best rate at each; where there are fewer than three,
    or not equally many, each rate is a setting of its own.
    """
    found = [s for group in study.groups for s in of_group(group) if len(s.sizes) >= 2]
    most = max((len(s.sizes) for s in found), default=0)
    return [s for s in found if len(s.sizes) >= SHARE_OF_SIZES * most]


def of_group(group: Group) -> Iterator[Setting]:
    """The settings that the rates of a group make."""
    rates = sorted(set(group.runs["lr"]))
    tuned = best_rates(group.runs) if len(rates) >= TUNED_FROM else None
    if tuned is not None:
        yield Setting(group.name, *tuned)
        return
    if (group.runs.groupby("batch_size")["lr"].nunique() == 1).all():
        yield Setting(group.name, group.rate, group.runs)
        return
    rule = str(group.runs["lr_scaling"].iloc[0]) if "lr_scaling" in group.runs else "none"
    for lr in rates:
        name = f"fixed at {lr:g}" if rule == "none" else f"scaled by {rule} from {lr:g}"
        yield Setting(group.name, name, group.runs[group.runs["lr"] == lr])


def best_rates(runs: pd.DataFrame) -> tuple[str, pd.DataFrame] | None:
    """The runs at the best rate of each batch size, by the mean over seeds of the best validation loss.

    A rate counts where all its runs completed. None where the batch sizes have not the same number of rates, three or
    more: what looks better may only have been looked for longer.
    """
    loss = column(runs, "best.val/loss.value").where(runs["status"] == "completed")
    chosen, counts, edges = [], set(), 0
    for _, part in runs.groupby("batch_size"):
        means = (
            loss[part.index].groupby(part["lr"]).agg(lambda seen: seen.mean() if seen.notna().all() else float("inf"))
        )
        counts.add(len(means))
        best = means.idxmin()
        edges += best in (min(means.index), max(means.index))
        chosen.append(part[part["lr"] == best])
    if len(counts) != 1 or min(counts) < TUNED_FROM:
        return None
    edge = f" ({edges} of {len(chosen)} best ones at the grid's edge)" if edges else ""
    return f"tuned over {min(counts)} rates{edge}", pd.concat(chosen)


def alike_but(study: Curves, knobs: Collection[str]) -> list[tuple[str, pd.DataFrame]]:
    """The study's runs in parts that are equal in all but batch size, seed, and these knobs; what tells the part apart.

    The largest part comes first.
    """
    if study.runs.empty:
        return []
    asked = study.written.drop(columns=[name for name in study.written if name in {*FREE[:2], *knobs}])
    asked = asked[[name for name in asked if asked[name].nunique() > 1]]
    keys = asked.apply(tuple, axis=1) if len(asked.columns) else pd.Series([()] * len(asked), index=asked.index)
    parts = []
    for key, members in keys.groupby(keys, sort=False):
        label = " ".join(f"{knob}={value.strip(chr(34))}" for knob, value in zip(asked.columns, key, strict=True))
        parts.append((printable(label), study.runs.loc[members.index]))
    return sorted(parts, key=lambda part: len(part[1]), reverse=True)


def rate_of(runs: pd.DataFrame) -> str:
    """How the rate of runs was set that all have the same."""
    rules = sorted(set(runs["lr_scaling"].dropna().astype(str))) if "lr_scaling" in runs else []
    scaled = [rule for rule in rules if rule != "none"]
    return f"scaled by {' and '.join(scaled)}" if scaled else "fixed"
