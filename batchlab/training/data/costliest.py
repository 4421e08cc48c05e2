"""Finds the most expensive examples of a set: they decide whether a batch fits in memory."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from batchlab.errors import BadRequest
from batchlab.training.data.batches import example_bytes, gather, length
from batchlab.training.data.residence import Rows
from batchlab.training.data.streaming import Streamed
from batchlab.training.data.trees import bytes_of, tensors

SCANNED = 2**16  # examples that are looked at
SCAN_SECONDS = 5.0  # spent on reading them
BYTES_AT_ONCE = 64 * 2**20
EXAMPLES_AT_ONCE = 1024
ALIKE = 0.9  # if the median costs more than this share of the most expensive one, batches are alike

Cost = Callable[[Any], float]  # `Task.cost`


def costliest(data: Any, n: int, cost: Cost | None = None, *, clock: Callable[[], float] = time.perf_counter) -> Tensor:
    """Indices of the `n` most expensive examples of a set, the most expensive first, shape (n,); none, (0,), if the
    examples cost about the same.

    By the task's `cost`; without one, by the bytes of an example for its `collate`, and in a set of equal sizes by the
    length of sequences of integers without their padding (equal values at one end). Of a large set a part is looked at:
    at most `SCANNED` examples from all over it, for about `SCAN_SECONDS`. If these are fewer than `n`, they are
    repeated.
    """
    none = torch.empty(0, dtype=torch.int64)
    if cost is None and not _differ_in_size(data):
        return none
    examples = length(data)
    order = torch.randperm(examples, generator=torch.Generator().manual_seed(0))[:SCANNED]  # time may run out anywhere
    found: list[float] = []
    ends = clock() + SCAN_SECONDS
    for costs in _costs(data, order, cost):
        found += costs
        if clock() > ends:
            break
    known = torch.tensor(found, dtype=torch.float64)
    if not bool(torch.isfinite(known).all()):
        raise BadRequest(
            f"the task's cost gave {float(known[~torch.isfinite(known)][0])} for an example: it must give a number, "
            "larger for a more expensive example, such as its length"
        )
    if known.median() > ALIKE * known.max():
        return none
    ranked = order[torch.argsort(known, descending=True, stable=True)]
    return ranked[torch.arange(n) % len(ranked)]


def _costs(data: Any, index: Tensor, cost: Cost | None) -> Iterator[list[float]]:
    """The costs of the examples at `index`, in order, in pieces."""
    if isinstance(data, Streamed) and (cost is not None or data.collates):
        of_one = cost or bytes_of
        for i in index.tolist():
            yield [float(of_one(data.example(i)))]
        return
    at_once = max(1, min(EXAMPLES_AT_ONCE, BYTES_AT_ONCE // example_bytes(data)))
    for part in torch.split(index, at_once):
        batch = gather(data, part)
        if cost is None:
            yield _lengths(batch)
        else:
            rows = Rows(batch)
            yield [float(cost(rows[i])) for i in range(len(rows))]


def _lengths(batch: Any) -> list[float]:
    """Of each example of a batch, the length of its sequences of integers without padding; 0 if it has none."""
    total = torch.zeros(length(batch))
    for values in filter(_is_sequence, tensors(batch)):
        total += _unpadded(values).cpu()
    return [float(one) for one in total]


def _differ_in_size(data: Any) -> bool:
    """Whether examples may take different memory, by the kind of their tensors."""
    if isinstance(data, Streamed) and data.collates:
        return True
    return any(map(_is_sequence, tensors(gather(data, torch.arange(1)))))


def _is_sequence(values: Tensor) -> bool:
    return values.dim() == 2 and values.shape[1] > 1 and not (values.is_floating_point() or values.is_complex())


def _unpadded(values: Tensor) -> Tensor:
    """(examples,) of (examples, places): the places but for the longer run of equal values at one end."""
    places = values.shape[1]
    first, last = ((side == side[:, :1]).to(torch.int64).cumprod(1).sum(1) for side in (values, values.flip(1)))
    run = torch.maximum(first, last)
    # A mask of ones, not padding; and one value at the end is no run.
    whole = ((run == places) & (values[:, 0] != 0)) | (run == 1)
    return torch.where(whole, places, places - run)
