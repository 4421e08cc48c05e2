"""Passes of a few examples through a user's model: what comes out, what it draws, what it keeps."""

import contextlib
import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from batchlab.task import Batch, Task
from batchlab.training.batches import slices
from batchlab.training.devices.device import Device
from batchlab.training.devices.precision import Precision
from batchlab.training.losses import Losses
from batchlab.training.no_trace import passing, seed_everything
from batchlab.training.observing import Call, close, copies, observed
from batchlab.training.step import backward

OF_A_MODULE = frozenset(vars(nn.Module()))  # what PyTorch itself keeps in every module
MOST_ENTRIES = 50  # of a list that are looked at


@dataclass(frozen=True)
class Passes:
    """A model at its initial weights, and the examples that are passed through it; no pass leaves a trace."""

    model: nn.Module
    task: Task
    batch: Batch
    precision: Precision
    device: Device

    @property
    def through(self) -> Losses:
        return Losses(self.model, self.task, self.precision)

    def passing(self, *, training: bool, seed: int) -> contextlib.AbstractContextManager[None]:
        return passing(self.model, self.precision, training=training, seed=seed)

    def outputs(self, batch: Batch, *, training: bool, seed: int = 0) -> Any:
        """What the task's forward gives; with its graph in training."""
        with self.passing(training=training, seed=seed), torch.set_grad_enabled(training):
            return self.through.outputs(batch)

    def losses(self, outputs: Any, batch: Batch) -> Tensor:
        return self.through.terms(outputs, batch)

    def results(self, *, training: bool, seed: int) -> list[Tensor]:
        """The outputs, the losses and in training the gradients of one pass, on the CPU."""
        with self.passing(training=training, seed=seed):
            with torch.set_grad_enabled(training):
                outputs = self.through.outputs(self.batch)
                losses = self.through.terms(outputs, self.batch)
            found = copies((outputs, losses))
            if losses.requires_grad:
                seed_everything(seed, self.device)
                backward(self.through, [self.batch])
                found += copies([p.grad for p in self.model.parameters() if p.grad is not None])
        return found

    def gradients(self) -> dict[str, Tensor | None]:
        """The gradient of each trainable parameter; None where it gets none."""
        with self.passing(training=True, seed=0):
            backward(self.through, [self.batch])
            return {name: p.grad for name, p in self.model.named_parameters() if p.requires_grad}

    @property
    def rounding(self) -> float:
        """By which two equal passes may differ, relative to the largest number."""
        return self.device.rounding

    def one_by_one(self) -> list[Batch]:
        return list(slices(self.batch, 1))

    def calls(self, batch: Batch) -> list[Call]:
        """What passes through each module in eval mode."""
        with self.passing(training=False, seed=0), torch.no_grad(), observed(self.model) as calls:
            self.through.outputs(batch)
        return calls


def agree(one: Iterable[Tensor], other: Iterable[Tensor], tolerance: float) -> bool:
    """Whether two lists of tensors are the same to `tolerance`, relative to the largest number of each."""
    first, second = list(one), list(other)
    return len(first) == len(second) and all(
        a.shape == b.shape and close(a, b, tolerance) for a, b in zip(first, second, strict=True)
    )


def kept(model: nn.Module) -> dict[str, Any]:
    """What the modules keep in attributes of Python that no checkpoint holds, by `path.attribute`."""
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
        found.append(f"{name} went from {before[name]} to {value}" if numbers else f"{name} is another one afterwards")
    return found


def _plain(value: Any) -> Any:
    """A stand-in for `value` that is equal where the value is."""
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
