"""Sets whose batches the user's own `DataLoader` makes (`Task.from_loaders`)."""

import contextlib
import copy
import itertools
import random
import warnings
from collections.abc import Generator, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import IterableDataset

from batchlab.errors import BadRequest
from batchlab.printable import counted
from batchlab.task import Batch, Loaders
from batchlab.training.data.collated import Collated
from batchlab.training.data.loaders.user_loader import Read, examples_in_a_pass, examples_of, made
from batchlab.training.data.order import SampledOrder, stream_seed
from batchlab.training.data.reading import Collate, own_random_numbers, same_bits, seed_all
from batchlab.training.data.streaming import Streamed, allowed_children
from batchlab.training.devices.device import Device
from batchlab.training.devices.out_of_memory import is_out_of_memory
from batchlab.training.user_errors import message_and_place

TRIED = 2  # examples of the batch that is read twice, to check that it is the same


class Loaded(Streamed):
    """A set whose training batches, or if it is the validation set whose slices, the user's loader makes.

    The order is the loader's. Each pass over the set is a new loader, made with a seed that depends on the run's and
    on the pass (for validation always the same), and with the random numbers of Python, NumPy and PyTorch seeded by
    it; they are kept apart from the run's. A micro-batch is one batch of the loader; smaller ones, as at the end of a
    pass, are left out. A run resumes by repeating the pass up to its place.

    Everything else (instruments, checks, memory) reads single examples from the loader's Dataset, in any order, or if
    that is iterable the first ones of it, and makes batches of them with the loader's `collate_fn`.
    BadRequest if the loader gives batches of another size than requested, too few of them, or other ones for the same
    seed.
    """

    own_batches = True

    def __init__(self, loaders: Loaders, device: Device, *, name: str, workers: int = 0) -> None:
        self.loaders = loaders
        dataset, collate, self._n = single_examples(loaders)
        super().__init__(dataset, device, name=name, workers=workers, collate=collate)
        self._rehearsed: tuple[Any, list[Read]] = (None, [])
        if name == "train":
            self._refuse_unless_repeatable()
            self._refuse_unless_same_examples()

    def __len__(self) -> int:
        return self._n

    def row(
        self, seed: int, start: int, stop: int, sizes: Sequence[int], order: SampledOrder | None = None
    ) -> Iterator[Batch]:
        del order
        if why := misfit(sizes):
            raise BadRequest(why)
        size = sizes[0]
        if size > self._n:  # only `find` requests so many
            ends = range(start, stop, size)
            return (self.gather(torch.arange(at, at + size) % self._n) for at in ends)
        reads = itertools.islice(self._passes(seed, start // size, size), (stop - start) // size)
        if stop - start > sum(sizes):
            self._rehearsed = (None, [])
            return map(self._on_device, reads)
        key = (seed, start, stop, size)  # a step that is rehearsed, several times
        if self._rehearsed[0] != key:
            with contextlib.closing(self._passes(seed, start // size, size)) as passes:
                self._rehearsed = (key, list(itertools.islice(passes, (stop - start) // size)))
        return (self._on_device(copy.deepcopy(read)) for read in self._rehearsed[1])

    def slices(self, size: int) -> Iterator[Batch]:
        if self.name == "train":
            yield from super().slices(size)
            return
        done = 0
        for read in self._pass(_seed(self.name, 0, 0), size):
            done += read[1]
            if done > self._n:
                break
            yield self._on_device(read)
        if done != self._n:
            more = "more" if done > self._n else f"{done:,}"
            raise BadRequest(
                f"make_loader({self.name!r}, {size}, seed) gave {more} examples of {self._n:,}: each validation must "
                "read all of them, so use drop_last=False and no sampler, or give val_size= to Task.from_loaders"
            )

    def _passes(self, seed: int, batch: int, size: int) -> Generator[Read, None, None]:
        """Batches of `size` from the given number on, over all passes."""
        in_a_pass = self._n // size
        first, skipped = divmod(batch, in_a_pass)
        for number in itertools.count(first):
            whole = (read for read in self._pass(_seed(self.name, seed, number), size) if read[1] == size)
            given = 0
            for read in itertools.islice(whole, in_a_pass):
                given += 1
                if number > first or given > skipped:
                    yield read
            if given < in_a_pass:
                raise BadRequest(
                    f"make_loader({self.name!r}, {size}, seed) gave {given:,} of its batches with {size} "
                    f"examples in pass {number + 1}, but {self._n:,} examples make {in_a_pass:,}: give every batch but "
                    "the last the requested size, or give the number of examples in a pass as train_size= to "
                    "Task.from_loaders"
                )

    def _pass(self, seed: int, size: int) -> Generator[Read, None, None]:
        """All batches of a new loader, at most `size` examples each."""
        numbers = _Numbers(seed)
        iterator: Any = None
        try:
            with self._named_errors(size), numbers():
                loader = made(self.loaders, size, seed)
                with allowed_children(), warnings.catch_warnings():
                    warnings.simplefilter("ignore", DeprecationWarning)  # about a fork with threads
                    iterator = iter(loader)
            while True:
                with self._named_errors(size), numbers():
                    read: Read | None = next(iterator, None)
                if read is None:
                    return
                if read[1] > size:
                    raise BadRequest(
                        f"make_loader({self.name!r}, {size}, seed) gave a batch of {counted(read[1], 'example')}: pass "
                        "its second argument to the DataLoader, as batch_size=batch_size"
                    )
                yield read
        finally:
            if iterator is not None and not loader.persistent_workers:
                getattr(iterator, "_shutdown_workers", _nothing)()  # now, not at garbage collection

    @contextlib.contextmanager
    def _named_errors(self, size: int) -> Iterator[None]:
        try:
            yield
        except BadRequest:
            raise
        except Exception as error:
            if is_out_of_memory(error):
                raise
            what = f"the loader of make_loader({self.name!r}, {size}, seed) fails"
            raise BadRequest(f"{what}: {message_and_place(error)}") from error

    def _on_device(self, read: Read) -> Batch:
        batch, n = read
        return self._moved(Collated(batch, n) if self.collates else batch)

    def _refuse_unless_repeatable(self) -> None:
        made = []
        for _ in range(2):
            with contextlib.closing(self._pass(_seed(self.name, 0, 0), TRIED)) as batches:
                made.append(next(batches, None))
        if made[0] is None:
            raise BadRequest(f"make_loader({self.name!r}, {TRIED}, seed) gave no batch: it needs at least one example")
        if not same_bits(made[0], made[1]):
            raise BadRequest(
                f"make_loader({self.name!r}, {TRIED}, seed) gave two different batches for the same seed, so a run "
                "could not be resumed: draw random numbers from torch.Generator().manual_seed(seed), created in "
                "make_loader, or from random, np.random or torch, which are seeded before each call"
            )

    def _refuse_unless_same_examples(self) -> None:
        """The Dataset must not depend on the seed: validation examples could be trained on in the next pass."""
        found = []
        for number in range(2):
            seed = _seed(self.name, 0, number)
            with _Numbers(seed)():
                data: Any = made(self.loaders, TRIED, seed).dataset
            if isinstance(data, IterableDataset):
                return  # it may shuffle
            with _Numbers(0)():
                found.append((len(data), data[0], data[len(data) // 2]))
        if found[0][0] != found[1][0] or not same_bits(found[0][1:], found[1][1:]):
            raise BadRequest(
                f"make_loader({self.name!r}, {TRIED}, seed) gave a loader of other data for another seed (a random "
                "split without a generator?), so training would see validation examples: choose the examples outside "
                "make_loader, or with a fixed seed; only their order may depend on seed"
            )


def single_examples(loaders: Loaders) -> tuple[Any, Collate | None, int]:
    """The examples of the loader's data, by index; its `collate_fn`, unless that only stacks; those of a pass."""
    with _Numbers(seed := _seed(loaders.split, 0, 0))():
        loader = made(loaders, TRIED, seed)
    return *examples_of(loaders, loader), examples_in_a_pass(loaders, loader)


def misfit(sizes: Sequence[int]) -> str | None:
    """Why a loader cannot give micro-batches of `sizes`; None if it can."""
    if len(set(sizes)) > 1:
        shown = " and ".join(map(str, sorted(set(sizes), reverse=True)))
        return (
            f"batch_size={sum(sizes)} in micro-batches of {shown} was requested, but a DataLoader of "
            f"Task.from_loaders has one batch size: choose accumulate={len(sizes)} with a batch_size that it divides"
        )
    return None


def left_out(train: Any, sizes: Sequence[int]) -> Iterator[str]:
    """A sentence about the examples that the loader's passes leave out."""
    if isinstance(train, Loaded) and (rest := len(train) % sizes[0]):
        yield (
            f"{counted(rest, 'example')} of each pass of the task's loader, of {len(train):,}, make no whole "
            f"micro-batch of {sizes[0]}: not trained on"
        )


def _seed(name: str, seed: int, number: int) -> int:
    """Of a pass: below 2**32, as NumPy requires it; for validation independent of the run's."""
    words = (seed, "loader", number) if name == "train" else ("loader", name)
    return stream_seed(*words) % 2**32


class _Numbers:
    """Random numbers of Python, NumPy and PyTorch (CPU) of a loader's own, used inside `with numbers():`."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._states: Any = None

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        with own_random_numbers():
            if self._states is None:
                seed_all(self._seed)
            else:
                random.setstate(self._states[0])
                np.random.set_state(self._states[1])
                torch.set_rng_state(self._states[2])
            yield
            self._states = random.getstate(), np.random.get_state(), torch.get_rng_state()


def _nothing() -> None:
    """Shuts nothing down: there are no worker processes."""
