"""The words the floors exchange: what was measured, how a run ended, and what is kept of it."""

from collections.abc import Mapping
from dataclasses import MISSING, Field, asdict, dataclass, field, fields
from enum import StrEnum
from typing import Any

from batchlab.records.quantities import PEAKS
from batchlab.records.quantity import Quantity

SCHEMA_VERSION = 1

StateDict = Mapping[str, Any]  # what a part of a run needs to be resumed: values that a checkpoint can hold, by name


class RunStatus(StrEnum):
    """How a run ended; `running` while it lives."""

    RUNNING = "running"
    COMPLETED = "completed"
    OOM = "oom"
    DIVERGED = "diverged"
    FAILED = "failed"
    KILLED = "killed"
    TIMEOUT = "timeout"
    INTERRUPTED = "interrupted"

    @property
    def is_answer(self) -> bool:
        """Whether it answers what this batch size does to a run: then it is final and is not asked again."""
        return self in (RunStatus.COMPLETED, RunStatus.OOM, RunStatus.DIVERGED)


@dataclass(frozen=True, slots=True)
class Measurement:
    """One number that an instrument took, and where in the run it took it."""

    name: str  # group/quantity_unit, as in CONTRACTS: val/loss, speed/examples_per_second
    value: float
    step: int  # optimizer updates made
    examples: int  # training examples consumed
    train_seconds: float  # seconds spent training, measuring not charged
    low: float | None = None  # 95% interval, where the measurement has one
    high: float | None = None
    n: int | None = None  # the sample the interval rests on


@dataclass(frozen=True)
class Unknown:
    """Why something cannot be told, in words that `as_sentence` makes a sentence of; its text."""

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
    answered_at: str | None = None  # `ended_at` of the final result that is to be measured again


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What the preflight found that a point would be made with."""

    data_fingerprint: str | None = None  # None: the data could not be made
    torch: str  # its version as the package's metadata has it, as in a record's environment
    device_name: str | None = None  # the GPU's name, on the CPU the processor's; None: not known


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """Everything that is kept of a run beside its curves: `record.json`, and a row of `results.csv`."""

    run_id: str
    study: str
    status: RunStatus
    config: Mapping[str, Any]  # resolved, secrets masked
    seed: int
    batch_size: int
    reason: str = ""  # why it ended so, where `completed` does not say it all
    phase: str = ""  # of `training.phase`, in which it ran out of memory or failed
    quantities: tuple[Quantity, ...] = ()  # declared of what it measured, where `records.quantities` does not say it
    notes: tuple[str, ...] = ()  # what it could not do as it was asked to, a sentence each
    schema_version: int = SCHEMA_VERSION
    overrides: tuple[str, ...] = ()
    environment: Mapping[str, Any] = field(default_factory=dict)
    n_train: int | None = None  # training examples in the data
    parameters: int | None = None  # trainable numbers in the model
    data_fingerprint: str | None = None
    code_fingerprint: str | None = None
    weights_fingerprint: str | None = None  # of the weights and buffers that the run ended with
    micro_batch_sizes: tuple[int, ...] = ()
    accumulate: int | None = None  # micro-batches per optimizer step
    lr_scaled: float | None = None  # the peak rate after the scaling rule
    steps: int = 0
    steps_skipped: int = 0  # updates the fp16 scaler threw away; counted in steps
    examples: int = 0
    remainder: int = 0  # examples of the budget that make no whole step
    epochs: float = 0.0
    train_seconds: float = 0.0
    wall_seconds: float = 0.0
    eval_batch_size_used: int | None = None  # `eval_batch_size`, or as many as fitted beside training
    target: Mapping[str, Any] | None = None  # metric, value, reached, step, examples, train_seconds, resolution
    final: Mapping[str, float] = field(default_factory=dict)  # the last value of each measurement
    best: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  # {name: {value, examples}}
    shared_machine: bool = False
    changes_accepted: bool = False  # the user let it run with other code, data, PyTorch or device than the study's
    attempts: int = 1  # 0: not run, because another point of its size or a smaller one did not fit
    resumed_at: tuple[int, ...] = ()  # steps at which it went on from a checkpoint
    started_at: str = ""  # UTC, ISO 8601 with Z
    ended_at: str = ""

    @property
    def peak_bytes(self) -> float | None:
        """The most memory that training took beyond what was held when it began: one number for every device.

        Of a run of before it was measured: what CUDA's allocator held at most, else by how much the process grew.
        """
        return next((self.final[peak.name] for peak in PEAKS if peak.name in self.final), None)

    @property
    def device_model(self) -> str | None:
        """The GPU's name, on the CPU the processor's; None where it is not known.

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
        if "changes_accepted" not in known:  # it was in the config, which had the options of the sweep too
            known["changes_accepted"] = known["config"].get("accept_changed") is True
        known["quantities"] = tuple(map(Quantity.from_dict, known.get("quantities", ())))
        return cls(**known)


def _is_required(field: Field[Any]) -> bool:
    return field.default is MISSING and field.default_factory is MISSING
