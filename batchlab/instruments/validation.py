"""How well it has learnt."""

from collections.abc import Iterator

import torch

from batchlab.instruments.instrument import Instrument
from batchlab.records import Measurement
from batchlab.task import Batch
from batchlab.training.batches import slices
from batchlab.training.no_trace import leaving_no_trace
from batchlab.training.state import RunState


class Validation(Instrument):
    """`val/loss` and `val/<metric>`: means over the terms of the whole validation set, in eval mode and fp32."""

    def __init__(self, *, eval_every: int, eval_batch_size: int) -> None:
        self.every: int | None = eval_every
        self.eval_batch_size = eval_batch_size

    def measure(self, state: RunState) -> Iterator[Measurement]:
        for name, value in evaluate(state, state.val, self.eval_batch_size).items():
            yield state.measurement(f"val/{name}", value)


@torch.no_grad()
def evaluate(state: RunState, data: Batch, eval_batch_size: int) -> dict[str, float]:
    """Means over all terms of `data` of the loss and each metric, the ragged last batch counted for what it holds."""
    sums: dict[str, torch.Tensor] = {}
    counts: dict[str, int] = {}
    with leaving_no_trace(state.model, state.device), state.precision.full():
        state.model.eval()
        for batch in slices(data, eval_batch_size):
            outputs = state.task.forward(state.model, batch)
            terms = {"loss": state.task.loss(outputs, batch)} | state.task.metrics(outputs, batch)
            for name, values in terms.items():
                # float64, or the mean of a million terms would depend on how they were cut
                sums[name] = sums.get(name, 0) + values.sum(dtype=torch.float64)
                counts[name] = counts.get(name, 0) + values.numel()
    return {name: total.item() / counts[name] for name, total in sums.items()}
