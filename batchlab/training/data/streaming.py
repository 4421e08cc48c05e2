"""Sets that are read while a run trains on them: larger than memory, or changed at random at each reading."""

import contextlib
import ctypes
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
from batchlab.training.data.batches import Stream, example_bytes, length, rebuilt, row, stream_seed, tensors
from batchlab.training.data.reading import Piece, Reader, ReadingError, Unreadable, apart, own_random_numbers
from batchlab.training.devices.device import Device

# This much is read at once, where batches are smaller: setting the random streams back costs 200 us, however much
# was read, and so does a message from a worker.
PIECE_BYTES = 2**18
PIECE_EXAMPLES = 256
PIECES_AHEAD = 2  # of each worker
READ_HERE = 64  # examples that no process is started for
STARTING_SECONDS = 0.2  # of some workers; what takes less is read here
PR_SET_PDEATHSIG = 1


class Streamed(Stream):
    """A map-style Dataset that is read example by example when its examples are asked for.

    Around each reading the random numbers of Python, NumPy and PyTorch (CPU) are seeded: in training by the run's seed
    and the example's place in the row, elsewhere by which example it is. So neither the number of workers nor the
    batch size nor where a run goes on changes what is read, and validation reads the same each time.

    `workers` processes read ahead what training, or a pass in order, is to have: two batches, or two pieces of
    `PIECE_BYTES` for each of them; and else what takes longer than to start them. 0: this process reads, and training
    waits. BadRequest where an example cannot be read, cannot be stacked with the others, or a worker dies.
    """

    def __init__(
        self, dataset: Any, device: Device, *, name: str, workers: int = 0, index: Tensor | None = None
    ) -> None:
        self.dataset, self.device, self.name, self.workers = dataset, device, name, workers
        self._index = index  # of a subset: which examples of `dataset`
        self._for_workers = Reader(dataset, name)
        self._here = Reader(apart(dataset), name)
        self._example_bytes = 0  # found when it is needed
        self._seconds = math.inf  # that reading an example takes, at best

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

    def subset(self, index: Tensor) -> "Streamed":
        index = index.cpu() if self._index is None else self._index[index.cpu()]
        chosen = Streamed(self.dataset, self.device, name=self.name, workers=self.workers, index=index)
        chosen._seconds, chosen._example_bytes = self._seconds, self._example_bytes
        return chosen

    def row(self, seed: int, start: int, stop: int, sizes: Sequence[int]) -> Iterator[Batch]:
        def piece(first: int, end: int) -> Piece:
            index = row(len(self), seed, first, end - first)
            return self._which(index), [stream_seed(seed, "read", position) for position in range(first, end)]

        workers = self.workers if stop - start > sum(sizes) else self._workers_for(sum(sizes))
        return self._batches(start, stop, sizes, piece, workers)

    def piece(self, batch_size: int, most_bytes: int) -> int:
        """One batch: the next step waits for what is read."""
        del most_bytes
        return batch_size

    def _which(self, index: Tensor) -> list[int]:
        which: list[int] = (index if self._index is None else self._index[index.cpu()]).tolist()
        return which

    def _fixed(self, index: Tensor) -> Piece:
        which = self._which(index)
        return which, [stream_seed("read", one) for one in which]

    def _workers_for(self, n: int) -> int:
        """How many read `n` examples, which nobody has been reading ahead."""
        if n <= READ_HERE or not self.workers:
            return 0
        self._small_piece()  # has read one
        return self.workers if n * self._seconds > STARTING_SECONDS else 0

    def _batches(
        self, start: int, stop: int, sizes: Sequence[int], piece: Callable[[int, int], Piece], workers: int
    ) -> Iterator[Batch]:
        """Batches of `sizes`, and what is left; where workers read, they begin at once."""
        at_once = -(-max(sizes) // max(1, workers))
        if stop - start > max(sizes):
            at_once = max(at_once, self._small_piece())
        pieces = (piece(first, min(first + at_once, stop)) for first in range(start, stop, at_once))
        if not workers:
            return cut((self._moved(self._read_here(one)) for one in pieces), sizes)
        return cut(self._received(self._start(pieces, workers)), sizes)

    def example_bytes(self) -> int:
        if not self._example_bytes:
            self._example_bytes = example_bytes(self.gather(torch.arange(1)))
        return self._example_bytes

    def _small_piece(self) -> int:
        """Examples that are read at once, where batches are smaller."""
        return min(PIECE_EXAMPLES, max(1, PIECE_BYTES // self.example_bytes()))

    def _read_here(self, piece: Piece) -> Any:
        began = time.perf_counter()
        with own_random_numbers():
            read = self._here[piece]
        self._seconds = min(self._seconds, (time.perf_counter() - began) / len(piece[0]))
        return read

    def _moved(self, read: Any) -> Batch:
        if isinstance(read, Unreadable):
            raise BadRequest(read.reason) from ReadingError(read.trace)
        return rebuilt(read, self.device.copies().send(tensors(read)))

    def _start(self, pieces: Iterator[Piece], workers: int) -> Any:
        loader: DataLoader[Any] = DataLoader(
            self._for_workers,  # type: ignore[arg-type]  # it need only be asked for pieces
            sampler=pieces,
            batch_size=None,
            num_workers=workers,
            collate_fn=_unchanged,
            pin_memory=self.device.pins(),
            worker_init_fn=_settle_in,
            prefetch_factor=PIECES_AHEAD,
            multiprocessing_context="fork",  # a Dataset need not be picklable, and starts with everything imported
            generator=torch.Generator(),  # or the run's own stream would be drawn from
        )
        with _allowed_children(), warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads, from Python 3.12 on
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
            # That a signal ended it is told by the error which this one was made of.
            said = [text for text in (str(error.__cause__ or ""), str(error)) if "DataLoader worker (pid" in text]
            if not said:
                raise
            told = said[0].strip().splitlines()[0]
            raise BadRequest(
                f"a process that read the task's {self.name} died: {told.rstrip('. ')}. Where memory or /dev/shm ran "
                "out, fewer workers take less, and workers=0 reads in the training process"
            ) from error
        finally:
            loader._shutdown_workers()  # now, and not when nobody holds it any more


def cut(pieces: Iterator[Batch], sizes: Sequence[int]) -> Iterator[Batch]:
    """Batches of `sizes` examples, over and over, and what is left, each in memory of its own.

    A batch that began within a piece would lie at another address for another number of workers, and might be added
    up in another order.
    """
    waiting: list[Batch] = []
    turns = itertools.cycle(sizes)
    size = next(turns)
    for piece in pieces:
        rest = piece
        while (missing := size - sum(map(length, waiting))) <= length(rest):
            parts = [*waiting, _part(rest, 0, missing)]
            rest, waiting, size = _part(rest, missing, length(rest)), [], next(turns)
            yield _joined(parts)
        waiting += [rest] if length(rest) else []
    if waiting:
        yield _joined(waiting)


def _part(batch: Batch, start: int, stop: int) -> Batch:
    return rebuilt(batch, [t[start:stop] for t in tensors(batch)])


def _joined(parts: list[Batch]) -> Batch:
    return rebuilt(parts[0], [_one(columns) for columns in zip(*map(tensors, parts), strict=True)])


def _one(columns: tuple[Tensor, ...]) -> Tensor:
    fills = len(columns) == 1 and columns[0].untyped_storage().nbytes() == columns[0].nbytes
    return columns[0] if fills else torch.cat(columns)


def _unchanged(read: Any) -> Any:
    return read


@contextlib.contextmanager
def _allowed_children() -> Iterator[None]:
    """A point is a daemon of its server, which may have no children: its workers end with it all the same."""
    me = multiprocessing.current_process()
    was = me.daemon
    if was:
        me.daemon = False
    try:
        yield
    finally:
        if was:
            me.daemon = True


def _settle_in(worker: int) -> None:
    """In a new worker: it ends with its parent, and at its parent's word alone.

    Batch systems send SIGTERM to every process of a job. What that means is the point's to say: it takes a
    checkpoint, and a worker that ended by itself would make it fail instead.
    """
    del worker
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_end_at_the_word_of, args=(os.getppid(),), daemon=True).start()


def _end_at_the_word_of(parent: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        continue
    os._exit(0)
