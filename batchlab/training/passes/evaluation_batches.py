"""Gives an evaluation its batches; finds out what the user's code does to them, and whether it draws random numbers."""

import ctypes
import random
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from batchlab.errors import BadRequest
from batchlab.task import Batch
from batchlab.training.data.batches import held, slices
from batchlab.training.data.order import stream_seed
from batchlab.training.data.trees import tensors
from batchlab.training.passes.attributes import equal
from batchlab.training.passes.inputs import INSTEAD, copied
from batchlab.training.passes.no_trace import seed_everything
from batchlab.training.state import RunState

T = TypeVar("T")


class Again(Exception):  # noqa: N818 - not an error
    """The pass has to be repeated: `state` now says what it needs."""


def repeated(attempt: Callable[[], T]) -> T:
    """`attempt()`, repeated if its `evaluation_batches` have found out that they must be others; at most twice."""
    while True:
        try:
            return attempt()
        except Again:
            continue


def evaluation_batches(state: RunState, data: Any, size: int) -> Iterator[Batch]:
    """The set in order, in batches of `size`; iterate to the end.

    User code that changes a batch in place gets copies, and code that draws random numbers the same ones at each
    evaluation, seeded by the batch's position. Whether it does so is found out in the first evaluation, which then
    raises `Again`. Otherwise batches are views of the set, and nothing is seeded.
    """
    versions = [(tensor, tensor._version) for tensor in held(data)]
    drawn = _random_states(state)
    batches, position = iter(slices(data, size)), 0
    while True:
        if state.evaluation_draws:
            seed_everything(stream_seed("evaluation", position), state.device)
        if (batch := next(batches, None)) is None:
            break
        if state.changes_input:
            batch = copied(batch)
        before = _marked(batch) if state.changes_input is None else None
        yield batch
        if before is not None:
            _restore_if_changed(state, before)
        position += 1
    if not state.evaluation_draws and _random_states(state) != drawn:
        state.evaluation_draws = True
        state.note(
            "evaluating draws random numbers: each validation seeds them by the position of the batch, so all "
            "validations use the same ones"
        )
        raise Again
    if state.changes_input is None:
        state.changes_input = False
    elif any(tensor._version != version for tensor, version in versions):
        raise BadRequest(
            "the model, the loss or a metric changes its batch in place, but not in the first validation, so the set "
            f"that is evaluated is no longer the task's: {INSTEAD}"
        )


def _random_states(state: RunState) -> tuple[Any, ...]:
    _, key, *place = np.random.get_state()
    of_torch = [drawn for drawn in (torch.get_rng_state(), state.device.random_state()) if drawn is not None]
    # Their bytes, because lists of their numbers take many times as long.
    content = [ctypes.string_at(drawn.data_ptr(), drawn.nbytes) for drawn in of_torch]  # both are on the host
    return random.getstate(), np.asarray(key).tobytes(), place, content


def _marked(batch: Batch) -> list[tuple[Tensor, int, Tensor]]:
    """Each tensor with its version and a copy on the host, because `x.data` and NumPy leave the version as it is."""
    return [(tensor, tensor._version, tensor.detach().to("cpu", copy=True)) for tensor in tensors(batch)]


def _restore_if_changed(state: RunState, before: list[tuple[Tensor, int, Tensor]]) -> None:
    changed = False
    for tensor, version, content in before:
        if tensor._version != version or not equal(tensor, content):
            tensor.data.copy_(content)
            changed = True
    if changed:
        state.changes_input = True
        raise Again
