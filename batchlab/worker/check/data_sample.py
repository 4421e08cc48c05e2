"""Takes a few examples of a user's data, in any accepted form, and checks them."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from batchlab.config import RunConfig
from batchlab.errors import BadRequest
from batchlab.printable import printable
from batchlab.task import Batch, Task
from batchlab.training import assembly
from batchlab.training.data.batches import length
from batchlab.training.data.reading import same_bits, seed_all
from batchlab.training.data.residence import looked_at
from batchlab.training.data.trees import rebuilt, tensors
from batchlab.training.devices.device import Device
from batchlab.training.passes.no_trace import seed_everything
from batchlab.training.user_errors import message_and_place
from batchlab.worker.check.findings import Finding, better, is_wrong, ok, wrong

MOST = 64  # examples that are read
SECONDS = 1.0  # spent on reading a Dataset
SLOW_SECONDS = 10.0  # at the start of every point
SEEDS = (1, 2)


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
            )
            return None, None, [wrong("data", message_and_place(error), advice)]
        seconds.append(time.perf_counter() - start)
        for name in ("train", "val"):
            if found := list(unfit(getattr(task, name), name)):
                return task, None, found
        try:
            made.append(_sample(task, device))
        except BadRequest as error:
            advice = "the same index must give the same tensors or numbers whenever it is read with the same seeds"
            return task, None, [wrong("data", f"training cannot use it: {error}", advice)]
        except (Exception, SystemExit) as error:
            advice = "every index below len(...) must give an example, all of the same shape and type"
            return task, None, [wrong("data", f"an example cannot be read: {message_and_place(error)}", advice)]
    first, second = made
    found = [*_reproducible(first, second), *_finite(second)]
    if min(seconds) > SLOW_SECONDS:
        found.append(
            better(
                "speed",
                f"building the data takes {min(seconds):.0f} s, and every point of a sweep repeats it",
                "prepare it once, save the tensors with torch.save, and let data._target_ load them",
            )
        )
    return task, (None if is_wrong(found) else second), found


def unfit(data: Any, name: str) -> Iterator[Finding]:
    """Why a task's `train` or `val` is not a data set; empty if it is one."""
    accepts = f"Task({name}=...) must be a tuple or dict of tensors, first axis = example, or a map-style Dataset"
    if isinstance(data, DataLoader):
        yield wrong("data", f"{name} is a DataLoader, but batchlab forms the batches", f"pass its dataset: {accepts}")
    elif _is_held(data):
        held = tensors(data)
        odd = next((part for part in held if not isinstance(part, Tensor) or part.dim() == 0), None)
        if not held or odd is not None:
            arrays = "torch.from_numpy makes a tensor of an array; " if isinstance(odd, np.ndarray) else ""
            yield wrong("data", f"{name} contains {_kind(odd) if held else 'nothing'}", arrays + accepts)
        elif len({len(part) for part in held}) > 1 or len(held[0]) == 0:
            sizes = ", ".join(str(len(part)) for part in held)
            yield wrong("data", f"{name} has tensors of {sizes} examples", "give all the same number, above 0")
    elif not (hasattr(data, "__getitem__") and hasattr(data, "__len__")):
        yield wrong("data", f"{name} is {_kind(data)}, which has no length or cannot be indexed", accepts)
    elif len(data) == 0:
        yield wrong("data", f"{name} is an empty {type(data).__name__}", "it must contain examples")
    else:
        yield from _unfit_example(data, name)


def _unfit_example(data: "Dataset[Any]", name: str) -> Iterator[Finding]:
    advice = (
        "let __getitem__ return a tuple or dict of tensors or numbers: convert text to token ids, class names to "
        "indices, images to float tensors"
    )
    try:
        example = data[0]
    except (Exception, SystemExit) as error:
        yield wrong("data", f"{name}[0] cannot be read: {message_and_place(error)}", advice)
        return
    if not isinstance(example, Mapping | tuple | list):
        yield wrong("data", f"{name}[0] is {_kind(example)}, not a tuple or dict", advice)
        return
    keyed = example.items() if isinstance(example, Mapping) else enumerate(example)
    for key, part in keyed:
        if not isinstance(part, Tensor | np.ndarray | np.number | np.bool_ | int | float):
            yield wrong("data", f"{name}[0][{key!r}] is {_kind(part)}, not a tensor or a number", advice)
            return


def _kind(part: Any) -> str:
    """The type of a part that should be a tensor: `a str ('cat')`, `a Box`."""
    if isinstance(part, Tensor):
        return "a tensor without axes"
    shown = f" ({printable(repr(part))[:40]})" if isinstance(part, str | int | float | bytes | None) else ""
    return f"a {type(part).__name__}{shown}"


def _sample(task: Task, device: Device) -> Sample:
    train, read_seconds = _read(task.train, device)
    val, _ = _read(task.val, device)
    is_random = {
        name: looked_at(data, name)[1]
        for name, data in (("train", task.train), ("val", task.val))
        if not _is_held(data)
    }
    return Sample(train, val, size(task.train), size(task.val), read_seconds, is_random.get("train", False))


def _is_held(data: Any) -> bool:
    return isinstance(data, Mapping | tuple | list)


def size(data: Any) -> int:
    """The number of examples in a data set of any accepted form."""
    return length(data) if _is_held(data) else len(data)


def _read(data: Any, device: Device) -> tuple[Batch, float]:
    """Examples from all over the set, on the device, and the seconds that each took to read."""
    index = torch.linspace(0, size(data) - 1, min(MOST, size(data))).long()
    if _is_held(data):
        return rebuilt(data, [part[index.to(part.device)].to(device.torch_device) for part in tensors(data)]), 0.0
    examples: list[Any] = []
    start = time.perf_counter()
    while len(examples) < len(index) and (len(examples) < 2 or time.perf_counter() - start < SECONDS):
        position = int(index[len(examples)])
        seed_all(position)
        examples.append(data[position])
    spent = time.perf_counter() - start
    batch: Batch = default_collate(examples)
    return rebuilt(batch, [part.to(device.torch_device) for part in tensors(batch)]), spent / len(examples)


def _reproducible(first: Sample, second: Sample) -> Iterator[Finding]:
    advice = (
        "use a separate seeded generator, torch.Generator().manual_seed(0), and read files in sorted order; only "
        "__getitem__ of a Dataset may use the global generators, which are seeded for each example"
    )
    for name in ("train", "val"):
        one, other = tensors(getattr(first, name)), tensors(getattr(second, name))
        count = min(len(one[0]), len(other[0]))  # fewer examples may have been read from a slow Dataset
        if len(one) != len(other) or not same_bits([part[:count] for part in one], [part[:count] for part in other]):
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
    parts = ", ".join(f"{tuple(part.shape[1:])} {_dtype(part)}" for part in tensors(second.train))
    yield ok("data", f"{second.n_train:,} training and {second.n_val:,} validation examples of {parts}")


def _dtype(part: Tensor) -> str:
    return str(part.dtype).removeprefix("torch.")


def _finite(sample: Sample) -> Iterator[Finding]:
    for name in ("train", "val"):
        for position, part in enumerate(tensors(getattr(sample, name))):
            if part.is_floating_point() and not bool(torch.isfinite(part).all()):
                yield wrong(
                    "data",
                    f"tensor {position} of {name} contains nan or inf",
                    "fill in or leave out missing values; a model cannot learn from a loss of nan",
                )
                return


def shapes(batch: Batch) -> str:
    """The shapes and dtypes of a batch: `(8, 2) float32 and (8,) int64`."""
    return described(tensors(batch))


def described(parts: Sequence[Tensor]) -> str:
    return " and ".join(f"{tuple(part.shape)} {_dtype(part)}" for part in parts)
