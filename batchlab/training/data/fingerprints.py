"""Hashes of data and weights, which show whether they differ between two runs."""

import hashlib
from typing import Any

import torch
from torch import nn

from batchlab.training.data.batches import Stream, gather, length, tensors
from batchlab.training.data.host_rows import HostRows

LOOKED_AT = 32  # examples hashed of a set that streams
HASHED_WHOLE_BYTES = 4 * 2**30  # of a set of tensors; half a GiB takes about a second
SAMPLED = 4096  # examples hashed of a larger one
HASHED_BYTES = 64 * 2**20  # copied from the device at once


def data_fingerprint(*sets: Any) -> str:
    """A hash of all values in the sets, so that runs on changed data can be recognised.

    For a set that streams, of its length and `LOOKED_AT` evenly spaced examples, as reading all might take hours; for
    tensors of more than `HASHED_WHOLE_BYTES`, of its length and `SAMPLED` such examples. The hash does not depend on
    the device.
    """
    digest = hashlib.sha256()
    read: list[torch.Tensor] = []
    for data in sets:
        data = data.data if isinstance(data, HostRows) else data
        n = length(data)
        if isinstance(data, Stream):
            digest.update(f"{n} examples".encode())
            data = data.gather(_evenly(n, LOOKED_AT))
        elif sum(t.nbytes for t in tensors(data)) > HASHED_WHOLE_BYTES:
            digest.update(f"{n} examples".encode())
            data = gather(data, _evenly(n, SAMPLED))
        read += tensors(data)
    for tensor in read:
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        rows = max(1, HASHED_BYTES * len(tensor) // max(1, tensor.nbytes))
        # Data made on a GPU may be larger than the host's memory.
        for piece in torch.split(tensor.detach(), rows):
            digest.update(piece.cpu().contiguous().flatten().view(torch.uint8).numpy().data)  # not copied
    return digest.hexdigest()[:16]


def _evenly(n: int, most: int) -> torch.Tensor:
    count = min(n, most)
    return torch.arange(count) * n // count


def weights_fingerprint(model: nn.Module) -> str:
    """A hash of all parameters and buffers of the model, to check whether two runs ended with identical bits."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        if isinstance(tensor, torch.Tensor):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
