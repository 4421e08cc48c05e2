"""The gradient of one step, however many micro-batches it is taken in."""

import torch
from torch import Tensor

from batchlab.task import Task
from batchlab.training.batches import MicroBatches, OneByOne
from batchlab.training.losses import Losses
from batchlab.training.phase import BACKWARD, BATCH, FORWARD, Phase


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
