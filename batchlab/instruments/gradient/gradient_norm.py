"""The norm of the gradient."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from batchlab.instruments.instrument import Instrument, check_count
from batchlab.records import Measurement, StateDict
from batchlab.records import quantities as table
from batchlab.training.data.batches import gathered, length
from batchlab.training.data.order import stream_seed
from batchlab.training.gradients import norm
from batchlab.training.passes.no_trace import leaving_no_trace, set_mode
from batchlab.training.state import RunState
from batchlab.training.step import backward


class Gradient(Instrument):
    """`train/gradient_norm`: the 2-norm of the gradient of a new batch of the run's size, before clipping.

    The batch is drawn without replacement by the instrument's own generator, and processed in micro-batches as in
    training, in training mode, without the fp16 scale and without a task's `augment`.
    `every` is in examples; default: every fourth validation, because it costs a step.
    """

    quantities = table.GRADIENT

    def __init__(
        self, *, eval_every: int, batch_size: int, micro_batch_size: int, seed: int, every: int | None = None
    ) -> None:
        check_count("gradient.every", every)
        self.every: int | None = every or 4 * eval_every
        self.batch_size = batch_size
        self.micro_batch_size = micro_batch_size
        self._generator = torch.Generator().manual_seed(stream_seed(seed, "gradient"))

    def measure(self, state: RunState) -> Iterator[Measurement]:
        index = torch.randperm(length(state.train), generator=self._generator)[: self.batch_size]
        gradients = batch_gradient(state, index, self.micro_batch_size)
        yield state.measurement("train/gradient_norm", norm(list(gradients.values())).item())

    def state_dict(self) -> StateDict:
        return {"generator": self._generator.get_state()}

    def load_state_dict(self, state: StateDict) -> None:
        self._generator.set_state(state["generator"])


def batch_gradient(state: RunState, index: Tensor, micro_batch_size: int) -> dict[nn.Parameter, Tensor]:
    """The gradient of the mean loss over the training examples at `index`, for each parameter that has one.

    As in training: in training mode and the run's precision, in micro-batches, before clipping; without the fp16
    scale. Leaves no trace.
    """
    full, ragged = divmod(len(index), micro_batch_size)
    sizes = [micro_batch_size] * full + ([ragged] if ragged else [])
    with leaving_no_trace(state.trained, state.device):
        set_mode(state.model, training=True)
        backward(state.losses, gathered(state.train, index, sizes))
        gradients = {p: p.grad for p in state.trained.parameters() if p.grad is not None}
    scale = state.precision.loss_scale()
    return {p: gradient / scale for p, gradient in gradients.items()} if scale else gradients
