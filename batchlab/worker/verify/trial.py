"""Computes the gradient of a batch, in one pass and in micro-batches, with some suspects removed."""

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from batchlab.task import Batch, Task, changed
from batchlab.training.data.batches import split
from batchlab.training.data.collated import content
from batchlab.training.devices.precision import Precision
from batchlab.training.gradients import norm
from batchlab.training.losses import Count, Losses
from batchlab.training.passes.inputs import copied
from batchlab.training.passes.no_trace import passing
from batchlab.training.passes.observing import Call, copies, observed
from batchlab.training.step import backward
from batchlab.worker.verify.findings import Difference

# A layer before a normalisation may have a gradient that is only rounding. It is compared with this share of the whole
# gradient; otherwise its noise would be the worst difference.
SMALLEST_SHARE = 1e-6


@dataclass
class Trial:
    """One model in one precision, and the batches for its gradients, at its current weights.

    Passes are in training mode, restore the model's state, and start with the random numbers of `seed`.
    """

    model: nn.Module
    task: Task
    precision: Precision
    batches: Sequence[Batch]
    micro_batch_sizes: tuple[int, ...]
    dtype: str  # float64, or a precision
    seed: int
    # What is removed: in eval mode in all passes; or called with micro-batches in the pass of the whole batch too.
    frozen: list[nn.Module] = field(default_factory=list)
    split_modules: dict[nn.Module, Callable[..., Any]] = field(default_factory=dict)
    split_task: Mapping[str, Any] = field(default_factory=dict)  # its `forward`, its `loss` or `training_loss`

    def difference(self) -> Difference:
        """The relative difference between the two gradients of each batch."""
        return self._measured(self.gradients())

    def gradients(self) -> Iterator[tuple[dict[str, Tensor], dict[str, Tensor]]]:
        """For each batch: the gradient accumulated over its micro-batches, and that of the whole batch."""
        return ((self._accumulated(batch), self._of_whole(batch, self.seed)) for batch in self.batches)

    def redrawn(self) -> Difference:
        """The relative difference between two passes of a whole batch that differ only in their random numbers."""
        pairs = ((self._of_whole(batch, self.seed + 1), self._of_whole(batch, self.seed)) for batch in self.batches)
        return self._measured(pairs)

    def calls_of_whole(self, seed: int | None = None) -> list[Call]:
        """The inputs and outputs of each module, then of the task's forward and loss, in a pass of one batch."""
        with self._with_split_modules():
            return self._calls(self._task_of_whole, [self.batches[0]], self.seed if seed is None else seed)[0]

    def calls_of_micro_batches(self) -> list[list[Call]]:
        """The same for its micro-batches, sequentially, as in training."""
        return self._calls(self.task, split(self.batches[0], self.micro_batch_sizes), self.seed)

    def counts(self, batch: Batch) -> tuple[Count, ...]:
        """The task's count of the whole `batch`, and of each of its micro-batches."""
        return tuple(map(self._losses(self.task).count, (batch, *split(batch, self.micro_batch_sizes))))

    @property
    def is_scalar(self) -> bool:
        """Whether the loss is one value for a whole batch."""
        return self._losses(self.task).is_scalar

    def count_examples(self) -> None:
        """Replaces the task's count by the number of examples."""
        self.task = changed(self.task, count=Task.count)

    @property
    def _task_of_whole(self) -> Task:
        return changed(self.task, **self.split_task)

    def _of_whole(self, batch: Batch, seed: int) -> dict[str, Tensor]:
        with self._with_split_modules():
            return self._gradient(self._task_of_whole, [batch], seed)

    def _accumulated(self, batch: Batch) -> dict[str, Tensor]:
        return self._gradient(self.task, split(batch, self.micro_batch_sizes), self.seed)

    def _losses(self, task: Task) -> Losses:
        return Losses(self.model, task, self.precision)

    def _gradient(self, task: Task, micro_batches: Sequence[Batch], seed: int) -> dict[str, Tensor]:
        with self._passing(seed):
            backward(self._losses(task), [copied(batch) for batch in micro_batches])
            return {name: p.grad for name, p in self.model.named_parameters() if p.grad is not None}

    def _calls(self, task: Task, micro_batches: Sequence[Batch], seed: int) -> list[list[Call]]:
        passes = []
        losses = self._losses(task)
        with self._passing(seed), torch.no_grad():
            for batch in map(copied, micro_batches):
                given = copies(content(batch))
                with observed(self.model) as calls:
                    outputs = losses.returned(batch) if losses.is_joined else losses.outputs(batch)
                if losses.is_joined:
                    calls.append(Call("training_loss", None, given, copies(outputs)))
                else:
                    seen = copies((outputs, content(batch)))
                    calls.append(Call("forward", None, given, copies(outputs)))
                    calls.append(Call("loss", None, seen, copies(losses.terms(outputs, batch))))
                passes.append(calls)
        return passes

    @contextlib.contextmanager
    def _passing(self, seed: int) -> Iterator[None]:
        with (
            passing(self.model, self.precision, training=True, seed=seed),
            _default_dtype(self.dtype),
        ):
            for module in self.frozen:
                module.training = False  # not .eval(): its submodules are other suspects
            yield

    @contextlib.contextmanager
    def _with_split_modules(self) -> Iterator[None]:
        for module, forward in self.split_modules.items():
            module.__dict__["forward"] = forward  # hides that of the class until the end
        try:
            yield
        finally:
            for module in self.split_modules:
                del module.__dict__["forward"]

    def _measured(self, pairs: Iterator[tuple[dict[str, Tensor], dict[str, Tensor]]]) -> Difference:
        each: list[float] = []
        layers: dict[str, float] = {}
        for other, whole in pairs:
            norm, by_layer = _relative(other, whole)
            each.append(norm)
            for layer, value in by_layer.items():
                known = layers.get(layer, 0.0)
                layers[layer] = known if known > value or math.isnan(known) else value  # nan is kept
        return Difference(self.dtype, tuple(each), layers)


@contextlib.contextmanager
def _default_dtype(dtype: str) -> Iterator[None]:
    """Sets the dtype of tensors that a forward pass creates."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64 if dtype == "float64" else torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _relative(other: Mapping[str, Tensor], whole: Mapping[str, Tensor]) -> tuple[float, dict[str, float]]:
    """|other - whole| / |whole|, over all parameters and over those of each module."""
    squares: dict[str, float] = {}
    size: dict[str, float] = {}
    for name in dict.fromkeys((*whole, *other)):
        layer = name.rpartition(".")[0]
        one, two = whole.get(name), other.get(name)
        difference = two - one if one is not None and two is not None else one if two is None else two
        squares[layer] = squares.get(layer, 0.0) + _squared(difference)
        size[layer] = size.get(layer, 0.0) + _squared(one)
    total = math.sqrt(sum(size.values()))
    layers = {
        layer: _ratio(math.sqrt(squared), max(math.sqrt(size[layer]), SMALLEST_SHARE * total))
        for layer, squared in squares.items()
    }
    return _ratio(math.sqrt(sum(squares.values())), total), layers


def _squared(tensor: Tensor | None) -> float:
    """The sum of squares, in float64, since a hundred million small numbers may be added."""
    return 0.0 if tensor is None else float(norm([tensor])) ** 2


def _ratio(difference: float, norm: float) -> float:
    return difference / norm if norm else math.inf if difference else 0.0
