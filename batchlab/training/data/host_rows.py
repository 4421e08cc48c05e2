"""Sets of tensors that stay on the host because they do not fit on the device."""

import itertools
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from batchlab.task import Batch
from batchlab.training.data.batches import example_bytes, length, part
from batchlab.training.data.order import SampledOrder, row
from batchlab.training.data.stream import Stream
from batchlab.training.data.trees import Column, is_plain, mapped, rebuilt, tensors
from batchlab.training.devices.device import Device

PIECE_BYTES = 4 * 2**20  # at most gathered at once, if batches are smaller: the device may be idle meanwhile


class HostRows(Stream):
    """A tree of tensors on the host; a batch is gathered there by index, and copied while the device computes.

    Examples are the same each time, and no random numbers are drawn for them. Training gets the same examples in the
    same order as if the tensors were on the device.
    """

    def __init__(self, data: Batch, device: Device, *, index: Tensor | None = None) -> None:
        self.data, self.device = data, device
        self._index = index  # of a subset: which examples of `data`
        self._copies = device.copies()
        self._rows = self._copies.rows(tensors(data))

    def __len__(self) -> int:
        return length(self.data) if self._index is None else len(self._index)

    def gather(self, index: Tensor) -> Batch:
        which = self._which(index)
        made = rebuilt(self.data, self._rows(which))
        if is_plain(made):
            return made
        return mapped(made, lambda leaf: Column(leaf[i] for i in which.tolist()) if isinstance(leaf, Column) else leaf)

    def slices(self, size: int) -> Iterator[Batch]:
        for start in range(0, len(self), size):
            stop = min(start + size, len(self))
            if self._index is None:
                piece = part(self.data, start, stop)
                yield rebuilt(piece, self._copies.send(tensors(piece)))
            else:
                yield self.gather(torch.arange(start, stop))

    def subset(self, index: Tensor) -> "HostRows":
        return HostRows(self.data, self.device, index=self._which(index))

    def row(
        self, seed: int, start: int, stop: int, sizes: Sequence[int], order: SampledOrder | None = None
    ) -> Iterator[Batch]:
        turns = itertools.cycle(sizes)
        while start < stop:
            size = min(next(turns), stop - start)
            yield self.gather(row(len(self), seed, start, size, order))
            start += size

    def example_bytes(self) -> int:
        return example_bytes(self.data)

    def piece(self, batch_size: int, most_bytes: int) -> int:
        most_bytes = min(most_bytes, PIECE_BYTES)
        return batch_size * max(1, most_bytes // (batch_size * example_bytes(self.data)))

    def _which(self, index: Tensor) -> Tensor:
        index = index.cpu()
        return index if self._index is None else self._index[index]
