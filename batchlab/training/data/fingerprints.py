"""Hashes of data and of weights, so that what changed between two runs can be seen."""

import hashlib
from typing import Any

import torch
from torch import nn

from batchlab.training.data.batches import Stream, gather, length, tensors
from batchlab.training.data.host_rows import HostRows

LOOKED_AT = 32  # examples of a set that streams
HASHED_WHOLE_BYTES = 4 * 2**30  # of a set of tensors; half a GiB takes about a second
SAMPLED = 4096  # examples of a larger one
HASHED_BYTES = 64 * 2**20  # brought from the device at once


def data_fingerprint(*sets: Any) -> str:
    """A hash of every number in the sets, so that runs on changed data are told apart.

    Of a set that streams: of its length and of `LOOKED_AT` examples, evenly spaced, as to read all might take hours; of
    tensors of more than `HASHED_WHOLE_BYTES` so of `SAMPLED`. Where tensors lie, and what else the device holds, does
    not matter.
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
        # What was made on a GPU may be more than the host has room for.
        for piece in torch.split(tensor.detach(), rows):
            digest.update(piece.cpu().contiguous().flatten().view(torch.uint8).numpy().data)  # not copied
    return digest.hexdigest()[:16]


def _evenly(n: int, most: int) -> torch.Tensor:
    count = min(n, most)
    return torch.arange(count) * n // count


def weights_fingerprint(model: nn.Module) -> str:
    """A hash of every number of the model, so that two runs can be seen to have ended at the same bits."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        if isinstance(tensor, torch.Tensor):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
