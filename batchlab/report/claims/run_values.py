"""One number per run, from its record or its journal, as a Series over run ids."""

import math
import re
from collections.abc import Mapping

import numpy as np
import pandas as pd

from batchlab.report.claims.runs import Curves
from batchlab.report.tables.groups import completed

# Share of the batch sizes that must reach a level to be matched at it: one that has hardly learnt does not decide it.
MATCHED = 0.6
LEVEL = re.compile(r"sharpness_at_loss_([0-9.]+(?:e[+-]?[0-9]+)?)/lambda_max")


def last(study: Curves, runs: pd.DataFrame, name: str) -> "pd.Series[float]":
    """The last value of a measurement in each completed run that has one."""
    return _of_runs(study.ends, name, completed(runs).index)


def first(study: Curves, runs: pd.DataFrame, name: str) -> "pd.Series[float]":
    """The value at the start of each run, before its first step."""
    of_it = study.measured(name, runs)
    return finite(of_it[of_it["step"] == 0].groupby("run_id")["value"].first())


def lowest(study: Curves, runs: pd.DataFrame, name: str, *, until_step: float = math.inf) -> "pd.Series[float]":
    """The lowest finite value in each run; if it diverged, up to that point."""
    if until_step == math.inf:
        return _of_runs(study.lows, name, runs.index)
    of_it = study.measured(name, runs)
    of_it = of_it[(of_it["step"] <= until_step) & np.isfinite(of_it["value"])]
    return finite(of_it.groupby("run_id")["value"].min())


def at_level(study: Curves, runs: pd.DataFrame, of: str, name: str, level: float) -> "pd.Series[float]":
    """`name` at the first step that has both and `of` at or below `level`; nothing is interpolated."""
    both = study.measured(of, runs).merge(study.measured(name, runs), on=["run_id", "step"], suffixes=("", "_then"))
    reached = both[(both["value"] <= level) & (both["step"] > 0)]
    return finite(reached.groupby("run_id")["value_then"].first())


def common_level(runs: pd.DataFrame, lows: "pd.Series[float]") -> float:
    """The lowest level that all runs reach at 60% of the batch sizes or more, at least two; nan if there is none."""
    sizes = runs["batch_size"]
    known = lows.reindex(completed(runs).index)
    worst = sorted(float(v) for v in known.groupby(sizes[known.index]).max(numeric_only=True) if math.isfinite(v))
    need = max(2, math.ceil(MATCHED * sizes.nunique()))
    return worst[need - 1] if len(worst) >= need else math.nan


def sharpness_level(study: Curves, runs: pd.DataFrame) -> str | None:
    """The training loss at which most batch sizes have a sharpness, the lowest of several; None if there is none."""
    found: dict[str, tuple[int, float]] = {}
    for name in study.by_name:
        if match := LEVEL.fullmatch(name):
            lacking = runs[~runs.index.isin(study.measured(name, runs)["run_id"])]
            sizes = set(runs["batch_size"]) - set(lacking["batch_size"])
            if len(sizes) >= 2:
                found[match[1]] = len(sizes), -float(match[1])
    return max(found, key=found.__getitem__, default=None)


def _of_runs(table: Mapping[str, "pd.Series[float]"], name: str, run_ids: "pd.Index[str]") -> "pd.Series[float]":
    """The entries of these runs in a table by name, then by run id."""
    of_it = table.get(name)
    if of_it is None:
        return pd.Series(dtype=float)
    return finite(of_it[of_it.index.isin(run_ids)])


def finite(values: "pd.Series[float]") -> "pd.Series[float]":
    """The values that are finite numbers."""
    numbers = pd.to_numeric(values, errors="coerce").astype(float)
    return numbers[np.isfinite(numbers)]


def log(values: "pd.Series[float]") -> "pd.Series[float]":
    """Natural logarithms of the values above 0."""
    positive = values[values > 0]
    return pd.Series(np.log(positive.to_numpy(dtype=float)), index=positive.index)
