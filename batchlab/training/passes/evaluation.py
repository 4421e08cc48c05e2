"""Evaluates the model on a set, example by example, in eval mode; leaves no trace."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from batchlab.errors import BadRequest
from batchlab.printable import counted
from batchlab.task import Batch, Task
from batchlab.training.data.batches import length, slices
from batchlab.training.losses import Losses
from batchlab.training.passes.contract import LOSS_SHAPE, METRIC_SHAPE
from batchlab.training.passes.evaluation_batches import evaluation_batches, repeated
from batchlab.training.passes.halving import halved
from batchlab.training.passes.inputs import copied
from batchlab.training.passes.no_trace import leaving_no_trace
from batchlab.training.state import RunState

SHARED_SUM = 2**15  # from this size on PyTorch sums a whole tensor with several threads, but not a row of one


@dataclass(frozen=True)
class ByExample:
    """The loss or a metric of a whole set: for each example the sum over its terms, and their number."""

    sums: NDArray[np.float64]  # (examples,)
    counts: NDArray[np.int64]  # (examples,)

    @property
    def mean(self) -> float:
        """Over all terms; a smaller last batch has a smaller weight."""
        return float(self.sums.sum() / self.counts.sum())

    @property
    def means(self) -> NDArray[np.float64]:
        """(examples with terms,) the mean over the terms of each example."""
        seen = self.counts > 0
        return np.asarray(self.sums[seen] / self.counts[seen], dtype=np.float64)

    @property
    def is_share(self) -> bool:
        """Whether it is one 0 or 1 for each example, as for right and wrong predictions."""
        return bool((self.counts == 1).all() and np.isin(self.sums, (0.0, 1.0)).all())


def validated(state: RunState, eval_batch_size: int) -> Mapping[str, ByExample]:
    """`by_example` of the validation set: one pass, shared by all instruments that need it at this step."""
    # In the loop the step would be enough; code that changes the weights between two steps changes their versions.
    now = (state.step, eval_batch_size, *(p._version for p in state.model.parameters()))
    if state.validated is None or state.validated[0] != now:
        state.validated = (now, by_example(state, state.val, eval_batch_size))
    seen: Mapping[str, ByExample] = state.validated[1]
    return seen


def by_example(state: RunState, data: Any, eval_batch_size: int) -> dict[str, ByExample]:
    """The loss and each metric of every example in the set `data`, by name; `eval_batch_size` examples at once, or as
    many as fit, which changes nothing but rounding.

    BadRequest if the task's loss or a metric does not give one value per term or per example. If one example alone does
    not fit in memory, that error is raised.
    """
    size = min(eval_batch_size, state.eval_at_most or eval_batch_size)
    seen, fits = halved(
        lambda size: repeated(lambda: _passed(state, data, size)), size, of=length(data), device=state.device
    )
    if fits < size:
        first, state.eval_at_most = state.eval_at_most is None, fits
        if first:
            state.note(
                f"eval_batch_size={eval_batch_size} does not fit in the memory that training leaves free: "
                f"evaluated at most {counted(fits, 'example')} at a time"
            )
    return seen


@torch.no_grad()
def _passed(state: RunState, data: Any, eval_batch_size: int) -> dict[str, ByExample]:
    sums: dict[str, list[Tensor]] = {}
    counts: dict[str, list[int]] = {}
    with leaving_no_trace(state.model, state.device), state.precision.evaluation(state.eval_precision) as precision:
        losses = Losses(state.model, state.task, precision)
        state.model.eval()
        size = eval_batch_size if eval_batch_size > 1 and _in_order(losses, data) else 1
        for batch in evaluation_batches(state, data, size):
            terms = _terms_of(state.task, batch)
            for name, quantity in losses.quantities(batch).items():
                values = _flat(quantity)
                if len(values) not in (sum(terms), len(terms)):
                    raise _uneven(name, tuple(quantity.shape), len(terms), sum(terms))
                own = terms if len(values) == sum(terms) else [1] * len(terms)
                sums.setdefault(name, []).append(_summed(values, own))
                counts.setdefault(name, []).extend(own)
    return {name: ByExample(torch.cat(parts).cpu().numpy(), np.array(counts[name])) for name, parts in sums.items()}


def _flat(quantity: Tensor) -> Tensor:
    # float64, or the mean of a million terms would depend on how they were split
    return quantity.flatten().double()


def _uneven(name: str, shape: tuple[int, ...], examples: int, count: int) -> BadRequest:
    if name == "loss":
        return BadRequest(LOSS_SHAPE.worded(shape=shape, examples=examples, count=count).sentence)
    kind = f"of shape {shape}"
    return BadRequest(METRIC_SHAPE.worded(name=name, kind=kind, examples=examples, count=count).sentence)


def _terms_of(task: Task, batch: Batch) -> list[int]:
    """How many terms each example has."""
    if task.count is Task.count:  # the default: a term is an example
        return [1] * length(batch)
    return [task.count(one) for one in slices(batch, 1)]


def _summed(values: Tensor, terms: list[int]) -> Tensor:
    """(examples,) of (terms,)."""
    distinct = set(terms)
    if distinct == {1}:
        return values
    # One operation instead of one per example, with the same bits: a row is summed like a separate tensor.
    if len(distinct) == 1 and terms[0] < SHARED_SUM:
        return values.view(len(terms), -1).sum(1)
    return torch.stack([part.sum() for part in torch.split(values, terms)])


def _in_order(losses: Losses, data: Batch) -> bool:
    """Whether the terms of two examples passed together are those of the first, then those of the second.
    If time is the first axis they are not, and terms can only be assigned by passing each example alone.
    """
    if losses.task.count is Task.count:
        return True
    pair = next(slices(data, 2))
    together = _flat(losses.quantities(copied(pair))["loss"])
    apart = torch.cat([_flat(losses.quantities(copied(one))["loss"]) for one in slices(pair, 1)])
    return together.shape == apart.shape and torch.allclose(together, apart, rtol=1e-3, atol=1e-6)


def right_answers(seen: Mapping[str, ByExample]) -> NDArray[np.float64]:
    """(examples,) 1 if the metric `accuracy` is 1 for the example, else 0; BadRequest if it has other values."""
    accuracy = seen.get("accuracy")
    if accuracy is None or not accuracy.is_share:
        raise BadRequest(
            "worst-class accuracy and memorisation need a metric 'accuracy' that is 0 or 1 for each example, and this "
            "task has none: add one to its metrics, or remove the instrument, such as with ~instruments.worst_class"
        )
    return accuracy.sums
