"""How fast training progresses by examples and steps, how smoothly, and whether it reaches the target."""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from batchlab.printable import counted, printable
from batchlab.records.quantities import VALIDATION_LOSS, WINDOW_LOSS
from batchlab.report.claims.claim import Evidence
from batchlab.report.claims.evidence import (
    EXAMPLES,
    LOSS,
    Findings,
    evidence,
    over_batch_sizes,
    table_of,
)
from batchlab.report.claims.margins import MARGINS
from batchlab.report.claims.run_values import common_level, finite, last, log, lowest, sharpness_level
from batchlab.report.claims.runs import Curves
from batchlab.report.claims.settings import Setting
from batchlab.report.tables.groups import column, completed, trained
from batchlab.science.scaling.critical_batch import critical_batch
from batchlab.science.scaling.steps_curve import StepsToTarget
from batchlab.science.statistics.effects import share_effect

VAL = VALIDATION_LOSS.name
WINDOWS = 12  # of a training loss curve, at least: with fewer the spread of second differences says nothing


@dataclass(frozen=True)
class Arrivals:
    """When each run of a setting reached the target; one that never did counts with all its examples and steps."""

    runs: pd.DataFrame
    examples: "pd.Series[float]"
    steps: "pd.Series[float]"
    reached: "pd.Series[bool]"
    target: str  # as text

    def known(self, values: "pd.Series[float]", *, up_to: float) -> "pd.Series[float]":
        """Without the batch sizes up to `up_to` at which a run never reached it: there only a bound is known."""
        never = {int(size) for size in self.runs["batch_size"][~self.reached] if size <= up_to}
        return values[~self.runs["batch_size"].isin(never)]

    @property
    def never(self) -> str:
        """How many runs never reached it, and at which batch sizes."""
        runs = self.runs["batch_size"][~self.reached]
        sizes = ", ".join(str(size) for size in sorted(set(runs)))
        return f"{counted(len(runs), 'run')} never reached it (batch size {sizes}): only a bound" if sizes else ""

    @property
    def by_seed(self) -> list[StepsToTarget]:
        """The runs of each seed, for a fit of S(B)."""
        return [
            StepsToTarget(
                tuple(part["batch_size"].astype(float)),
                tuple(self.steps[part.index]),
                tuple(map(bool, self.reached[part.index])),
            )
            for _, part in self.runs.groupby("seed")
        ]


def early_progress(study: Curves) -> Findings:
    """Examples to the target, E(B)."""
    found, notes = [], []
    for setting in study.settings_to_target:
        seen = arrivals(study, setting)
        if seen is None:
            continue
        # Runs that never reached it count with too few examples: at small batch sizes that would favour the claim.
        middle = math.sqrt(setting.sizes[0] * setting.sizes[-1])
        known = seen.known(seen.examples, up_to=middle)
        found += over_batch_sizes(
            setting,
            log(known),
            f"log examples to {seen.target}, largest minus smallest batch size",
            LOSS,
            sign=1,
            margin="examples to target",
            unit="log ratio",
        )
        notes.append(seen.never)
    return Findings(found, _never(study), _overrides(study), _first(notes))


def steps_to_target(study: Curves) -> Findings:
    """Steps to the target, S(B): fewer at larger B, with diminishing returns."""
    found, bends, notes = [], [], []
    for setting in study.settings_to_target:
        seen = arrivals(study, setting)
        if seen is None:
            continue
        known = seen.known(seen.steps, up_to=math.inf)
        found += over_batch_sizes(
            setting,
            log(known),
            f"log steps to {seen.target}, smallest minus largest batch size",
            LOSS,
            sign=-1,
            margin="steps to target",
            unit="log ratio",
        )
        bends += _bend(setting, log(known), seen.target)
        notes.append(seen.never)
        notes.append(_critical(seen))
    return Findings(found, _never(study), _overrides(study), _first(notes[1::2]) or _first(notes), bends)


def smoothness(study: Curves) -> Findings:
    """The spread of second differences of the log training loss, in windows of equal examples."""
    found = []
    for setting in study.settings:
        spread = roughness(study, setting.runs)
        found += over_batch_sizes(
            setting,
            log(spread),
            "log SD of second differences of log train/loss, smallest minus largest batch size",
            EXAMPLES,
            sign=-1,
            margin="smoothness",
            unit="log ratio",
        )
    return Findings(found, f"it needs curves of train/loss of {WINDOWS} windows or more at two batch sizes", ())


def escape(study: Curves) -> Findings:
    """The share of runs that never reach the target, and the most negative curvature at the end."""
    found = []
    for setting in study.settings:
        found += _never_reached(setting)
        level = sharpness_level(study, completed(setting.runs))
        places = [("sharpness", EXAMPLES, "at the end")]
        places += [(f"sharpness_at_loss_{level}", LOSS, f"at training loss {level}")] if level else []
        for group, held, where in places:
            largest, smallest = (last(study, setting.runs, f"{group}/lambda_{end}") for end in ("max", "min"))
            downward = finite(-smallest.clip(upper=0) / largest.where(largest > 0))
            found += over_batch_sizes(
                setting,
                downward,
                f"most negative curvature divided by the largest eigenvalue {where}, largest minus smallest batch size",
                held,
                sign=1,
                margin="negative curvature",
                unit="share",
            )
    overrides = (*_overrides(study), "instruments=full")
    return Findings(found, "it needs a target, or the curvature that instruments=full measures", overrides)


def arrivals(study: Curves, setting: Setting) -> Arrivals | None:
    """When the runs reached the study's target; None if they did at fewer than two batch sizes.

    Without a target it is the lowest validation loss that all runs reach at most batch sizes.
    """
    runs = trained(setting.runs)
    values = column(runs, "target.value").dropna()
    if len(values):
        reached = runs["target.reached"].fillna(False).astype(bool)
        examples, steps = column(runs, "target.examples"), column(runs, "target.step")
        target = printable(f"{runs.loc[values.index, 'target.metric'].iloc[0]} {values.iloc[0]:g}")
    else:
        level = common_level(runs, lowest(study, runs, VAL))
        seen = study.measured(VAL, runs)
        first = seen[(seen["value"] <= level) & (seen["step"] > 0)].groupby("run_id").first()
        examples, steps = first["examples"].reindex(runs.index), first["step"].reindex(runs.index)
        reached = examples.notna()
        target = f"{VAL} {level:.3g}, which most batch sizes reach"
    if runs["batch_size"][reached].nunique() < 2:
        return None
    examples = finite(examples.where(reached, column(runs, "examples")))
    steps = finite(steps.where(reached, column(runs, "steps")))
    kept = runs.index[runs.index.isin(examples.index[examples > 0]) & runs.index.isin(steps.index[steps > 0])]
    return Arrivals(runs.loc[kept], examples[kept], steps[kept], reached[kept], target)


def roughness(study: Curves, runs: pd.DataFrame) -> "pd.Series[float]":
    """SD of the second differences of log train/loss, in windows of one length for all these runs."""
    curves = {
        str(run_id): (curve["examples"].to_numpy(dtype=float), curve["value"].to_numpy(dtype=float))
        for run_id, curve in study.measured(WINDOW_LOSS.name, completed(runs)).groupby("run_id")
        if len(curve) > WINDOWS and np.isfinite(curve["value"]).all()
    }
    # A window holds at least one step of the largest batch.
    width = max((float(np.max(np.diff(examples))) for examples, _ in curves.values()), default=0.0)
    end = min((float(examples[-1]) for examples, _ in curves.values()), default=0.0)
    spreads = {}
    for run_id, (examples, losses) in curves.items():
        edges = np.arange(0.0, end + 0.5, width)
        passed = np.concatenate([[0.0], examples])
        total = np.concatenate([[0.0], np.cumsum(losses * np.diff(passed))])
        means = np.diff(np.interp(edges, passed, total)) / width
        if len(means) >= WINDOWS and (means > 0).all():
            spreads[run_id] = float(np.std(np.diff(np.log(means), 2), ddof=1))
    return pd.Series(spreads, dtype=float)


def _bend(setting: Setting, log_steps: "pd.Series[float]", target: str) -> list[Evidence]:
    """Diminishing returns: the local slope of log S on log B is larger (nearer to 0) at the largest batch size."""
    table = table_of(setting.runs, log_steps)
    if len(table.batch_sizes) < 3:
        return []
    x = np.log(table.batch_sizes)
    bends = [float(2 * np.polyfit(x, row, 2)[0] * (x[-1] - x[0])) for row in table.values]
    runs = log_steps.index.intersection(setting.runs.index)
    what = f"slope of log steps to {target} on log batch size, at the largest minus at the smallest"
    return [evidence(setting, runs, what, LOSS, bends, margin="bend", unit="slope")]


def _critical(seen: Arrivals) -> str:
    try:
        found = critical_batch(seen.by_seed, np.random.default_rng(0))
    except ValueError:
        return ""
    size = found.batch_size
    ends = "" if size.low is None or size.high is None else f" [{size.low:.3g}, {size.high:.3g}]"
    return f"the critical batch size is {size.value:.3g}{ends} ({found.verdict})"


def _never_reached(setting: Setting) -> list[Evidence]:
    """The share that never reached the target among the larger batch sizes, minus that among the smaller."""
    runs = trained(setting.runs)
    runs = runs[column(runs, "target.value").notna()]
    if not len(runs):
        return []
    missed = ~runs["target.reached"].fillna(False).astype(bool)
    middle = math.sqrt(float(runs["batch_size"].min()) * float(runs["batch_size"].max()))
    large, small = missed[runs["batch_size"] > middle], missed[runs["batch_size"] <= middle]
    if not len(large) or not len(small):
        return []
    seen = share_effect(int(large.sum()), len(large), int(small.sum()), len(small), MARGINS["share of runs"])
    of = f" ({setting.label})" if setting.label else ""
    what = f"share of runs that never reach the target, above batch size {middle:.3g} minus below{of}"
    seeds = int(runs["seed"].nunique())
    return [Evidence(what, EXAMPLES, setting.tuning, seen, "share", seeds, tuple(map(str, runs.index)))]


def _overrides(study: Curves) -> tuple[str, ...]:
    runs = study.runs
    if column(runs, "target.value").notna().any():
        return ()
    best = lowest(study, completed(runs), VAL) if len(runs) else pd.Series(dtype=float)
    # A little above what the worst run reached, so that every batch size can reach it.
    return (f"target.value={best.max() * 1.05:.2g}",) if len(best) else ("target.value=0.3",)


def _never(study: Curves) -> str:
    return "it needs runs at two batch sizes or more that reach a target"


def _first(notes: list[str]) -> str:
    return next((note for note in notes if note), "")
