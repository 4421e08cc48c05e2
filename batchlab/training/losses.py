"""The forward pass and the loss of a task, as training, instruments and checks all use them."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call

from batchlab.errors import BadRequest
from batchlab.printable import printable
from batchlab.task import Batch, Task, changed
from batchlab.training.data.batches import length
from batchlab.training.data.collated import content
from batchlab.training.devices.precision import Precision

AVERAGED = ("mean", "batch")  # reductions of a loss that is to be weighted by its count
PAIR = "weights"  # the reduction, found by calling it, of a loss that returns (losses, weights)

Count = int | float


def loss_module(task: Task) -> nn.Module | None:
    """The task's loss, if it is a module with parameters or buffers of its own."""
    loss = task.loss
    if isinstance(loss, nn.Module) and any(True for _ in (*loss.parameters(), *loss.buffers())):
        return loss
    return None


@dataclass(frozen=True)
class InTrainingMode:
    """A `training_loss` that puts the model into training mode, as the run has it, and back."""

    function: Callable[[nn.Module, Batch], Any]
    in_eval_mode: frozenset[str]  # the modules that are in eval mode during training

    def __call__(self, model: nn.Module, batch: Batch) -> Any:
        if model.training:
            return self.function(model, batch)
        modes = [(module, module.training) for module in model.modules()]
        for name, module in model.named_modules():
            module.training = name not in self.in_eval_mode
        try:
            return self.function(model, batch)
        finally:
            for module, training in modes:
                module.training = training


def in_training_mode(task: Task, in_eval_mode: frozenset[str]) -> Task:
    """The task with its `training_loss` always in training mode, but for the modules of these names."""
    function = task.training_loss
    return task if function is None else changed(task, training_loss=InTrainingMode(function, in_eval_mode))


def needs_training_mode(task: Task) -> bool:
    """Whether its loss is measured in training mode, because it has no value in eval mode."""
    return isinstance(task.training_loss, InTrainingMode)


class WithLoss(nn.ModuleDict):
    """A model and its loss as one module, in the model's mode."""

    def __init__(self, model: nn.Module, loss: nn.Module) -> None:
        super().__init__({"model": model, "loss": loss})
        self.training = model.training


class Losses:
    """Batch -> losses that add up to the summed loss of the batch, in `precision`: one per term, shape (terms,), or 0-d
    if the task's loss is a scalar.

    Nothing here changes modes, gradients or random streams: the caller sets and restores them.
    """

    __slots__ = ("model", "precision", "task")

    def __init__(self, model: nn.Module, task: Task, precision: Precision) -> None:
        self.model = model
        self.task = task
        self.precision = precision

    @property
    def trained(self) -> nn.Module:
        """All that is trained, saved, and put back after measuring: the model, and the loss if that has tensors.

        Without such a loss it is the model itself, so parameters keep their names.
        """
        loss = loss_module(self.task)
        if loss is None:
            return self.model
        return WithLoss(self.model, loss)

    def __call__(self, batch: Batch) -> Tensor:
        return self.with_count(batch)[0] if self.is_scalar else self.returned(batch)

    @property
    def is_scalar(self) -> bool:
        """Whether the losses of single terms are unknown."""
        return self.task.reduction not in (None, "none")

    @property
    def is_joined(self) -> bool:
        """Whether forward and loss are one, the task's `training_loss`."""
        return self.task.training_loss is not None

    @property
    def counts_examples(self) -> bool:
        """Whether a term is an example, because the task has no `count` of its own."""
        return self.task.count is Task.count

    def count(self, batch: Batch) -> Count:
        """The denominator of the batch's loss; a tensor on a GPU is waited for. A loss that returns (losses, weights)
        is called for it, so training takes it from `with_count`."""
        if self.task.reduction == PAIR:
            return as_count(self.returned(batch)[1].detach().sum())
        if self.counts_examples:
            return length(batch)
        return as_count(self.task.count(content(batch)))

    def returned(self, batch: Batch) -> Any:
        """What the task's loss returns, in one call; the training step calls it for each micro-batch."""
        with self.precision.forward():
            task, given = self.task, content(batch)
            if task.loss is None:
                return task.training_loss(self.model, given)  # type: ignore[misc]  # a Task has one of the two
            return task.loss(task.forward(self.model, given), given)

    def with_count(self, batch: Batch) -> tuple[Tensor, Count]:
        """Losses that add up to the summed loss of the batch, and its count."""
        return self.summed(self.returned(batch), batch)

    def summed(self, returned: Any, batch: Batch) -> tuple[Tensor, Count]:
        """The same, from what the task's loss returned for the batch."""
        if self.task.reduction == PAIR:
            return returned[0], as_count(returned[1].detach().sum())
        count = self.count(batch)
        return (returned * count if self.task.reduction in AVERAGED else returned), count

    def outputs(self, batch: Batch) -> Any:
        """The forward pass alone; None if the task has a `training_loss` and no `forward` of its own."""
        if self.task.loss is None and self.task.forward is Task.forward:
            return None
        with self.precision.forward():
            return self.task.forward(self.model, content(batch))

    def terms(self, outputs: Any, batch: Batch) -> Any:
        """What the task's loss returns for given outputs, which a `training_loss` does not take."""
        if self.task.loss is None:
            return self.returned(batch)
        with self.precision.forward():
            return self.task.loss(outputs, content(batch))

    def quantities(self, batch: Batch) -> dict[str, Any]:
        """What the loss returns as `loss`, and each metric of the task by its name, from one forward pass."""
        return self.with_outputs(batch)[1]

    def with_outputs(self, batch: Batch) -> tuple[Any, dict[str, Any]]:
        """The outputs of one forward pass, and the `quantities` of the batch."""
        with self.precision.forward():
            outputs = self.outputs(batch)
            return outputs, {"loss": self.terms(outputs, batch), **self.metrics(outputs, batch)}

    def metrics(self, outputs: Any, batch: Batch) -> dict[str, Tensor]:
        """The metrics of the task, for given outputs."""
        return self.task.metrics(outputs, content(batch))

    def at(self, weights: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """The losses as a function of weights, for `torch.func` and for derivatives of any order.

        `weights` replace the parameters and buffers of these names in `trained`; its own are used for the others.
        The model is not changed.
        """
        inside = {f"trained.{name}": tensor for name, tensor in weights.items()}
        terms: Tensor = functional_call(_Module(self), inside, (batch,))
        return terms


class _Module(nn.Module):
    """`functional_call` needs a module; this one covers whatever the task does with the model."""

    def __init__(self, losses: Losses) -> None:
        super().__init__()
        self.trained = losses.trained
        self.losses = losses

    def forward(self, batch: Batch) -> Tensor:
        return self.losses(batch)


def as_count(value: Any) -> Count:
    """What a task's `count` returned, as a number; BadRequest if it is none, or below 0."""
    if type(value) is int and value >= 0:
        return value
    number = value.item() if hasattr(value, "item") and getattr(value, "ndim", 0) == 0 else value
    if not isinstance(number, int | float) or not math.isfinite(number) or number < 0:
        shown = f"shape {tuple(value.shape)}" if getattr(value, "ndim", 0) else printable(repr(number))[:40]
        raise BadRequest(
            f"the task's count returned a {type(value).__name__} ({shown}): return the number of terms in the batch, "
            "or their sum of weights, as a number or a 0-d tensor of at least 0"
        )
    return number
