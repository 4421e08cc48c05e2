"""The types that all layers exchange: what was measured, how a run ended, and what is recorded."""

from collections.abc import Mapping
from dataclasses import MISSING, Field, asdict, dataclass, field, fields
from enum import StrEnum
from typing import Any

from batchlab.records.quantities import PEAKS
from batchlab.records.quantity import Quantity

SCHEMA_VERSION = 1

StateDict = Mapping[str, Any]  # what a part of a run needs to resume: values that a checkpoint can store, by name


class RunStatus(StrEnum):
    """How a run ended; `running` until then."""

    RUNNING = "running"
    COMPLETED = "completed"
    OOM = "oom"
    DIVERGED = "diverged"
    FAILED = "failed"
    KILLED = "killed"
    TIMEOUT = "timeout"
    INTERRUPTED = "interrupted"

    @property
    def is_final(self) -> bool:
        """Whether the run has a final result, so that it is not run again."""
        return self in (RunStatus.COMPLETED, RunStatus.OOM, RunStatus.DIVERGED)


@dataclass(frozen=True, slots=True)
class Measurement:
    """One number that an instrument measured, and when in the run."""

    name: str  # group/quantity_unit, as in CONTRACTS: val/loss, speed/examples_per_second
    value: float
    step: int  # optimizer updates made
    examples: int  # training examples consumed
    train_seconds: float  # seconds spent training, without measuring
    low: float | None = None  # 95% interval, if the measurement has one
    high: float | None = None
    n: int | None = None  # sample size of the interval


@dataclass(frozen=True)
class Unknown:
    """Why something is not known, as text for `as_sentence`."""

    why: str

    def __str__(self) -> str:
        return self.why


@dataclass(frozen=True)
class RunIdentity:
    """Which run this is, and how it was requested."""

    run_id: str
    study: str
    group: str  # the id shared by the runs that differ in the seed alone
    overrides: tuple[str, ...] = ()
    previous_ended_at: str | None = None  # `ended_at` of the final result that is to be measured again
    data_fingerprint: str | None = None  # what the preflight found the data to be; None: not known


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What the preflight found out about the data, PyTorch and device of a point."""

    data_fingerprint: str | None = None  # None: the data could not be built
    torch: str  # its version as the package's metadata has it, as in a record's environment
    device_name: str | None = None  # the GPU's name, or the processor's on the CPU; None: not known
    same_weights: bool = False  # the initial weights are those of another seed of the grid, as of a pretrained model


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """Everything that is stored about a run except its curves: `record.json`, and a row of `results.csv`."""

    run_id: str
    study: str
    status: RunStatus
    config: Mapping[str, Any]  # resolved, secrets masked
    seed: int
    batch_size: int
    reason: str = ""  # why it ended that way; empty where `completed` says it all
    phase: str = ""  # the `training.phase` in which it ran out of memory or failed
    quantities: tuple[Quantity, ...] = ()  # what it measured beyond `records.quantities`
    notes: tuple[str, ...] = ()  # what it could not do as requested, a sentence each
    schema_version: int = SCHEMA_VERSION
    overrides: tuple[str, ...] = ()
    environment: Mapping[str, Any] = field(default_factory=dict)
    n_train: int | None = None  # training examples in the data
    parameters: int | None = None  # trainable parameters of the model
    data_fingerprint: str | None = None
    code_fingerprint: str | None = None
    weights_fingerprint: str | None = None  # of the final weights and buffers
    micro_batch_sizes: tuple[int, ...] = ()
    accumulate: int | None = None  # micro-batches per optimizer step
    lr_scaled: float | None = None  # the peak learning rate after the scaling rule
    reduction: str | None = None  # of the loss: none (terms), mean, sum, batch or weights; None in older records
    steps: int = 0
    steps_skipped: int = 0  # updates that the fp16 scaler skipped; included in steps
    steps_without_terms: int = 0  # whose count was 0, so that they changed no weights; included in steps
    examples: int = 0
    remainder: int = 0  # examples of the budget that make no whole step
    epochs: float = 0.0
    train_seconds: float = 0.0
    wall_seconds: float = 0.0
    eval_batch_size_used: int | None = None  # `eval_batch_size`, or what fitted next to the training state
    target: Mapping[str, Any] | None = None  # metric, value, reached, step, examples, train_seconds, resolution
    final: Mapping[str, float] = field(default_factory=dict)  # the last value of each measurement
    best: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  # {name: {value, examples}}
    shared_machine: bool = False
    changes_accepted: bool = False  # the user accepted other code, data, PyTorch or device than the study's
    attempts: int = 1  # 0: not run, because another point of the same or a smaller size did not fit
    resumed_at: tuple[int, ...] = ()  # steps at which it resumed from a checkpoint
    started_at: str = ""  # UTC, ISO 8601 with Z
    ended_at: str = ""

    @property
    def peak_bytes(self) -> float | None:
        """The peak memory of training beyond what was held when it began: one number for every device.

        For older runs without it: the peak of CUDA's allocator, else how much the process grew.
        """
        return next((self.final[peak.name] for peak in PEAKS if peak.name in self.final), None)

    @property
    def device_model(self) -> str | None:
        """The GPU's name, or the processor's on the CPU; None if it is not known.

        Speeds and peaks of different models are never compared.
        """
        on_cpu = str(self.config.get("device", "")).startswith("cpu")
        name = self.environment.get("cpu" if on_cpu else "device_name")
        return name if isinstance(name, str) else None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "RunRecord":
        """The inverse of `to_dict`; keys of a newer schema are left out, a missing required one is a KeyError."""
        known = {f.name: values[f.name] for f in fields(cls) if f.name in values or _is_required(f)}
        known["status"] = RunStatus(known["status"])
        for name in ("overrides", "notes", "micro_batch_sizes", "resumed_at"):
            known[name] = tuple(known.get(name, ()))
        if "changes_accepted" not in known:  # older records have it in the config
            known["changes_accepted"] = known["config"].get("accept_changed") is True
        known["quantities"] = tuple(map(Quantity.from_dict, known.get("quantities", ())))
        return cls(**known)


def _is_required(field: Field[Any]) -> bool:
    return field.default is MISSING and field.default_factory is MISSING
