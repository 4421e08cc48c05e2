"""Time, updates and throughput."""

import numpy as np
import pandas as pd

from batchlab.printable import counted
from batchlab.records.quantities import TRAINING_SPEED
from batchlab.report.claims.claim import Evidence
from batchlab.report.claims.evidence import EXAMPLES, NOTHING, Findings, over_batch_sizes, table_of
from batchlab.report.claims.run_values import finite, last, log
from batchlab.report.claims.runs import Curves
from batchlab.report.fits.costs import busy_shares
from batchlab.report.tables.groups import alone, column, completed, on_one_model
from batchlab.science.scaling.knee import launch_bound, throughput_knee
from batchlab.science.statistics.uncertainty import t_interval

SPEED = TRAINING_SPEED.name


def epoch_time(study: Curves) -> Findings:
    """Training seconds per epoch over B, and t(B) = a + b B per step."""
    found, fits = [], []
    for setting in study.settings:
        runs = alone(setting.runs)
        done = completed(runs)
        seconds = column(done, "train_seconds") / column(done, "epochs")
        found += over_batch_sizes(
            setting,
            log(finite(seconds)),
            "log training seconds per epoch, smallest minus largest batch size",
            EXAMPLES,
            sign=-1,
            margin="time",
            unit="log ratio",
            among=runs,
        )
        per_step = finite(column(done, "train_seconds") / column(done, "steps"))
        if done.loc[per_step.index, "batch_size"].nunique() >= 2:
            b, a = np.polyfit(done.loc[per_step.index, "batch_size"].astype(float), per_step, 1)
            fits.append(f"a step takes {1e3 * a:.3g} ms plus {1e6 * b:.3g} us per example")
    return Findings(found, _no_clock(study), _with_clock(), "; ".join(fits[:1]))


def updates(study: Curves) -> Findings:
    """Updates per epoch, counted: N / B."""
    found, off = [], 0
    for setting in study.settings:
        runs = completed(setting.runs)
        per_epoch = finite(column(runs, "steps") / (column(runs, "examples") / column(runs, "n_train")))
        expected = column(runs, "n_train") / column(runs, "batch_size")
        off += int((np.abs(per_epoch / expected.reindex(per_epoch.index) - 1) > 1e-9).sum())
        found += over_batch_sizes(
            setting,
            log(per_epoch),
            "log updates per epoch, smallest minus largest batch size",
            EXAMPLES,
            sign=-1,
            margin="steps to target",
            unit="log ratio",
            exact=True,
        )
    note = f"{counted(off, 'run')} did not make N/B updates per epoch" if off else "each run made N/B"
    return Findings(found, _two_sizes(study), (), note if found else "")


def throughput(study: Curves) -> Findings:
    """Examples per second over B, and the knee: the smallest B within 10% of the best."""
    found: list[Evidence] = []
    notes: list[str] = []
    for setting in study.settings:
        runs = alone(setting.runs)
        speeds = last(study, runs, SPEED)
        found += over_batch_sizes(
            setting,
            log(speeds),
            "log examples per second, largest minus smallest batch size",
            NOTHING,
            sign=1,
            margin="speed",
            unit="log ratio",
            among=runs,
        )
        table = table_of(runs, speeds)
        if table.seeds and not notes:
            columns = zip(table.batch_sizes, table.values.T.tolist(), strict=True)
            knee = throughput_knee({size: t_interval(of_it) for size, of_it in columns})
            saturated = knee.size < table.batch_sizes[-1]
            end = f"it saturates at batch size {knee.size}" if saturated else "no saturation up to the largest"
            notes.append(f"{end}, the best is {knee.best_speed:,.0f} examples/s at {knee.best_size}")
            notes += _launch_bound(runs)
    return Findings(found, _no_clock(study), _with_clock(), "; ".join(notes))


def _launch_bound(runs: pd.DataFrame) -> list[str]:
    """A sentence on the batch sizes at which the GPU waits for Python; none if it does not, or on a CPU."""
    bound = launch_bound(busy_shares(runs))
    if not bound:
        return []
    sizes = ", ".join(f"{size} (busy {share:.0%} of the time)" for size, share in bound.items())
    return [f"launch-bound at batch size {sizes}: there Python limits the speed, not the device"]


def _with_clock() -> tuple[str, ...]:
    return ("jobs=1",)


def _no_clock(study: Curves) -> str:
    runs = study.runs
    shared = int(runs["shared_machine"].astype(bool).sum()) if len(runs) else 0
    if shared and shared == len(runs):
        return "all its runs shared the machine with others, so their times are not compared"
    elsewhere = sum(len(group.runs) - len(on_one_model(group.runs)) for group in study.groups)
    missing = _two_sizes(study) + (f"; {counted(shared, 'run')} shared the machine" if shared else "")
    return missing + (f"; {counted(elsewhere, 'run')} ran on another device" if elsewhere else "")


def _two_sizes(study: Curves) -> str:
    return "it needs completed runs at two batch sizes or more that differ in nothing else"
