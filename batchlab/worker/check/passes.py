"""Runs a few examples through a user's model, to examine its outputs, randomness and state."""

import contextlib
import functools
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from batchlab.printable import printable
from batchlab.task import Batch
from batchlab.training.data.batches import slices
from batchlab.training.data.trees import tensors
from batchlab.training.losses import Count, Losses
from batchlab.training.passes.attributes import OF_A_MODULE, equal
from batchlab.training.passes.contract_passes import TrainingPass, training_pass
from batchlab.training.passes.inputs import copied
from batchlab.training.passes.no_trace import passing
from batchlab.training.passes.observing import Call, close, copies, observed

TOGETHER = 1e-3  # between an example alone and in a batch, in fp32: other kernels round differently
MOST_ENTRIES = 50  # of a list that are compared


@dataclass(frozen=True)
class Passes:
    """A model with its initial weights, and the examples to run through it; its state is restored after each pass."""

    losses: Losses
    batch: Batch
    seen: TrainingPass  # of the batch; most trials use it
    larger: Batch  # more examples, whose number is no power of two
    declared: str | None = None  # the task's own `reduction`
    seconds: float = 0.0  # of the first pass of `batch`, forward and backward

    @property
    def model(self) -> nn.Module:
        return self.losses.model

    def outputs(self, batch: Batch) -> Any:
        """The outputs of the task's forward in eval mode."""
        with self._evaluating():
            return self.losses.outputs(copied(batch))

    def summed(self, outputs: Any, batch: Batch) -> tuple[Tensor, Count]:
        """The losses for given outputs, which add up to the summed loss, and the count, in eval mode."""
        with self._evaluating():
            return self.losses.summed(self.losses.terms(outputs, batch), batch)

    def valued(self, batch: Batch) -> tuple[Any, Tensor, Count]:
        """The outputs, the losses that add up to the summed loss, and the count, of one pass in eval mode."""
        with self._evaluating():
            given = copied(batch)
            outputs = self.losses.outputs(given)
            return outputs, *self.losses.summed(self.losses.terms(outputs, given), given)

    def metrics(self, outputs: Any, batch: Batch) -> dict[str, Tensor]:
        """The metrics of given outputs, in eval mode."""
        with self._evaluating():
            return self.losses.metrics(outputs, copied(batch))

    def results(self, *, training: bool, seed: int) -> list[Tensor]:
        """The outputs, losses and (in training mode) gradients of one pass, on the CPU.

        Python attributes of the modules keep the changes of the pass, as in training.
        """
        if training:
            seen = training_pass(self.losses, self.batch, seed, attributes=False).completed()
            return copies((seen.outputs, seen.terms, list(seen.gradients.values())))
        given = copied(self.batch)
        with self._evaluating(seed, attributes=False):
            outputs = self.losses.outputs(given)
            return copies((outputs, self.losses.terms(outputs, given)))

    @functools.cached_property
    def draws_in_eval_mode(self) -> bool:
        """Whether the results in eval mode depend on random numbers."""
        one, other = (self.results(training=False, seed=seed) for seed in (0, 1))
        return not agree(one, other, self.rounding)

    def changes_its_input(self) -> str | None:
        """What changes its input in place: the innermost module, or a function of the task; None if nothing does."""
        for training in (False, True):
            given = copied(self.batch)
            with (
                passing(self.losses.trained, self.losses.precision, training=training, seed=0),
                first_to_change(self.model, tensors(given)) as found,
            ):
                outputs = self.losses.outputs(given)
                if found or _differ(given, self.batch):
                    return found[0] if found else "forward"
                self.losses.terms(outputs, given)
                if _differ(given, self.batch):
                    return "the task's loss"
                if not training:
                    self.losses.quantities(given)
                    if _differ(given, self.batch):
                        return "the task's metrics"
        return None

    @property
    def rounding(self) -> float:
        """The difference allowed between equal passes, relative to the largest number."""
        return self.losses.precision.device.rounding

    def one_by_one(self) -> list[Batch]:
        return list(slices(self.batch, 1))

    def calls(self, batch: Batch) -> list[Call]:
        """The inputs and outputs of each module in eval mode."""
        with self._evaluating(), observed(self.model) as calls:
            self.losses.outputs(copied(batch))
        return calls

    @contextlib.contextmanager
    def _evaluating(self, seed: int = 0, *, attributes: bool = True) -> Iterator[None]:
        with (
            passing(self.losses.trained, self.losses.precision, training=False, seed=seed, attributes=attributes),
            torch.no_grad(),
        ):
            yield


@contextlib.contextmanager
def first_to_change(model: nn.Module, given: Sequence[Tensor]) -> Iterator[list[str]]:
    """The modules during whose calls a version of the tensors `given` changes, the innermost first."""
    found: list[str] = []
    entered: list[list[int]] = []
    paths = {module: path for path, module in model.named_modules()}

    def versions() -> list[int]:
        return [tensor._version for tensor in given]

    def after(module: nn.Module, args: Any, output: Any) -> None:
        del args, output
        if versions() != entered.pop():
            path = paths[module]
            found.append(f"{type(module).__name__} '{printable(path)}'" if path else "the model's own forward")

    handles = [module.register_forward_pre_hook(lambda *_: entered.append(versions())) for module in paths]
    handles += [module.register_forward_hook(after) for module in paths]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _differ(one: Batch, other: Batch) -> bool:
    return not all(map(equal, tensors(one), tensors(other)))


def agree(one: Iterable[Tensor], other: Iterable[Tensor], tolerance: float) -> bool:
    """Whether two lists of tensors are equal within `tolerance`, relative to the largest number of each tensor."""
    first, second = list(one), list(other)
    return len(first) == len(second) and all(
        a.shape == b.shape and close(a, b, tolerance) for a, b in zip(first, second, strict=True)
    )


def same_outputs(whole: list[Tensor], parts: list[list[Tensor]]) -> bool | None:
    """Whether the outputs that have an axis of examples are the same alone; None if there are none."""
    if any(len(part) != len(whole) for part in parts):
        return False
    if any(len({piece.shape[1:] for piece in pieces}) > 1 for pieces in zip(*parts, strict=True)):
        return False  # padded
    found = [
        agree([torch.cat(pieces)], [tensor], TOGETHER)
        for tensor, *pieces in zip(whole, *parts, strict=True)
        if all(piece.dim() for piece in pieces) and sum(map(len, pieces)) == len(tensor) != len(pieces[0])
    ]
    return all(found) if found else None


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
