"""What a sweep and its processes send each other: frozen dataclasses, read with `match`. Imports no torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from batchlab.config import RunConfig
from batchlab.records import Facts, RunIdentity, RunRecord

if TYPE_CHECKING:  # SciPy, which no sweep needs
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
    """The run knows how many examples it will train on."""

    run_id: str
    examples: int


@dataclass(frozen=True)
class Progress:
    """How far the run is."""

    run_id: str
    examples: int  # trained on so far
    loss: float | None  # of training; None: not measured yet
    examples_per_second: float | None


@dataclass(frozen=True)
class Notice:
    """What a person should know of the run."""

    run_id: str
    text: str


@dataclass(frozen=True)
class Ended:
    """The run has ended, and its record is on the disk."""

    run_id: str
    record: RunRecord


@dataclass(frozen=True)
class Held:
    """The run was not begun: another process holds its folder."""

    run_id: str
    by: str  # who


@dataclass(frozen=True)
class StorageFailed:
    """The disk refused what the run had to keep: it is as it was last recorded."""

    run_id: str
    reason: str


OfARun = Planned | Progress | Notice | Ended | Held | StorageFailed


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
    """PyTorch cannot compute on a device of the grid, so nothing else of it was checked."""

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
    """One probe to make, as `batchlab.worker.probe` takes it."""

    config: RunConfig
    size: int  # examples of the micro-batch
    allowed: int | None  # bytes; None: what is free on the CUDA device, less a headroom
    exact: bool
    seconds: float  # of steps beyond the first ones


@dataclass(frozen=True)
class Probed:
    """What a probe came to."""

    probe: "Probe"
    account: "Account | None"  # bytes by category; None where they could not be counted
