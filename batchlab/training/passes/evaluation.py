"""Evaluates the model on a set, example by example where it can, in eval mode; leaves no trace."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from batchlab.errors import BadRequest
from batchlab.printable import counted
from batchlab.task import Batch
from batchlab.training.data.batches import length, slices
from batchlab.training.data.collated import Collated
from batchlab.training.hooks import evaluated
from batchlab.training.losses import PAIR, Count, Losses
from batchlab.training.passes.contract import METRIC_SHAPE
from batchlab.training.passes.contract_of_loss import LOSS_SHAPE
from batchlab.training.passes.evaluation_batches import evaluation_batches, repeated
from batchlab.training.passes.halving import halved
from batchlab.training.passes.inputs import copied
from batchlab.training.passes.no_trace import leaving_no_trace
from batchlab.training.passes.whole_metrics import WholeMetrics
from batchlab.training.state import RunState

SHARED_SUM = 2**15  # from this size on PyTorch sums a whole tensor with several threads, but not a row of one


@dataclass(frozen=True)
class Sums:
    """The loss or a metric of a whole set: sums over terms of the parts of the set, and the count of each part."""

    sums: NDArray[np.float64]  # (parts,)
    counts: NDArray[Any]  # (parts,) terms, or their sums of weights

    @property
    def mean(self) -> float:
        """Over all terms; a smaller last batch has a smaller weight. BadRequest if there are none."""
        terms = self.counts.sum()
        if not terms:
            raise BadRequest(
                "no example of the set that is evaluated has a term: the task's count is 0 for all of them, so there "
                "is no loss; check count and the labels"
            )
        return float(self.sums.sum() / terms)


class ByExample(Sums):
    """Each part is an example."""

    @property
    def means(self) -> NDArray[np.float64]:
        """(examples with terms,) the mean over the terms of each example."""
        seen = self.counts > 0
        return np.asarray(self.sums[seen] / self.counts[seen], dtype=np.float64)

    @property
    def is_share(self) -> bool:
        """Whether it is one 0 or 1 for each example, as for right and wrong predictions."""
        return bool((self.counts == 1).all() and np.isin(self.sums, (0.0, 1.0)).all())


class ByBatch(Sums):
    """Parts are batches of the evaluation: the loss of single examples is not known."""


class Whole(Sums):
    """The only part is the whole set: a metric that is no mean."""


def validated(state: RunState, eval_batch_size: int) -> Mapping[str, Sums]:
    """`by_example` of the validation set, with the task's `whole_metrics` as `Whole`: one pass, shared by all
    instruments that need it at this step."""
    # In the loop the step would be enough; code that changes the weights between two steps changes their versions.
    now = (state.step, eval_batch_size, *(p._version for p in state.trained.parameters()))
    if state.validated is None or state.validated[0] != now:
        state.validated = (now, by_example(state, state.val, eval_batch_size, state.task.whole_metrics))
    seen: Mapping[str, Sums] = state.validated[1]
    return seen


def by_example(
    state: RunState, data: Any, eval_batch_size: int, whole_metrics: Mapping[str, Any] = MappingProxyType({})
) -> dict[str, Sums]:
    """The loss and each metric of the set `data`, by name: `ByExample`, or `ByBatch` for a loss that is a scalar, and
    for terms of a task with `collate` and its own `count`.

    `eval_batch_size` examples at once, or as many as fit, which changes nothing but rounding, unless the loss is of
    the batch as a whole (reduction `batch`).

    BadRequest if the task's loss or a metric does not give one value per term or per example. If one example alone does
    not fit in memory, that error is raised.
    """
    size = min(eval_batch_size, state.eval_at_most or eval_batch_size)
    seen, fits = halved(
        lambda size: repeated(lambda: _passed(state, data, size, whole_metrics)),
        size,
        of=length(data),
        device=state.device,
    )
    if fits < size:
        first, state.eval_at_most = state.eval_at_most is None, fits
        if first:
            state.note(
                f"eval_batch_size={eval_batch_size} does not fit in the memory that training leaves free: "
                f"evaluated at most {counted(fits, 'example')} at a time{_OF_BATCH * (state.task.reduction == 'batch')}"
            )
    return seen


_OF_BATCH = "; the loss is of the batch as a whole, so it is not comparable to that of other runs"


@torch.no_grad()
def _passed(state: RunState, data: Any, eval_batch_size: int, whole_metrics: Mapping[str, Any]) -> dict[str, Sums]:
    with state.precision.evaluation(state.eval_precision) as precision:
        losses = Losses(evaluated(state.task, state.model), state.task, precision)
        with leaving_no_trace(losses.trained, state.device):
            losses.trained.eval()
            size = eval_batch_size if eval_batch_size > 1 and _in_order(losses, data) else 1
            return _sums(state, losses, data, size, whole_metrics)


def _sums(state: RunState, losses: Losses, data: Any, size: int, whole_metrics: Mapping[str, Any]) -> dict[str, Sums]:
    sums: dict[str, list[Tensor]] = {}
    counts: dict[str, list[Count]] = {}
    kinds: dict[str, type[Sums]] = {"loss": ByBatch} if losses.is_scalar else {}
    whole = WholeMetrics(whole_metrics)
    for batch in evaluation_batches(state, data, size):
        outputs, found = losses.with_outputs(batch)
        whole.update(outputs, batch)
        if losses.is_scalar:
            loss, count = losses.summed(found.pop("loss"), batch)
            total = _flat(loss).sum().reshape(1)
            sums.setdefault("loss", []).append(total if count else torch.zeros_like(total))  # of no terms: nan
            counts.setdefault("loss", []).append(count)
        terms = _terms_of(losses, batch)
        for name, quantity in found.items():
            try:
                if terms is None:
                    own, values = _together(name, quantity, length(batch), losses.count(batch))
                    if name == "loss" or quantity.numel() != length(batch):
                        kinds[name] = ByBatch
                else:
                    own, values = _each(name, quantity, terms, own_count=not losses.counts_examples)
            except BadRequest:
                if size == 1 or losses.counts_examples or terms is None:
                    raise
                return _sums(state, losses, data, 1, whole_metrics)  # all terms belong to the one example
            sums.setdefault(name, []).append(values)
            counts.setdefault(name, []).extend(own)
    return {
        name: kinds.get(name, ByExample)(torch.cat(parts).cpu().numpy(), np.array(counts[name]))
        for name, parts in sums.items()
    } | {name: Whole(np.array([value]), np.array([1])) for name, value in whole.computed().items()}


def _flat(quantity: Tensor) -> Tensor:
    # float64, or the mean of a million terms would depend on how they were split
    return quantity.flatten().double()


def _each(name: str, quantity: Tensor, terms: Sequence[Count], *, own_count: bool) -> tuple[Sequence[Count], Tensor]:
    """The denominator of each example, and its sum: (examples,) of a quantity, whose examples have these `terms`.

    BadRequest if it has neither one value per term, nor, if the task has a count of its own, as many for each
    example (0 for an ignored term).
    """
    values, examples = _flat(quantity), len(terms)
    if not own_count and len(values) == examples:
        return terms, values
    if all(type(count) is int for count in terms) and len(values) == sum(terms):
        return terms, _summed(values, terms)  # type: ignore[arg-type]
    if name != "loss" and len(values) == examples:
        kept = [int(count > 0) for count in terms]  # the metric of an example without terms may be nan
        return kept, values if all(kept) else torch.where(torch.tensor(kept, device=values.device) > 0, values, 0.0)
    if len(values) % examples or not own_count:
        raise _uneven(name, tuple(quantity.shape), examples, sum(terms))
    return terms, values.view(examples, -1).sum(1)


def _together(name: str, quantity: Tensor, examples: int, count: Count) -> tuple[Sequence[Count], Tensor]:
    """Denominators and sums of a quantity of a batch of `count` terms, if it is unknown which are whose: of the whole
    batch, or of each example for a metric with one value for each. BadRequest as in `_each`."""
    values = _flat(quantity)
    if name != "loss" and len(values) == examples:
        return [1] * examples, values
    if len(values) != count and len(values) % examples:
        raise _uneven(name, tuple(quantity.shape), examples, count)
    return [count], values.sum().reshape(1)


def _uneven(name: str, shape: tuple[int, ...], examples: int, count: Count) -> BadRequest:
    if name == "loss":
        return BadRequest(LOSS_SHAPE.worded(shape=shape, examples=examples, count=count).sentence)
    kind = f"of shape {shape}"
    return BadRequest(METRIC_SHAPE.worded(name=name, kind=kind, examples=examples, count=count).sentence)


def _terms_of(losses: Losses, batch: Batch) -> list[Count] | None:
    """How many terms each example has; one each if only the loss knows. None if it is unknown: an example that is
    collated alone may have others than in its batch."""
    if losses.counts_examples or losses.task.reduction == PAIR:
        return [1] * length(batch)
    if isinstance(batch, Collated):
        return None
    return [losses.count(one) for one in slices(batch, 1)]


def _summed(values: Tensor, terms: Sequence[int]) -> Tensor:
    """(examples,) of (terms,)."""
    distinct = set(terms)
    if distinct == {1}:
        return values
    # One operation instead of one per example, with the same bits: a row is summed like a separate tensor.
    if len(distinct) == 1 and terms[0] < SHARED_SUM:
        return values.view(len(terms), -1).sum(1)
    return torch.stack([part.sum() for part in torch.split(values, list(terms))])


def _in_order(losses: Losses, data: Batch) -> bool:
    """Whether the terms of two examples passed together are those of the first, then those of the second.
    If time is the first axis they are not, and terms can only be assigned by passing each example alone.
    """
    if losses.counts_examples or losses.is_scalar:
        return True
    pair = next(slices(data, 2))
    if isinstance(pair, Collated):
        return True
    together = _flat(losses.quantities(copied(pair))["loss"])
    apart = torch.cat([_flat(losses.quantities(copied(one))["loss"]) for one in slices(pair, 1)])
    return together.shape == apart.shape and torch.allclose(together, apart, rtol=1e-3, atol=1e-6, equal_nan=True)


def right_answers(seen: Mapping[str, Sums]) -> NDArray[np.float64]:
    """(examples,) 1 if the metric `accuracy` is 1 for the example, else 0; BadRequest if it has other values."""
    accuracy = seen.get("accuracy")
    if not isinstance(accuracy, ByExample) or not accuracy.is_share:
        raise BadRequest(
            "worst-class accuracy and memorisation need a metric 'accuracy' that is 0 or 1 for each example, and this "
            "task has none: add one to its metrics, or remove the instrument, such as with ~instruments.worst_class"
        )
    return accuracy.sums
