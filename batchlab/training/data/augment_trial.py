"""Checks a task's `augment`: its output for an example must depend on the example and its draw alone."""

import torch
from torch import Tensor

from batchlab.errors import BadRequest
from batchlab.task import Batch
from batchlab.training.data.batches import Augment, augmented, length, split
from batchlab.training.data.collated import Collated
from batchlab.training.data.reading import random_states, same_bits
from batchlab.training.data.trees import rebuilt, tensors
from batchlab.training.devices.device import Device


def augmented_twice(batch: Batch, augment: Augment, seed: int, device: Device) -> Batch:
    """`batch` augmented as at the start of the data order; the original is not changed.

    BadRequest if `augment` draws random numbers itself, or gives another result for the same draws when it is called
    again or for a batch in two parts: the run could not be resumed, and its data would depend on the batch size.
    """
    before = _states(device)
    made = augmented(_copy(batch), augment, seed, 0)
    drew = _states(device) != before
    if drew or not same_bits(made, augmented(_copy(batch), augment, seed, 0)):
        raise BadRequest(
            "the task's augment draws random numbers itself, so a run could not be resumed: compute them from the "
            "given draws, with batchlab.uniform(draws, 'a name'), which depend only on the seed and the data order"
        )
    if isinstance(batch, Collated):
        return made
    half = length(batch) // 2
    sizes = [half, length(batch) - half]
    parts = split(_copy(batch), sizes) if half else ()
    for part, start, whole in zip(parts, (0, half), split(made, sizes), strict=False):
        if not all(map(_alike, tensors(augmented(part, augment, seed, start)), tensors(whole))):
            raise BadRequest(
                "the task's augment gives another result for an example when the rest of its batch changes, so that "
                "batch sizes would not see the same data: augment each example independently of the others"
            )
    return made


def _states(device: Device) -> tuple[object, ...]:
    own = device.random_state()
    return random_states(), None if own is None else bytes(own.numpy())


def _copy(batch: Batch) -> Batch:
    return rebuilt(batch, [t.clone() for t in tensors(batch)])


def _alike(one: Tensor, other: Tensor) -> bool:
    """Up to rounding: for another number of examples a kernel may sum in another order."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if not one.is_floating_point():
        return torch.equal(one, other)
    largest = float(other.abs().max()) if other.numel() else 0.0
    return torch.allclose(one, other, rtol=0, atol=torch.finfo(one.dtype).eps ** 0.5 * largest, equal_nan=True)
