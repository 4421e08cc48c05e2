"""Reads the examples of a Dataset, each with its own random seed."""

import contextlib
import copy
import random
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from batchlab.errors import BadRequest
from batchlab.printable import counted
from batchlab.task import Batch
from batchlab.training.data.collated import Collated, Piece
from batchlab.training.data.trees import RIDES_ALONG, Column, leaves, stacked
from batchlab.training.devices.out_of_memory import is_out_of_memory
from batchlab.training.user_errors import message_and_place

Collate = Callable[[list[Any]], Any]  # `Task.collate`

COLLATE = (
    "Pad and mask them to one shape, or give collate=, a function from a list of examples to a batch, such as "
    "Task(..., collate=lambda examples: (pad_sequence([x for x, y in examples], batch_first=True), "
    "torch.tensor([y for x, y in examples])))"
)
VALUES = (*RIDES_ALONG, bool, int, float, complex, np.generic, Column)  # whose `repr` shows their value
TWINS = "_batchlab_twins"  # attribute of a Dataset: the copies that `independent_copy` has made


class Reader:
    """Reads the examples of a piece, each with its own seed if seeds are given, and stacks them, or has the task's
    `collate` make a `Collated` of them."""

    def __init__(self, dataset: Any, name: str, collate: Collate | None = None) -> None:
        self.dataset = dataset
        self.name = name
        self.collate = collate

    def __getitem__(self, piece: Piece) -> Any:
        """A batch, or an `Unreadable`: an error's type and text are not preserved when a worker process raises it."""
        with _one_thread():
            return self._read(*piece)

    def _read(self, which: list[int], seeds: list[int]) -> Any:
        examples = []
        in_memory = type(self.dataset) is list  # their random numbers have been drawn
        for position, index in enumerate(which):
            try:
                if seeds and not in_memory:
                    seed_all(seeds[position])
                examples.append(self.dataset[index])
            except Exception as error:
                what = f"example {index} of the task's {self.name} set cannot be read: {message_and_place(error)}"
                return _unreadable(error, what)
        if self.collate is None:
            return self._stacked(examples)
        if seeds:
            seed_all(seeds[0])  # it may draw random numbers too
        try:
            return Collated(self.collate(examples), len(examples))
        except Exception as error:
            few = f"{counted(len(examples), 'example')} of the task's {self.name} set, from {self.name}[{which[0]}] on"
            return _unreadable(error, f"the task's collate fails for {few}: {message_and_place(error)}")

    def _stacked(self, examples: list[Any]) -> Any:
        try:
            return stacked(examples)
        except Exception as error:
            why = str(error).strip().partition("\n")[0].rstrip(".")
            return _unreadable(
                error,
                f"examples of the task's {self.name} set cannot be stacked: {type(error).__name__}: {why}. {COLLATE}",
            )


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """As in a `DataLoader` worker: the last bits of a sum over a large tensor depend on the number of threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _unreadable(error: Exception, what: str) -> "Unreadable":
    if is_out_of_memory(error):
        raise error  # that is a result, recognised by its type
    return Unreadable(what, "".join(traceback.format_exception(error)))


@dataclass(frozen=True)
class Unreadable:
    """What a reader returns instead of a batch if reading fails."""

    reason: str
    trace: str


class ReadingError(Exception):
    """The traceback of an error in another process, to be printed with ours."""


def readable(read: Any) -> Any:
    """What a reader returned, if it is a batch; else BadRequest."""
    if isinstance(read, Unreadable):
        raise BadRequest(read.reason) from ReadingError(read.trace)
    return read


def independent_copy(dataset: Any) -> Any:
    """A shallow copy of the Dataset that opens its own files; the data it holds is not copied.

    A file that this process opened at the first read would be shared with the workers, including its position, and they
    would disturb each other. Datasets inside it (`Subset`, `ConcatDataset`) are copied too. The copy is kept alive as
    long as the original, because its `__del__` might close files that the original has open.
    """
    try:
        twin = copy.copy(dataset)
    except TypeError:  # it cannot be copied
        return dataset
    for name, value in list(getattr(twin, "__dict__", {}).items()):
        if isinstance(value, Dataset):
            setattr(twin, name, independent_copy(value))
        elif type(value) in (list, tuple) and value and all(isinstance(one, Dataset) for one in value):
            setattr(twin, name, type(value)(map(independent_copy, value)))
    if hasattr(type(dataset), "__del__") and hasattr(dataset, "__dict__"):
        vars(twin).pop(TWINS, None)
        vars(dataset).setdefault(TWINS, []).append(twin)
    return twin


def seed_all(seed: int) -> None:
    """Seeds the generators that a Dataset's transforms draw from; not CUDA's, which belongs to training."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)


@contextlib.contextmanager
def own_random_numbers() -> Iterator[None]:
    """Restores the random streams of this process afterwards."""
    python_state, numpy_state = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)


def random_states() -> tuple[Any, ...]:
    """The states of the random streams, which show whether anything was drawn."""
    numpy_state: Any = np.random.get_state(legacy=False)
    inner, gauss = numpy_state["state"], (numpy_state["has_gauss"], numpy_state["gauss"])
    return random.getstate(), bytes(inner["key"]), inner["pos"], gauss, bytes(torch.get_rng_state().numpy())


def same_bits(a: Batch, b: Batch) -> bool:
    """Whether two batches are bitwise equal; nan equals nan. Of objects only the types are compared."""
    these, those = leaves(a), leaves(b)
    return len(these) == len(those) and all(map(_same_leaf, these, those))


def _same_leaf(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, Tensor):
        return one.shape == other.shape and torch.equal(_bits(one), _bits(other))
    if isinstance(one, np.ndarray):
        return bool(one.shape == other.shape) and one.tobytes() == other.tobytes()
    return not isinstance(one, VALUES) or repr(one) == repr(other)  # nan is no equal of itself


def _bits(tensor: Tensor) -> Tensor:
    return tensor.contiguous().flatten().view(torch.uint8)
