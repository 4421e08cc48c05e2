"""The interface of an update in the training loop, and its outcome."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from batchlab.task import Batch
from batchlab.training.data.batches import MicroBatches
from batchlab.training.devices.device import Device


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a step provides to the instruments: references to tensors on the device, without waiting for them.

    Do not write to them: instruments keep them until they measure, and outcomes may share a tensor. To reduce a count
    or a sum over devices, copy it first.
    """

    loss_sum: Tensor  # 0-d: the losses of the whole batch, summed over terms
    count: Tensor  # 0-d: terms (examples, or tokens), or their sum of weights
    examples: int
    skipped: Tensor | None  # 0-d bool: the fp16 scaler skipped the update; None in other precisions
    has_terms: bool = True  # without any, no update was made


class Update(Protocol):
    """One update of the model on the mean loss over all terms of a step's micro-batches."""

    def __call__(self, micro_batches: MicroBatches) -> Outcome:
        """Makes the update; never waits for the device."""

    def rehearse_update(self, device: Device) -> None:
        """Incurs the one-time costs of the first update before time and memory are counted; leaves no trace."""

    def rehearse(
        self, first: Callable[[], MicroBatches], device: Device, costly: Callable[[], MicroBatches] | None = None
    ) -> float:
        """The same for the passes of an update, whose memory counts as training's; `first` returns the micro-batches of
        the first step, at each call, and `costly` the most expensive ones. Returns the seconds that a pause adds to the
        steps after it."""

    def settle(self, examples: Batch, device: Device) -> None:
        """Restores the processor's caches after measuring, with passes of a few examples; leaves no trace."""
