"""The micro-batches of each step, taken in the data order from a set of any kind."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from batchlab.errors import BadRequest
from batchlab.task import Batch
from batchlab.training.data.collated import Collated
from batchlab.training.data.order import SampledOrder, row, stream_seed
from batchlab.training.data.stream import Stream
from batchlab.training.data.trees import Column, is_plain, leaves, mapped, rebuilt, tensors, with_leaves
from batchlab.training.devices.cpu import CpuDevice
from batchlab.training.devices.device import Device

Augment = Callable[[Batch, Tensor], Batch]  # `Task.augment`

INDICES_AT_ONCE = 4096  # examples whose indices are computed, and sent to the device, at once


class OneByOne:
    """A step's micro-batches, each loaded when it is needed, so that no two are in memory: iterate once, in order,
    before the next step's."""

    def __init__(self, batches: Iterator[Batch], examples: int) -> None:
        self.examples = examples
        self._batches = batches

    def __iter__(self) -> Iterator[Batch]:
        return self._batches


MicroBatches = Sequence[Batch] | OneByOne


class Batches:
    """The micro-batches of each step, taken in the data order from a set that is on the device, or streams to it.

    Iterating yields each step's micro-batches (trees of tensors like the set, or `Collated`): a tuple of them, or a
    `OneByOne` if a batch is larger than `device.gather_bytes`, or collated. Batches cross epoch boundaries, so each
    holds exactly sum(`micro_batch_sizes`) examples. Ends after `total` examples. `augment` is the task's, and so is
    `order` (None: a permutation in each epoch); `device` (None: the CPU) is where the set is, or streams to. Without
    `ahead` no batch is augmented before the step that needs it.
    """

    def __init__(
        self,
        data: Any,
        *,
        micro_batch_sizes: Sequence[int],
        seed: int,
        total: int,
        position: int = 0,
        augment: Augment | None = None,
        order: SampledOrder | None = None,
        device: Device | None = None,
        ahead: bool = True,
    ) -> None:
        self.data = data
        self.micro_batch_sizes = tuple(micro_batch_sizes)
        self.seed = seed
        self.total = total
        self.position = position  # examples yielded so far, in whole steps
        self.augment = augment
        self.order = order
        self.device = device or CpuDevice()
        self.ahead = ahead

    def first(self) -> MicroBatches:
        """The next step's micro-batches; does not advance the position."""
        size, start = sum(self.micro_batch_sizes), self.position
        if (parts := self._parts()) is None:
            (batch,) = self._row(start, start + size, (size,))
            return split(augmented(batch, self.augment, self.seed, start), self.micro_batch_sizes)
        loaded = self._row(start, start + size, tuple(map(sum, parts)))
        return OneByOne(self._in_parts(loaded, parts, start), size)

    def few(self) -> Batch:
        """The next two examples (one if a micro-batch is one), or other ones if the user's loader makes the batches;
        does not advance the position."""
        size, start = min(2, self.micro_batch_sizes[0]), self.position
        if isinstance(self.data, Stream) and self.data.own_batches:
            batch = self.data.gather(torch.arange(size))
        else:
            (batch,) = self._row(start, start + size, (size,))
        return augmented(batch, self.augment, self.seed, start)

    def __iter__(self) -> Iterator[MicroBatches]:
        if (parts := self._parts()) is not None:
            return self._steps_in_parts(parts)
        batch_size = sum(self.micro_batch_sizes)
        if not self.ahead:
            piece = batch_size
        elif isinstance(self.data, Stream):
            piece = self.data.piece(batch_size, self.device.gather_bytes)
        else:
            piece = batch_size * max(1, self.device.gather_bytes // (batch_size * example_bytes(self.data)))
        # Pieces begin at multiples of their length wherever a run resumes: a batch at another address in memory may be
        # summed in another order, and resuming would not be exact.
        start = self.position // piece * piece
        return self._steps(self._row(start, self.total, (piece,)), piece, start)

    def _parts(self) -> list[tuple[int, ...]] | None:
        """The micro-batch sizes of a step, in groups gathered at once: up to `gather_bytes`, or one larger micro-batch.

        None if the whole step is one group. Each is one group if they are collated.
        """
        sizes = self.micro_batch_sizes
        if isinstance(self.data, Stream) and (self.data.collates or self.data.own_batches):
            return [(size,) for size in sizes]
        if len(sizes) == 1:
            return None
        most = self.device.gather_bytes // example_bytes(self.data)
        if sum(sizes) <= most:
            return None
        parts: list[tuple[int, ...]] = []
        for size in sizes:
            if parts and sum(parts[-1]) + size <= most:
                parts[-1] += (size,)
            else:
                parts.append((size,))
        return parts

    def _steps(self, pieces: Iterator[Batch], piece: int, start: int) -> Iterator[MicroBatches]:
        """Each step's micro-batches, from pieces of the data order that begin at `start`; a piece is whole steps."""
        batch_size, micro_batches = sum(self.micro_batch_sizes), len(self.micro_batch_sizes)
        for batch in pieces:
            steps = length(batch) // batch_size
            micro = split(augmented(batch, self.augment, self.seed, start), self.micro_batch_sizes * steps)
            start += steps * batch_size
            for step in range(self.position % piece // batch_size, steps):
                self.position += batch_size
                yield micro[step * micro_batches : (step + 1) * micro_batches]
            del batch, micro  # or two pieces would be in memory while the next is gathered

    def _steps_in_parts(self, parts: Sequence[tuple[int, ...]]) -> Iterator[MicroBatches]:
        start, batch_size = self.position, sum(self.micro_batch_sizes)
        stop = start + (self.total - start) // batch_size * batch_size
        loaded = self._row(start, stop, tuple(map(sum, parts)))
        for at in range(start, stop, batch_size):
            self.position += batch_size
            step = self._in_parts(loaded, parts, at)
            yield OneByOne(step, batch_size)
            for _ in step:  # or the next step would begin in the middle
                pass

    def _in_parts(self, loaded: Iterator[Batch], parts: Sequence[tuple[int, ...]], at: int) -> Iterator[Batch]:
        for part in parts:
            # In one expression: a name would keep the old part in memory while the next is gathered.
            yield from split(augmented(next(loaded), self.augment, self.seed, at), part)
            at += sum(part)

    def _row(self, start: int, stop: int, sizes: Sequence[int]) -> Iterator[Batch]:
        """Examples `start` to `stop` of the data order, on the device, in pieces of `sizes`, repeated."""
        if isinstance(self.data, Stream):
            return self.data.row(self.seed, start, stop, sizes, self.order)
        return (gather(self.data, index) for index in self._indices(start, stop, sizes))

    def _indices(self, start: int, stop: int, sizes: Sequence[int]) -> Iterator[Tensor]:
        round_ = sum(sizes)
        at_once = round_ * max(1, INDICES_AT_ONCE // round_)
        copies = self.device.copies()
        for first in range(start, stop, at_once):
            index = row(length(self.data), self.seed, first, min(at_once, stop - first), self.order)
            (sent,) = copies.send([index])
            yield from torch.split(sent, sizes[0] if len(sizes) == 1 else [*sizes] * (len(index) // round_))


def augmented(batch: Batch, augment: Augment | None, seed: int, start: int) -> Batch:
    """`batch`, which begins at `start` in the data order, after the task's `augment`."""
    if augment is None:
        return batch
    n, parts = length(batch), tensors(batch)
    draws = torch.arange(start, start + n, device=parts[0].device if parts else None) ^ stream_seed(seed, "augment")
    if isinstance(batch, Collated):
        return Collated(augment(batch.content, draws), n)
    made = augment(batch, draws)
    if length(made) != n:
        raise BadRequest(f"the task's augment returned {length(made)} examples for {n}: it must keep their number")
    return made


def held(data: Any) -> list[Tensor]:
    """The tensors of a set that are on the device: none if it streams."""
    return [] if isinstance(data, Stream) else tensors(data)


def length(data: Any) -> int:
    """Examples in a batch or a set."""
    if type(data) is tuple and type(data[0]) is Tensor:
        return len(data[0])
    if isinstance(data, Stream):
        return len(data)
    if isinstance(data, Collated):
        return data.examples
    return len(next(leaf for leaf in leaves(data) if isinstance(leaf, Tensor | Column)))


def examples_in(micro_batches: MicroBatches) -> int:
    """The number of examples in a step."""
    return micro_batches.examples if isinstance(micro_batches, OneByOne) else sum(map(length, micro_batches))


def example_bytes(data: Any) -> int:
    """Bytes of one example of a batch or a set, at least 1."""
    if isinstance(data, Stream):
        return data.example_bytes()
    return max(1, sum(t.nbytes for t in tensors(data)) // length(data))


def gather(data: Any, index: Tensor) -> Batch:
    """The examples at `index` (on any device), as a new batch on the data's device."""
    if isinstance(data, Stream):
        return data.gather(index)
    if isinstance(data, Collated):
        return data.chosen(index.tolist())
    moved = index.to(tensors(data)[0].device, non_blocking=True)
    if is_plain(data):
        return rebuilt(data, [t.index_select(0, moved) for t in tensors(data)])
    return mapped(data, lambda leaf: _chosen(leaf, moved))


def subset(data: Any, index: Tensor) -> Any:
    """The examples at `index` as a set: gathered now, or if the set streams, read when they are needed."""
    return data.subset(index) if isinstance(data, Stream) else gather(data, index)


def split(data: Batch, sizes: Sequence[int]) -> tuple[Batch, ...]:
    """Consecutive pieces of `sizes` examples, as views, or collated anew."""
    if len(sizes) == 1:
        return (data,)
    if isinstance(data, Collated):
        return tuple(part(data, end - size, end) for end, size in zip(itertools.accumulate(sizes), sizes, strict=True))
    if is_plain(data):
        pieces = zip(*(torch.split(t, list(sizes)) for t in tensors(data)), strict=True)
        return tuple(dict(zip(data, piece, strict=True)) for piece in pieces) if type(data) is dict else tuple(pieces)
    cuts = zip(*(_split(leaf, sizes) for leaf in leaves(data)), strict=True)
    return tuple(with_leaves(data, cut) for cut in cuts)


def gathered(data: Any, index: Tensor, sizes: Sequence[int]) -> tuple[Batch, ...]:
    """The examples at `index` as micro-batches of `sizes`."""
    if isinstance(data, Stream) and data.collates:
        return tuple(data.gather(one) for one in torch.split(index, list(sizes)))
    return split(gather(data, index), sizes)


def slices(data: Any, size: int) -> Iterator[Batch]:
    """The whole set in order, in pieces of `size`; the last may be smaller."""
    if isinstance(data, Stream):
        yield from data.slices(size)
        return
    if isinstance(data, Collated) and size >= data.examples:
        yield data
        return
    for start in range(0, length(data), size):
        yield part(data, start, start + size)


def part(data: Batch, start: int, stop: int) -> Batch:
    """Examples `start` to `stop` of a batch, as views, or collated anew."""
    if isinstance(data, Collated):
        return data.chosen(range(start, min(stop, data.examples)))
    if is_plain(data):
        return rebuilt(data, [t[start:stop] for t in tensors(data)])
    return mapped(data, lambda leaf: _between(leaf, start, stop))


def _chosen(leaf: Any, index: Tensor) -> Any:
    if isinstance(leaf, Column):
        return Column(leaf[i] for i in index.tolist())
    return leaf.index_select(0, index) if isinstance(leaf, Tensor) else leaf


def _between(leaf: Any, start: int, stop: int) -> Any:
    if isinstance(leaf, Column):
        return Column(leaf[start:stop])
    return leaf[start:stop] if isinstance(leaf, Tensor) else leaf


def _split(leaf: Any, sizes: Sequence[int]) -> Sequence[Any]:
    if isinstance(leaf, Tensor):
        return torch.split(leaf, list(sizes))
    ends = list(itertools.accumulate(sizes))
    return [_between(leaf, end - size, end) for end, size in zip(ends, sizes, strict=True)]
