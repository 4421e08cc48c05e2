"""One optimizer update, however many micro-batches it takes."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from batchlab.task import Batch, Task
from batchlab.training.batches import MicroBatches, OneByOne, examples_in
from batchlab.training.devices.device import Device
from batchlab.training.losses import Losses
from batchlab.training.no_trace import leaving_no_trace
from batchlab.training.pace import pause_seconds
from batchlab.training.phase import BACKWARD, BATCH, FORWARD, OPTIMIZER, Phase
from batchlab.training.rehearsal import StateLike, rehearse_update


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a step leaves for the instruments: references on the device, which nobody has waited for."""

    loss_sum: Tensor  # 0-d: the losses of the whole batch, summed over terms
    count: Tensor  # 0-d: terms (examples, or tokens)
    examples: int
    skipped: Tensor | None  # 0-d bool: the fp16 scaler threw the update away; None in other precisions


class Step:
    """The whole of training on one batch: forward, backward, unscale, clip, update; `phase` says which of them."""

    def __init__(
        self,
        losses: Losses,
        optimizer: torch.optim.Optimizer,
        clip_norm: float | None = None,
        *,
        phase: Phase | None = None,
    ) -> None:
        self.losses = losses
        self.model = losses.model
        self.precision = losses.precision
        self.optimizer = optimizer
        self.clip_norm = clip_norm
        self.phase = phase or Phase()
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        self._state_like: StateLike = ()
        self._count, self._count_there = 0, torch.zeros(())  # of the last step, and the same on the device

    def __call__(self, micro_batches: MicroBatches) -> Outcome:
        """One update on the mean loss over all terms of `micro_batches`; never waits for the device."""
        for p in self.parameters:  # optimizer.zero_grad() does this, for 3 to 5% of a small step
            p.grad = None
        loss_sum, count = backward(self.losses, micro_batches, self.phase)
        self.phase.name = OPTIMIZER
        skipped = self.precision.update(self.optimizer, self.parameters, self.clip_norm)
        if count != self._count:  # nearly always it is what it was
            kind = torch.int64 if isinstance(count, int) else torch.float64  # exact: a loss is divided by it
            self._count, self._count_there = count, torch.full((), count, dtype=kind, device=loss_sum.device)
        self.phase.name = BATCH
        return Outcome(loss_sum, self._count_there, examples_in(micro_batches), skipped)

    def rehearse_update(self, device: Device) -> None:
        """The update, on other parameters and without a trace, before memory is counted."""
        with leaving_no_trace(self.model, device):
            self._state_like = rehearse_update(self.optimizer, self.precision, self.clip_norm)

    def rehearse(self, first: Callable[[], MicroBatches], device: Device) -> float:
        """The passes of one update, without the update and without a trace: what is needed once is got outside the
        clock (memory, kernels), and the mark of memory sees a step. `first` gives the first step's micro-batches, each
        time anew. Returns the seconds that a pause adds to the steps after it (`pace.pause_seconds`).

        Room for the state that the optimizer makes in its first update is held meanwhile, as it is from the second
        step on: or the first steps would wait for the device to give it.
        """
        with leaving_no_trace(self.model, device):
            self.model.train()
            self.phase.name = OPTIMIZER
            room = [torch.empty_like(p, dtype=dtype) for p, dtype in self._state_like]
            self.phase.name = BATCH
            micro_batches = first()
            self._passes(micro_batches)
            del room
            one_by_one = isinstance(micro_batches, OneByOne)  # they are gone when they were passed
            return pause_seconds(lambda: self._passes(first() if one_by_one else micro_batches), device)

    def _passes(self, micro_batches: MicroBatches) -> None:
        for p in self.parameters:
            p.grad = None
        backward(self.losses, micro_batches, self.phase)

    def settle(self, examples: Batch, device: Device) -> None:
        """The passes of a few examples, so that training finds the processor as it left it; no trace, and no gradients.

        On the CPU an instrument leaves other code and other numbers in the caches, and the vector units asleep: the
        next step took 4 to 9% longer (batch 256, MLP on digits, AMD EPYC), and measuring was charged after all. A
        forward pass alone does not help. A task that refuses so few examples goes without.
        """
        for p in self.parameters:  # as the next step does: gradients would be held twice, and the peak is training's
            p.grad = None
        with contextlib.suppress(Exception), leaving_no_trace(self.model, device):
            self._passes((examples,))


def backward(losses: Losses, micro_batches: MicroBatches, phase: Phase | None = None) -> tuple[Tensor, int]:
    """Adds the gradient of the mean loss over all terms; returns the sum of the losses (0-d) and their count.

    `phase` is the run's where training asks: what an instrument passes is no forward pass of training.
    """
    phase = phase or Phase()
    task, precision = losses.task, losses.precision
    # By count of the whole batch, not by 1/len(micro_batches): the last may be smaller, and then the mean of the
    # means is not the mean of the batch.
    if not isinstance(micro_batches, OneByOne):
        count = sum(map(task.count, micro_batches))
    elif task.count is Task.count:
        count = micro_batches.examples
    else:  # terms are counted by looking at them, all before the first pass
        micro_batches = tuple(micro_batches)
        count = sum(map(task.count, micro_batches))
    sums = []
    for batch in micro_batches:
        phase.name = FORWARD
        terms = losses(batch)
        phase.name = BACKWARD
        if terms.dtype in _HALF:  # 8 and 11 bits: a sum of hundreds of losses would lose the small ones
            terms = terms.float()
        precision.backward(terms, 1 / count)
        sums.append(terms.detach().sum())
        del batch, terms  # before the next one is brought
        phase.name = BATCH
    return (sums[0] if len(sums) == 1 else torch.stack(sums).sum()), count


_HALF = (torch.bfloat16, torch.float16)
