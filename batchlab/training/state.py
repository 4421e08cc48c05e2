"""The state of a run during training, and the interface of instruments."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import torch
from torch import nn

from batchlab.records import Measurement, StateDict
from batchlab.records.quantity import Quantity
from batchlab.task import Task
from batchlab.training.clock.meter import Meter
from batchlab.training.data.batches import length
from batchlab.training.data.order import SampledOrder
from batchlab.training.devices.device import Device
from batchlab.training.devices.precision import Precision
from batchlab.training.hooks import EpochHook
from batchlab.training.losses import Losses
from batchlab.training.passes.module_state import Digests, digests
from batchlab.training.phase import Phase
from batchlab.training.updates.update import Outcome


def ignore_note(text: str) -> None:
    """Ignores a note."""


@dataclass
class RunState:
    """A run during training. Instruments read it but do not change it; who writes what is listed here, and tested."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    task: Task
    train: Any  # the whole training set: on the device, or a `Stream` to it
    val: Any
    device: Device
    precision: Precision
    meter: Meter
    budget: int  # examples
    order: SampledOrder | None = None  # the task's own data order
    group_multiples: Sequence[float] = ()  # of the learning rate, by parameter group; empty: all 1
    epoch_hook: EpochHook | None = None  # of the task
    eval_precision: str = "fp32"  # of validations and what is compared with them: fp32, or `same` as training
    phase: Phase = field(default_factory=Phase)  # its name is set by the code that starts a phase
    note: Callable[[str], None] = ignore_note  # called with what the run could not do as requested
    measuring: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)  # what ends measuring; by the loop
    built: Digests = field(init=False)  # of the model's attributes when the state was made
    # Written by the loop, and restored from a checkpoint:
    learning_rate: float = 0.0  # of the last step
    step: int = 0
    examples: int = 0
    steps_without_terms: int = 0  # whose count was 0; included in `step`
    # Written by `evaluation` and `evaluation_batches`; all but the first are restored from a checkpoint as well:
    validated: tuple[Any, Any] | None = None  # key and result of the last pass through `val`
    eval_at_most: int | None = None  # examples evaluated at once, if `eval_batch_size` did not fit
    changes_input: bool | None = None  # whether user code changes its batch in place; None: not evaluated yet
    evaluation_draws: bool = False  # whether evaluating draws random numbers, so that it is seeded

    def __post_init__(self) -> None:
        if not self.group_multiples:
            self.group_multiples = (1.0,) * len(self.optimizer.param_groups)
        self.built = digests(self.trained)

    @property
    def losses(self) -> Losses:
        """The losses that training uses, in its precision."""
        return Losses(self.model, self.task, self.precision)

    @property
    def epoch(self) -> int:
        """Examples of an epoch."""
        return length(self.train) if self.order is None else self.order.length

    @property
    def trained(self) -> nn.Module:
        """The model, and the task's loss if that has tensors of its own."""
        return self.losses.trained

    def measurement(
        self,
        name: str,
        value: float,
        *,
        low: float | None = None,
        high: float | None = None,
        n: int | None = None,
    ) -> Measurement:
        """A measurement at the run's current step, examples and seconds."""
        return Measurement(name, value, self.step, self.examples, self.meter.seconds, low=low, high=high, n=n)


F = TypeVar("F", bound=Callable[..., Any])


def empty(method: F) -> F:
    """Marks a `watch` that does nothing, so that the loop does not call it."""
    method.is_empty = True  # type: ignore[attr-defined]
    return method


class Plug(Protocol):
    """The interface of an instrument (`batchlab.instruments.Instrument` is the base class to inherit from)."""

    every: int | None  # examples between measurements; None: only at the start and at the end
    instrument_name: str  # its key in the config
    quantities: Sequence[Quantity]  # what it measures
    essential: bool  # its errors end the run, which has no result without it; without the others it continues

    def watch(self, outcome: Outcome) -> None:
        """Called after every step. Keep references only: this must not wait for the device."""

    def measure(self, state: RunState) -> Iterator[Measurement]:
        """Called at 0 examples, at the first step beyond each multiple of `every`, and at the end."""

    def conclude(self, state: RunState) -> Iterator[Measurement]:
        """Called once, after the last `measure`: the results for the run as a whole."""

    def state_dict(self) -> StateDict:
        """What a resumed run needs."""

    def load_state_dict(self, state: StateDict) -> None:
        """The inverse of `state_dict`."""
