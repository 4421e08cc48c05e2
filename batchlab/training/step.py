"""The gradient of one step, over any number of micro-batches."""

import torch
from torch import Tensor

from batchlab.task import Batch, Task
from batchlab.training.data.batches import MicroBatches, OneByOne, length
from batchlab.training.data.collated import content
from batchlab.training.losses import Losses
from batchlab.training.phase import BACKWARD, BATCH, FORWARD, Phase


def backward(losses: Losses, micro_batches: MicroBatches, phase: Phase | None = None) -> tuple[Tensor, int]:
    """Adds the gradient of the mean loss over all terms; returns the sum of the losses (0-d) and their count.

    Training passes the run's `phase`; instruments do not, because their passes are not part of training.
    """
    micro_batches, count = counted(losses.task, micro_batches)
    # By count of the whole batch, not by 1/len(micro_batches): the last may be smaller, and then the mean of the
    # means is not the mean of the batch.
    return weighted_backward(losses, micro_batches, 1 / count, phase or Phase()), count


def counted(task: Task, micro_batches: MicroBatches) -> tuple[MicroBatches, int]:
    """The micro-batches to use from now on (some can be iterated only once), and their number of terms."""
    if isinstance(micro_batches, OneByOne):
        if task.count is Task.count:
            return micro_batches, micro_batches.examples
        micro_batches = tuple(micro_batches)  # all terms must be counted before the first pass
    return micro_batches, sum(terms_in(task, batch) for batch in micro_batches)


def terms_in(task: Task, batch: Batch) -> int:
    """The number of terms of a batch."""
    return length(batch) if task.count is Task.count else task.count(content(batch))


def weighted_backward(losses: Losses, micro_batches: MicroBatches, weight: float | Tensor, phase: Phase) -> Tensor:
    """Adds the gradient of `weight` (a number, or 0-d on the device) times the sum of all losses; returns that sum
    (0-d), without the weight."""
    sums = []
    for batch in micro_batches:
        phase.name = FORWARD
        terms = losses(batch)
        phase.name = BACKWARD
        if terms.dtype in _HALF:  # 8 and 11 bits: a sum of hundreds of losses would lose small ones
            terms = terms.float()
        losses.precision.backward(terms, weight)
        sums.append(terms.detach().sum())
        del batch, terms  # before the next one is loaded
        phase.name = BATCH
    return sums[0] if len(sums) == 1 else torch.stack(sums).sum()


_HALF = (torch.bfloat16, torch.float16)
