"""What the training loop asks of an update, however it is executed, and what an update leaves behind."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from batchlab.task import Batch
from batchlab.training.data.batches import MicroBatches
from batchlab.training.devices.device import Device


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a step leaves for the instruments: references on the device, which nobody has waited for.

    Nobody writes to them: instruments keep them until they measure, and one tensor may be of many outcomes. Whoever
    reduces a count or a sum over devices reduces a tensor of its own.
    """

    loss_sum: Tensor  # 0-d: the losses of the whole batch, summed over terms
    count: Tensor  # 0-d: terms (examples, or tokens)
    examples: int
    skipped: Tensor | None  # 0-d bool: the fp16 scaler threw the update away; None in other precisions


class Update(Protocol):
    """One update of the model on the mean loss over all terms of a step's micro-batches."""

    def __call__(self, micro_batches: MicroBatches) -> Outcome:
        """Makes the update; never waits for the device."""

    def rehearse_update(self, device: Device) -> None:
        """Gets outside the clock, and before memory is counted, what the first update needs once; without a trace."""

    def rehearse(self, first: Callable[[], MicroBatches], device: Device) -> float:
        """The same for the passes of an update, which then count as training's memory; `first` gives the micro-batches
        of the first step, each time anew. Returns the seconds that a pause adds to the steps after it."""

    def settle(self, examples: Batch, device: Device) -> None:
        """Brings the processor to where training left it, with the passes of a few examples; without a trace."""
