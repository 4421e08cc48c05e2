"""One optimizer update in PyTorch's eager mode, over any number of micro-batches."""

import contextlib
from collections.abc import Callable

import torch
from torch import Tensor, nn

from batchlab.errors import BadRequest
from batchlab.task import Batch
from batchlab.training.clock.pauses import pause_seconds
from batchlab.training.data.batches import MicroBatches, OneByOne, examples_in
from batchlab.training.data.trees import tensors
from batchlab.training.devices.device import Device
from batchlab.training.losses import Count, Losses
from batchlab.training.passes.inputs import copied
from batchlab.training.passes.no_trace import leaving_no_trace, set_mode
from batchlab.training.phase import BATCH, OPTIMIZER, Phase
from batchlab.training.step import backward
from batchlab.training.updates.closures import Closure, refuse_unless_possible
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
        self.parameters = [p for p in losses.trained.parameters() if p.requires_grad]
        # None: not known before a rehearsal. Of PyTorch's own optimizers only LBFGS needs one.
        plain = type(optimizer).__module__.startswith("torch.optim.") and not isinstance(optimizer, torch.optim.LBFGS)
        self._closure = Closure.NONE if plain else None
        self._state_like: StateLike = ()
        self._count: Count | None = None  # of the last step
        self._count_on_device = torch.empty(0)  # the same on the device

    def __call__(self, micro_batches: MicroBatches) -> Outcome:
        """One update on the mean loss over all terms of `micro_batches`; never waits for the device."""
        if self._closure is not Closure.NONE and self.needs_closure():
            loss_sum, count = self._step_with_closure(micro_batches)
            skipped = None
        else:
            for p in self.parameters:  # like optimizer.zero_grad(), which takes 3 to 5% of a small step
                p.grad = None
            loss_sum, count = backward(self.losses, micro_batches, self.phase)
            self.phase.name = OPTIMIZER
            # A batch without terms has no gradient: then momentum and weight decay must not change the weights either.
            skipped = self.precision.update(self.optimizer, self.parameters, self.clip_norm) if count else None
        if count != self._count:  # it rarely changes
            kind = torch.int64 if isinstance(count, int) else torch.float64  # exact: a loss is divided by it
            self._count, self._count_on_device = count, torch.full((), count, dtype=kind, device=loss_sum.device)
        self.phase.name = BATCH
        return Outcome(loss_sum, self._count_on_device, examples_in(micro_batches), skipped, has_terms=count > 0)

    def needs_closure(self) -> bool:
        """Whether the optimizer computes the loss itself; rehearses an update to find out."""
        if self._closure is None:
            self.rehearse_update(self.precision.device)
        return self._closure is not Closure.NONE

    def _step_with_closure(self, micro_batches: MicroBatches) -> tuple[Tensor, Count]:
        """The optimizer's step; returns the sum of the losses at the weights before it, and their count."""
        one = not isinstance(micro_batches, OneByOne) and len(micro_batches) == 1
        refuse_unless_possible(self.optimizer, accumulate=1 if one else 2, precision=self.precision.name)
        first: tuple[Tensor, Count] | None = None

        def closure() -> Tensor:
            nonlocal first
            with torch.enable_grad():
                loss_sum, count = self._passes(micro_batches)
            if self.clip_norm is not None:
                nn.utils.clip_grad_norm_(self.parameters, self.clip_norm)
            self.phase.name = OPTIMIZER
            first = first or (loss_sum, count)
            return loss_sum if not count or self.losses.task.reduction == "sum" else loss_sum / count

        if self._closure is Closure.AFTER_GRADIENTS:
            closure()
        self.optimizer.step(closure)  # type: ignore[arg-type]  # as in `closures`
        if first is None:
            raise BadRequest(
                f"{type(self.optimizer).__name__} made a step without calling the closure that it requires, so it has "
                "no gradients: use another optimizer"
            )
        return first

    def rehearse_update(self, device: Device) -> None:
        """Makes an update of other parameters, before memory is counted; leaves no trace."""
        with leaving_no_trace(self.losses.trained, device):
            found = rehearse_update(self.optimizer, self.precision, self.clip_norm)
        self._state_like, self._closure = found.state_like, found.closure

    def rehearse(
        self, first: Callable[[], MicroBatches], device: Device, costly: Callable[[], MicroBatches] | None = None
    ) -> float:
        """Runs the passes of one update, without updating, and leaves no trace: one-time costs (memory, kernels) arise
        before the clock starts, and the memory marks include a step. `first` returns the first step's micro-batches, at
        each call, and `costly` the most expensive ones, if batches differ. Returns the seconds that a pause adds to the
        steps after it (`pauses.pause_seconds`).

        Memory for the state that the optimizer creates in its first update is reserved meanwhile, as in later steps:
        otherwise the first steps would wait for the allocation.
        """
        with leaving_no_trace(self.losses.trained, device):
            set_mode(self.model, training=True)
            self.phase.name = OPTIMIZER
            reserved = [torch.empty_like(p, dtype=dtype) for p, dtype in self._state_like]
            self.phase.name = BATCH
            if costly is not None:
                self._passes(costly())
            micro_batches = first()
            one_by_one = isinstance(micro_batches, OneByOne)  # they can be iterated only once
            versions = [] if one_by_one else _versions(micro_batches)
            self._passes(micro_batches)
            del reserved
            anew = one_by_one or versions != _versions(micro_batches)  # or changed in place: token + 1 at each pass
            return pause_seconds(lambda: self._passes(first() if anew else micro_batches), device)

    def _passes(self, micro_batches: MicroBatches) -> tuple[Tensor, Count]:
        for p in self.parameters:
            p.grad = None
        return backward(self.losses, micro_batches, self.phase)

    def settle(self, examples: Batch, device: Device) -> None:
        """Runs a few examples, to restore the processor's caches after measuring; leaves no trace and no gradients.

        On the CPU an instrument leaves other code and data in the caches, and the vector units powered down: the next
        step took 4 to 9% longer (batch 256, MLP on digits, AMD EPYC), so part of measuring was counted as training. A
        forward pass alone does not help. Skipped for a task that refuses so few examples.
        """
        for p in self.parameters:  # as the next step does: or training's peak would include two copies of the gradients
            p.grad = None
        with contextlib.suppress(Exception), leaving_no_trace(self.losses.trained, device):
            self._passes((copied(examples),))


def _versions(micro_batches: MicroBatches) -> list[int]:
    return [tensor._version for batch in micro_batches for tensor in tensors(batch)]
