"""Which runs a figure shows: those of one group, at one learning rate for each batch size."""

from dataclasses import dataclass

import pandas as pd

from batchlab.report.fits.fits import GroupFits
from batchlab.report.tables.groups import Way
from batchlab.report.tables.study import Study


@dataclass(frozen=True)
class Shown:
    """The runs of a group that the figures show, and what must be said of the choice."""

    label: str  # "lr_scaling=linear, tuned over 5 rates: the best of each batch size"; empty where nothing was chosen
    runs: pd.DataFrame


def shown(study: Study, group: GroupFits | None, groups: int) -> Shown | None:
    """Those of one of so many groups, at the best rate of each batch size; None where there are no runs."""
    if group is None:
        return None
    runs = study.runs.loc[list(group.runs)]
    best = runs["batch_size"].map(dict(group.rates))
    # A size with no finished run has no best rate; what became of its runs is shown all the same.
    if "lr" in runs:
        runs = runs[best.isna() | (pd.to_numeric(runs["lr"], errors="coerce") == best)]
    name = group.name if groups > 1 else ""
    chosen = f"{group.rate}: the best of each batch size" if group.rate.way is Way.TUNED else ""
    return Shown(", ".join(filter(None, (name, chosen))), runs)
