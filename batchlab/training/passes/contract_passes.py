"""Passes of a few examples that show whether a task and its model fulfil the contract; they leave no trace."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from batchlab.task import Batch
from batchlab.training.data.batches import length, slices
from batchlab.training.data.collated import content
from batchlab.training.data.trees import tensors
from batchlab.training.gradients import real_values
from batchlab.training.losses import PAIR, Count, Losses
from batchlab.training.passes.inputs import copied
from batchlab.training.passes.no_trace import passing
from batchlab.training.passes.observing import close
from batchlab.training.passes.whole_metrics import WholeMetrics
from batchlab.training.user_errors import message_and_place


@dataclass(frozen=True)
class TrainingPass:
    """The results of a forward and backward pass of `batch`, up to the first error."""

    losses: Losses
    batch: Batch
    outputs: Any = None
    terms: Any = None  # what the task's loss returned, of any type; of a pair (losses, weights) the losses
    count: Count = 0  # of the terms, according to the task
    # Of each trainable parameter; empty if the loss does not have the shape of its reduction.
    gradients: Mapping[str, Tensor | None] = field(default_factory=dict)
    failed: str = ""  # where the user's code raised: `forward`, `loss` or `gradient`
    error: BaseException | None = None

    @property
    def examples(self) -> int:
        return length(self.batch)

    @property
    def gradient_values(self) -> Mapping[str, Tensor | None]:
        """Of each gradient, the values that may differ from 0."""
        return {name: None if g is None else real_values(g) for name, g in self.gradients.items()}

    @property
    def shape(self) -> tuple[int, ...] | None:
        """Of the terms; None if they are not a tensor."""
        return _shape(self.terms)

    @property
    def reduction(self) -> str:
        """Of the task's loss."""
        return self.losses.task.reduction or "none"

    @property
    def fits(self) -> bool:
        """Whether the loss has the shape of its reduction: a vector of terms, of any shape if the task counts them."""
        return fits(self.losses, self.terms, self.count)

    @property
    def labels(self) -> Tensor | None:
        """`batch[1]`, if the loss has as many values as it has entries."""
        given = content(self.batch)
        labels = given[1] if isinstance(given, tuple | list) and len(given) > 1 else None
        same = isinstance(labels, Tensor) and isinstance(self.terms, Tensor) and labels.numel() == self.terms.numel()
        return labels if same else None

    @property
    def has_many_labels(self) -> bool:
        """Whether the loss has one value for each of the labels of an example, which are 0 or 1.

        Labels of tokens, which the outputs have an axis of classes for, are not meant.
        """
        labels = self.labels
        if labels is None or labels.dim() != 2 or _shape(self.outputs) != _shape(labels):
            return False
        return bool(((labels == 0) | (labels == 1)).all())

    @property
    def has_masks(self) -> bool:
        """Whether the loss has one value for each place of a mask of classes."""
        labels = self.labels
        return labels is not None and labels.dim() > 2 and not labels.is_floating_point()

    @property
    def works(self) -> bool:
        """Whether the pass succeeded, with a loss of the shape of its reduction."""
        return self.error is None and self.fits

    @property
    def is_a_square(self) -> bool:
        """Whether there is a loss for each pair of terms."""
        return self.count > 0 and self.shape == (self.count, self.count)

    def with_one_less(self) -> "TrainingPass":
        """A pass of all examples but the last."""
        return training_pass(self.losses, next(slices(self.batch, max(1, self.examples - 1))))

    @property
    def tensors(self) -> Sequence[Tensor]:
        """Of the batch."""
        return tensors(self.batch)

    @property
    def words(self) -> str:
        """The error's message and location; empty if there was none."""
        return "" if self.error is None else message_and_place(self.error)

    def completed(self) -> "TrainingPass":
        """Returns this pass, or raises the error of the user's code if there was one."""
        if self.error is not None:
            raise self.error
        return self


def training_pass(losses: Losses, batch: Batch, seed: int = 0, *, attributes: bool = True) -> TrainingPass:
    """One forward and backward pass of `batch`, in training mode, with the random numbers of `seed`.

    Without `attributes`, Python attributes of modules keep the changes of the pass.
    """
    found: dict[str, Any] = {}
    given = copied(batch)  # it may be changed in place, and is passed again
    stage = ""
    try:
        with passing(losses.trained, losses.precision, training=True, seed=seed, attributes=attributes):
            stage = "forward"
            found["outputs"] = losses.outputs(given)
            stage = "loss"
            found["terms"] = returned = losses.terms(found["outputs"], given)
            if losses.task.reduction == PAIR:
                found["terms"], found["count"] = losses.summed(returned, given)
            else:
                found["count"] = losses.count(given)
            stage = "gradient"
            found["gradients"] = _gradients(losses, found["terms"], found["count"])
            stage = ""
    except (Exception, SystemExit) as error:
        if not stage:
            raise  # not from the passes
        return TrainingPass(losses, batch, **found, failed=stage, error=error)
    return TrainingPass(losses, batch, **found)


def fits(losses: Losses, terms: Any, count: Count) -> bool:
    """Whether what the task's loss returned has the shape of its reduction."""
    shape, reduction = _shape(terms), losses.task.reduction
    if shape is None or reduction == PAIR:
        return shape is not None
    if losses.is_scalar:
        return shape == ()
    return shape == (count,) if losses.counts_examples else shape != ()


def _gradients(losses: Losses, terms: Any, count: Count) -> dict[str, Tensor | None]:
    if not fits(losses, terms, count) or not count or not terms.requires_grad:
        return {}
    divisor = 1 if losses.is_scalar and losses.task.reduction != PAIR else count
    losses.precision.backward(terms, 1 / divisor)
    return {name: p.grad for name, p in losses.trained.named_parameters() if p.requires_grad}


def _shape(values: Any) -> tuple[int, ...] | None:
    return tuple(values.shape) if isinstance(values, Tensor) else None


@dataclass(frozen=True)
class ValidationPass:
    """The results of a forward pass of validation examples."""

    examples: int
    count: Count  # of the terms of its loss, according to the task
    own_count: bool  # whether the task counts terms itself
    metrics: Mapping[str, Any]
    whole_metrics: Sequence[str]  # the names of those of the whole set
    higher_is_better: Mapping[str, bool]

    @property
    def names(self) -> Sequence[str]:
        """Of all metrics."""
        return [*self.metrics, *self.whole_metrics]

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...] | None]:
        """Of each metric; None if it is not a tensor."""
        return {name: _shape(values) for name, values in self.metrics.items()}


def validation_pass(losses: Losses, batch: Batch, eval_precision: str = "fp32") -> ValidationPass:
    """One forward pass of `batch` with the loss and the metrics, as in a validation.

    BadRequest if one of the task's `whole_metrics` does not take the outputs, or gives no number.
    """
    task = losses.task
    with (
        passing(losses.trained, losses.precision, training=False, seed=0),
        torch.no_grad(),
        losses.precision.evaluation(eval_precision) as precision,
    ):
        evaluating = Losses(losses.model, task, precision)
        given = copied(batch)
        outputs, found = evaluating.with_outputs(given)
        whole = WholeMetrics(task.whole_metrics)
        whole.update(outputs, given)
        whole.computed(strict=False)
        loss = found.pop("loss")
        terms = loss.numel() if evaluating.counts_examples and not evaluating.is_scalar else evaluating.count(batch)
    own_count, whole_names = not evaluating.counts_examples, list(task.whole_metrics)
    return ValidationPass(length(batch), terms, own_count, found, whole_names, task.higher_is_better)


def batch_norm_that_needs_two(losses: Losses, batch: Batch) -> str | None:
    """The first BatchNorm layer of the model if a training pass of one example fails, else None."""
    kind = nn.modules.batchnorm._BatchNorm
    layer: str | None = next((name for name, m in losses.model.named_modules() if isinstance(m, kind)), None)
    if layer is None:
        return None
    try:
        with passing(losses.trained, losses.precision, training=True, seed=0):
            losses.returned(copied(next(slices(batch, 1))))
    except ValueError:  # "Expected more than 1 value per channel when training"
        return layer
    return None


@dataclass(frozen=True)
class Parts:
    """The losses of a batch, and of its parts, for the same outputs."""

    of_whole: Tensor
    of_parts: Sequence[Tensor]
    tolerance: float  # relative to the largest loss
    counts: tuple[Count, Sequence[Count]] | None = None  # of the whole and of the parts, if the task has its own count

    @property
    def whole(self) -> Count:
        return self.of_whole.numel() if self.counts is None else self.counts[0]

    @property
    def together(self) -> Count:
        return sum(part.numel() for part in self.of_parts) if self.counts is None else sum(self.counts[1])

    @property
    def counts_add_up(self) -> bool:
        return math.isclose(self.whole, self.together, rel_tol=1e-5)  # weights may be float32

    @property
    def divided(self) -> bool:
        """Whether the terms are divided by their number, or are all equal to their mean."""
        terms = self.of_whole.numel()
        if self.of_whole.dim() != 1 or terms != sum(part.numel() for part in self.of_parts):
            return False
        rescaled = [part.flatten() * (part.numel() / terms) for part in self.of_parts]
        mean = torch.cat([part.flatten() for part in self.of_parts]).mean()
        divided, repeated = torch.cat(rescaled), mean.expand(terms)
        return any(close(self.of_whole, averaged, self.tolerance) for averaged in (divided, repeated))


IGNORE_INDICES = (-100, 255, -1)  # of PyTorch, of segmentation data sets, and of much else


@dataclass(frozen=True)
class Ignored:
    """The terms of a batch that the loss ignores but the task counts; 0 if there are none."""

    ignored: int = 0
    label: int = 0
    name: str = ""  # of the labels: `batch[1]`
    count: Count = 0


def ignored_but_counted(losses: Losses, batch: Batch, terms: Any) -> Ignored:
    """Finds the labels whose terms all have a loss of exactly 0 and are counted; `terms` are the batch's losses."""
    count = losses.count(batch)
    if losses.is_scalar or not isinstance(terms, Tensor) or terms.numel() != count:
        return Ignored()
    given = content(batch)
    if not isinstance(given, Mapping | tuple | list):
        return Ignored()
    values = terms.detach().flatten() == 0
    for key, labels in given.items() if isinstance(given, Mapping) else enumerate(given):
        if not isinstance(labels, Tensor) or labels.is_floating_point() or labels.numel() != count:
            continue
        for label in IGNORE_INDICES:
            there = labels.flatten().long() == label  # uint8 would compare with 156
            if bool(there.any()) and bool(values[there].all()) and not bool(values[~there].all()):
                return Ignored(int(there.sum()), label, f"batch[{key!r}]", count)
    return Ignored()
