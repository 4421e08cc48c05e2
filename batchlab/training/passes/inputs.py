"""Protects data from user code that changes its batch in place, such as `x -= 0.1`."""

import copy
from typing import Any

from torch import Tensor

from batchlab.task import Batch
from batchlab.training.data.trees import mapped
from batchlab.training.devices.precision import Precision
from batchlab.training.losses import Losses
from batchlab.training.state import RunState

INSTEAD = "write x = x - 0.1 instead of x -= 0.1 or x.sub_(0.1)"


def copied(batch: Batch) -> Any:
    """The batch with copies of its tensors, and of what else can be moved to a device."""
    return mapped(batch, _copied_leaf)


def _copied_leaf(leaf: Any) -> Any:
    if isinstance(leaf, Tensor):
        return leaf.clone()
    return copy.deepcopy(leaf) if hasattr(leaf, "to") else leaf


class OnCopies(Losses):
    """The same losses, of a copy of each batch: for batches that are passed more than once."""

    __slots__ = ()

    def __call__(self, batch: Batch) -> Tensor:
        return super().__call__(copied(batch))

    def with_outputs(self, batch: Batch) -> tuple[Any, dict[str, Any]]:
        return super().with_outputs(copied(batch))


def repeatable(state: RunState, precision: Precision) -> Losses:
    """The losses for batches that are passed more than once: on copies if validation has shown that user code changes
    them."""
    kind = OnCopies if state.changes_input else Losses
    return kind(state.model, state.task, precision)
