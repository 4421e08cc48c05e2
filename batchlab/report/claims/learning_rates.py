"""How the best learning rate depends on the batch size."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from batchlab.records import RunStatus, Unknown
from batchlab.records.quantities import VALIDATION_LOSS
from batchlab.report.claims.claim import Evidence
from batchlab.report.claims.evidence import EXAMPLES, Findings, evidence
from batchlab.report.claims.margins import MARGINS
from batchlab.report.claims.run_values import log, lowest
from batchlab.report.claims.runs import Curves
from batchlab.report.claims.settings import Setting
from batchlab.report.tables.groups import by, column, tuning_of
from batchlab.science.statistics.effects import against, interval_effect
from batchlab.science.statistics.verdicts import Effect


def lr_scaling(study: Curves) -> Findings:
    """The slope of log best learning rate on log B: 1 is linear, 1/2 the square root, 0 none."""
    return _slope(study, lambda effect: effect, "slope of log best learning rate on log batch size")


def small_lr(study: Curves) -> Findings:
    """The same slope with the opposite sign, for the claim that it is negative."""
    return _slope(study, against, "minus the slope of log best learning rate on log batch size")


def warmup(study: Curves) -> Findings:
    """Loss without minus with warm-up, by seed, at the largest batch size; and how much more than at the smallest."""
    found: list[Evidence] = []
    for label, part in study.equal_except("warmup"):
        wait = column(part, "warmup").fillna(0.0)
        values = log(lowest(study, part[part["status"] != RunStatus.OOM], VALIDATION_LOSS.name))
        for amount in sorted({float(w) for w in wait if w > 0}):
            gains = {int(size): _gains(of_size, values, amount) for size, of_size in by(part, "batch_size").items()}
            gains = {size: gain for size, gain in gains.items() if gain}
            if not gains:
                continue
            small, large = min(gains), max(gains)
            runs = part[part["batch_size"].isin((small, large)) & ((wait == 0) | (wait == amount))]
            setting = Setting(label, tuning_of(runs), runs)
            what = f"log best val/loss without minus with warmup={amount:g}"
            at_large = list(gains[large].values())
            both = sorted(set(gains[small]) & set(gains[large]))
            if large == small or not both:
                continue
            more = [gains[large][seed] - gains[small][seed] for seed in both]
            for seen, where in ((at_large, f"at batch size {large}"), (more, f"at {large} minus at {small}")):
                found.append(
                    evidence(setting, runs.index, f"{what}, {where}", EXAMPLES, seen, margin="loss", unit="log ratio")
                )
    missing = "it needs runs that differ only in warmup, at two batch sizes or more"
    return Findings(found, missing, ("warmup=0,0.1", "lr_scaling=linear"))


def _slope(study: Curves, oriented: Callable[[Effect], Effect], what: str) -> Findings:
    found: list[Evidence] = []
    reasons: list[str] = []
    for group, played in study.tournaments:
        if isinstance(played, Unknown):
            continue
        if played.slope is None:
            reasons.append(played.why_no_slope)
            continue
        seen = oriented(interval_effect(played.slope, MARGINS["learning rate slope"]))
        of = f" ({group.name})" if group.name else ""
        sizes = f"{what}, over {', '.join(map(str, played.slope_sizes))}, by the {played.by}"
        seeds = int(group.runs["seed"].nunique())
        ids = tuple(map(str, group.runs.index))
        found.append(Evidence(f"{sizes}{of}", EXAMPLES, group.tuning, seen, "slope", seeds, ids))
    base = _base_lr(study)
    lrs = ",".join(f"{base * 4.0**i:g}" for i in range(-2, 4))
    missing = reasons[0] if reasons else "it needs three learning rates or more at each of three batch sizes"
    return Findings(found, missing, (f"lr={lrs}", "lr_scaling=none", "warmup=0"))


def vertex(x: Sequence[float], y: Sequence[float]) -> tuple[float, bool]:
    """The minimum of the parabola through the lowest point and its neighbours, and whether that point is at an edge."""
    at = int(np.argmin(y))
    if at in (0, len(x) - 1):
        return x[at], True
    # In units of the spacing, about the lowest point; the minimum cannot lie outside its neighbours.
    a, b, _ = np.polyfit(np.array(x[at - 1 : at + 2]) - x[at], y[at - 1 : at + 2], 2)
    return float(np.clip(x[at] - b / (2 * a), x[at - 1], x[at + 1])) if a > 0 else x[at], False


def _gains(runs: pd.DataFrame, values: "pd.Series[float]", amount: float) -> dict[int, float]:
    """Loss without minus with warm-up, by seed."""
    known = runs[runs.index.isin(values.index)]
    wait = column(known, "warmup").fillna(0.0)
    without, with_it = (
        dict(zip(part["seed"].astype(int), values[part.index], strict=True))
        for part in (known[wait == 0], known[wait == amount])
    )
    return {seed: without[seed] - with_it[seed] for seed in sorted(set(without) & set(with_it))}


def _base_lr(study: Curves) -> float:
    lrs = column(study.runs, "lr").dropna() if len(study.runs) else pd.Series(dtype=float)
    return float(lrs.median()) if len(lrs) and math.isfinite(lrs.median()) else 0.02
