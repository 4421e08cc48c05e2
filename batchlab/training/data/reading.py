"""Reading the examples of a Dataset, each under random numbers of its own."""

import contextlib
import copy
import random
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from batchlab.task import Batch
from batchlab.training.data.batches import length, tensors
from batchlab.training.devices.out_of_memory import is_out_of_memory
from batchlab.training.user_errors import in_the_users_words

Piece = tuple[list[int], list[int]]  # which examples to read, and the seed of each one's random numbers; [] as it comes

TWINS = "_batchlab_twins"  # of a Dataset: what `apart` has made of it


class Reader:
    """Reads the examples of a piece, each under random numbers of its own where they are seeded, and stacks them."""

    def __init__(self, dataset: Any, name: str) -> None:
        self.dataset = dataset
        self.name = name

    def __getitem__(self, piece: Piece) -> Any:
        """A batch; or why there is none: an error's type and text do not come whole out of a worker."""
        with _one_thread():
            return self._read(*piece)

    def _read(self, which: list[int], seeds: list[int]) -> Any:
        examples = []
        for position, index in enumerate(which):
            try:
                if seeds:
                    seed_all(seeds[position])
                examples.append(self.dataset[index])
            except Exception as error:
                what = f"example {index} of the task's {self.name} cannot be read: {in_the_users_words(error)}"
                return _unreadable(error, what)
        try:
            return default_collate(examples)
        except Exception as error:
            why = str(error).strip().partition("\n")[0]
            return _unreadable(
                error, f"examples of the task's {self.name} cannot be stacked: {type(error).__name__}: {why}"
            )


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """As a `DataLoader`'s worker has it: of another number of threads a sum over a large tensor has other last bits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _unreadable(error: Exception, what: str) -> "Unreadable":
    if is_out_of_memory(error):
        raise error  # that is a result, and told by its type
    return Unreadable(what, "".join(traceback.format_exception(error)))


@dataclass(frozen=True)
class Unreadable:
    """What a reader gives in place of a batch."""

    reason: str
    trace: str


class ReadingError(Exception):
    """The traceback of an error in another process, to be printed with ours."""


def apart(dataset: Any) -> Any:
    """The same Dataset, as an object that opens files of its own; what it holds is not copied.

    A file that was opened at a first reading here would be shared with the workers, its position and all: each would
    read what another looked for. Datasets inside it (`Subset`, `ConcatDataset`) are copied too. It lives as long as the
    other, whose files, open already, its `__del__` might close.
    """
    try:
        twin = copy.copy(dataset)
    except TypeError:  # it cannot be copied
        return dataset
    for name, value in list(getattr(twin, "__dict__", {}).items()):
        if isinstance(value, Dataset):
            setattr(twin, name, apart(value))
        elif type(value) in (list, tuple) and value and all(isinstance(one, Dataset) for one in value):
            setattr(twin, name, type(value)(map(apart, value)))
    if hasattr(type(dataset), "__del__") and hasattr(dataset, "__dict__"):
        vars(twin).pop(TWINS, None)
        vars(dataset).setdefault(TWINS, []).append(twin)
    return twin


def seed_all(seed: int) -> None:
    """Seeds the generators that a Dataset's transforms draw from. CUDA's is training's own."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)


@contextlib.contextmanager
def own_random_numbers() -> Iterator[None]:
    """The random streams of this process are afterwards where they were."""
    python_state, numpy_state = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)


def random_states() -> tuple[Any, ...]:
    """Where the random streams stand, to be compared: by what was drawn, and not by what came of it."""
    numpy_state: Any = np.random.get_state(legacy=False)
    inner, gauss = numpy_state["state"], (numpy_state["has_gauss"], numpy_state["gauss"])
    return random.getstate(), bytes(inner["key"]), inner["pos"], gauss, bytes(torch.get_rng_state().numpy())


def same_bits(a: Batch, b: Batch) -> bool:
    """Whether two batches are the same, to the bit: nan is as good as any."""
    return length(a) == length(b) and all(
        one.shape == other.shape and torch.equal(_bits(one), _bits(other))
        for one, other in zip(tensors(a), tensors(b), strict=True)
    )


def _bits(tensor: Tensor) -> Tensor:
    return tensor.contiguous().flatten().view(torch.uint8)
