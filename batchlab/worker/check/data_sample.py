"""Takes a few examples of a user's data, in any accepted form, and checks them."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from batchlab.config import RunConfig
from batchlab.errors import BadRequest, BatchlabError
from batchlab.printable import listed, printable
from batchlab.task import Batch, Loaders, Task
from batchlab.training import assembly
from batchlab.training.data.batches import gather, length, part
from batchlab.training.data.collated import Collated
from batchlab.training.data.loaders.loaded import single_examples
from batchlab.training.data.reading import COLLATE, Collate, same_bits, seed_all
from batchlab.training.data.residence import Rows, is_tree, looked_at
from batchlab.training.data.streaming import Streamed
from batchlab.training.data.trees import (
    RIDES_ALONG,
    STACKED,
    Column,
    is_container,
    leaves,
    moved,
    tensors,
    with_columns,
)
from batchlab.training.devices.device import Device
from batchlab.training.passes.no_trace import seed_everything
from batchlab.training.user_errors import message_and_place
from batchlab.worker.check.findings import Finding, better, is_wrong, ok, wrong

MOST = 64  # examples that are read
SECONDS = 1.0  # spent on reading a Dataset
SLOW_SECONDS = 10.0  # at the start of every point
SEEDS = (1, 2)
MOST_NAMED = 8  # tensors of a batch


@dataclass(frozen=True)
class Sample:
    """The examples that the trials use."""

    train: Batch  # examples from all over the training set, on the device
    val: Batch
    n_train: int  # in the whole set
    n_val: int
    read_seconds: float  # per example; 0 where the set is tensors already
    is_random: bool  # whether an example of the training set is random and differs at each reading


def sampled(config: RunConfig, device: Device) -> tuple[Task | None, Sample | None, list[Finding]]:
    """Builds the task twice, as two processes would, and reads some examples; no sample if that fails."""
    made: list[Sample] = []
    task: Task | None = None
    seconds = []
    for seed in SEEDS:
        task = None  # or two would be in memory
        seed_everything(seed, device)
        start = time.perf_counter()
        try:
            task = assembly.build_task(config, device)
        except (Exception, SystemExit) as error:
            advice = (
                "data._target_ is called with the keys of the data group and must return a Task, whose train and val "
                "are tensors, (inputs, labels), or a Dataset of such pairs"
                if isinstance(error, BatchlabError)
                else "correct the code at that line, which raised this"
            )
            return None, None, [wrong("data", message_and_place(error), advice)]
        seconds.append(time.perf_counter() - start)
        for name in ("train", "val"):
            if found := list(unfit(task, name)):
                return task, None, found
        try:
            made.append(_sample(task, device))
        except BadRequest as error:
            what, advice, _ = str(error).partition(COLLATE)
            if not advice:
                advice = "the same index must give the same tensors or numbers whenever it is read with the same seeds"
            if task.collate is not None:
                advice += ", and collate must make a batch of any number of examples, one too"
            return task, None, [wrong("data", f"training cannot use it: {what.rstrip('. ')}", advice)]
        except (Exception, SystemExit) as error:
            advice = "every index below len(...) must give an example, all of the same shape and type"
            return task, None, [wrong("data", f"an example cannot be read: {message_and_place(error)}", advice)]
    first, second = made
    found = [*_reproducible(first, second)]
    if min(seconds) > SLOW_SECONDS:
        found.append(
            better(
                "speed",
                f"building the data takes {min(seconds):.0f} s, and every point of a sweep repeats it",
                "prepare it once, save the tensors with torch.save, and let data._target_ load them",
            )
        )
    return task, (None if is_wrong(found) else second), found


def unfit(task: Task, name: str) -> Iterator[Finding]:
    """Why a task's `train` or `val` is not a data set; empty if it is one."""
    data, collate = getattr(task, name), task.collate
    if isinstance(data, Loaders):
        return  # `_sample` makes its loader
    accepts = (
        f"Task({name}=...) must be tensors in a tuple, dict, list or dataclass, first axis = example, or a map-style "
        "Dataset"
    )
    if isinstance(data, DataLoader):
        yield wrong(
            "data",
            f"{name} is a DataLoader, but batchlab forms the batches",
            f"use Task.from_loaders(make_loader, loss=...), or pass its dataset: {accepts}",
        )
    elif is_tree(data, collate):
        held = leaves(with_columns(data))
        rows = [part for part in held if isinstance(part, Tensor | Column)]
        odd = next(
            (part for part in held if not _is_part(part) or (isinstance(part, Tensor) and part.dim() == 0)), None
        )
        if odd is not None or not tensors(data):
            arrays = "torch.from_numpy makes a tensor of an array; " if isinstance(odd, np.ndarray) else ""
            kind = "nothing" if not held else _kind(odd) if odd is not None else "no tensors"
            yield wrong("data", f"{name} contains {kind}", arrays + accepts)
        elif len({len(part) for part in rows}) > 1 or len(rows[0]) == 0:
            sizes = ", ".join(str(len(part)) for part in rows)
            yield wrong("data", f"{name} has tensors of {sizes} examples", "give all the same number, above 0")
    elif not (hasattr(data, "__getitem__") and hasattr(data, "__len__")):
        yield wrong("data", f"{name} is {_kind(data)}, which has no length or cannot be indexed", accepts)
    elif len(data) == 0:
        yield wrong("data", f"{name} is an empty {type(data).__name__}", "it must contain examples")
    elif collate is None:
        yield from _unfit_example(data, name, takes_first=task.passes_first_value)


def _is_part(part: Any) -> bool:
    return isinstance(part, (Tensor, Column, *RIDES_ALONG, bool, int, float))


def _unfit_example(data: "Dataset[Any]", name: str, *, takes_first: bool) -> Iterator[Finding]:
    advice = (
        "let __getitem__ return a tensor, or a tuple or dict of tensors or numbers: convert text to token ids, class "
        "names to indices, images to float tensors; or give collate=, a function from a list of examples to a batch"
    )
    try:
        example = data[0]
    except (Exception, SystemExit) as error:
        yield wrong("data", f"{name}[0] cannot be read: {message_and_place(error)}", advice)
        return
    if isinstance(example, STACKED):
        return
    if not is_container(example):
        yield wrong("data", f"{name}[0] is {_kind(example)}, not a tensor, tuple or dict", advice)
        return
    if isinstance(example, Mapping):
        keyed = list(example.items())
    else:
        keyed = list(enumerate(example) if isinstance(example, tuple | list) else vars(example).items())
    for position, (key, value) in enumerate(keyed):
        # What the model gets must be a tensor.
        is_input = takes_first and position == 0 and not isinstance(example, Mapping)
        fit = STACKED if is_input else (*STACKED, *RIDES_ALONG)
        odd = next((leaf for leaf in leaves(value) if not isinstance(leaf, fit)), None)
        if odd is not None:
            yield wrong("data", f"{name}[0][{key!r}] is {_kind(odd)}, not a tensor or a number", advice)
            return


def _kind(part: Any) -> str:
    """The type of a part that should be a tensor: `a str ('cat')`, `a Box`."""
    if isinstance(part, Tensor):
        return "a tensor without axes"
    shown = f" ({printable(repr(part))[:40]})" if isinstance(part, str | int | float | bytes | None) else ""
    return f"a {type(part).__name__}{shown}"


def _sample(task: Task, device: Device) -> Sample:
    of_train, collate = _single(task, "train")
    of_val, collate_val = _single(task, "val")
    train, read_seconds = _read(of_train, device, collate, "train")
    val, _ = _read(of_val, device, collate_val, "val")
    is_random = False if is_tree(of_train, collate) else looked_at(of_train, "train", collate)[1]
    if not is_tree(of_val, collate_val):
        looked_at(of_val, "val", collate_val)
    return Sample(train, val, _size(of_train, collate), _size(of_val, collate_val), read_seconds, is_random)


def _single(task: Task, name: str) -> tuple[Any, Collate | None]:
    """A data set of single examples, and what makes a batch of them."""
    data = getattr(task, name)
    return single_examples(data)[:2] if isinstance(data, Loaders) else (data, task.collate)


def _size(data: Any, collate: Collate | None) -> int:
    """The number of examples in a data set of any accepted form."""
    return length(data) if is_tree(data, collate) else len(data)


def _read(data: Any, device: Device, collate: Collate | None, name: str) -> tuple[Batch, float]:
    """Examples from all over the set, on the device, and the seconds that each took to read."""
    n = _size(data, collate)
    index = torch.linspace(0, n - 1, min(MOST, n)).long()
    if is_tree(data, collate):
        held = with_columns(data)
        if collate is None:
            return moved(gather(held, index), device.torch_device), 0.0
        data = Rows(held)
    examples: list[Any] = []
    start = time.perf_counter()
    while len(examples) < len(index) and (len(examples) < 2 or time.perf_counter() - start < SECONDS):
        position = int(index[len(examples)])
        seed_all(position)
        examples.append(data[position])
    spent = time.perf_counter() - start
    seed_all(0)
    # With collate the examples are kept, because smaller batches are collated anew.
    kept = Streamed(examples, device, name=name, collate=collate)
    return kept.gather(torch.arange(len(examples))), spent / len(examples)


def _reproducible(first: Sample, second: Sample) -> Iterator[Finding]:
    advice = (
        "use a separate seeded generator, torch.Generator().manual_seed(0), and read files in sorted order; only "
        "__getitem__ of a Dataset may use the global generators, which are seeded for each example"
    )
    for name in ("train", "val"):
        one, other = getattr(first, name), getattr(second, name)
        count = min(length(one), length(other))  # fewer examples may have been read from a slow Dataset
        if not same_bits(part(one, 0, count), part(other, 0, count)):
            yield wrong(
                "data",
                f"{name} has other examples when it is built again (random numbers without a seed?): the points of a "
                "sweep would train on different data, and no run could be resumed",
                advice,
            )
            return
    if first.n_train != second.n_train:
        yield wrong("data", f"train has {first.n_train} examples, but {second.n_train} when built again", advice)
        return
    named = [f"{tuple(t.shape[1:])} {_dtype(t)}" for t in tensors(second.train)]
    if isinstance(second.train, Collated):  # boxes of each example, for instance
        named = list(dict.fromkeys(named))
    parts = listed(named, MOST_NAMED, last=", ") or "no tensors"
    yield ok("data", f"{second.n_train:,} training and {second.n_val:,} validation examples of {parts}")


def _dtype(part: Tensor) -> str:
    return str(part.dtype).removeprefix("torch.")


def shapes(batch: Batch) -> str:
    """The shapes and dtypes of a batch: `(8, 2) float32 and (8,) int64`."""
    return described(tensors(batch))


def described(parts: Sequence[Tensor]) -> str:
    return " and ".join(f"{tuple(part.shape)} {_dtype(part)}" for part in parts)
