"""The notes below the table: what was held equal, what was left over, why a point ended early."""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from batchlab.config.options import PEAK_LR_OPTIONS
from batchlab.printable import command_line, counted, listed, printable
from batchlab.recording.device_models import measured_on
from batchlab.records import RunRecord, RunStatus
from batchlab.records.quantities import PEAKS, SAVED_FOR_BACKWARD
from batchlab.sweep.summary.table_columns import Setting

MOST_NAMED = 4  # points named in one note


def notes(records: Sequence[RunRecord], settings: Sequence[Setting], study_dir: Path) -> list[str]:
    """The sentences below a table of `records`, which `settings` distinguish."""
    labels = {
        record.run_id: " ".join(
            [f"batch_size={record.batch_size}", *(f"{setting.name}={setting.cells[i]}" for setting in settings)]
        )
        for i, record in enumerate(records)
    }
    return [
        *_held_equal(records),
        *_left_over(records),
        *_peak_memory(records),
        *_skipped(records, labels),
        *_shared(records),
        *_measured_on(records),
        *_noted(records, labels),
        *_ended_early(records, labels, study_dir),
    ]


def next_step(study_dir: Path) -> str:
    """The next command."""
    return f"Next: batchlab dashboard {command_line([printable(_from_here(study_dir))])}"


def _held_equal(records: Sequence[RunRecord]) -> list[str]:
    whole = [r for r in records if r.status is RunStatus.COMPLETED and not r.config.get("stop_at_target")]
    if len(whole) < 2:
        return []
    budgets = {record.examples + record.remainder for record in whole}
    if len(budgets) > 1:
        return [f"Not the same for all points: the budget, {min(budgets):,} to {max(budgets):,} examples."]
    held = [f"a budget of {min(budgets):,} examples"]
    lrs = [{name: record.config.get(name) for name in PEAK_LR_OPTIONS} for record in whole]
    if all(lr == lrs[0] for lr in lrs):
        held.append(_learning_rate(**lrs[0]))
    return [f"The same for all points: {'; '.join(held)}."]


def _learning_rate(
    *, lr: object, lr_scaling: object, reference_batch_size: object, noise_scale: object, **others: object
) -> str:
    """The options that set the peak learning rate, equal for all points; options added later as they are typed."""
    scaled = "not scaled" if lr_scaling == "none" else f"scaled by {lr_scaling} from batch size {reference_batch_size}"
    scaled += "" if noise_scale is None else f", with a noise scale of {noise_scale}"
    return f"learning rate {lr}, {scaled}" + "".join(f", {name}={value}" for name, value in others.items())


def _left_over(records: Sequence[RunRecord]) -> list[str]:
    sizes: dict[int, list[int]] = {}
    for record in records:
        if record.status is RunStatus.COMPLETED and record.remainder and not record.config.get("stop_at_target"):
            at = sizes.setdefault(record.remainder, [])
            if record.batch_size not in at:
                at.append(record.batch_size)
    if not sizes:
        return []
    parts = [f"{counted(left, 'example')} at batch size {_few(at, ', ')}" for left, at in sizes.items()]
    return [f"Not trained on, since the budget is not a multiple of the batch size: {'; '.join(parts)}."]


def _peak_memory(records: Sequence[RunRecord]) -> list[str]:
    """The meaning of the column of peaks: from CUDA's allocator if known (as in the table), else of the process."""
    growth, allocated, resident = (peak.name for peak in PEAKS)
    on_gpu = [record for record in records if allocated in record.final]
    on_cpu = [record for record in records if allocated not in record.final and resident in record.final]
    meanings = []
    if any(growth in record.final for record in on_gpu):
        meanings.append("GPU memory that training took in addition to the data and the weights")
    if any(growth not in record.final for record in on_gpu):
        meanings.append("the most that CUDA had allocated, data included" + (" (older runs)" if meanings else ""))
    if on_cpu:
        meanings.append("how much the point's process grew during training" + (" (on the CPU)" if meanings else ""))
    found = [f"Peak MiB: {'; '.join(meanings)}."] if meanings else []
    if any(SAVED_FOR_BACKWARD.name in record.final for record in records):
        found.append("Saved MiB: what the forward pass of a micro-batch keeps for its backward pass, counted exactly.")
    return found


def _skipped(records: Sequence[RunRecord], labels: dict[str, str]) -> list[str]:
    found = [record for record in records if record.steps_skipped]
    parts = [f"{r.steps_skipped:,} of {r.steps:,} at {labels[r.run_id]}" for r in found]
    return [f"Updates that the fp16 scaler skipped: {_few(parts)}."] if found else []


def _shared(records: Sequence[RunRecord]) -> list[str]:
    count = sum(record.shared_machine for record in records)
    if not count:
        return []
    who = "1 point" if count == 1 else f"{count} points"
    return [f"Do not compare speed and memory of {who}: other points used the machine at the same time."]


def _measured_on(records: Sequence[RunRecord]) -> list[str]:
    """`Measured on NVIDIA H200.`: seconds and bytes mean nothing without the device."""
    text = measured_on(Counter(filter(None, (record.device_model for record in records if record.attempts))), "point")
    return [text] if text else []


def _noted(records: Sequence[RunRecord], labels: dict[str, str]) -> list[str]:
    """What could not be done as requested; equal notes of several points are one sentence.

    Notes of points that did not fit at all are left out.
    """
    noted: dict[str, list[str]] = {}
    for record in (record for record in records if record.status is not RunStatus.OOM):
        for note in record.notes:
            noted.setdefault(printable(note), []).append(labels[record.run_id])
    return [f"note: {_few(of)}: {note}" for note, of in noted.items()]


def _ended_early(records: Sequence[RunRecord], labels: dict[str, str], study_dir: Path) -> list[str]:
    """Equal reasons of several points are one sentence; failures name their log."""
    reasons: dict[tuple[RunStatus, str], list[RunRecord]] = {}
    for record in records:
        if record.status is not RunStatus.COMPLETED:
            reasons.setdefault((record.status, printable(record.reason)), []).append(record)
    found = []
    for (status, reason), ended in reasons.items():
        note = f"{status}: {_few(labels[record.run_id] for record in ended)}"
        note += f": {reason}" if reason else ""
        if not status.is_final:
            note += f" (log: {printable(_from_here(study_dir / ended[0].run_id / 'worker.log'))})"
        found.append(note)
    return found


def _few(points: Iterable[object], separator: str = "; ") -> str:
    return listed(points, MOST_NAMED, separator=separator, last=separator)


def _from_here(path: Path) -> str:
    """`path` as one would type it: relative if it is below the current folder."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative
