"""One search for the largest micro-batch: its configuration, its results so far, and its file on the disk."""

import functools
from dataclasses import asdict, dataclass, field
from pathlib import Path

from batchlab.config import RunConfig, to_dict
from batchlab.config.options import SOUGHT
from batchlab.recording import disk
from batchlab.recording.environment import environment
from batchlab.recording.files import now_utc, to_json
from batchlab.recording.masking import masked, masked_overrides
from batchlab.science.memory.largest_fit import Found, Probe, SearchStatus, line_through
from batchlab.science.memory.memory_model import Account
from batchlab.science.scaling.knee import Knee
from batchlab.sweep.identity import digest, identity, study_folder
from batchlab.worker.probing import HEADROOM

FOLDER = "find"  # in a study's folder: a file and a log for each search
SCHEMA_VERSION = 1


@dataclass
class Search:
    """The search for one combination of options."""

    config: RunConfig
    label: str  # what distinguishes it from the others; empty if it is the only one
    overrides: tuple[str, ...]  # as they were typed
    limit: int | None  # bytes; None: what is free on the CUDA device
    limit_given: bool
    host_bytes: int | None  # bytes of the host that a run can use
    at_most: int  # examples
    status: SearchStatus = SearchStatus.RUNNING
    probes: list[Probe] = field(default_factory=list)
    timings: list[Probe] = field(default_factory=list)  # of sizes that fit, for their speed
    found: Found | None = None
    knee: Knee | None = None
    account: Account | None = None
    environment: dict[str, object] = field(default_factory=environment)
    started_at: str = field(default_factory=now_utc)

    @property
    def accumulate(self) -> int:
        """Micro-batches per step."""
        return len(self.config.micro_batch_sizes)

    @property
    def exact(self) -> bool:
        """Whether the probes count only memory in use, and not what the host's C library keeps for the next step.

        True if the limit is another machine's; if it is this machine's, a run must fit with what the library keeps.
        """
        return self.limit_given and self.config.device == "cpu"

    @property
    def as_runs(self) -> list[Probe]:
        """The probes that used memory as a run does, so that their speeds are those of a run."""
        return self.timings if self.exact else [*self.probes, *self.timings]

    @property
    def alone(self) -> bool:
        """Whether none of these probes shared the machine, so that their speeds can be compared."""
        return not any(probe.shared_machine for probe in self.as_runs)

    @property
    def allowed(self) -> int | None:
        """Bytes that a probe could use; None before the first probe."""
        return next((p.allowed_bytes for p in self.probes if p.allowed_bytes is not None), None)

    @property
    def n_train(self) -> int | None:
        """Training examples in the data."""
        return next((p.n_train for p in self.probes if p.n_train is not None), None)

    @functools.cached_property
    def file(self) -> Path:
        """Its file, named by a hash of the search, so that the same command writes the same file again."""
        limit = self.limit if self.limit_given else None
        what = {**identity(self.config), "memory_limit": limit, "at_most": self.at_most}
        name = f"{self.config.precision}-x{self.accumulate}-{digest(what)}.json"
        return study_folder(self.config) / FOLDER / name

    def save(self) -> None:
        """Writes the file; StorageError if that fails."""
        config = {key: value for key, value in to_dict(self.config).items() if key not in SOUGHT}  # placeholders
        line, found = line_through(self.probes), self.found
        content = {
            "schema_version": SCHEMA_VERSION,
            "status": self.status,
            "config": masked(config),
            "overrides": masked_overrides(self.overrides),
            "environment": self.environment,
            "memory_limit_bytes": self.limit,
            "memory_limit_given": self.limit_given,
            "headroom": HEADROOM,
            "at_most": self.at_most,
            "largest": found.largest if found else None,
            "larger": asdict(found.larger) if found and found.larger else None,
            "predicted": asdict(found.predicted) if found and found.predicted else None,
            "predicted_from": found.predicted_from if found else (),
            "prediction_error": found.error if found else None,
            "unsteady": found.unsteady if found else (),
            "memory_model_bytes": asdict(line) if line else None,
            "account_bytes": asdict(self.account) if self.account else None,
            "knee": asdict(self.knee) if self.knee else None,
            "exact": self.exact,
            "probes": [asdict(probe) for probe in self.probes],
            "timings": [asdict(probe) for probe in self.timings],
            "started_at": self.started_at,
            "written_at": now_utc(),
        }
        disk.write_atomically(self.file, to_json(content, indent=2) + "\n")
