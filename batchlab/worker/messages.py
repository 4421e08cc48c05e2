"""The messages between a sweep and its processes: frozen dataclasses, read with `match`. Does not import torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from batchlab.config import RunConfig
from batchlab.records import Facts, RunIdentity, RunRecord

if TYPE_CHECKING:  # imports SciPy, which no sweep needs
    from batchlab.science.memory.largest_fit import Probe
    from batchlab.science.memory.memory_model import Account


@dataclass(frozen=True)
class Assignment:
    """One point, for the process that trains it."""

    config: RunConfig
    folder: Path  # of its run
    identity: RunIdentity


@dataclass(frozen=True)
class Planned:
    """The number of examples that the run will train on."""

    run_id: str
    examples: int


@dataclass(frozen=True)
class Progress:
    """The progress of the run."""

    run_id: str
    examples: int  # trained on so far
    loss: float | None  # of training; None: not measured yet
    examples_per_second: float | None


@dataclass(frozen=True)
class Entered:
    """The run has entered this phase (`training.phase`)."""

    run_id: str
    phase: str


@dataclass(frozen=True)
class Notice:
    """A message about the run for the user."""

    run_id: str
    text: str


@dataclass(frozen=True)
class Ended:
    """The run has ended, and its record is on the disk."""

    run_id: str
    record: RunRecord


@dataclass(frozen=True)
class Held:
    """The run was not started: another process holds its folder."""

    run_id: str
    by: str  # who


@dataclass(frozen=True)
class StorageFailed:
    """The run could not be written to the disk; the last stored record remains."""

    run_id: str
    reason: str


OfARun = Planned | Progress | Entered | Notice | Ended | Held | StorageFailed


@dataclass(frozen=True)
class GridAccepted:
    """Every point of the grid may start."""

    facts: tuple[Facts, ...]  # of each point


@dataclass(frozen=True)
class GridRefused:
    """Nothing of the grid may start."""

    problems: tuple[str, ...]  # one line each


@dataclass(frozen=True)
class DeviceFailed:
    """PyTorch cannot use a device of the grid, so nothing else was checked."""

    device: str
    why: str
    instead: str  # what would help


OfAGrid = GridAccepted | GridRefused | DeviceFailed


@dataclass(frozen=True)
class Failed:
    """Why there is no result, in one line."""

    reason: str


@dataclass(frozen=True)
class ProbeRequest:
    """The arguments of a probe (`batchlab.worker.probe`)."""

    config: RunConfig
    size: int  # examples of the micro-batch
    allowed: int | None  # bytes; None: the free memory of the CUDA device minus the headroom
    exact: bool
    seconds: float  # of further timed steps


@dataclass(frozen=True)
class Probed:
    """The result of a probe."""

    probe: "Probe"
    account: "Account | None"  # bytes by category; None if they could not be counted
