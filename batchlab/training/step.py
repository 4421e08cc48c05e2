"""The gradient of one step, over any number of micro-batches."""

import torch
from torch import Tensor

from batchlab.training.data.batches import MicroBatches, OneByOne, examples_in
from batchlab.training.losses import AVERAGED, PAIR, Count, Losses
from batchlab.training.phase import BACKWARD, BATCH, FORWARD, Phase


def backward(losses: Losses, micro_batches: MicroBatches, phase: Phase | None = None) -> tuple[Tensor, Count]:
    """Adds the gradient of the mean loss over all terms; returns the sum of the losses (0-d) and their count.

    For the reduction `sum` it is the gradient of the sum. A batch without terms has no gradient, and is not passed.
    Training passes the run's `phase`; instruments do not, because their passes are not part of training.
    """
    phase = phase or Phase()
    if losses.task.reduction == PAIR:
        return _backward_of_pairs(losses, micro_batches, phase)
    micro_batches, count = counted(losses, micro_batches)
    if not count:
        return torch.zeros((), device=losses.precision.device.torch_device), count
    # By count of the whole batch, not by 1/len(micro_batches): the last may be smaller, and then the mean of the
    # means is not the mean of the batch.
    weight = 1.0 if losses.task.reduction == "sum" else 1 / count
    return weighted_backward(losses, micro_batches, weight, phase), count


def counted(losses: Losses, micro_batches: MicroBatches) -> tuple[MicroBatches, Count]:
    """The micro-batches to use from now on (some can be iterated only once), and their number of terms."""
    if isinstance(micro_batches, OneByOne):
        if losses.counts_examples:
            return micro_batches, micro_batches.examples
        micro_batches = tuple(micro_batches)  # all terms must be counted before the first pass
    return micro_batches, sum(map(losses.count, micro_batches))


def weighted_backward(losses: Losses, micro_batches: MicroBatches, weight: float | Tensor, phase: Phase) -> Tensor:
    """Adds the gradient of `weight` (a number, or 0-d on the device) times the sum of all losses; returns that sum
    (0-d), without the weight."""
    sums = []
    averaged = losses.task.reduction in AVERAGED
    for batch in micro_batches:
        count = losses.count(batch) if averaged else 1
        if not count:  # the mean of no terms is nan
            continue
        phase.name = FORWARD
        terms = losses.returned(batch)
        phase.name = BACKWARD
        if terms.dtype in _HALF:  # 8 and 11 bits: a sum of hundreds of losses would lose small ones
            terms = terms.float()
        losses.precision.backward(terms, weight * count if averaged else weight)
        sums.append(terms.detach() * count if averaged else terms.detach().sum())
        del batch, terms  # before the next one is loaded
        phase.name = BATCH
    return sums[0] if len(sums) == 1 else torch.stack(sums).sum()


def _backward_of_pairs(losses: Losses, micro_batches: MicroBatches, phase: Phase) -> tuple[Tensor, Count]:
    """`backward` for a loss whose count is known only after the last forward pass."""
    guess = 1 / examples_in(micro_batches)  # or the sums of a large batch might overflow in fp16
    sums = [torch.zeros((), device=losses.precision.device.torch_device)]
    total: Count = 0
    for batch in micro_batches:
        phase.name = FORWARD
        terms, count = losses.with_count(batch)
        phase.name = BACKWARD
        if count:
            losses.precision.backward(terms.float() if terms.dtype in _HALF else terms, guess)
            sums.append(terms.detach().sum())
            total += count
        del batch, terms
        phase.name = BATCH
    if total:
        for p in losses.trained.parameters():
            if p.grad is not None:
                p.grad.mul_(1 / (guess * total))
    return torch.stack(sums).sum(), total


_HALF = (torch.bfloat16, torch.float16)
