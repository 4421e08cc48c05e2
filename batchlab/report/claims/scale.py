"""Whether the best batch size depends on the size of the data, the size of the model, and the domain."""

import math
import re

import numpy as np
import pandas as pd

from batchlab.records.quantities import VALIDATION_LOSS
from batchlab.report.claims.claim import Evidence
from batchlab.report.claims.evidence import EXAMPLES, LOSS, Findings, evidence
from batchlab.report.claims.learning_rates import vertex
from batchlab.report.claims.run_values import log, lowest
from batchlab.report.claims.runs import Curves
from batchlab.report.claims.settings import Setting
from batchlab.report.claims.training_progress import arrivals
from batchlab.report.tables.groups import by as by_number
from batchlab.report.tables.groups import column, completed, tuning_of
from batchlab.science.scaling.steps_curve import fit_steps

TEXT = re.compile(r"text|lang|char|token|word|corpus|wiki|shakespeare", re.IGNORECASE)
MODEL = ("model.width", "model.depth")
# The text task that ships with batchlab, with a learning rate and a target that suit it: at batch size 32 a run reached
# 2.3 after 9,216 windows. From the default of 1,000 windows it learns too little for that.
TEXT_TASK = (
    *("data=text", "data.train_size=4000", "model=gpt", "optimizer=adamw", "lr=0.001", "lr_scaling=sqrt"),
    *("target.metric=val/loss", "target.value=2.3", "stop_at_target=true", "eval_every=200", "batch_size=8,32,128"),
)


def dataset_size(study: Curves) -> Findings:
    """The best batch size over the number of training examples."""
    found = _best_over(study, ("data.train_size",), "n_train", 1, "training examples")
    most = column(study.runs, "n_train").max() if len(study.runs) else math.nan
    n = int(most) if most >= 64 else 1437
    data = ",".join(str(n // part) for part in (4, 2, 1))
    # Batch sizes up to a quarter of the data fit all three sizes of it.
    batches = ",".join(str(size) for size in (8, 32, 128, 512) if size <= n // 4)
    missing = "it needs runs that differ in data.train_size and batch size, with three batch sizes or more at each"
    return Findings(found, missing, (f"data.train_size={data}", f"batch_size={batches}", "lr_scaling=linear"))


def model_size(study: Curves) -> Findings:
    """The best batch size over the number of trainable parameters."""
    found = _best_over(study, MODEL, "parameters", -1, "trainable parameters")
    missing = (
        "it needs runs that differ in model.width or model.depth and batch size, with three batch sizes or more at each"
    )
    return Findings(found, missing, ("model.width=32,128,512", "lr_scaling=linear"))


def domain(study: Curves) -> Findings:
    """The critical batch size of a text task over that of another task of the study."""
    sizes: dict[bool, tuple[Setting, list[float]]] = {}
    for setting in study.settings_to_target:
        of_text = bool(
            TEXT.search(str(setting.runs["data._target_"].iloc[0] if "data._target_" in setting.runs else ""))
        )
        critical = _critical_by_seed(study, setting)
        if critical and of_text not in sizes:
            sizes[of_text] = setting, critical
    found = []
    if len(sizes) == 2:
        n = min(len(of_it) for _, of_it in sizes.values())
        changes = [math.log(text / other) for text, other in zip(sizes[True][1][:n], sizes[False][1][:n], strict=True)]
        runs = sizes[True][0].runs.index.append(sizes[False][0].runs.index)
        what = "log critical batch size of the text task minus that of the other task"
        found.append(evidence(sizes[True][0], runs, what, LOSS, changes, margin="critical batch", unit="log ratio"))
    missing = "it needs a text task and another task in one study, each with the target reached at three batch sizes"
    return Findings(found, missing, TEXT_TASK)


def _best_over(study: Curves, options: tuple[str, ...], by: str, sign: int, of: str) -> list[Evidence]:
    """The slope, for each seed, of log best batch size (lowest validation loss) on log `by`."""
    found = []
    for label, part in study.equal_except(*options):
        values = log(lowest(study, completed(part), VALIDATION_LOSS.name))
        runs = part.loc[values.index]
        runs = runs[column(runs, by).notna()]
        slopes = []
        for _, of_seed in runs.groupby("seed"):
            best = {size: _best_batch(rows, values) for size, rows in by_number(of_seed, by).items()}
            known = {size: batch for size, batch in best.items() if batch is not None}
            if len(known) >= 2:
                slopes.append(sign * float(np.polyfit(np.log(list(known)), list(known.values()), 1)[0]))
        if slopes:
            setting = Setting(label, tuning_of(runs), runs)
            what = f"{'minus the ' if sign < 0 else ''}slope of log best batch size on log {of}"
            found.append(evidence(setting, runs.index, what, EXAMPLES, slopes, margin="best batch slope", unit="slope"))
    return found


def _best_batch(runs: pd.DataFrame, values: "pd.Series[float]") -> float | None:
    """The log of the batch size with the lowest loss, interpolated; None for fewer than three batch sizes."""
    curve = values[runs.index].groupby(np.log(runs["batch_size"].astype(float))).min().sort_index()
    return vertex(curve.index.to_list(), curve.to_list())[0] if len(curve) >= 3 else None


def _critical_by_seed(study: Curves, setting: Setting) -> list[float]:
    """B_crit of each seed whose curve bends."""
    seen = arrivals(study, setting)
    usable = [] if seen is None else [of_seed for of_seed in seen.by_seed if len(of_seed.sizes_reached) >= 3]
    curves = [fit_steps(of_seed) for of_seed in usable]
    return [curve.critical_batch_size for curve in curves if curve.bends]
