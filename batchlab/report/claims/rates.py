"""How the learning rate goes with the batch size."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from batchlab.report.claim import Evidence
from batchlab.report.claims.curves import Curves
from batchlab.report.claims.evidence import EXAMPLES, Findings, evidence
from batchlab.report.claims.settings import TUNED_FROM, Setting, alike_but, rate_of
from batchlab.report.claims.values import log, lowest
from batchlab.report.groups import by, column


def lr_scaling(study: Curves) -> Findings:
    """The slope of log best rate on log B: 1 is linear, 1/2 the square root, 0 none."""
    return _slope(study, 1, "slope of log best rate on log batch size")


def small_lr(study: Curves) -> Findings:
    """The same slope, for the claim that it falls."""
    return _slope(study, -1, "slope of log best rate on log batch size, downwards")


def warmup(study: Curves) -> Findings:
    """Without less with warm-up, seed by seed, at the largest batch size; and how much more than at the smallest."""
    found: list[Evidence] = []
    for label, part in alike_but(study, ("warmup",)):
        wait = column(part, "warmup").fillna(0.0)
        values = log(lowest(study, part[part["status"] != "oom"], "val/loss"))
        for amount in sorted({float(w) for w in wait if w > 0}):
            gains = {int(size): _gains(of_size, values, amount) for size, of_size in by(part, "batch_size").items()}
            gains = {size: gain for size, gain in gains.items() if gain}
            if not gains:
                continue
            small, large = min(gains), max(gains)
            runs = part[part["batch_size"].isin((small, large)) & ((wait == 0) | (wait == amount))]
            setting = Setting(label, rate_of(runs), runs)
            what = f"log best val/loss without less with warmup={amount:g}"
            at_large = list(gains[large].values())
            both = sorted(set(gains[small]) & set(gains[large]))
            if large == small or not both:
                continue
            more = [gains[large][seed] - gains[small][seed] for seed in both]
            for seen, where in ((at_large, f"at batch size {large}"), (more, f"at batch size {large} less at {small}")):
                found.append(
                    evidence(setting, runs.index, f"{what}, {where}", EXAMPLES, seen, margin="loss", unit="log ratio")
                )
    missing = "it needs runs that differ in warmup alone, at two batch sizes or more"
    return Findings(found, missing, ("warmup=0,0.1", "lr_scaling=linear"))


def _slope(study: Curves, sign: int, what: str) -> Findings:
    found: list[Evidence] = []
    notes = []
    for group in study.groups:
        runs = group.runs
        if not (runs.groupby("batch_size")["lr"].nunique() >= TUNED_FROM).all() or runs["batch_size"].nunique() < 2:
            continue
        values = log(lowest(study, runs[runs["status"] == "completed"], "val/loss"))
        slopes, at_edge = _best_rates(runs, values)
        if not slopes:
            continue
        setting = Setting(group.name, group.rate, runs)
        seen = [sign * slope for slope in slopes]
        found.append(evidence(setting, runs.index, what, EXAMPLES, seen, margin="rate slope", unit="slope"))
        if at_edge:
            notes.append(f"at batch size {', '.join(map(str, at_edge))} the best rate is at the grid's edge")
    base = _base_rate(study)
    rates = ",".join(f"{base * 4.0**i:g}" for i in range(-2, 4))
    missing = f"it needs {TUNED_FROM} rates or more at each of two batch sizes"
    return Findings(found, missing, (f"lr={rates}", "lr_scaling=none", "warmup=0"), "; ".join(notes[:1]))


def _best_rates(runs: pd.DataFrame, values: "pd.Series[float]") -> tuple[list[float], list[int]]:
    """The slope of log best rate on log B of each seed that has all batch sizes, and where the best is at the edge.

    The best rate is the vertex of the parabola through the log losses of the best rate of the grid and its neighbours.
    """
    sizes = sorted({int(size) for size in runs["batch_size"]})
    slopes, edges = [], set()
    for _, of_seed in runs.loc[values.index].groupby("seed"):
        best = {}
        for size, part in by(of_seed, "batch_size").items():
            curve = values[part.index].groupby(np.log(part["lr"].astype(float))).mean().sort_index()
            if len(curve) >= TUNED_FROM - 1:
                best[int(size)], edge = vertex(curve.index.to_list(), curve.to_list())
                edges |= {int(size)} if edge else set()
        if sorted(best) == sizes:
            slopes.append(float(np.polyfit(np.log(sizes), [best[size] for size in sizes], 1)[0]))
    return slopes, sorted(edges)


def vertex(x: Sequence[float], y: Sequence[float]) -> tuple[float, bool]:
    """Where the parabola through the lowest point and its neighbours is lowest; and whether that point has but one."""
    at = int(np.argmin(y))
    if at in (0, len(x) - 1):
        return x[at], True
    # In units of the spacing, about the lowest point; it cannot lie outside its neighbours.
    a, b, _ = np.polyfit(np.array(x[at - 1 : at + 2]) - x[at], y[at - 1 : at + 2], 2)
    return float(np.clip(x[at] - b / (2 * a), x[at - 1], x[at + 1])) if a > 0 else x[at], False


def _gains(runs: pd.DataFrame, values: "pd.Series[float]", amount: float) -> dict[int, float]:
    """Without less with warm-up, by seed."""
    known = runs[runs.index.isin(values.index)]
    wait = column(known, "warmup").fillna(0.0)
    without, with_it = (
        dict(zip(part["seed"].astype(int), values[part.index], strict=True))
        for part in (known[wait == 0], known[wait == amount])
    )
    return {seed: without[seed] - with_it[seed] for seed in sorted(set(without) & set(with_it))}


def _base_rate(study: Curves) -> float:
    rates = column(study.runs, "lr").dropna() if len(study.runs) else pd.Series(dtype=float)
    return float(rates.median()) if len(rates) and math.isfinite(rates.median()) else 0.02
