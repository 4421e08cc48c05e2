"""The validation loss and metrics."""

from collections.abc import Iterator

from batchlab.errors import BadRequest
from batchlab.instruments.instrument import Instrument
from batchlab.records import Measurement
from batchlab.records import quantities as table
from batchlab.training.devices.out_of_memory import how_it_failed, is_out_of_memory
from batchlab.training.passes.evaluation import validated
from batchlab.training.phase import BATCH, VALIDATION
from batchlab.training.state import RunState


class Validation(Instrument):
    """`val/loss` and `val/<metric>`: means over the terms of the whole validation set, in eval mode and the precision
    `eval_precision`.
    BadRequest if not even one example fits in memory: without it a run would have no result.
    """

    quantities = table.VALIDATION
    essential = True

    def __init__(self, *, eval_every: int, eval_batch_size: int) -> None:
        self.every: int | None = eval_every
        self.eval_batch_size = eval_batch_size

    def measure(self, state: RunState) -> Iterator[Measurement]:
        state.phase.name = VALIDATION
        state.phase.announce(VALIDATION)
        try:
            found = validated(state, self.eval_batch_size)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            raise BadRequest(does_not_fit(self.eval_batch_size, error)) from error
        state.phase.announce(BATCH)
        for name, seen in found.items():
            yield state.measurement(table.OF_VALIDATION + name, seen.mean)


def does_not_fit(eval_batch_size: int, error: BaseException) -> str:
    """The reason of a run whose validation does not fit in memory, not even one example at a time."""
    return (
        f"the validation does not fit in memory: eval_batch_size={eval_batch_size} was halved down to 1, but even one "
        "example does not fit in addition to the weights, the gradients and the optimizer's state "
        f"({how_it_failed(error)[1]}): use a smaller model, eval_precision=same in half precision, or a device with "
        "more memory"
    )
