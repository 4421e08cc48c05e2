"""Hashes of data and weights, which show whether they differ between two runs."""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from batchlab.training.data.batches import gather, length
from batchlab.training.data.host_rows import HostRows
from batchlab.training.data.reading import VALUES
from batchlab.training.data.stream import Stream
from batchlab.training.data.streaming import Streamed
from batchlab.training.data.trees import is_container, leaves, tensors

LOOKED_AT = 32  # examples hashed of a set that streams
HASHED_WHOLE_BYTES = 4 * 2**30  # of a set of tensors; half a GiB takes about a second
HASHED_WHOLE = 2**16  # examples that are kept for the task's collate
SAMPLED = 4096  # examples hashed of a larger one
HASHED_BYTES = 64 * 2**20  # copied from the device at once


def data_fingerprint(*sets: Any) -> str:
    """A hash of all values in the sets, so that runs on changed data can be recognised.

    For a set that streams, of its length and `LOOKED_AT` evenly spaced examples, as reading all might take hours; for
    tensors of more than `HASHED_WHOLE_BYTES`, or more than `HASHED_WHOLE` examples that are kept for the task's
    `collate`, of its length and `SAMPLED` such examples. The hash does not depend on the device.
    """
    digest = hashlib.sha256()
    read: list[Any] = []
    for data in sets:
        data = data.data if isinstance(data, HostRows) else data
        n = length(data)
        if isinstance(data, Streamed) and type(data.dataset) is list:
            digest.update(f"{n} examples".encode())
            data = [data.dataset[i] for i in _evenly(n, n if n <= HASHED_WHOLE else SAMPLED).tolist()]
        elif isinstance(data, Stream):
            digest.update(f"{n} examples".encode())
            data = data.gather(_evenly(n, LOOKED_AT))
        elif sum(t.nbytes for t in tensors(data)) > HASHED_WHOLE_BYTES:
            digest.update(f"{n} examples".encode())
            data = gather(data, _evenly(n, SAMPLED))
        read += leaves(data)
    for leaf in read:
        _hash(digest, leaf, set())
    return digest.hexdigest()[:16]


def _hash(digest: Any, value: Any, above: set[int]) -> None:
    """Adds a leaf to the digest, or all that an object of a graph library has; `above` are the objects that hold it."""
    if isinstance(value, torch.Tensor) and value.layout is torch.strided:
        digest.update(f"{value.dtype} {tuple(value.shape)}".encode())
        flat = value.detach().reshape(1) if value.dim() == 0 else value.detach()
        rows = max(1, HASHED_BYTES * len(flat) // max(1, flat.nbytes))
        # Data made on a GPU may be larger than the host's memory.
        for piece in torch.split(flat, rows):
            digest.update(piece.cpu().contiguous().flatten().view(torch.uint8).numpy().data)  # not copied
        return
    digest.update(type(value).__name__.encode())
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        digest.update(f"{value.dtype} {value.shape}".encode() + value.tobytes())
    elif isinstance(value, VALUES):
        digest.update(repr(value).encode())
    elif id(value) not in above:
        inside = [value] if is_container(value) else [vars(value)] if hasattr(value, "__dict__") else []
        for leaf in (leaf for one in inside for leaf in (*(one if isinstance(one, Mapping) else ()), *leaves(one))):
            _hash(digest, leaf, above | {id(value)})


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
