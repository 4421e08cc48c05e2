"""Sets that are read during training: larger than memory, or randomly changed at each read."""

import contextlib
import ctypes
import functools
import itertools
import math
import multiprocessing
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from batchlab.errors import BadRequest
from batchlab.task import Batch
from batchlab.training.data.batches import example_bytes, length, part
from batchlab.training.data.collated import Collated, Divisible, Piece
from batchlab.training.data.order import SampledOrder, row, stream_seed
from batchlab.training.data.reading import Collate, Reader, independent_copy, own_random_numbers, readable
from batchlab.training.data.stream import Stream
from batchlab.training.data.trees import Column, leaves, moved, rebuilt, tensors, with_leaves
from batchlab.training.devices.device import Device

# This much is read at once, if batches are smaller: restoring the random streams costs 200 us, however much was
# read, and so does a message from a worker.
PIECE_BYTES = 2**18
PIECE_EXAMPLES = 256
PIECES_AHEAD = 2  # per worker
READ_HERE = 64  # examples for which no process is started
STARTING_SECONDS = 0.2  # to start some workers; what takes less is read in this process
PR_SET_PDEATHSIG = 1


class Streamed(Stream):
    """A map-style Dataset whose examples are read when they are needed.

    Before each read the generators of Python, NumPy and PyTorch (CPU) are seeded: in training by the run's seed and the
    place in the data order, elsewhere by the index of the example. So what is read does not depend on the number of
    workers, the batch size or where a run resumes, and validation reads the same each time.

    `workers` processes read ahead for training and passes in order: two batches, or two pieces of `PIECE_BYTES` each.
    Other reads use them if they take longer than starting them. 0: this process reads, and training waits. BadRequest
    if an example cannot be read or stacked with the others, or if a worker dies.

    With the task's `collate`, each batch is made of exactly its examples. `dataset` may then be a list of examples,
    which are in memory, with their random numbers drawn.
    """

    def __init__(
        self,
        dataset: Any,
        device: Device,
        *,
        name: str,
        workers: int = 0,
        index: Tensor | None = None,
        collate: Collate | None = None,
    ) -> None:
        self.dataset, self.device, self.name, self.workers = dataset, device, name, workers
        self.collates, self._collate = collate is not None, collate
        self._index = index  # of a subset: which examples of `dataset`
        self._for_workers = Reader(dataset, name, collate)
        self._here = Reader(independent_copy(dataset), name, collate)
        self._example_bytes = 0  # 0: not known yet
        self._seconds = math.inf  # to read one example, the fastest so far

    def __len__(self) -> int:
        return len(self.dataset) if self._index is None else len(self._index)

    def gather(self, index: Tensor) -> Batch:
        n = len(index)
        (batch,) = self._batches(0, n, [n], lambda start, stop: self._fixed(index[start:stop]), self._workers_for(n))
        return batch

    def slices(self, size: int) -> Iterator[Batch]:
        n, done = len(self), 0
        if n and size <= READ_HERE:
            yield self.gather(torch.arange(min(size, n)))
            done = size
        workers = self._workers_for(n - done)
        yield from self._batches(done, n, [size], lambda start, stop: self._fixed(torch.arange(start, stop)), workers)

    def example(self, index: int) -> Any:
        """One example as the Dataset gives it: not collated, and on the host."""
        reader = Reader(self._here.dataset, self.name, list)
        with own_random_numbers():
            read = reader[self._fixed(torch.tensor([index]))]
        return readable(read).content[0]

    def subset(self, index: Tensor) -> "Streamed":
        index = index.cpu() if self._index is None else self._index[index.cpu()]
        chosen = Streamed(
            self.dataset, self.device, name=self.name, workers=self.workers, index=index, collate=self._collate
        )
        chosen._seconds, chosen._example_bytes = self._seconds, self._example_bytes
        return chosen

    def row(
        self, seed: int, start: int, stop: int, sizes: Sequence[int], order: SampledOrder | None = None
    ) -> Iterator[Batch]:
        def piece(first: int, end: int) -> Piece:
            index = row(len(self), seed, first, end - first, order)
            return self._which(index), [stream_seed(seed, "read", position) for position in range(first, end)]

        workers = self.workers if stop - start > sum(sizes) else self._workers_for(sum(sizes))
        return self._batches(start, stop, sizes, piece, workers)

    def piece(self, batch_size: int, most_bytes: int) -> int:
        """One batch: the next step waits for the read."""
        del most_bytes
        return batch_size

    def _which(self, index: Tensor) -> list[int]:
        which: list[int] = (index if self._index is None else self._index[index.cpu()]).tolist()
        return which

    def _fixed(self, index: Tensor) -> Piece:
        which = self._which(index)
        return which, [stream_seed("read", one) for one in which]

    def _workers_for(self, n: int) -> int:
        """How many workers to start for `n` examples that have not been read ahead."""
        if n <= READ_HERE or not self.workers:
            return 0
        self._small_piece()  # reads one, and times it
        return self.workers if n * self._seconds > STARTING_SECONDS else 0

    def _batches(
        self, start: int, stop: int, sizes: Sequence[int], piece: Callable[[int, int], Piece], workers: int
    ) -> Iterator[Batch]:
        """Batches of `sizes`, and the rest; workers start reading at once."""
        if self.collates:
            whole = (piece(first, min(first + size, stop)) for first, size in _starts(start, stop, sizes))
            pieces, again = itertools.tee(whole)
            made = self._received(self._start(pieces, workers)) if workers else map(self._read_and_moved, pieces)
            return map(functools.partial(Divisible, self._read_and_moved), made, again)
        at_once = -(-max(sizes) // max(1, workers))
        if stop - start > max(sizes):
            at_once = max(at_once, self._small_piece())
        pieces = (piece(first, min(first + at_once, stop)) for first in range(start, stop, at_once))
        if not workers:
            return cut(map(self._read_and_moved, pieces), sizes)
        return cut(self._received(self._start(pieces, workers)), sizes)

    def example_bytes(self) -> int:
        if not self._example_bytes:
            self._example_bytes = example_bytes(self.gather(torch.arange(1)))
        return self._example_bytes

    def _small_piece(self) -> int:
        """Examples that are read at once, if batches are smaller."""
        return min(PIECE_EXAMPLES, max(1, PIECE_BYTES // self.example_bytes()))

    def _read_here(self, piece: Piece) -> Any:
        began = time.perf_counter()
        with own_random_numbers():
            read = self._here[piece]
        self._seconds = min(self._seconds, (time.perf_counter() - began) / len(piece[0]))
        return read

    def _read_and_moved(self, piece: Piece) -> Batch:
        return self._moved(self._read_here(piece))

    def _moved(self, read: Any) -> Batch:
        readable(read)
        sent = rebuilt(read, self.device.copies().send(tensors(read)))
        return moved(sent, self.device.torch_device) if isinstance(read, Collated) else sent

    def _start(self, pieces: Iterator[Piece], workers: int) -> Any:
        loader: DataLoader[Any] = DataLoader(
            self._for_workers,  # type: ignore[arg-type]  # it only needs __getitem__
            sampler=pieces,
            batch_size=None,
            num_workers=workers,
            collate_fn=_unchanged,
            pin_memory=self.device.pins(),
            worker_init_fn=settle_in,
            prefetch_factor=PIECES_AHEAD,
            multiprocessing_context="fork",  # a Dataset need not be picklable, and workers start with all imports done
            generator=torch.Generator(),  # or it would draw from the run's own stream
        )
        with allowed_children(), warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # about a fork with threads, from Python 3.12 on
            return iter(loader)

    def _received(self, loader: Any) -> Iterator[Batch]:
        try:
            while True:
                try:
                    read = next(loader)
                except StopIteration:
                    return
                yield self._moved(read)
        except RuntimeError as error:
            # If a signal ended it, the cause of this error says so.
            texts = [text for text in (str(error.__cause__ or ""), str(error)) if "DataLoader worker (pid" in text]
            if not texts:
                raise
            reason = texts[0].strip().splitlines()[0]
            raise BadRequest(
                f"a worker process reading the task's {self.name} set died: {reason.rstrip('. ')}. If memory or "
                "/dev/shm ran out, use fewer workers, or workers=0 to read in the training process"
            ) from error
        finally:
            loader._shutdown_workers()  # now, not at garbage collection


def cut(pieces: Iterator[Batch], sizes: Sequence[int]) -> Iterator[Batch]:
    """Batches of `sizes` examples, repeated, and the rest, each in its own memory.

    A batch that is a view into a piece would be at another address for another number of workers, and might be summed
    in another order.
    """
    waiting: list[Batch] = []
    turns = itertools.cycle(sizes)
    size = next(turns)
    for piece in pieces:
        rest = piece
        while (missing := size - sum(map(length, waiting))) <= length(rest):
            parts = [*waiting, part(rest, 0, missing)]
            rest, waiting, size = part(rest, missing, length(rest)), [], next(turns)
            yield _joined(parts)
        waiting += [rest] if length(rest) else []
    if waiting:
        yield _joined(waiting)


def _joined(parts: list[Batch]) -> Batch:
    return with_leaves(parts[0], [_one(columns) for columns in zip(*map(leaves, parts), strict=True)])


def _one(columns: tuple[Any, ...]) -> Any:
    first = columns[0]
    if isinstance(first, Column):
        return Column(itertools.chain.from_iterable(columns))
    if not isinstance(first, Tensor):
        return first
    fills = len(columns) == 1 and first.untyped_storage().nbytes() == first.nbytes
    return first if fills else torch.cat(columns)


def _starts(start: int, stop: int, sizes: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Where each batch of `sizes`, repeated, starts, and its size."""
    turns = itertools.cycle(sizes)
    while start < stop:
        size = next(turns)
        yield start, size
        start += size


def _unchanged(read: Any) -> Any:
    return read


@contextlib.contextmanager
def allowed_children() -> Iterator[None]:
    """A point runs as a daemon process, which may have no children; its workers end with it in any case.

    SIGTERM waits meanwhile: it would end a worker that has not settled in yet.
    """
    me = multiprocessing.current_process()
    was, mask = me.daemon, signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    if was:
        me.daemon = False
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if was:
            me.daemon = True


def settle_in(worker: int) -> None:
    """In a new worker: it ends when its parent dies, and on SIGTERM only if the parent sent it.

    Batch systems send SIGTERM to every process of a job. The point then takes a checkpoint; a worker that ended by
    itself would make it fail instead.
    """
    del worker
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_end_on_sigterm_from, args=(os.getppid(),), daemon=True).start()


def _end_on_sigterm_from(parent: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        continue
    os._exit(0)
