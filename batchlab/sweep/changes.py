"""Detects changes since the points of a study were run: of their code, data, PyTorch or device."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batchlab.config.option_row import which_data
from batchlab.errors import BadRequest
from batchlab.printable import listed, printable
from batchlab.recording.code_files import code_files, code_targets
from batchlab.recording.files import plain
from batchlab.recording.masking import MASK, masked
from batchlab.records import Facts, RunRecord

MOST_NAMED = 2  # points or files named in one sentence


@dataclass(frozen=True)
class MadeWith:
    """The current code, data and facts of points that share their data and model."""

    code: Mapping[str, str]  # recording.code_files of the points' targets
    data: Mapping[str, object]  # the config group that the fingerprint belongs to
    facts: Facts


def changes(existing: Sequence[RunRecord], new: MadeWith) -> list[str]:
    """One sentence for each difference between `new` and what the `existing` records were made with.

    `existing` are records of one study with the same targets of `data` and `model` and the same kind of device as
    `new`. Missing facts are not compared: records of older versions have no `environment["code"]`. Only code files
    that both know are compared: a model cannot start to use another file without a change in a known one, and another
    optimizer is another point, not a change.
    """
    return [
        *_of_code(existing, new.code),
        *_of_fact(existing, new.facts.torch, _torch, "PyTorch {} -> {}"),
        *_of_device(existing, new.facts.device_name),
        *_of_data(existing, new),
    ]


def refuse(sentences: Sequence[str], study_dir: Path) -> BadRequest:
    """The error of a sweep, to be raised: the `changes` of this study, and the ways to continue."""
    listed = "; ".join(sentences)
    return BadRequest(
        f"{printable(study_dir)} was measured under other conditions, so new points are not comparable: {listed}; "
        "add accept_changed=true to continue, force=true to run every point again, or study=... for a new study"
    )


def stale(records: Sequence[RunRecord], here: Path) -> list[str]:
    """A warning for readers of these records: which files have changed since they were measured."""
    found: dict[tuple[str, ...], dict[str, str]] = {}
    changed: dict[str, None] = {}
    outdated = 0
    for record in records:
        targets = code_targets(record.config)
        if targets not in found:
            found[targets] = code_files(targets, here=here)
        other = _changed_files(record, found[targets])
        changed |= dict.fromkeys(other)
        outdated += bool(other)
    if not changed:
        return []
    runs = "these runs were" if outdated == len(records) else f"{outdated} of these {len(records)} runs were"
    have = "has" if len(changed) == 1 else "have"
    return [f"{_few(changed)} {have} changed since {runs} measured; --force runs them again"]


def _of_code(existing: Sequence[RunRecord], code: Mapping[str, str]) -> list[str]:
    points: dict[str, list[RunRecord]] = {}
    for record in existing:
        for file in _changed_files(record, code):
            points.setdefault(file, []).append(record)
    files: dict[tuple[str, ...], list[str]] = {}  # one sentence for files that affect the same points
    for file in sorted(points):
        files.setdefault(tuple(record.run_id for record in points[file]), []).append(file)
    return [f"{_few(names)} changed {_since(points[names[0]])}" for names in files.values()]


def _changed_files(record: RunRecord, code: Mapping[str, str]) -> list[str]:
    """The files in both this record and `code` whose content differs; PyTorch's files are covered by its version."""
    before = record.environment.get("code")
    if not isinstance(before, Mapping):
        return []
    return [
        file
        for file, found in code.items()
        if before.get(file, found) not in (found, MASK) and not file.startswith("torch/")
    ]


def _of_fact(
    existing: Sequence[RunRecord], new: str | None, of: Callable[[RunRecord], Any], sentence: str
) -> list[str]:
    """One sentence for each value in the records that differs from `new`."""
    others: dict[str, list[RunRecord]] = {}
    for record in existing:
        before = of(record)
        if new is not None and isinstance(before, str) and before != new:
            others.setdefault(before, []).append(record)
    return [
        f"{sentence.format(printable(before), printable(new))} {_since(records)}" for before, records in others.items()
    ]


def _of_device(existing: Sequence[RunRecord], new: str | None) -> list[str]:
    """Empty if the study already has points on this device: speeds are only compared within one model."""
    known = any(record.device_model == new for record in existing)
    return [] if known else _of_fact(existing, new, lambda record: record.device_model, "device: {} -> {}")


def _of_data(existing: Sequence[RunRecord], new: MadeWith) -> list[str]:
    group, found = _as_recorded(new.data), new.facts.data_fingerprint
    other = [
        record
        for record in existing
        if None not in (record.data_fingerprint, found)
        and record.data_fingerprint != found
        and _as_recorded(record.config.get("data")) == group
    ]
    return [f"the training or validation data changed {_since(other)}"] if other else []


def _as_recorded(group: Any) -> Any:
    """A data group in the form of a record: secrets masked, tuples as lists."""
    return plain(masked(which_data(group))) if isinstance(group, Mapping) else None


def _torch(record: RunRecord) -> Any:
    packages = record.environment.get("packages")
    return packages.get("torch") if isinstance(packages, Mapping) else None


def _since(records: Sequence[RunRecord]) -> str:
    """`since 3 points of this study were run (bs8-..., bs32-... and 1 more)`."""
    points = "1 point of this study was" if len(records) == 1 else f"{len(records):,} points of this study were"
    return f"since {points} run ({_few(record.run_id for record in records)})"


def _few(names: Iterable[str]) -> str:
    return listed(map(printable, names), MOST_NAMED)
