"""The user's `DataLoader`, made for batches whose examples are counted, and the single examples of its data."""

import itertools
from collections.abc import Callable
from typing import Any

from torch.utils.data import DataLoader, Dataset, IterableDataset, default_collate

from batchlab.errors import BadRequest
from batchlab.printable import counted
from batchlab.task import Loaders
from batchlab.training.data.reading import Collate, own_random_numbers, seed_all
from batchlab.training.data.streaming import settle_in
from batchlab.training.data.trees import bytes_of, stacked

FIRST_EXAMPLES = 4096  # of iterable data, which instruments and checks use
FIRST_BYTES = 2**28  # that these may take

Read = tuple[Any, int]  # a batch on the host, and its examples


def examples_of(loaders: Loaders, loader: "DataLoader[Any]") -> tuple[Any, Collate | None]:
    """Single examples of the loader's data by index, and its `collate_fn` unless that only stacks them."""
    counting: Any = loader.collate_fn  # see `made`
    collate = counting.collate
    dataset: Any = loader.dataset
    examples = examples_in_a_pass(loaders, loader)
    if isinstance(dataset, IterableDataset):
        dataset = FirstExamples(dataset, examples)
    elif examples > len(dataset):
        dataset = Repeated(dataset, examples)
    return dataset, None if collate is stacked else collate


class Repeated(Dataset[Any]):
    """A Dataset of which a pass of its loader reads examples several times."""

    def __init__(self, dataset: Any, n: int) -> None:
        self.dataset, self._n = dataset, n

    def __len__(self) -> int:
        return self._n

    def __getitem__(self, index: int) -> Any:
        return self.dataset[index % len(self.dataset)]


class FirstExamples:
    """The first examples of iterable data, by index; an index beyond them begins again."""

    def __init__(self, dataset: Any, n: int) -> None:
        self._dataset, self._n = dataset, n
        self._read: list[Any] = []
        self._most = 0

    def __len__(self) -> int:
        return self._n

    def __getitem__(self, index: int) -> Any:
        if not self._most:
            self._extend(1)
            self._most = min(self._n, FIRST_EXAMPLES, max(1, FIRST_BYTES // bytes_of(self._read[0])))
        index %= self._most
        if index >= len(self._read):
            self._extend(min(self._most, 2 * index))
        return self._read[index]

    def _extend(self, n: int) -> None:
        """Reads from the start, so that random numbers are the same whatever was read before."""
        with own_random_numbers():
            seed_all(0)
            self._read = list(itertools.islice(iter(self._dataset), n))
        if len(self._read) < n:
            raise BadRequest(
                f"the dataset of the loader gave {counted(len(self._read), 'example')}, fewer than the {self._n:,} of "
                "a pass: give their number as train_size= or val_size= to Task.from_loaders"
            )


class _Counted:
    """A loader's `collate_fn` that also gives the number of examples."""

    def __init__(self, collate: Collate) -> None:
        self.collate = collate

    def __call__(self, examples: list[Any]) -> Read:
        return self.collate(examples), len(examples)


class _Settled:
    """A loader's `worker_init_fn`, after what batchlab's workers do."""

    def __init__(self, then: Callable[[int], None] | None) -> None:
        self.then = then

    def __call__(self, worker: int) -> None:
        settle_in(worker)
        if self.then is not None:
            self.then(worker)


def made(loaders: Loaders, size: int, seed: int) -> "DataLoader[Any]":
    """A loader with which the examples of its batches are counted."""
    loader = loaders.make_loader(loaders.split, size, seed)
    call = f"make_loader({loaders.split!r}, {size}, seed)"
    if not isinstance(loader, DataLoader):
        raise BadRequest(f"{call} returned a {type(loader).__name__}: it must return a torch.utils.data.DataLoader")
    if loader.batch_sampler is None:
        raise BadRequest(
            f"{call} returned a DataLoader with batch_size=None, whose batches cannot be counted: let the dataset give "
            "single examples, and use DataLoader(dataset, batch_size=batch_size)"
        )
    if not isinstance(loader.collate_fn, _Counted):  # make_loader may return the same loader again
        loader.collate_fn = _Counted(stacked if loader.collate_fn is default_collate else loader.collate_fn)
        loader.worker_init_fn = _Settled(loader.worker_init_fn)
    return loader


def examples_in_a_pass(loaders: Loaders, loader: "DataLoader[Any]") -> int:
    """The number of examples in a pass."""
    if loaders.size is not None:
        return loaders.size
    of: Any = loader.dataset if isinstance(loader.dataset, IterableDataset) else loader.sampler
    try:
        return len(of)
    except (TypeError, NotImplementedError):
        raise BadRequest(
            f"make_loader({loaders.split!r}, ...) returned a loader whose number of examples is unknown, because "
            f"{type(of).__name__} has no length: give it as {loaders.split}_size= to Task.from_loaders"
        ) from None
