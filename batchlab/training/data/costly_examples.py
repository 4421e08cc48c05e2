"""Finds the most expensive examples of a set: they decide whether a batch fits in memory."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from batchlab.training.data.batches import Stream, gather, length, rebuilt, tensors

SCANNED = 2**16  # examples that are looked at
AT_ONCE = 1024
ALIKE = 0.9  # if the median costs more than this share of the most expensive one, batches are alike


def costliest(data: Any, n: int, cost: Callable[[Any], float] | None = None) -> Tensor:
    """Indices of the `n` most expensive examples of a set, the most expensive first, (n,); if it has fewer, repeated.

    None, (0,), if the examples cost about the same. By the task's `cost`, else by the length of sequences of integers
    without their padding (equal values at the end).
    """
    scanned = min(length(data), SCANNED)
    if cost is None and (isinstance(data, Stream) or not any(_is_sequence(t) for t in tensors(data))):
        return torch.empty(0, dtype=torch.int64)
    costs: list[Tensor] = []
    for index in torch.arange(scanned).split(AT_ONCE):  # type: ignore[no-untyped-call]
        batch = gather(data, index)
        if cost is None:
            costs.append(torch.stack([_length(t).cpu() for t in tensors(batch) if _is_sequence(t)]).sum(0))
        else:
            examples = (rebuilt(batch, [t[i] for t in tensors(batch)]) for i in range(len(index)))
            costs.append(torch.tensor([float(cost(example)) for example in examples]))
    known = torch.cat(costs).double()
    if known.median() > ALIKE * known.max():
        return torch.empty(0, dtype=torch.int64)
    return torch.argsort(known, descending=True, stable=True)[torch.arange(n) % scanned]


def _is_sequence(values: Tensor) -> bool:
    return values.dim() == 2 and values.shape[1] > 1 and not (values.is_floating_point() or values.is_complex())


def _length(values: Tensor) -> Tensor:
    return values.shape[1] - (values == values[:, -1:]).flip(1).to(torch.int64).cumprod(1).sum(1)
