"""The points of a sweep: what each is called, where it lives, and what the sweep came to."""

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
    auto: bool = False  # whether its device came of device=auto: then the CPU will do where the GPU does not
    published: tuple[Published, ...] = ()  # figures of others that its study shows beside its runs
    previous_ended_at: str | None = None  # `ended_at` of the final result that is measured again; None: there is none

    @functools.cached_property
    def run_id(self) -> str:
        return identity.run_id(self.config)

    @functools.cached_property
    def study_folder(self) -> Path:
        return identity.study_folder(self.config)

    @property
    def folder(self) -> Path:
        """Where its run lives."""
        return self.study_folder / self.run_id

    @property
    def run_identity(self) -> RunIdentity:
        """What its run is called, for the process that trains it."""
        group = identity.group_id(self.config)
        return RunIdentity(self.run_id, self.config.study_name, group, self.overrides, self.previous_ended_at)

    @property
    def assignment(self) -> Assignment:
        """What the process that trains it is given."""
        return Assignment(self.config, self.folder, self.run_identity)

    def new_record(self, status: RunStatus, reason: str, **values: Any) -> RunRecord:
        """What is kept of it where its own process has left nothing."""
        return new_record(self.config, self.run_identity, status, reason=reason, **{"ended_at": now_utc(), **values})


@dataclass(frozen=True)
class SweepOutcome:
    """What a sweep came to: the records of the grid's points, in its order, as far as it got."""

    records: tuple[RunRecord, ...]
    skipped: int  # points that were left as they stood
    exit_code: int
    storage: str | None = None  # what the disk refused, where that ended the sweep


class Spectator(Protocol):
    """Who shows the sweep to a person (`batchlab.sweep.summary.progress`)."""

    def start(self, run_id: str, label: str, budget_examples: int) -> None:
        """A point begins; its budget is 0 until it is known."""

    def expect(self, run_id: str, budget_examples: int) -> None:
        """The point will train on so many examples."""

    def update(self, run_id: str, examples: int, loss: float | None, examples_per_second: float | None) -> None:
        """How far the point is."""

    def finish(self, run_id: str, status: RunStatus, record: RunRecord | None) -> None:
        """It has ended."""

    def abandon(self, run_id: str) -> None:
        """It is not run here after all."""

    def say(self, text: str) -> None:
        """Something the person should know."""


def without_duplicates(points: Sequence[Point]) -> list[Point]:
    """The first of each run id, in order: `8,32,32` and `lr=0.1,1e-1` are two runs, not three and two."""
    first: dict[tuple[Path, str], Point] = {}
    for point in points:
        first.setdefault((point.study_folder, point.run_id), point)
    return list(first.values())


def gpus_of(points: Sequence[Point], jobs: int) -> tuple[Gpu, ...]:
    """The GPUs that `points` are to be given (`host.gpu_pool.gpus_for`); none: CUDA's own choice, or no CUDA.

    BadRequest where `jobs` of them at once find no room.
    """
    by_device = {point.config.device: point.config for point in reversed(points)}
    return tuple(gpu for config in by_device.values() for gpu in gpus_for(config, jobs))


def gpu_of(points: Sequence[Point]) -> tuple[str, ...]:
    """The UUID of the GPU for what is done with `points` one at a time; none: CUDA's own choice, or no CUDA."""
    return tuple(gpu.uuid for gpu in gpus_of(points, jobs=1)[:1])


def distinguishing(points: Sequence[Point]) -> list[str]:
    """What tells each point from the others, in the words it was asked for: `batch_size=8 seed=1`."""
    shared = set.intersection(*(set(point.overrides) for point in points)) if points else set()
    return [
        " ".join(word.lstrip("+") for word in masked_overrides(w for w in point.overrides if w not in shared))
        or f"batch_size={point.config.batch_size}"
        for point in points
    ]


def exit_code(records: Sequence[RunRecord], interrupted: int | None = None) -> int:
    """0 every point has an answer, 3 some have none, 130 or 143 interrupted."""
    if interrupted is not None:
        return interrupted
    return 0 if all(record.status.is_final for record in records) else 3
