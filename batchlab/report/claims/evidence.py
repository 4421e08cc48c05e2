"""Turns one number per run into the evidence of a comparison, paired by seed."""

import math
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from batchlab.records import RunStatus
from batchlab.report.claims.claim import Evidence
from batchlab.report.claims.margins import MARGINS
from batchlab.report.claims.settings import Setting
from batchlab.science.statistics.effects import counted, interval_effect, paired_effect, slopes
from batchlab.science.statistics.pairing import Outcome, Paired, paired
from batchlab.science.statistics.uncertainty import Interval
from batchlab.science.statistics.verdicts import Effect

EXAMPLES, STEPS, TIME = "equal examples", "equal steps", "equal time"
LOSS, WEIGHTS, NOTHING = "matched loss", "same weights", "nothing held equal"


@dataclass(frozen=True)
class Findings:
    """What a study says about one claim."""

    evidence: list[Evidence] = field(default_factory=list)
    missing: str = ""  # what the study lacks, if there is no evidence
    overrides: tuple[str, ...] = ()  # what a sweep that tests it adds to the study's settings
    note: str = ""  # explains the numbers: a fit, or what was left out
    second: list[Evidence] | None = None  # evidence for the second part of a two-part claim

    @property
    def all(self) -> list[Evidence]:
        return [*self.evidence, *(self.second or [])]

    @property
    def two_parts(self) -> bool:
        return self.second is not None


def over_batch_sizes(
    setting: Setting,
    values: "pd.Series[float]",
    what: str,
    held_equal: str,
    *,
    sign: int,
    margin: str,
    unit: str,
    exact: bool = False,
    among: pd.DataFrame | None = None,
) -> list[Evidence]:
    """The trend of `values` (by run id) with log batch size, as the change from the smallest to the largest.

    A slope is fitted to all batch sizes of each seed; the interval is that of the mean slope. `sign` is -1 if a
    decrease supports the claim. `exact`: counted without noise, so that one seed is enough. `among`: the setting's
    runs that can have a value, if not all can.
    """
    runs = setting.runs if among is None else among
    table = table_of(runs, values)
    if len(table.batch_sizes) < 2:
        return []
    doublings = math.log2(table.batch_sizes[-1] / table.batch_sizes[0])
    changes = sign * doublings * slopes(table.values, table.batch_sizes)
    used = runs["batch_size"].isin(table.batch_sizes) & runs["seed"].isin(table.seeds) & runs.index.isin(values.index)
    sizes = "" if len(table.batch_sizes) == len(setting.sizes) else f", over {', '.join(map(str, table.batch_sizes))}"
    return [
        evidence(setting, runs.index[used], what + sizes, held_equal, changes, margin=margin, unit=unit, exact=exact)
    ]


def evidence(
    setting: Setting,
    runs: "pd.Index[str]",
    what: str,
    held_equal: str,
    changes: ArrayLike,
    *,
    margin: str,
    unit: str,
    exact: bool = False,
) -> Evidence:
    """A comparison from `changes`, one per seed, which are positive in the claim's direction."""
    of = f" ({setting.label})" if setting.label else ""
    seen = np.asarray(changes, dtype=float)
    same = exact and float(np.ptp(seen)) <= 1e-9 * float(np.abs(seen).max())
    found = counted(float(seen.mean()), MARGINS[margin], len(seen)) if same else paired_effect(seen, MARGINS[margin])
    return Evidence(f"{what}{of}", held_equal, setting.tuning, found, unit, len(seen), tuple(map(str, runs)))


def within(changes: ArrayLike, bound: float) -> Effect:
    """Whether the mean change lies within +-`bound`: an effect above 0 if it does (two one-sided tests)."""
    seen = paired_effect(changes).interval
    value = bound - abs(seen.value)
    if seen.low is None or seen.high is None:
        return Effect(Interval(value, None, None, seen.n), 0.0, None)
    half = (seen.high - seen.low) / 2
    return interval_effect(Interval(value, value - half, value + half, seen.n))


def table_of(runs: pd.DataFrame, values: "pd.Series[float]") -> Paired:
    """`values` as a table of seeds by batch sizes, without gaps."""
    outcomes = [
        Outcome(int(size), int(seed), RunStatus.COMPLETED if run in values.index else str(status), values.get(run))
        for run, size, seed, status in zip(runs.index, runs["batch_size"], runs["seed"], runs["status"], strict=True)
    ]
    unique = {(outcome.batch_size, outcome.seed): outcome for outcome in outcomes}
    return paired(unique.values())
