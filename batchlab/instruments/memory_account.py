"""The bytes of a training step by category, counted from its tensors, for a memory model."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from batchlab.instruments.memory import saved_for_backward_bytes, storage_bytes
from batchlab.science.memory.memory_model import Account, fit
from batchlab.training.data.batches import gather, held, length
from batchlab.training.state import RunState

SIZES = (2, 4, 8)  # micro-batch sizes at which saved bytes are counted: two would not show whether they are linear


def account(state: RunState, sizes: Sequence[int] = SIZES) -> Account:
    """The memory of `state` after a step, when gradients and the optimizer's state exist; leaves no trace.
    Bytes saved for backward are counted in forward passes of `sizes` examples.
    """
    parameters = list(state.trained.parameters())
    saved = [saved_for_backward_bytes(state, gather(state.train, _repeated(size, state))) for size in sizes]
    return Account(
        weights=storage_bytes(parameters),
        buffers=storage_bytes(state.model.buffers()),
        gradients=storage_bytes(p.grad for p in parameters if p.grad is not None),
        optimizer_state=storage_bytes(_nested(state.optimizer.state)),
        data=storage_bytes([*held(state.train), *held(state.val)]),
        saved=fit(sizes, saved),
    )


def _repeated(size: int, state: RunState) -> Tensor:
    return torch.arange(size) % length(state.train)


def _nested(value: Any) -> Iterator[Tensor]:
    """The tensors in an optimizer's state, at any depth."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for entry in value.values():
            yield from _nested(entry)
    elif isinstance(value, list | tuple):
        for entry in value:
            yield from _nested(entry)
