"""How large the gradient is."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from batchlab.instruments.instrument import Instrument
from batchlab.records import Measurement
from batchlab.training.batches import gather, length, split, stream_seed
from batchlab.training.no_trace import leaving_no_trace
from batchlab.training.state import RunState
from batchlab.training.step import backward


class Gradient(Instrument):
    """`train/gradient_norm`: the 2-norm of the gradient of a fresh batch of the run's own size, before clipping.

    The batch is drawn without replacement by a generator of the instrument's own, and passed through in micro-batches
    as training does, in training mode, without the fp16 scale. `every` is in examples; by default it is taken at every
    fourth validation, as it costs a step.
    """

    def __init__(
        self, *, eval_every: int, batch_size: int, micro_batch_size: int, seed: int, every: int | None = None
    ) -> None:
        self.every: int | None = every or 4 * eval_every
        self.batch_size = batch_size
        self.micro_batch_size = micro_batch_size
        self._generator = torch.Generator().manual_seed(stream_seed(seed, "gradient"))

    def measure(self, state: RunState) -> Iterator[Measurement]:
        index = torch.randperm(length(state.train), generator=self._generator)[: self.batch_size]
        full, ragged = divmod(self.batch_size, self.micro_batch_size)
        sizes = [self.micro_batch_size] * full + ([ragged] if ragged else [])
        with leaving_no_trace(state.model, state.device):
            state.model.train()
            backward(state.model, state.task, state.precision, split(gather(state.train, index), sizes))
            gradients = [p.grad for p in state.model.parameters() if p.grad is not None]
            # float64: squares of a hundred million small numbers are added
            norm = torch.stack([torch.linalg.vector_norm(g, dtype=torch.float64) for g in gradients]).norm().item()
        scale = state.precision.loss_scale()
        yield state.measurement("train/gradient_norm", norm / scale if scale else norm)

    def state_dict(self) -> dict[str, Any]:
        return {"generator": self._generator.get_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._generator.set_state(state["generator"])
