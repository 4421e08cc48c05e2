"""How well it has learnt."""

from collections.abc import Iterator

from batchlab.instruments.instrument import Instrument
from batchlab.records import Measurement
from batchlab.training.evaluation import validated
from batchlab.training.state import RunState


class Validation(Instrument):
    """`val/loss` and `val/<metric>`: means over the terms of the whole validation set, in eval mode and fp32."""

    def __init__(self, *, eval_every: int, eval_batch_size: int) -> None:
        self.every: int | None = eval_every
        self.eval_batch_size = eval_batch_size

    def measure(self, state: RunState) -> Iterator[Measurement]:
        for name, seen in validated(state, self.eval_batch_size).items():
            yield state.measurement(f"val/{name}", seen.mean)
