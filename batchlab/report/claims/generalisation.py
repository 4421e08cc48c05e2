"""Generalisation, sharpness of the minimum, and memorisation."""

import math

import numpy as np
import pandas as pd

from batchlab.records import RunStatus
from batchlab.records.quantities import (
    CLEAN_LOSS,
    CORRUPTED_ACCURACY,
    HARDEST_DECILE_LOSS,
    LOSS_GAP,
    VALIDATION_LOSS,
    WORST_CLASS_ACCURACY,
)
from batchlab.report.claims.claim import Evidence
from batchlab.report.claims.evidence import EXAMPLES, LOSS, STEPS, Findings, over_batch_sizes
from batchlab.report.claims.run_values import at_level, common_level, last, log, lowest, sharpness_level
from batchlab.report.claims.runs import Curves
from batchlab.report.claims.settings import Setting
from batchlab.report.tables.groups import column, completed

FULL = ("instruments=full",)
SHARPNESS = ("lambda_max", "trace", "sam", "asam")  # the last is scale-invariant


def generalisation(study: Curves) -> Findings:
    """The best validation loss and the gap, at equal examples, equal steps and matched training loss."""
    found: list[Evidence] = []
    for setting in study.settings:
        runs = setting.runs[setting.runs["status"] != RunStatus.OOM]
        if _equal(runs, "examples"):
            found += _trend(
                setting, log(lowest(study, runs, VALIDATION_LOSS.name)), "log best val/loss", EXAMPLES, "loss"
            )
            found += _relative_gap(study, setting, EXAMPLES)
        steps = float(runs["steps"].astype(float).min())
        # With a decaying schedule the start of a long run is not a short run.
        if setting.plain or runs["steps"].nunique() == 1:
            at = log(lowest(study, runs, VALIDATION_LOSS.name, until_step=steps))
            found += _trend(setting, at, f"log best val/loss within {steps:g} steps", STEPS, "loss")
        for level, seen in _matched(study, runs):
            found += _trend(
                setting, log(seen), f"log val/loss where the training loss reaches {level:.2g}", LOSS, "loss"
            )
    return Findings(found, "it needs validation losses at two batch sizes or more", FULL, _diverged(study))


def sharpness(study: Curves) -> Findings:
    """lambda_max, trace, SAM and ASAM, at the end and at matched training loss."""
    found: list[Evidence] = []
    for setting in study.settings:
        runs = completed(setting.runs)
        places = [("sharpness", EXAMPLES, "at the end")] if _equal(runs, "examples") else []
        level = sharpness_level(study, runs)
        if level:
            places.append((f"sharpness_at_loss_{level}", LOSS, f"at training loss {level}"))
        for group, held, where in places:
            for name in SHARPNESS:
                seen = log(last(study, runs, f"{group}/{name}"))
                found += _trend(setting, seen, f"log {name} {where}", held, "sharpness")
    return Findings(found, "it needs the sharpness that instruments=full measures, at two batch sizes or more", FULL)


def memorisation(study: Curves) -> Findings:
    """The generalisation gap and, with label noise, the share of wrong labels that were memorised."""
    found: list[Evidence] = []
    for setting in study.settings:
        if not _equal(setting.runs, "examples"):
            continue
        learnt = last(study, setting.runs, CORRUPTED_ACCURACY.name)
        found += over_batch_sizes(
            setting,
            learnt,
            "training accuracy on the wrong labels, largest minus smallest batch size",
            EXAMPLES,
            sign=1,
            margin="accuracy",
            unit="share",
        )
        found += _relative_gap(study, setting, EXAMPLES)
    missing = "it needs the generalisation gap, or accuracy on wrong labels, which instruments=full measures"
    return Findings(found, missing, ("instruments=full", "data.label_noise=0.1"))


def nuance(study: Curves) -> Findings:
    """The hardest decile's validation loss, and the accuracy on the worst class."""
    found: list[Evidence] = []
    for setting in study.settings:
        if not _equal(setting.runs, "examples"):
            continue
        hardest = log(last(study, setting.runs, HARDEST_DECILE_LOSS.name))
        found += _trend(setting, hardest, "log val loss of the hardest decile", EXAMPLES, "loss")
        found += over_batch_sizes(
            setting,
            last(study, setting.runs, WORST_CLASS_ACCURACY.name),
            "accuracy on the worst class, smallest minus largest batch size",
            EXAMPLES,
            sign=-1,
            margin="accuracy",
            unit="share",
        )
    return Findings(found, "it needs the hardest decile's loss, which instruments=full measures", FULL)


def _trend(setting: Setting, values: "pd.Series[float]", what: str, held: str, margin: str) -> list[Evidence]:
    return over_batch_sizes(
        setting,
        values,
        f"{what}, largest minus smallest batch size",
        held,
        sign=1,
        margin=margin,
        unit="log ratio",
    )


def _relative_gap(study: Curves, setting: Setting, held: str) -> list[Evidence]:
    gap, val = last(study, setting.runs, LOSS_GAP.name), last(study, setting.runs, VALIDATION_LOSS.name)
    scale = float(val.mean()) if len(val) else np.nan
    if not scale > 0:
        return []
    return over_batch_sizes(
        setting,
        gap / scale,
        "gap between validation and training loss divided by the mean validation loss, "
        "largest minus smallest batch size",
        held,
        sign=1,
        margin="gap",
        unit="share",
    )


def _matched(study: Curves, runs: pd.DataFrame) -> list[tuple[float, "pd.Series[float]"]]:
    """A training loss that the runs reach, and the validation loss of each run at that point."""
    done = completed(runs)
    level = common_level(done, lowest(study, done, CLEAN_LOSS.name))
    if math.isnan(level):
        return []
    return [(level, at_level(study, done, CLEAN_LOSS.name, VALIDATION_LOSS.name, level))]


def _equal(runs: pd.DataFrame, name: str) -> bool:
    """Whether the completed runs had the same budget of examples, except for a rest below one step."""
    done = completed(runs)
    if not len(done):
        return False
    budget = column(done, name) + column(done, "remainder").fillna(0.0)
    return float(budget.max()) <= 1.01 * float(budget.min())


def _diverged(study: Curves) -> str:
    diverged = int((study.runs["status"] == RunStatus.DIVERGED).sum()) if len(study.runs) else 0
    return f"{diverged} diverged, and count with their best value before that" if diverged else ""
