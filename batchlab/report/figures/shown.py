"""Which runs a figure shows: those of one group, at one learning rate for each batch size."""

from dataclasses import dataclass

import pandas as pd

from batchlab.report.fits.fits import GroupFits
from batchlab.report.tables.groups import Way
from batchlab.report.tables.study import Study


@dataclass(frozen=True)
class Shown:
    """The runs of a group that the figures show, and a note on the choice."""

    label: str  # "lr_scaling=linear, learning rate tuned over 5 values: the best of each batch size"; or empty
    runs: pd.DataFrame


def shown(study: Study, group: GroupFits | None, groups: int) -> Shown | None:
    """The runs of one of so many groups, at the best learning rate of each batch size; None without runs."""
    if group is None:
        return None
    runs = study.runs.loc[list(group.runs)]
    best = runs["batch_size"].map(dict(group.rates))
    # A size without a finished run has no best learning rate; all its runs are shown.
    if "lr" in runs:
        runs = runs[best.isna() | (pd.to_numeric(runs["lr"], errors="coerce") == best)]
    name = group.name if groups > 1 else ""
    chosen = f"learning rate {group.rate}: the best of each batch size" if group.rate.way is Way.TUNED else ""
    return Shown(", ".join(filter(None, (name, chosen))), runs)
