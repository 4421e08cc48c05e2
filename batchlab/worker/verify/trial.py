"""The gradient of a batch, in one pass and in micro-batches, with the suspects that are to be taken out taken out."""

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor, nn

from batchlab.task import Batch, Task
from batchlab.training.data.batches import length, split
from batchlab.training.devices.precision import Precision
from batchlab.training.losses import Losses
from batchlab.training.passes.no_trace import passing
from batchlab.training.passes.observing import Call, copies, observed
from batchlab.training.step import backward
from batchlab.worker.verify.findings import Difference

# A layer before a normalisation may have a gradient of nothing but rounding: it is measured against this share of the
# whole gradient, or its own noise would be the worst difference there is.
SMALLEST_SHARE = 1e-6


@dataclass
class Trial:
    """One model in one number format, and the batches its gradients are taken on, at its weights as they are.

    Passes are in training mode and leave no trace; each begins with the random numbers of `seed`.
    """

    model: nn.Module
    task: Task
    precision: Precision
    batches: Sequence[Batch]
    micro_batch_sizes: tuple[int, ...]
    number_format: str
    seed: int
    # What is taken out: in eval mode in all passes; called micro-batch by micro-batch in the pass of the whole, too.
    frozen: list[nn.Module] = field(default_factory=list)
    in_pieces: dict[nn.Module, Callable[..., Any]] = field(default_factory=dict)
    task_in_pieces: Mapping[str, Any] = field(default_factory=dict)  # its `forward`, its `loss`

    def difference(self) -> Difference:
        """The relative difference between the two gradients of each batch."""
        return self._measured(self.gradients())

    def gradients(self) -> Iterator[tuple[dict[str, Tensor], dict[str, Tensor]]]:
        """Of each batch: accumulated over its micro-batches, and of the whole."""
        return ((self._accumulated(batch), self._of_whole(batch, self.seed)) for batch in self.batches)

    def redrawn(self) -> Difference:
        """The same for two passes of a whole batch that differ in their random numbers alone."""
        pairs = ((self._of_whole(batch, self.seed + 1), self._of_whole(batch, self.seed)) for batch in self.batches)
        return self._measured(pairs)

    def calls_of_whole(self, seed: int | None = None) -> list[Call]:
        """What passes through each module, and then through the task's forward and loss, in a pass of one batch."""
        with self._taken_apart():
            return self._calls(self._task_of_whole, [self.batches[0]], self.seed if seed is None else seed)[0]

    def calls_of_micro_batches(self) -> list[list[Call]]:
        """The same of its micro-batches, one after the other, as in training."""
        return self._calls(self.task, split(self.batches[0], self.micro_batch_sizes), self.seed)

    def counts(self, batch: Batch) -> tuple[int, ...]:
        """What the task counts in the whole of `batch`, and in each of its micro-batches."""
        return tuple(self.task.count(part) for part in (batch, *split(batch, self.micro_batch_sizes)))

    def count_examples(self) -> None:
        """Takes the task's own count out."""
        self.task = _changed(self.task, count=length)

    @property
    def _task_of_whole(self) -> Task:
        return _changed(self.task, **self.task_in_pieces)

    def _of_whole(self, batch: Batch, seed: int) -> dict[str, Tensor]:
        with self._taken_apart():
            return self._gradient(self._task_of_whole, [batch], seed)

    def _accumulated(self, batch: Batch) -> dict[str, Tensor]:
        return self._gradient(self.task, split(batch, self.micro_batch_sizes), self.seed)

    def _losses(self, task: Task) -> Losses:
        return Losses(self.model, task, self.precision)

    def _gradient(self, task: Task, micro_batches: Sequence[Batch], seed: int) -> dict[str, Tensor]:
        with self._passing(seed):
            backward(self._losses(task), micro_batches)
            return {name: p.grad for name, p in self.model.named_parameters() if p.grad is not None}

    def _calls(self, task: Task, micro_batches: Sequence[Batch], seed: int) -> list[list[Call]]:
        passes = []
        losses = self._losses(task)
        with self._passing(seed), torch.no_grad():
            for batch in micro_batches:
                given = copies(batch)
                with observed(self.model) as calls:
                    outputs = losses.outputs(batch)
                seen = copies((outputs, batch))
                calls.append(Call("forward", None, given, copies(outputs)))
                calls.append(Call("loss", None, seen, copies(losses.terms(outputs, batch))))
                passes.append(calls)
        return passes

    @contextlib.contextmanager
    def _passing(self, seed: int) -> Iterator[None]:
        with (
            passing(self.model, self.precision, training=True, seed=seed),
            _default_dtype(self.number_format),
        ):
            for module in self.frozen:
                module.training = False  # not .eval(): what is inside it is another suspect
            yield

    @contextlib.contextmanager
    def _taken_apart(self) -> Iterator[None]:
        for module, forward in self.in_pieces.items():
            module.__dict__["forward"] = forward  # hides the class's, and goes again
        try:
            yield
        finally:
            for module in self.in_pieces:
                del module.__dict__["forward"]

    def _measured(self, pairs: Iterator[tuple[dict[str, Tensor], dict[str, Tensor]]]) -> Difference:
        each: list[float] = []
        layers: dict[str, float] = {}
        for other, whole in pairs:
            norm, parted = _relative(other, whole)
            each.append(norm)
            for layer, value in parted.items():
                known = layers.get(layer, 0.0)
                layers[layer] = known if known > value or math.isnan(known) else value  # nan stays
        return Difference(self.number_format, tuple(each), layers)


@contextlib.contextmanager
def _default_dtype(number_format: str) -> Iterator[None]:
    """What a tensor that a forward pass makes for itself counts in."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64 if number_format == "float64" else torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _changed(task: Task, **changes: Any) -> Task:
    """A plain Task like it: `dataclasses.replace` would call what the user's own kind of Task is made with."""
    return Task(**{f.name: getattr(task, f.name) for f in fields(Task)} | changes)


def _relative(other: Mapping[str, Tensor], whole: Mapping[str, Tensor]) -> tuple[float, dict[str, float]]:
    """|other - whole| / |whole|, over all parameters and over those of each module."""
    apart: dict[str, float] = {}
    size: dict[str, float] = {}
    for name in dict.fromkeys((*whole, *other)):
        layer = name.rpartition(".")[0]
        one, two = whole.get(name), other.get(name)
        difference = two - one if one is not None and two is not None else one if two is None else two
        apart[layer] = apart.get(layer, 0.0) + _squared(difference)
        size[layer] = size.get(layer, 0.0) + _squared(one)
    total = math.sqrt(sum(size.values()))
    layers = {
        layer: _ratio(math.sqrt(squared), max(math.sqrt(size[layer]), SMALLEST_SHARE * total))
        for layer, squared in apart.items()
    }
    return _ratio(math.sqrt(sum(apart.values())), total), layers


def _squared(tensor: Tensor | None) -> float:
    """The sum of squares, in float64: a hundred million small numbers are added."""
    return 0.0 if tensor is None else float(torch.linalg.vector_norm(tensor, dtype=torch.float64)) ** 2


def _ratio(difference: float, norm: float) -> float:
    return difference / norm if norm else math.inf if difference else 0.0
