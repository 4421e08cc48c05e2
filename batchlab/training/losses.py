"""The forward pass and the loss of a task, as training, instruments and checks all use them."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call

from batchlab.task import Batch, Task
from batchlab.training.devices.precision import Precision


def loss_module(task: Task) -> nn.Module | None:
    """The task's loss, if it is a module with parameters or buffers of its own."""
    loss = task.loss
    if isinstance(loss, nn.Module) and any(True for _ in (*loss.parameters(), *loss.buffers())):
        return loss
    return None


class Losses:
    """Batch -> terms: the task's loss of the model's outputs, shape (terms,), in `precision`.

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
        return self.model if loss is None else nn.ModuleDict({"model": self.model, "loss": loss})

    def __call__(self, batch: Batch) -> Tensor:
        """The terms of a batch, in one call; the training step calls it for each micro-batch."""
        with self.precision.forward():
            return self.task.loss(self.task.forward(self.model, batch), batch)

    def outputs(self, batch: Batch) -> Any:
        """The forward pass alone."""
        with self.precision.forward():
            return self.task.forward(self.model, batch)

    def terms(self, outputs: Any, batch: Batch) -> Tensor:
        """The loss alone, of given outputs."""
        with self.precision.forward():
            return self.task.loss(outputs, batch)

    def quantities(self, batch: Batch) -> dict[str, Tensor]:
        """The terms as `loss`, and each metric of the task by its name, from one forward pass."""
        with self.precision.forward():
            outputs = self.outputs(batch)
            return {"loss": self.terms(outputs, batch), **self.task.metrics(outputs, batch)}

    def at(self, weights: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """The terms as a function of weights, for `torch.func` and for derivatives of any order.

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
