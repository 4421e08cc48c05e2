"""What a run is made of while it trains, and the socket that instruments plug into."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import torch
from torch import nn

from batchlab.records import Measurement, StateDict
from batchlab.records.quantity import Quantity
from batchlab.task import Task
from batchlab.training.clock.meter import Meter
from batchlab.training.devices.device import Device
from batchlab.training.devices.precision import Precision
from batchlab.training.losses import Losses
from batchlab.training.phase import Phase
from batchlab.training.updates.update import Outcome


def nobody(text: str) -> None:
    """Takes no note."""


@dataclass
class RunState:
    """One run in flight. Instruments read it and assign nothing to it; who writes what is said here, and tested."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    task: Task
    train: Any  # the whole training set: on the device, or a `Stream` to it
    val: Any
    device: Device
    precision: Precision
    meter: Meter
    budget: int  # examples
    group_multiples: Sequence[float] = ()  # of the learning rate, by parameter group; none: 1 of each
    eval_precision: str = "fp32"  # of validations and what is compared with them: fp32, or `same` as the run's
    phase: Phase = field(default_factory=Phase)  # whoever begins something else writes its name
    note: Callable[[str], None] = nobody  # of what the run could not do as it was asked to, a sentence each
    # The loop writes these, and a checkpoint that is restored:
    learning_rate: float = 0.0  # of the last step
    step: int = 0
    examples: int = 0
    # `evaluation` writes these, whichever instrument asks it; the second one a checkpoint as well:
    validated: tuple[Any, Any] | None = None  # when `val` was last passed through, and what came of it
    eval_at_most: int | None = None  # examples that an evaluation passes at once, where `eval_batch_size` did not fit

    def __post_init__(self) -> None:
        if not self.group_multiples:
            self.group_multiples = (1.0,) * len(self.optimizer.param_groups)

    @property
    def losses(self) -> Losses:
        """What the run trains on, in its precision."""
        return Losses(self.model, self.task, self.precision)

    def measurement(
        self,
        name: str,
        value: float,
        *,
        low: float | None = None,
        high: float | None = None,
        n: int | None = None,
    ) -> Measurement:
        """A number, stamped with where the run is."""
        return Measurement(name, value, self.step, self.examples, self.meter.seconds, low=low, high=high, n=n)


F = TypeVar("F", bound=Callable[..., Any])


def empty(method: F) -> F:
    """Marks a `watch` that does nothing, so that the loop need not call it."""
    method.is_empty = True  # type: ignore[attr-defined]
    return method


class Plug(Protocol):
    """What the loop asks of an instrument (`batchlab.instruments.Instrument` is the base to inherit from)."""

    every: int | None  # examples between measurements; None: only at the start and at the end
    instrument_name: str  # its key in the config
    quantities: Sequence[Quantity]  # what it measures

    def watch(self, outcome: Outcome) -> None:
        """After every step. Keep references only: this must not wait for the device."""

    def measure(self, state: RunState) -> Iterator[Measurement]:
        """At 0 examples, at the first step beyond each multiple of `every`, and at the end."""

    def conclude(self, state: RunState) -> Iterator[Measurement]:
        """Once, after the last `measure`: what the run as a whole comes to."""

    def state_dict(self) -> StateDict:
        """What resuming needs."""

    def load_state_dict(self, state: StateDict) -> None:
        """The inverse of `state_dict`."""
