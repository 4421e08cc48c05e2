"""Memory: what a larger micro-batch needs, what accumulation and lower precision save, and what fits."""

import math

import numpy as np
import pandas as pd

from batchlab.records import RunStatus
from batchlab.records.quantities import PEAK_ALLOCATED, PEAK_GROWTH, SAVED_FOR_BACKWARD, VALIDATION_LOSS
from batchlab.report.claims.claim import Evidence
from batchlab.report.claims.evidence import EXAMPLES, NOTHING, Findings, evidence, over_batch_sizes, table_of, within
from batchlab.report.claims.margins import MARGINS
from batchlab.report.claims.run_values import last, log, lowest
from batchlab.report.claims.runs import Curves
from batchlab.report.claims.settings import Setting
from batchlab.report.claims.speed import SPEED
from batchlab.report.tables.find_results import Search, searches
from batchlab.report.tables.groups import alone, by, column, device_models, tuning_of
from batchlab.science.memory import memory_model

SAVED = SAVED_FOR_BACKWARD.name  # counted: the same for every seed, and on every device of one kind
ALLOCATED = PEAK_ALLOCATED.name  # of a CUDA device
GROWTH = PEAK_GROWTH.name  # what training added to it: without the data sets and the weights
LOWER = ("tf32", "bf16", "fp16")


def memory(study: Curves) -> Findings:
    """Peak bytes over the micro-batch, with the line m0 + m1 B."""
    found: list[Evidence] = []
    lines = []
    for setting in study.settings:
        micro = column(setting.runs, "micro_batch_size")
        if not (micro == setting.runs["batch_size"]).all():
            continue  # accumulated: the batch size does not determine the memory
        for name, runs, exact in (
            (SAVED, setting.runs, True),
            (_peak(study, setting.runs), alone(setting.runs), False),
        ):
            seen = last(study, runs, name)
            found += over_batch_sizes(
                setting,
                log(seen),
                f"log {name}, largest minus smallest batch size",
                NOTHING,
                sign=1,
                margin="bytes",
                unit="log ratio",
                exact=exact,
                among=runs,
            )
            if micro[seen.index].nunique() >= 2:
                line = memory_model.fit([int(size) for size in micro[seen.index]], seen.tolist())
                lines.append(f"{name} is {line.fixed:,.0f} + {line.per_example:,.0f} bytes per example")
    return Findings(
        found,
        "it needs the memory of completed runs at two micro-batch sizes",
        (),
        "; ".join(list(dict.fromkeys(lines))[:2]),
    )


def accumulation(study: Curves) -> Findings:
    """Accumulated against whole batches, paired by seed: the bytes saved, the final loss, the time per step."""
    found: list[Evidence] = []
    same_loss: list[Evidence] = []
    notes = []
    for label, part in study.equal_except("accumulate", "micro_batch_size"):
        for size, same in by(part, "batch_size").items():
            counts = column(same, "accumulate")
            whole = same[counts == 1]
            for count in sorted({int(c) for c in counts.dropna() if c > 1}):
                what = f"accumulate {count} and 1 at batch size {size:g}"
                pair = _Pair(whole, same[counts == count], what, label)
                found += pair.saved(study)
                same_loss += pair.same_loss(study)
                notes += pair.speed_ratio(study)
    overrides = ("accumulate=1,4", f"batch_size={_largest(study)}")
    missing = "it needs runs that differ only in accumulate, one of them with accumulate=1"
    note = "; ".join([*notes[:2], "`batchlab verify` compares the gradients themselves"])
    return Findings(found, missing, overrides, note, same_loss)


def mixed_precision(study: Curves) -> Findings:
    """Each lower precision against fp32, paired by seed: the bytes saved, and the validation loss."""
    found: list[Evidence] = []
    same_loss: list[Evidence] = []
    notes = []
    for label, part in study.equal_except("precision"):
        for size, same in by(part, "batch_size").items():
            for name in LOWER:
                lower = same[same["precision"] == name]
                if lower.empty:
                    continue
                pair = _Pair(same[same["precision"] == "fp32"], lower, f"{name} and fp32 at batch size {size:g}", label)
                found += pair.saved(study)
                same_loss += pair.same_loss(study)
                notes += pair.speed_ratio(study)
    missing = "it needs runs that differ only in precision, one of them in fp32"
    return Findings(found, missing, ("precision=fp32,bf16",), "; ".join(notes[:2]), same_loss)


def largest_fit(study: Curves) -> Findings:
    """Whether the largest batch that fits is the fastest: its examples/s against the best of the smaller ones."""
    found: list[Evidence] = []
    for setting in study.settings:
        n_train = column(setting.runs, "n_train").max()
        # No batch contains an example twice: if twice its size exceeds the data, the data are the limit.
        if not (setting.runs["status"] == RunStatus.OOM).any() and not 2 * setting.sizes[-1] > n_train:
            continue  # how much would have fitted is not known
        runs = alone(setting.runs)
        table = table_of(runs, log(last(study, runs, SPEED)))
        if len(table.batch_sizes) < 2:
            continue
        smaller = table.batch_sizes[int(np.argmax(table.values[:, :-1].mean(axis=0)))]
        gain = table.values[:, -1] - table.values[:, table.batch_sizes.index(smaller)]
        what = f"log examples per second at {table.batch_sizes[-1]}, the largest that fitted, minus at {smaller}"
        found.append(evidence(setting, runs.index, what, NOTHING, gain, margin="speed", unit="log ratio"))
    missing = "it needs a batch size that did not fit next to those that did, each run alone on the machine"
    sizes = ",".join(map(str, _up_to_the_limit(study)))
    searched = [text for search in searches(study.folder) if (text := _of_search(search))]
    note = "; ".join(searched[:2]) or ("" if found else "`batchlab find` finds what fits, without training")
    return Findings(found, missing, (f"batch_size={sizes}", "jobs=1"), note)


def _of_search(search: Search) -> str:
    """The speed of the largest micro-batch that a search timed, relative to the best smaller one; "" if unknown.

    A note, not evidence: the steps of one process are not independent, and no other seed was run.
    """
    known = {size: speed.value for size, speed in search.speeds.items() if speed.low is not None}
    if search.largest is None or not search.alone or len(known) < 2:
        return ""
    largest = max(known)
    if 2 * largest < search.largest:
        return ""
    best = max((size for size in known if size != largest), key=known.__getitem__)
    ratio = known[largest] / known[best]
    return (
        f"`batchlab find` in {search.precision}: micro-batches of {search.largest:,} fit, and {largest:,} run at "
        f"{ratio:.2f}x the examples per second of {best:,}"
    )


def _peak(study: Curves, runs: pd.DataFrame) -> str:
    """The peak to judge, on a CUDA device: what training added or, for older runs, the whole peak with the data.

    There is none on the CPU: the growth of a process is too coarse for a verdict.
    """
    allocated, growth = last(study, runs, ALLOCATED), last(study, runs, GROWTH)
    return GROWTH if len(allocated) and set(allocated.index) <= set(growth.index) else ALLOCATED


class _Pair:
    """Two ways to train with the same batch sizes and seeds."""

    def __init__(self, before: pd.DataFrame, after: pd.DataFrame, what: str, label: str) -> None:
        both = sorted(set(before["seed"]) & set(after["seed"]))
        self.seeds = both
        # A seed may occur twice, at two learning rates: the first of each is paired.
        rows = (part[part["seed"].isin(both)].drop_duplicates("seed").sort_values("seed") for part in (before, after))
        self.before, self.after = rows
        self.what = f"{what} ({label})" if label else what
        self.runs = pd.concat([self.before, self.after])

    def changes(self, values: "pd.Series[float]", *, of_the_device: bool = False) -> list[float]:
        """Before minus after, for each seed that has both; `of_the_device`: only where both ran on one model of it."""
        pairs = list(zip(self.before.index, self.after.index, strict=True))
        if of_the_device:
            models = device_models(self.runs).to_dict()
            pairs = [(before, after) for before, after in pairs if models[before] == models[after]]
        return [float(values[b] - values[a]) for b, a in pairs if b in values.index and a in values.index]

    def saved(self, study: Curves) -> list[Evidence]:
        found = []
        for name, runs, exact in ((SAVED, self.runs, True), (_peak(study, self.runs), alone(self.runs), False)):
            if changes := self.changes(log(last(study, runs, name)), of_the_device=not exact):
                what = f"log ratio of {name}, {self.what}"
                found.append(self._evidence(what, NOTHING, changes, exact=exact))
        return found

    def same_loss(self, study: Curves) -> list[Evidence]:
        changes = self.changes(
            log(lowest(study, self.runs[self.runs["status"] != RunStatus.OOM], VALIDATION_LOSS.name))
        )
        if not changes:
            return []
        bound = MARGINS["loss"]
        what = f"how far within {math.expm1(bound):.0%} of each other the best val/loss of {self.what} are"
        tuning = tuning_of(self.runs)
        ids = tuple(map(str, self.runs.index))
        return [Evidence(what, EXAMPLES, tuning, within(changes, bound), "log ratio", len(changes), ids)]

    def speed_ratio(self, study: Curves) -> list[str]:
        changes = self.changes(log(last(study, alone(self.runs), SPEED)), of_the_device=True)
        return [f"{self.what}: {math.exp(-float(np.mean(changes))):.2f}x the speed"] if changes else []

    def _evidence(self, what: str, held: str, changes: list[float], *, exact: bool) -> Evidence:
        setting = Setting("", tuning_of(self.runs), self.runs)
        return evidence(setting, self.runs.index, what, held, changes, margin="bytes", unit="log ratio", exact=exact)


def _up_to_the_limit(study: Curves) -> list[int]:
    """Batch sizes upwards from the study's largest, in factors of four, no larger than the data."""
    n_train = column(study.runs, "n_train").max() if len(study.runs) else np.nan
    n = int(n_train) if n_train > 0 else 1437
    largest = min(_largest(study), n)
    return sorted({max(1, largest // 4), *(min(n, largest * 4**i) for i in range(5))})


def _largest(study: Curves) -> int:
    return int(study.runs["batch_size"].max()) if len(study.runs) else 256
