"""How far training comes for its examples and steps, how smoothly, and whether it gets there."""

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
WINDOWS = 12  # of a training loss curve, at least: of fewer the spread of second differences says nothing


@dataclass(frozen=True)
class Arrivals:
    """When each run of a setting came to the target; one that never did counts with all it made."""

    runs: pd.DataFrame
    examples: "pd.Series[float]"
    steps: "pd.Series[float]"
    reached: "pd.Series[bool]"
    said: str  # what the target is

    def told(self, values: "pd.Series[float]", *, up_to: float) -> "pd.Series[float]":
        """Without the batch sizes `up_to` one at which a run never came: of those only a bound is known."""
        never = {int(size) for size in self.runs["batch_size"][~self.reached] if size <= up_to}
        return values[~self.runs["batch_size"].isin(never)]

    @property
    def never(self) -> str:
        """At which batch sizes how many never came."""
        runs = self.runs["batch_size"][~self.reached]
        sizes = ", ".join(str(size) for size in sorted(set(runs)))
        return (
            f"at batch size {sizes} {counted(len(runs), 'run')} never came there: a bound is all they tell"
            if sizes
            else ""
        )

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
        # With all they made they count for less than they would have taken: at small sizes that would speak for it.
        middle = math.sqrt(setting.sizes[0] * setting.sizes[-1])
        told = seen.told(seen.examples, up_to=middle)
        found += over_batch_sizes(
            setting,
            log(told),
            f"log examples to {seen.said}, largest less smallest batch size",
            LOSS,
            sign=1,
            margin="examples to target",
            unit="log ratio",
        )
        notes.append(seen.never)
    return Findings(found, _never(study), _to_ask(study), _first(notes))


def steps_to_target(study: Curves) -> Findings:
    """Steps to the target, S(B): fewer at larger B, and ever less so."""
    found, bends, notes = [], [], []
    for setting in study.settings_to_target:
        seen = arrivals(study, setting)
        if seen is None:
            continue
        told = seen.told(seen.steps, up_to=math.inf)
        found += over_batch_sizes(
            setting,
            log(told),
            f"log steps to {seen.said}, smallest less largest batch size",
            LOSS,
            sign=-1,
            margin="steps to target",
            unit="log ratio",
        )
        bends += _bend(setting, log(told), seen.said)
        notes.append(seen.never)
        notes.append(_critical(seen))
    return Findings(found, _never(study), _to_ask(study), _first(notes[1::2]) or _first(notes), bends)


def smoothness(study: Curves) -> Findings:
    """The spread of second differences of the log training loss, in windows of equal examples."""
    found = []
    for setting in study.settings:
        spread = roughness(study, setting.runs)
        found += over_batch_sizes(
            setting,
            log(spread),
            "log SD of second differences of log train/loss, smallest less largest batch size",
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
                f"most negative curvature over the largest eigenvalue {where}, largest less smallest batch size",
                held,
                sign=1,
                margin="negative curvature",
                unit="share",
            )
    ask = (*_to_ask(study), "instruments=full")
    return Findings(found, "it needs a target, or the curvature that instruments=full measures", ask)


def arrivals(study: Curves, setting: Setting) -> Arrivals | None:
    """When the runs came to the study's target; None where they did at fewer than two batch sizes.

    A study without a target has the lowest validation loss to which all runs come at most of its batch sizes.
    """
    runs = trained(setting.runs)
    asked = column(runs, "target.value").dropna()
    if len(asked):
        reached = runs["target.reached"].fillna(False).astype(bool)
        examples, steps = column(runs, "target.examples"), column(runs, "target.step")
        said = printable(f"{runs.loc[asked.index, 'target.metric'].iloc[0]} {asked.iloc[0]:g}")
    else:
        level = common_level(runs, lowest(study, runs, VAL))
        seen = study.measured(VAL, runs)
        first = seen[(seen["value"] <= level) & (seen["step"] > 0)].groupby("run_id").first()
        examples, steps = first["examples"].reindex(runs.index), first["step"].reindex(runs.index)
        reached = examples.notna()
        said = f"{VAL} {level:.3g}, which most batch sizes came to"
    if runs["batch_size"][reached].nunique() < 2:
        return None
    examples = finite(examples.where(reached, column(runs, "examples")))
    steps = finite(steps.where(reached, column(runs, "steps")))
    kept = runs.index[runs.index.isin(examples.index[examples > 0]) & runs.index.isin(steps.index[steps > 0])]
    return Arrivals(runs.loc[kept], examples[kept], steps[kept], reached[kept], said)


def roughness(study: Curves, runs: pd.DataFrame) -> "pd.Series[float]":
    """SD of the second differences of log train/loss, in windows that are as long for all these runs."""
    curves = {
        str(run_id): (curve["examples"].to_numpy(dtype=float), curve["value"].to_numpy(dtype=float))
        for run_id, curve in study.measured(WINDOW_LOSS.name, completed(runs)).groupby("run_id")
        if len(curve) > WINDOWS and np.isfinite(curve["value"]).all()
    }
    # A window of a large batch holds one step at least.
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


def _bend(setting: Setting, log_steps: "pd.Series[float]", said: str) -> list[Evidence]:
    """Diminishing returns: the local slope of log S on log B is larger (nearer to 0) at the largest batch size."""
    table = table_of(setting.runs, log_steps)
    if len(table.batch_sizes) < 3:
        return []
    x = np.log(table.batch_sizes)
    bends = [float(2 * np.polyfit(x, row, 2)[0] * (x[-1] - x[0])) for row in table.values]
    runs = log_steps.index.intersection(setting.runs.index)
    what = f"slope of log steps to {said} on log batch size, at the largest less at the smallest"
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
    """The share that never reached the target among the larger batch sizes, less that among the smaller."""
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
    what = f"share of runs that never reach the target, above batch size {middle:.3g} less below{of}"
    seeds = int(runs["seed"].nunique())
    return [Evidence(what, EXAMPLES, setting.rate, seen, "share", seeds, tuple(map(str, runs.index)))]


def _to_ask(study: Curves) -> tuple[str, ...]:
    runs = study.runs
    if column(runs, "target.value").notna().any():
        return ()
    best = lowest(study, completed(runs), VAL) if len(runs) else pd.Series(dtype=float)
    # What the worst run came to, and a little more: to be reached at every batch size.
    return (f"target.value={best.max() * 1.05:.2g}",) if len(best) else ("target.value=0.3",)


def _never(study: Curves) -> str:
    return "it needs runs at two batch sizes or more that reach a target"


def _first(notes: list[str]) -> str:
    return next((note for note in notes if note), "")
