"""The points of a sweep: their names and folders, and the outcome of the sweep."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from batchlab.config import Published, RunConfig
from batchlab.host.gpu_pool import gpus_for
from batchlab.host.nvml import Gpu
from batchlab.recording.files import now_utc
from batchlab.recording.masking import masked_overrides
from batchlab.recording.new_record import new_record
from batchlab.records import RunIdentity, RunRecord, RunStatus
from batchlab.sweep import identity
from batchlab.worker.messages import Assignment


@dataclass(frozen=True)
class Point:
    """One cell of the grid: what to run, how it was requested, and which final result of it is measured again."""

    config: RunConfig
    overrides: tuple[str, ...] = ()
    auto: bool = False  # whether its device comes from device=auto: then the CPU may replace an unusable GPU
    published: tuple[Published, ...] = ()  # published figures that its study shows in addition to its runs
    previous_ended_at: str | None = None  # `ended_at` of a final result to measure again; None: there is none
    data_fingerprint: str | None = None  # from the preflight: its process must build the same data

    @functools.cached_property
    def run_id(self) -> str:
        return identity.run_id(self.config)

    @functools.cached_property
    def study_folder(self) -> Path:
        return identity.study_folder(self.config)

    @property
    def folder(self) -> Path:
        """The folder of its run."""
        return self.study_folder / self.run_id

    @property
    def run_identity(self) -> RunIdentity:
        """The identity of its run, for the process that trains it."""
        group = identity.group_id(self.config)
        ended_at, data = self.previous_ended_at, self.data_fingerprint
        return RunIdentity(self.run_id, self.config.study_name, group, self.overrides, ended_at, data)

    @property
    def assignment(self) -> Assignment:
        """The message to the process that trains it."""
        return Assignment(self.config, self.folder, self.run_identity)

    def new_record(self, status: RunStatus, reason: str, **values: Any) -> RunRecord:
        """A record made here because its own process has left none."""
        return new_record(self.config, self.run_identity, status, reason=reason, **{"ended_at": now_utc(), **values})


@dataclass(frozen=True)
class SweepOutcome:
    """The outcome of a sweep: the records of the points that were reached, in the order of the grid."""

    records: tuple[RunRecord, ...]
    skipped: int  # points that were left unchanged
    exit_code: int
    storage: str | None = None  # the disk error that ended the sweep


class Spectator(Protocol):
    """Shows the progress of a sweep to the user (`batchlab.sweep.summary.progress`)."""

    def start(self, run_id: str, label: str, budget_examples: int) -> None:
        """A point begins; its budget is 0 until it is known."""

    def expect(self, run_id: str, budget_examples: int) -> None:
        """The point will train on `budget_examples`."""

    def update(self, run_id: str, examples: int, loss: float | None, examples_per_second: float | None) -> None:
        """How far the point is."""

    def finish(self, run_id: str, status: RunStatus, record: RunRecord | None) -> None:
        """The point has ended."""

    def abandon(self, run_id: str) -> None:
        """The point is not run by this sweep after all."""

    def say(self, text: str) -> None:
        """Shows a message."""


def without_duplicates(points: Sequence[Point]) -> list[Point]:
    """The first point of each run id, in order: `8,32,32` is two runs, `lr=0.1,1e-1` is one."""
    first: dict[tuple[Path, str], Point] = {}
    for point in points:
        first.setdefault((point.study_folder, point.run_id), point)
    return list(first.values())


def gpus_of(points: Sequence[Point], jobs: int) -> tuple[Gpu, ...]:
    """The GPUs for `points` (`host.gpu_pool.gpus_for`); empty: CUDA chooses, or no CUDA.

    BadRequest if `jobs` of them cannot run at once.
    """
    by_device = {point.config.device: point.config for point in reversed(points)}
    return tuple(gpu for config in by_device.values() for gpu in gpus_for(config, jobs))


def gpu_of(points: Sequence[Point]) -> tuple[str, ...]:
    """The UUID of the GPU for `points` one at a time; empty: CUDA chooses, or no CUDA."""
    return tuple(gpu.uuid for gpu in gpus_of(points, jobs=1)[:1])


def distinguishing(points: Sequence[Point]) -> list[str]:
    """The overrides that distinguish each point from the others: `batch_size=8 seed=1`."""
    shared = set.intersection(*(set(point.overrides) for point in points)) if points else set()
    return [
        " ".join(override.lstrip("+") for override in masked_overrides(o for o in point.overrides if o not in shared))
        or f"batch_size={point.config.batch_size}"
        for point in points
    ]


def exit_code(records: Sequence[RunRecord], interrupted: int | None = None) -> int:
    """0: every point has a final result; 3: some have none; 130 or 143: interrupted."""
    if interrupted is not None:
        return interrupted
    return 0 if all(record.status.is_final for record in records) else 3
