"""Decides where a set is kept: small ones on the device, others are streamed to it."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from batchlab.errors import BadRequest
from batchlab.training.data.batches import Stream, example_bytes, held, rebuilt, tensors
from batchlab.training.data.host_rows import HostRows
from batchlab.training.data.open_files import moved, positions
from batchlab.training.data.reading import (
    Reader,
    ReadingError,
    Unreadable,
    independent_copy,
    own_random_numbers,
    random_states,
    same_bits,
    seed_all,
)
from batchlab.training.data.streaming import Streamed
from batchlab.training.devices.cpu import CpuDevice
from batchlab.training.devices.device import Device

RESIDENT_BYTES = 4 * 2**30  # a set read through a Dataset may take this much memory
DEVICE_SHARE = 0.5  # the share of a CUDA device's memory that a run's sets may take together
LOOKED_AT = 8  # examples that are read twice, to check that they are the same


def prepare_set(data: Any, device: Device, *, name: str, workers: int = 0, earlier: Any = ()) -> Any:
    """`data` as a set for training or validation: the result of `as_read`, with its tensors on `device`."""
    return on_device(as_read(data, device, name=name, workers=workers, earlier=earlier), device)


def on_device(read: Any, device: Device) -> Any:
    """The result of `as_read`, with its tensors on `device`."""
    if isinstance(read, Stream):
        return read
    return rebuilt(read, [t.to(device.torch_device) for t in tensors(read)])


def as_read(data: Any, device: Device, *, name: str, workers: int = 0, earlier: Any = ()) -> Any:
    """Turns a tuple or dict of tensors, or a map-style Dataset, into a set that is yet to be moved to `device`.

    Returns tensors if they fit on it. Returns a `HostRows` for tensors that, together with the set `earlier`,
    exceed `DEVICE_SHARE` of a CUDA device. Returns a `Streamed`, read by `workers` processes, for a Dataset that
    exceeds it, or has more than `RESIDENT_BYTES`, or is a training set whose examples use random numbers
    (augmentation); in other sets such examples are drawn once and kept. `name` is `train` or `val`, for messages.
    BadRequest if the set is empty, its tensors differ in the number of examples, an example cannot be read, or differs
    when it is read again with the same seed, or if workers would share an open file.
    """
    if isinstance(data, Mapping | tuple | list):
        _refuse_what_is_no_set(data, name)
        coming = sum(t.nbytes for t in tensors(data) if not device.holds(t))  # the others stay where they are
        if coming and _exceeds_share(device, coming, earlier):
            return HostRows(rebuilt(data, [t.cpu() for t in tensors(data)]), device)  # some may be there already
        return data
    n = _examples_in(data, name)
    before = positions()
    size, is_random = looked_at(data, name)
    if size > RESIDENT_BYTES or _exceeds_share(device, size, earlier) or (is_random and name == "train"):
        if workers and (file := moved(before)):
            raise BadRequest(
                f"the task's {name} set reads {file} through one open file, which the {workers} processes of "
                f"workers={workers} would share, and each would change the position at which the others read: open it "
                "at the first read, in __getitem__, not in __init__ or __len__; or use workers=0"
            )
        return Streamed(data, device, name=name, workers=workers)
    if is_random:
        return Streamed(data, CpuDevice(), name=name).gather(torch.arange(n))
    return _read(Reader(data, name), list(range(n)), [])


def looked_at(dataset: Any, name: str) -> tuple[int, bool]:
    """The bytes of all examples of a Dataset, and whether reading them draws seeded random numbers.

    BadRequest, as in `as_read`, if it cannot be trained on.
    """
    n = _examples_in(dataset, name)
    reader = Reader(independent_copy(dataset), name)
    with own_random_numbers():
        first = _read(reader, [0], [0])
    _refuse_what_is_no_batch(first, name)
    return example_bytes(first) * n, _has_random_numbers(reader, n)


def _exceeds_share(device: Device, coming: int, earlier: Any) -> bool:
    total = device.total_bytes()
    if total is None:
        return False
    free = device.free_bytes()
    usable = total if free is None else min(total, free)  # other processes may use some of it
    there = sum(t.nbytes for t in held(earlier))  # or will be there
    return there + coming > DEVICE_SHARE * usable


def _refuse_what_is_no_set(data: Any, name: str) -> None:
    parts = tensors(data)
    if not parts or not all(isinstance(t, Tensor) and t.dim() > 0 for t in parts):
        kinds = ", ".join(type(t).__name__ for t in parts) or "nothing"
        raise BadRequest(f"the task's {name} set holds {kinds}: it must hold tensors whose first axis is the example")
    sizes = [len(t) for t in parts]
    if len({*sizes}) > 1:
        lengths = f"the first {sizes[0]}, the second {sizes[1]}" + "".join(f", then {size}" for size in sizes[2:])
        raise BadRequest(f"the tensors of the task's {name} set have different lengths: {lengths}")
    if not sizes[0]:
        raise BadRequest(f"the task's {name} set is empty")


def _examples_in(dataset: Any, name: str) -> int:
    if isinstance(dataset, IterableDataset) or not all(hasattr(dataset, word) for word in ("__getitem__", "__len__")):
        raise BadRequest(
            f"the task's {name} set is a {type(dataset).__name__}: give a tuple or dict of tensors, or a map-style "
            "Dataset (with __getitem__ and __len__), whose order can be chosen by the seed"
        )
    n = len(dataset)
    if n == 0:
        raise BadRequest(f"the task's {name} set is an empty {type(dataset).__name__}: it needs at least one example")
    return n


def _read(reader: Reader, which: list[int], seeds: list[int]) -> Any:
    read = reader[which, seeds]
    if isinstance(read, Unreadable):
        raise BadRequest(read.reason) from ReadingError(read.trace)
    return read


def _refuse_what_is_no_batch(batch: Any, name: str) -> None:
    if not isinstance(batch, Mapping | Sequence) or isinstance(batch, str) or not tensors(batch):
        raise BadRequest(
            f"the task's {name} set gives examples that are not tuples or dicts: return (input, label), or a dict, for "
            "each"
        )
    bad = [type(t).__name__ for t in tensors(batch) if not isinstance(t, Tensor)]
    if bad:
        raise BadRequest(
            f"the task's {name} set gives examples with values that are not tensors or numbers (stacked: {bad[0]}): "
            "return only tensors and numbers"
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
