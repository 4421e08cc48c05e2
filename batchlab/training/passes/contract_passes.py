"""Passes of a few examples that show whether a task and its model fulfil the contract; they leave no trace."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from batchlab.task import Batch
from batchlab.training.data.batches import length, slices, tensors
from batchlab.training.losses import Losses
from batchlab.training.passes.inputs import copied
from batchlab.training.passes.no_trace import passing
from batchlab.training.passes.observing import close
from batchlab.training.user_errors import message_and_place


@dataclass(frozen=True)
class TrainingPass:
    """The results of a forward and backward pass of `batch`, up to the first error."""

    losses: Losses
    batch: Batch
    outputs: Any = None
    terms: Any = None  # what the task's loss returned, of any type
    count: int = 0  # of the terms, according to the task
    # Of each trainable parameter; empty if the loss is not one value per term.
    gradients: Mapping[str, Tensor | None] = field(default_factory=dict)
    failed: str = ""  # where the user's code raised: `forward`, `loss` or `gradient`
    error: BaseException | None = None

    @property
    def examples(self) -> int:
        return length(self.batch)

    @property
    def shape(self) -> tuple[int, ...] | None:
        """Of the terms; None if they are not a tensor."""
        return _shape(self.terms)

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
        with passing(losses.model, losses.precision, training=True, seed=seed, attributes=attributes):
            stage = "forward"
            found["outputs"] = losses.outputs(given)
            stage = "loss"
            found["terms"] = losses.terms(found["outputs"], given)
            found["count"] = losses.task.count(given)
            stage = "gradient"
            found["gradients"] = _gradients(losses, found["terms"], found["count"])
            stage = ""
    except (Exception, SystemExit) as error:
        if not stage:
            raise  # not from the passes
        return TrainingPass(losses, batch, **found, failed=stage, error=error)
    return TrainingPass(losses, batch, **found)


def _gradients(losses: Losses, terms: Any, count: int) -> dict[str, Tensor | None]:
    if _shape(terms) != (count,) or not terms.requires_grad:
        return {}
    losses.precision.backward(terms, 1 / count)
    return {name: p.grad for name, p in losses.model.named_parameters() if p.requires_grad}


def _shape(values: Any) -> tuple[int, ...] | None:
    return tuple(values.shape) if isinstance(values, Tensor) else None


@dataclass(frozen=True)
class ValidationPass:
    """The results of a forward pass of validation examples."""

    examples: int
    count: int  # of the terms of its loss
    metrics: Mapping[str, Any]
    higher_is_better: Mapping[str, bool]

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...] | None]:
        """Of each metric; None if it is not a tensor."""
        return {name: _shape(values) for name, values in self.metrics.items()}


def validation_pass(losses: Losses, batch: Batch, eval_precision: str = "fp32") -> ValidationPass:
    """One forward pass of `batch` with the loss and the metrics, as in a validation."""
    task = losses.task
    with (
        passing(losses.model, losses.precision, training=False, seed=0),
        torch.no_grad(),
        losses.precision.evaluation(eval_precision) as precision,
    ):
        found = Losses(losses.model, task, precision).quantities(copied(batch))
    return ValidationPass(length(batch), found.pop("loss").numel(), found, task.higher_is_better)


def batch_norm_that_needs_two(losses: Losses, batch: Batch) -> str | None:
    """The first BatchNorm layer of the model if a training pass of one example fails, else None."""
    kind = nn.modules.batchnorm._BatchNorm
    layer: str | None = next((name for name, m in losses.model.named_modules() if isinstance(m, kind)), None)
    if layer is None:
        return None
    try:
        with passing(losses.model, losses.precision, training=True, seed=0):
            losses.outputs(copied(next(slices(batch, 1))))
    except ValueError:  # "Expected more than 1 value per channel when training"
        return layer
    return None


@dataclass(frozen=True)
class Parts:
    """The losses of a batch, and of its parts, for the same outputs."""

    of_whole: Tensor
    of_parts: Sequence[Tensor]
    tolerance: float  # relative to the largest loss

    @property
    def whole(self) -> int:
        return self.of_whole.numel()

    @property
    def together(self) -> int:
        return sum(part.numel() for part in self.of_parts)

    @property
    def divided(self) -> bool:
        """Whether the terms are divided by their number, or are all equal to their mean."""
        if self.of_whole.dim() != 1 or self.whole != self.together:
            return False
        rescaled = [part.flatten() * (part.numel() / self.whole) for part in self.of_parts]
        mean = torch.cat([part.flatten() for part in self.of_parts]).mean()
        divided, repeated = torch.cat(rescaled), mean.expand(self.whole)
        return any(close(self.of_whole, averaged, self.tolerance) for averaged in (divided, repeated))
