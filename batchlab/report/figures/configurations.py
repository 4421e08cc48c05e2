"""Which runs belong on one line: those that differ in batch size and seed alone."""

import re
from dataclasses import dataclass, fields
from typing import Any

import pandas as pd

from batchlab.printable import printable
from batchlab.records import RunRecord

# Columns that follow from the others, or are what came of the run.
OUTCOMES = ("final", "best", "environment", *(f.name for f in fields(RunRecord)))
KEPT = ("accumulate",)  # of the record, and a knob all the same
NOT_COMPARED = ("micro_batch_size", "lr_scaled", "batch_size", "seed")
FIRST = ("lr", "lr_scaling", "precision", "accumulate")  # in a label


@dataclass(frozen=True)
class Configuration:
    """Runs that differ in batch size and seed alone, and what tells them from the study's others."""

    label: str  # `lr=0.02 precision=bf16`; empty where there is one configuration
    runs: pd.DataFrame

    @property
    def sizes(self) -> list[int]:
        """Its batch sizes, in order."""
        return sorted({int(size) for size in self.runs["batch_size"]})


def configurations(runs: pd.DataFrame) -> list[Configuration]:
    """Those of a study, the one with the most batch sizes first, then the one with the most runs."""
    if runs.empty:
        return []
    varied = [name for name in _knobs(runs) if runs[name].map(repr).nunique() > 1]
    varied.sort(key=lambda name: (name not in FIRST, FIRST.index(name) if name in FIRST else 0))
    if not varied:
        return [Configuration("", runs)]
    # By text: some cells hold None, and some a number in one run and a word in another.
    keys = [runs[name].map(repr) for name in varied]
    found = [Configuration(_label(varied, members.iloc[0]), members) for _, members in runs.groupby(keys, sort=False)]
    return sorted(found, key=lambda one: (-len(one.sizes), -len(one.runs)))


def _knobs(runs: pd.DataFrame) -> list[str]:
    def is_knob(name: str) -> bool:
        return name in KEPT or (name.split(".")[0] not in OUTCOMES and name not in NOT_COMPARED)

    # Beside `model._target_` stands the short `model`, which says it as well.
    return [name for name in map(str, runs.columns) if is_knob(name) and not name.endswith("._target_")]


def _label(varied: list[str], run: "pd.Series[Any]") -> str:
    words = [f"{name}={_word(run[name])}" for name in varied if not pd.isna(run[name])]
    label = printable(" ".join(words))
    return label if len(label) <= 60 else re.sub(r"\s?\S*$", " ...", label[:57])


def _word(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
