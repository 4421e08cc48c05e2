"""One optimizer update in PyTorch's eager mode, over any number of micro-batches."""

import contextlib
from collections.abc import Callable

import torch

from batchlab.task import Batch
from batchlab.training.clock.pauses import pause_seconds
from batchlab.training.data.batches import MicroBatches, OneByOne, examples_in, tensors
from batchlab.training.devices.device import Device
from batchlab.training.losses import Losses
from batchlab.training.passes.inputs import copied
from batchlab.training.passes.no_trace import leaving_no_trace, set_mode
from batchlab.training.phase import BATCH, OPTIMIZER, Phase
from batchlab.training.step import backward
from batchlab.training.updates.rehearsal import StateLike, rehearse_update
from batchlab.training.updates.update import Outcome


class Eager:
    """Forward, backward, unscale, clip and update, as PyTorch runs them line by line; sets `phase` to each."""

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
        self._count: int | None = None  # of the last step
        self._count_on_device = torch.empty(0)  # the same on the device

    def __call__(self, micro_batches: MicroBatches) -> Outcome:
        """One update on the mean loss over all terms of `micro_batches`; never waits for the device."""
        for p in self.parameters:  # like optimizer.zero_grad(), which takes 3 to 5% of a small step
            p.grad = None
        loss_sum, count = backward(self.losses, micro_batches, self.phase)
        self.phase.name = OPTIMIZER
        skipped = self.precision.update(self.optimizer, self.parameters, self.clip_norm)
        if count != self._count:  # it rarely changes
            kind = torch.int64 if isinstance(count, int) else torch.float64  # exact: a loss is divided by it
            self._count, self._count_on_device = count, torch.full((), count, dtype=kind, device=loss_sum.device)
        self.phase.name = BATCH
        return Outcome(loss_sum, self._count_on_device, examples_in(micro_batches), skipped)

    def rehearse_update(self, device: Device) -> None:
        """Makes an update of other parameters, before memory is counted; leaves no trace."""
        with leaving_no_trace(self.model, device):
            self._state_like = rehearse_update(self.optimizer, self.precision, self.clip_norm)

    def rehearse(self, first: Callable[[], MicroBatches], device: Device) -> float:
        """Runs the passes of one update, without updating, and leaves no trace: one-time costs (memory, kernels) arise
        before the clock starts, and the memory marks include a step. `first` returns the first step's micro-batches, at
        each call. Returns the seconds that a pause adds to the steps after it (`pauses.pause_seconds`).

        Memory for the state that the optimizer creates in its first update is reserved meanwhile, as in later steps:
        otherwise the first steps would wait for the allocation.
        """
        with leaving_no_trace(self.model, device):
            set_mode(self.model, training=True)
            self.phase.name = OPTIMIZER
            reserved = [torch.empty_like(p, dtype=dtype) for p, dtype in self._state_like]
            self.phase.name = BATCH
            micro_batches = first()
            one_by_one = isinstance(micro_batches, OneByOne)  # they can be iterated only once
            versions = [] if one_by_one else _versions(micro_batches)
            self._passes(micro_batches)
            del reserved
            anew = one_by_one or versions != _versions(micro_batches)  # or changed in place: token + 1 at each pass
            return pause_seconds(lambda: self._passes(first() if anew else micro_batches), device)

    def _passes(self, micro_batches: MicroBatches) -> None:
        for p in self.parameters:
            p.grad = None
        backward(self.losses, micro_batches, self.phase)

    def settle(self, examples: Batch, device: Device) -> None:
        """Runs a few examples, to restore the processor's caches after measuring; leaves no trace and no gradients.

        On the CPU an instrument leaves other code and data in the caches, and the vector units powered down: the next
        step took 4 to 9% longer (batch 256, MLP on digits, AMD EPYC), so part of measuring was counted as training. A
        forward pass alone does not help. Skipped for a task that refuses so few examples.
        """
        for p in self.parameters:  # as the next step does: or training's peak would include two copies of the gradients
            p.grad = None
        with contextlib.suppress(Exception), leaving_no_trace(self.model, device):
            self._passes((copied(examples),))


def _versions(micro_batches: MicroBatches) -> list[int]:
    return [tensor._version for batch in micro_batches for tensor in tensors(batch)]
