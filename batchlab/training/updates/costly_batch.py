"""The batch that takes the most memory, for rehearsals and probes."""

from collections.abc import Callable

from batchlab.training.data.batches import Batches, MicroBatches, augmented, gather
from batchlab.training.data.costliest import costliest
from batchlab.training.state import RunState


def costly_batch(state: RunState, batches: Batches) -> Callable[[], MicroBatches] | None:
    """A function that makes a micro-batch of the most expensive training examples, in a step that accumulates two of
    them (from the second on, gradients are in memory too); None if examples cost about the same."""
    index = costliest(state.train, max(batches.micro_batch_sizes), state.task.cost)
    if not len(index):
        return None

    def made() -> MicroBatches:
        batch = augmented(gather(state.train, index), batches.augment, batches.seed, 0)
        return (batch,) * min(2, len(batches.micro_batch_sizes))

    return made
