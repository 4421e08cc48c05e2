"""Decides where a set is kept: small ones on the device, others are streamed to it."""

from collections.abc import Mapping
from dataclasses import is_dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset

from batchlab.errors import BadRequest
from batchlab.task import Loaders
from batchlab.training.data.batches import example_bytes, held, part
from batchlab.training.data.host_rows import HostRows
from batchlab.training.data.loaders.loaded import Loaded
from batchlab.training.data.open_files import moved, positions
from batchlab.training.data.order import stream_seed
from batchlab.training.data.reading import (
    COLLATE,
    Collate,
    Reader,
    independent_copy,
    own_random_numbers,
    random_states,
    readable,
    same_bits,
    seed_all,
)
from batchlab.training.data.stream import Stream
from batchlab.training.data.streaming import Streamed
from batchlab.training.data.trees import (
    RIDES_ALONG,
    Column,
    bytes_of,
    is_container,
    leaves,
    mapped,
    rebuilt,
    tensors,
    with_columns,
)
from batchlab.training.devices.cpu import CpuDevice
from batchlab.training.devices.device import Device

RESIDENT_BYTES = 4 * 2**30  # a set read through a Dataset may take this much memory
DEVICE_SHARE = 0.5  # the share of a CUDA device's memory that a run's sets may take together
LOOKED_AT = 8  # examples that are read twice, to check that they are the same


def prepare_set(
    data: Any, device: Device, *, name: str, workers: int = 0, earlier: Any = (), collate: Collate | None = None
) -> Any:
    """`data` as a set for training or validation: the result of `as_read`, with its tensors on `device`."""
    return on_device(as_read(data, device, name=name, workers=workers, earlier=earlier, collate=collate), device)


def on_device(read: Any, device: Device) -> Any:
    """The result of `as_read`, with its tensors on `device`."""
    if isinstance(read, Stream):
        return read
    return rebuilt(read, [t.to(device.torch_device) for t in tensors(read)])


def as_read(
    data: Any, device: Device, *, name: str, workers: int = 0, earlier: Any = (), collate: Collate | None = None
) -> Any:
    """Turns a tree of tensors, a list of examples or a map-style Dataset into a set that is yet to be moved to
    `device`.

    Returns a tree of tensors if they fit on it. Returns a `HostRows` for tensors that, together with the set `earlier`,
    exceed `DEVICE_SHARE` of a CUDA device. Returns a `Streamed`, read by `workers` processes, for a Dataset that
    exceeds it, or has more than `RESIDENT_BYTES`, or is a training set whose examples use random numbers
    (augmentation); in other sets such examples are drawn once and kept. With the task's `collate` it is always a
    `Streamed`, of examples that are kept under the same conditions. `name` is `train` or `val`, for messages.
    BadRequest if the set is empty, its tensors differ in the number of examples, an example cannot be read, or differs
    when it is read again with the same seed, or if workers would share an open file.
    """
    if isinstance(data, Loaders):
        return Loaded(data, device, name=name, workers=workers)
    if is_tree(data, collate):
        made = with_columns(data)
        _refuse_what_is_no_set(made, name)
        if collate is not None:
            return Streamed(Rows(made), device, name=name, workers=workers, collate=collate)
        coming = sum(t.nbytes for t in tensors(made) if not device.holds(t))  # the others stay where they are
        if coming and _exceeds_share(device, coming, earlier):
            return HostRows(rebuilt(made, [t.cpu() for t in tensors(made)]), device)  # some may be there already
        return made
    n = _examples_in(data, name)
    before = positions()
    size, is_random = looked_at(data, name, collate)
    # A collated set is not on the device.
    too_large = size > RESIDENT_BYTES or (collate is None and _exceeds_share(device, size, earlier))
    if too_large or (is_random and name == "train"):
        if workers and (file := moved(before)):
            raise BadRequest(
                f"the task's {name} set reads {file} through one open file, which the {workers} processes of "
                f"workers={workers} would share, and each would change the position at which the others read: open it "
                "at the first read, in __getitem__, not in __init__ or __len__; or use workers=0"
            )
        return Streamed(data, device, name=name, workers=workers, collate=collate)
    if collate is not None:
        with own_random_numbers():
            kept = _read(Reader(data, name, list), list(range(n)), [stream_seed("read", i) for i in range(n)])
        return Streamed(kept.content, device, name=name, workers=workers, collate=collate)
    if is_random:
        return Streamed(data, CpuDevice(), name=name).gather(torch.arange(n))
    return _read(Reader(data, name), list(range(n)), [])


class Rows:
    """The examples of a tree of tensors, one by one, for a task's `collate`."""

    def __init__(self, tree: Any) -> None:
        self.tree = rebuilt(tree, [t.cpu() for t in tensors(tree)])
        self._n = len(tensors(tree)[0])

    def __len__(self) -> int:
        return self._n

    def __getitem__(self, index: int) -> Any:
        one = part(self.tree, index, index + 1)
        return mapped(one, lambda leaf: leaf[0] if isinstance(leaf, Tensor | Column) else leaf)


def is_tree(data: Any, collate: Collate | None = None) -> bool:
    """Whether a set is a tree of tensors in memory, and not examples to be read one by one: a Dataset, or a list of
    tuples, dicts or dataclasses (with `collate`, of anything)."""
    if isinstance(data, Dataset) or not is_container(data):
        return isinstance(data, Tensor)
    if is_dataclass(data) and hasattr(data, "__getitem__"):
        return isinstance(data, Mapping)
    if type(data) is not list or not data:
        return True
    return collate is None and not all(is_container(one) for one in data)


def looked_at(dataset: Any, name: str, collate: Collate | None = None) -> tuple[int, bool]:
    """The bytes of all examples of a Dataset, and whether reading them draws seeded random numbers.

    BadRequest, as in `as_read`, if it cannot be trained on.
    """
    n = _examples_in(dataset, name)
    copied = independent_copy(dataset)
    # With `collate`, the examples as they are: what it draws does not keep them from being kept.
    reader = Reader(copied, name) if collate is None else Reader(copied, name, list)
    with own_random_numbers():
        first = _read(reader, [0], [0])
    if collate is None:
        _refuse_what_is_no_batch(first, name)
        return example_bytes(first) * n, _has_random_numbers(reader, n)
    is_random = _has_random_numbers(reader, n)
    _has_random_numbers(Reader(copied, name, collate), n)  # or an error
    return bytes_of(first.content) * n, is_random


def _exceeds_share(device: Device, coming: int, earlier: Any) -> bool:
    total = device.total_bytes()
    if total is None:
        return False
    free = device.free_bytes()
    usable = total if free is None else min(total, free)  # other processes may use some of it
    there = sum(t.nbytes for t in held(earlier))  # or will be there
    return there + coming > DEVICE_SHARE * usable


def _refuse_what_is_no_set(data: Any, name: str) -> None:
    found = leaves(data)
    parts = [leaf for leaf in found if isinstance(leaf, Tensor | Column)]
    odd = [leaf for leaf in found if not isinstance(leaf, (*RIDES_ALONG, Tensor, Column, bool, int, float))]
    if not tensors(data) or odd or any(isinstance(leaf, Tensor) and leaf.dim() == 0 for leaf in parts):
        kinds = ", ".join(type(leaf).__name__ for leaf in found) or "nothing"
        arrays = "; torch.from_numpy makes a tensor of an array" if "ndarray" in kinds else ""
        raise BadRequest(
            f"the task's {name} set holds {kinds:.200}: it must hold tensors whose first axis is the example{arrays}"
        )
    sizes = [len(part) for part in parts]
    if len({*sizes}) > 1:
        lengths = f"the first {sizes[0]}, the second {sizes[1]}" + "".join(f", then {size}" for size in sizes[2:])
        raise BadRequest(
            f"the tensors of the task's {name} set have different lengths: {lengths}; each must have one entry for "
            f"each example. Single examples of different sizes go into a Dataset or a list. {COLLATE}"
        )
    if not sizes[0]:
        raise BadRequest(f"the task's {name} set is empty")


def _examples_in(dataset: Any, name: str) -> int:
    if isinstance(dataset, IterableDataset) or not all(hasattr(dataset, word) for word in ("__getitem__", "__len__")):
        raise BadRequest(
            f"the task's {name} set is a {type(dataset).__name__}: give a tuple or dict of tensors, or a map-style "
            "Dataset (with __getitem__ and __len__), whose order can be chosen by the seed; for iterable data, or a "
            "DataLoader of your own, use Task.from_loaders(make_loader, loss=...)"
        )
    n = len(dataset)
    if n == 0:
        raise BadRequest(f"the task's {name} set is an empty {type(dataset).__name__}: it needs at least one example")
    return n


def _read(reader: Reader, which: list[int], seeds: list[int]) -> Any:
    return readable(reader[which, seeds])


def _refuse_what_is_no_batch(batch: Any, name: str) -> None:
    if not tensors(batch):
        raise BadRequest(
            f"the task's {name} set gives examples without tensors or numbers: return (input, label), a dict, or a "
            "tensor for each"
        )


def _has_random_numbers(reader: Reader, n: int) -> bool:
    """Whether reading draws seeded random numbers; BadRequest if it draws others."""
    drawn = False
    with own_random_numbers():
        for index in sorted({n * i // LOOKED_AT for i in range(LOOKED_AT)}):
            seed_all(index)
            before = random_states()
            first = _read(reader, [index], [])
            drawn = drawn or random_states() != before
            seed_all(index)
            if not same_bits(first, _read(reader, [index], [])):
                raise BadRequest(
                    f"{reader.name}[{index}] differs between two reads with the same seed of Python's, NumPy's and "
                    "PyTorch's generators, so the order of reading would change the data: draw random numbers from "
                    "random, np.random or torch, not from a separate generator"
                )
    return drawn
