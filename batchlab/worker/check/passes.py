"""Runs a few examples through a user's model, to examine its outputs, randomness and state."""

import contextlib
import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from batchlab.task import Batch
from batchlab.training.data.batches import slices
from batchlab.training.losses import Count, Losses
from batchlab.training.passes.contract_passes import TrainingPass, training_pass
from batchlab.training.passes.no_trace import passing
from batchlab.training.passes.observing import Call, close, copies, observed

OF_A_MODULE = frozenset(vars(nn.Module()))  # the attributes that PyTorch has in every module
MOST_ENTRIES = 50  # of a list that are compared


@dataclass(frozen=True)
class Passes:
    """A model with its initial weights, and the examples to run through it; its state is restored after each pass."""

    losses: Losses
    batch: Batch
    seen: TrainingPass  # of the batch; most trials use it
    larger: Batch  # more examples, whose number is no power of two
    declared: str | None = None  # the task's own `reduction`

    @property
    def model(self) -> nn.Module:
        return self.losses.model

    def outputs(self, batch: Batch) -> Any:
        """The outputs of the task's forward in eval mode."""
        with self._evaluating():
            return self.losses.outputs(batch)

    def summed(self, outputs: Any, batch: Batch) -> tuple[Tensor, Count]:
        """The losses for given outputs, which add up to the summed loss, and the count, in eval mode."""
        with self._evaluating():
            return self.losses.summed(self.losses.terms(outputs, batch), batch)

    def results(self, *, training: bool, seed: int) -> list[Tensor]:
        """The outputs, losses and (in training mode) gradients of one pass, on the CPU."""
        if training:
            seen = training_pass(self.losses, self.batch, seed).completed()
            return copies((seen.outputs, seen.terms, list(seen.gradients.values())))
        with self._evaluating(seed):
            outputs = self.losses.outputs(self.batch)
            return copies((outputs, self.losses.terms(outputs, self.batch)))

    @property
    def rounding(self) -> float:
        """The difference allowed between equal passes, relative to the largest number."""
        return self.losses.precision.device.rounding

    def one_by_one(self) -> list[Batch]:
        return list(slices(self.batch, 1))

    def calls(self, batch: Batch) -> list[Call]:
        """The inputs and outputs of each module in eval mode."""
        with self._evaluating(), observed(self.model) as calls:
            self.losses.outputs(batch)
        return calls

    @contextlib.contextmanager
    def _evaluating(self, seed: int = 0) -> Iterator[None]:
        with passing(self.losses.trained, self.losses.precision, training=False, seed=seed), torch.no_grad():
            yield


def agree(one: Iterable[Tensor], other: Iterable[Tensor], tolerance: float) -> bool:
    """Whether two lists of tensors are equal within `tolerance`, relative to the largest number of each tensor."""
    first, second = list(one), list(other)
    return len(first) == len(second) and all(
        a.shape == b.shape and close(a, b, tolerance) for a, b in zip(first, second, strict=True)
    )


def kept(model: nn.Module) -> dict[str, Any]:
    """The Python attributes of the modules, which checkpoints do not store, by `path.attribute`."""
    return {
        f"{path}.{name}" if path else name: _plain(value)
        for path, module in model.named_modules()
        for name, value in vars(module).items()
        if name not in OF_A_MODULE
    }


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """`steps went from 3 to 4`, for each attribute that another pass changed."""
    found = []
    for name, value in after.items():
        if before.get(name) == value:
            continue
        numbers = all(isinstance(v, bool | int | float) for v in (before.get(name), value))
        found.append(f"{name} went from {before[name]} to {value}" if numbers else f"{name} is different afterwards")
    return found


def _plain(value: Any) -> Any:
    """A simple form of `value`, equal for equal values."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Tensor):
        wide = value.detach().double() if not value.is_complex() else torch.view_as_real(value.detach()).double()
        return tuple(value.shape), repr(wide.sum().item()), repr(wide.abs().sum().item())
    if isinstance(value, Mapping):
        entries = itertools.islice(value.items(), MOST_ENTRIES)
        return len(value), tuple((str(key), _plain(entry)) for key, entry in entries)
    if isinstance(value, list | tuple):
        return len(value), tuple(_plain(entry) for entry in value[:MOST_ENTRIES])
    return type(value).__name__
